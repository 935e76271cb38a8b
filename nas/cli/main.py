"""Entry point of `nas`: collects the commands, and turns errors into one line and exit code 2."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from nas.cli import (
    ablate,
    compare,
    data,
    doctor,
    ensemble,
    evaluate,
    export,
    features,
    importance,
    motion,
    networks,
    pareto,
    promote,
    search,
    status,
    supernet,
    watch,
)
from nas.cli.output import print_error, print_usage, visible
from nas.errors import NasError, StudyError, one_line
from nas.store.places import OPENED, path_of


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


app = typer.Typer(
    name="nas",
    help="Which video network, for your videos and your FLOPs? Search, look at the front, train the winner.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("search")(search.search)
app.command("status")(status.status)
app.command("pareto")(pareto.pareto)
app.command("report")(export.report)
app.command("importance")(importance.importance)
app.command("watch")(watch.watch)
app.command("dashboard")(export.dashboard)
app.command("compare")(compare.compare)
app.command("export")(export.export)
app.command("backup")(export.backup)
app.command("record")(search.record)
app.command("simulate")(search.simulate)
app.command("supernet")(supernet.supernet)
app.command("promote")(promote.promote)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(features.predict)
app.command("ensemble")(ensemble.ensemble)
app.command("features")(features.features)
app.command("probe")(features.probe)
app.command("ablate")(ablate.ablate)
app.command("versus")(ablate.versus)
app.command("verdict")(ablate.verdict)
app.command("motion")(motion.motion)
app.command("show")(networks.show)
app.command("cost")(networks.cost)
app.command("diff")(networks.diff)
app.command("presets")(networks.presets)
app.command("path")(networks.path)
app.command("space")(pareto.space)
app.command("doctor")(doctor.doctor)
app.add_typer(data.app, name="data")
for _command in (*app.registered_commands, *data.app.registered_commands):
    _command.cls = CheckedCommand


@app.callback()
def _debug(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error (may stand anywhere)."),
) -> None:
    """Which video network, for your videos and your FLOPs? Search, look at the front, train the winner."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: Arguments; those of the process by default.

    Returns:
        0, 1 where a check found something, 2 for bad input, 3 for a fault of nas itself, 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    OPENED.clear()
    try:
        return int(app(arguments, prog_name="nas", standalone_mode=False) or 0)
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # the parser's exit where `head`, say, has read enough
            return 0
        return stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    except KeyboardInterrupt:
        print_error("stopped")
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # typer exports neither this nor its base
            print_usage(error)
            return 2
        if debug:
            raise
        code, text = _code_and_text(error)
        print_error(one_line(f"error: {visible(text)}"))
        return code


def _code_and_text(error: Exception) -> tuple[int, str]:
    """The exit code of an error, and what the user is told."""
    if hasattr(error, "format_message"):  # of the parser
        command = getattr(getattr(error, "ctx", None), "command_path", "nas")
        return 2, f"{error.format_message().rstrip('.')} (`{command} --help` lists what it takes)"
    damage = _damage_behind(error)
    if damage is not None:
        return 2, str(damage)
    if isinstance(error, NasError):
        return 2, str(error)
    if isinstance(error, ValueError) and _is_of_parts(error):
        return 2, str(error)
    from trainer.failures import TrainingFailed, environment_failure

    failure = environment_failure(error)
    if failure is not None or isinstance(error, TrainingFailed):
        return 2, str(failure or error)
    if isinstance(error, OSError):
        place = f": {error.filename}" if error.filename is not None else ""
        return 2, f"{error.strerror or str(error) or type(error).__name__}{place}"
    if isinstance(error, MemoryError):
        return 2, f"there is not enough memory; {error}".rstrip("; ")
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
    return 3, f"a fault of nas, {type(error).__name__} at {place}: {error} (the same command with --debug says more)"


def _damage_behind(error: Exception) -> NasError | None:
    """What is damaged in a database that was opened, where an error may come from that; None where nothing is."""
    if not OPENED or (isinstance(error, NasError | OSError | MemoryError) and not isinstance(error, StudyError)):
        return None
    from nas.store.damage import damage_of, damaged
    from nas.study.study import study_of

    there = (location for location in dict.fromkeys(OPENED) if path_of(location).exists())  # a simulation's is gone
    found = ((location, damage_of(location, lambda config: study_of(config, "config"))) for location in there)
    return next((damaged(location, where) for location, where in found if where is not None), None)


def _is_of_parts(error: ValueError) -> bool:
    """Whether the error is of `search_spaces` or `trainer`, for the user; any other ValueError is a fault of nas."""
    from search_spaces.spec import SpecError
    from trainer.config import ConfigError
    from trainer.data.layouts import DataError

    return isinstance(error, SpecError | ConfigError | DataError)


def run() -> None:
    """The console script."""
    for name in ("stdout", "stderr"):  # closed by the shell, `>&-`
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _first_interrupt)
    try:
        code = main()
    except Exception as error:  # with --debug
        _print_traceback(error)
        code = 1
    sys.exit(code)


def _print_traceback(error: Exception) -> None:
    """Prints what --debug asks for; names in it come from files and databases, as in any other output."""
    for line in "".join(traceback.format_exception(error)).rstrip("\n").split("\n"):
        print_error(line)


def _first_interrupt(*_: object) -> None:
    """Stops the command, which records what is under way and ends its processes; a second Ctrl-C does not wait."""
    signal.signal(signal.SIGINT, _second_interrupt)
    raise KeyboardInterrupt


def _second_interrupt(*_: object) -> None:
    """Ends the process as a kill would, which every record survives."""
    os.write(2, b"stopped at once; all that was recorded is kept\n")
    os._exit(130)
