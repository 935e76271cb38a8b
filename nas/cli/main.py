"""Entry point of `nas`: collects the commands and turns errors into one line and exit code 2."""

from __future__ import annotations

import sys

import typer

from nas.cli import (
    ablate,
    catalogue,
    compare,
    dashboard,
    data,
    doctor,
    ensemble,
    evaluate,
    export,
    features,
    importance,
    inspect,
    motion,
    networks,
    predict,
    promote,
    report,
    search,
    verdict,
    watch,
)
from nas.cli.output import print_error, print_usage
from nas.errors import NasError

app = typer.Typer(
    name="nas",
    help="Which video network, for your videos and your FLOPs? Search, look at the front, train the winner.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("search")(search.search)
app.command("status")(inspect.status)
app.command("pareto")(inspect.pareto)
app.command("report")(report.report)
app.command("importance")(importance.importance)
app.command("watch")(watch.watch)
app.command("dashboard")(dashboard.dashboard)
app.command("compare")(compare.compare)
app.command("export")(export.export)
app.command("promote")(promote.promote)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("ensemble")(ensemble.ensemble)
app.command("features")(features.features)
app.command("probe")(features.probe)
app.command("ablate")(ablate.ablate)
app.command("versus")(ablate.versus)
app.command("verdict")(verdict.verdict)
app.command("motion")(motion.motion)
app.command("show")(networks.show)
app.command("cost")(networks.cost)
app.command("diff")(networks.diff)
app.command("presets")(catalogue.presets)
app.command("path")(catalogue.path)
app.command("space")(inspect.space)
app.command("doctor")(doctor.doctor)
app.add_typer(data.app, name="data")


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
        0, 1 where a check found something, 2 for bad input, 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        result = app(arguments, prog_name="nas", standalone_mode=False)
        return int(result or 0)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    except KeyboardInterrupt:
        print_error("stopped")
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except (NasError, ValueError) as error:
        # ValueErrors of search_spaces and trainer are the user's too; any other ValueError is a fault of ours.
        if debug or not _is_ours(error):
            raise
        print_error(f"error: {' '.join(str(error).split())}")
        return 2
    except Exception as error:
        if not hasattr(error, "show"):  # the parser's errors, whose type typer does not export
            raise
        print_usage(error)
        return int(getattr(error, "exit_code", 2))


def _is_ours(error: Exception) -> bool:
    if isinstance(error, NasError):
        return True
    from search_spaces.spec import SpecError
    from trainer.config import ConfigError
    from trainer.data.layouts import DataError

    return isinstance(error, SpecError | ConfigError | DataError)


def run() -> None:
    """The console script."""
    sys.exit(main())
