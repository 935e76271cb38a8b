"""`nas motion`."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import typer

from nas.cli.options import DB, JSON
from nas.cli.output import Progress, print_json, print_line, print_table
from nas.cli.resolve import database_of
from nas.study.metric import MAP

if TYPE_CHECKING:
    from nas.train.motion_tests import MotionTests


def motion(
    arguments: list[str] | None = typer.Argument(
        None, metavar="[DIGEST …] [data.root=FOLDER]", help="Networks, and where the videos lie if they were moved."
    ),
    study: str | None = typer.Option(None, "--study", metavar="STUDY|DB", help="A study file, or a database."),
    front: bool = typer.Option(False, "--front", help="Every network of the search's front, as the search trained it."),
    split: str = typer.Option("val", "--split", help="val or test; the test split is only read if it is named here."),
    seed: int = typer.Option(0, "--seed", min=0, help="Seed of the shuffling."),
    source: str | None = typer.Option(
        None, "--source", help="promotion, run or trial; otherwise the first of these that has trained weights."
    ),
    db: str | None = DB,
    as_json: bool = JSON,
) -> None:
    """Measure what trained networks make of clips played backwards, shuffled, frozen, and frame by frame.

    Example: nas motion --front --study runs/kinetics_small/study.db
    """
    from nas.errors import NotFoundError, StoreError, unknown

    given = arguments or []
    digests = [word for word in given if "=" not in word]
    if study is None and db is None:
        raise NotFoundError("a digest needs a database to be found in; name it with --study STUDY|DB")
    if front == bool(digests):
        raise NotFoundError("name one of: digests (`nas pareto` and `nas status` list them), or --front")
    if split not in ("val", "test"):
        raise NotFoundError(unknown("split", split, ("val", "test")))
    path = database_of(study or "", db)

    from nas.store.database import Store
    from nas.study.files import apply_promote
    from nas.study.study import study_of

    with Store(path) as store, closing(Progress("networks")) as progress:
        row = store.study()
        if front:
            digests = [line["digest"] for line in store.front(row["name"])]
            if not digests:
                raise NotFoundError(
                    f"the study {row['name']} in {store.location} has no front yet; run `nas search` first"
                )
        else:
            digests = list(dict.fromkeys(store.find(prefix)["digest"] for prefix in digests))
        recorded = study_of(apply_promote(row["config"], [word for word in given if "=" in word]), store.location)

        from nas.study.metric import metric_in
        from nas.train.jobs import SOURCES
        from nas.train.motion_tests import measure_motion, store_motion
        from nas.train.session import locked

        sources = ("trial",) if front and source is None else SOURCES if source is None else (source,)
        measured: list[MotionTests] = []
        for digest in digests:
            new = measure_motion(
                store,
                recorded,
                row,
                digest,
                root=path.parent,
                split=split,
                seed=seed,
                sources=sources,
                listener=progress.line,
            )
            measured += new
            if any(one.fresh for one in new):
                try:
                    with locked(path):
                        store_motion(store, row, new)
                except StoreError as error:
                    progress.line(f"note: measured, but not stored: {error}")
        metric = metric_in(store, row["id"])
    if as_json:
        print_json([as_plain(one) for one in measured])
        return
    of = (
        f"chance {1 / row['num_classes']:.3f}"
        if metric != MAP and not row["data"].get("multi_label")
        else "one of a video's labels counts"
    )
    show(measured, f"{row['name']}: motion tests on {split}, top-1 ({of})")


def as_plain(measured: MotionTests) -> dict[str, Any]:
    """One training's motion tests as plain values."""
    from dataclasses import asdict

    from nas.train.motion_tests import differences

    training = measured.training
    return {
        "digest": training.digest,
        "description": measured.description,
        "source": training.source,
        "seed": training.seed,
        "epochs": training.epochs,
        "folder": str(training.folder),
        "split": measured.split,
        "order_seed": measured.order_seed,
        "num_clips": measured.outcomes[0].num_clips,
        "fresh": measured.fresh,
        "tests": {one.test: {"top1": one.top1, "loss": one.loss} for one in measured.outcomes},
        "differences": [asdict(one) for one in differences(measured.outcomes)],
    }


def show(measured: list[MotionTests], title: str) -> None:
    """Prints the accuracies, and below them what each test costs."""
    from nas.train.motion_tests import MARGIN, differences
    from trainer.outcomes import TESTS

    accuracies, costs = [], []
    for one in measured:
        training = one.training
        name = {
            "digest": training.digest[:10],
            "source": training.source,
            "seed": training.seed,
            "epochs": training.epochs,
        }
        top1 = {outcome.test: outcome.top1 for outcome in one.outcomes}
        accuracies.append({**name, **top1, "clips": one.outcomes[0].num_clips, "description": one.description})
        cells = {
            d.test: f"{d.difference:+.3f} [{d.low:+.3f}, {d.high:+.3f}] {d.word}" for d in differences(one.outcomes)
        }
        costs.append({**name, **cells})
    first = {key: key for key in ("digest", "source", "seed", "epochs")}
    print_table(
        accuracies, {**first, **{test: test for test in TESTS}, "clips": "clips", "description": "network"}, title
    )
    print_table(
        costs,
        {**first, **{test: test for test in TESTS[1:]}},
        "forward minus each test, with its 95 % interval over clips, and what the test is",
    )
    print_line(
        f"equivalent: the whole interval lies within {MARGIN * 100:g} points; the same networks with other seeds of "
        "training would differ by more than these intervals say"
    )
