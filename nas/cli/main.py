"""Entry point of `nas`: collects the commands, and turns errors into one line and exit code 2."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from nas.cli import (
    ablate,
    compare,
    data,
    deploy,
    doctor,
    ensemble,
    evaluate,
    export,
    features,
    importance,
    motion,
    networks,
    new,
    pareto,
    promote,
    search,
    status,
    study,
    supernet,
    watch,
)
from nas.cli.output import print_error, print_usage, visible
from nas.errors import NasError, StudyError, one_line
from nas.places import OPENED, path_of


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


GROUPS: Mapping[str, Mapping[str, tuple[Any, str]]] = {
    "Search": {
        "new": (new.new, "Write a study that fits a folder of videos and this machine."),
        "search": (search.search, "Search a study's space, or go on with its search."),
        "status": (status.status, "Show how far a search is: rungs, trials, failures, time."),
        "watch": (watch.watch, "Watch a running search, and its ablations, until they end."),
        "space": (study.space, "Show a study's space, its size, and what constraints leave."),
        "keys": (study.keys, "Show the keys of a study file: type, default, meaning."),
        "supernet": (supernet.supernet, "Rank the networks of a study by shared weights."),
        "record": (search.record, "Write the learning curves of a search as a table."),
        "simulate": (search.simulate, "Search a table of recorded trainings instead of training."),
    },
    "Results": {
        "pareto": (pareto.pareto, "Show the Pareto front of accuracy against MACs."),
        "report": (export.report, "Write a study as one HTML file that works offline."),
        "importance": (importance.importance, "Show which settings decide the accuracies of a search."),
        "compare": (compare.compare, "Compare the fronts of two searches or more."),
        "dashboard": (export.dashboard, "Start optuna-dashboard on a study's own database."),
        "export": (export.export, "Write a table of a study as CSV, Parquet or LaTeX."),
        "backup": (export.backup, "Copy the database of a study, also while a search runs."),
    },
    "Trained networks": {
        "promote": (promote.promote, "Train chosen networks in full, and report the test split once."),
        "evaluate": (evaluate.evaluate, "Test a trained network on any videos of its classes."),
        "deploy": (deploy.deploy, "Write a trained network as ONNX, .pt2 or plain source."),
        "predict": (features.predict, "Name the classes of video files, as a whole and over time."),
        "ensemble": (ensemble.ensemble, "Average networks' probabilities with weights chosen on val."),
        "features": (features.features, "Write what a network's classifier sees of each video."),
        "probe": (features.probe, "Fit a linear SVM and an MLP to a network's features."),
        "motion": (motion.motion, "Test networks on reversed, shuffled and frozen clips."),
    },
    "Ablations": {
        "ablate": (ablate.ablate, "Train a base and its variations with paired seeds."),
        "versus": (ablate.versus, "Decide which of several networks is better on your data."),
        "verdict": (ablate.verdict, "Hold the claims of documents against what was measured."),
    },
    "Networks": {
        "presets": (networks.presets, "List the published networks with cost and cited accuracy."),
        "show": (networks.show, "Show a network block by block."),
        "latency": (deploy.latency, "Time networks on this machine, taking turns."),
        "cost": (networks.cost, "Count params, MACs and activation memory of a network."),
        "diff": (networks.diff, "Show the settings in which two networks differ."),
        "path": (networks.path, "List the way from one network to another, change by change."),
    },
    "Data and machine": {
        "data": (data.app, "Make, fetch, check or pack a data set, or its optical flow."),
        "doctor": (doctor.doctor, "Check versions, devices, decoding, database and disk."),
    },
}
"""Every command by its group of the help, with its function and the line that stands there."""


class Commands(TyperGroup):
    """The commands of `nas --help`, in groups."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes each group as a section."""
        for title, commands in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, text) in commands.items()], col_max=12)


app = typer.Typer(
    cls=Commands,
    name="nas",
    help="Which video network, for your videos and your FLOPs? Search, look at the front, train the winner.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for _commands in GROUPS.values():
    for _name, (_function, _help) in _commands.items():
        if isinstance(_function, typer.Typer):
            app.add_typer(_function, name=_name, short_help=_help)
        else:
            app.command(_name, short_help=_help)(_function)
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
    from search_spaces.errors import SpecError
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
