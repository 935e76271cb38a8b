"""What every command asks of its words, whatever they mean: that each says something."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typer.core import TyperCommand

from nas.errors import NasError


class CheckedCommand(TyperCommand):
    """A command that refuses options and arguments with nothing in them.

    An empty text is most often a variable of a shell that was never set. Left to the command, it would mean the working
    folder, the default, or every address of the machine.
    """

    def invoke(self, ctx: Any) -> Any:
        """Runs the command.

        Raises:
            NasError: A text is empty, or all blanks.
        """
        for parameter in self.params:
            for text in _texts(ctx.params.get(parameter.name or "")):
                if not text.strip():
                    raise NasError(
                        f"{_label(parameter)} must not be empty, but is {text!r} (`{ctx.command_path} --help` lists "
                        "what it takes)"
                    )
        return super().invoke(ctx)


def _texts(value: Any) -> Iterator[str]:
    for item in value if isinstance(value, list | tuple) else [value]:
        if isinstance(item, str):
            yield item


def _label(parameter: Any) -> str:
    """How a message names a parameter: an option by its long form, an argument as the help does."""
    if parameter.param_type_name == "argument":
        return parameter.metavar or str(parameter.name).upper()
    return str(max(parameter.opts, key=len))
