"""`nas supernet`."""

from __future__ import annotations

import shlex
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import typer

from nas.cli.options import JSON, NEW_DB, OVERRIDES
from nas.cli.output import Progress, SearchPrinter, print_error, print_json, print_line, print_table
from nas.cli.resolve import database_for

if TYPE_CHECKING:
    from nas.search.supernet.agreement import Agreement
    from nas.search.supernet.paths import Strategy
    from nas.search.supernet.runner import SupernetOutcome
    from nas.study.study import Study
    from nas.train.session import News


def supernet(
    study: str = typer.Argument(..., metavar="STUDY", help="The study file, such as studies/kinetics_small.yaml."),
    overrides: list[str] = OVERRIDES,
    strategy: str = typer.Option("random", "--strategy", help="NNI's RandomOneShot (random) or DARTS (darts)."),
    epochs: int = typer.Option(
        None, "--epochs", min=1, max=10**9, help="Epochs of training; those of the last rung by default."
    ),
    networks: int = typer.Option(200, "--networks", min=1, help="Networks of the pool to measure, at most."),
    top: int = typer.Option(20, "--top", min=1, help="Networks to print."),
    db: str = NEW_DB,
    as_json: bool = JSON,
) -> None:
    """Train the residual networks of a study's pool as one supernet with shared weights, and rank them by it.

    The supernet is NNI's. Where networks were trained by themselves, too, Kendall's tau says how well the two orders
    agree. The accuracies are stored as the score `supernet`.

    Example: nas supernet studies/kinetics_small.yaml data=motion --epochs 6
    """
    from nas.study.files import load_study

    loaded = load_study(study, overrides or [])
    path = database_for(loaded.name, db)
    strategy = _checked(loaded, strategy)

    from nas.train.session import check_start

    check_start(loaded, path)

    from nas.search.supernet.runner import run_supernet  # imports torch and NNI

    shown = _Shown()
    try:
        outcome = run_supernet(
            loaded,
            path,
            strategy=strategy,
            epochs=epochs or loaded.search.fidelity.full_epochs,
            networks=networks,
            listener=shown,
        )
    except KeyboardInterrupt:
        shown.close()
        print_error(f"stopped; everything so far is beside {path}. Go on with: nas {shlex.join(sys.argv[1:])}")
        raise typer.Exit(130) from None
    finally:
        shown.close()
    from nas.search.supernet.agreement import at_chance
    from nas.store.database import Store
    from nas.study.metric import TOP1, largest_share, metric_in, recorded_counts

    with Store(path) as store:
        row = store.study(loaded.name)
        metric = metric_in(store, row["id"])
    videos, counts = recorded_counts(row["data"])
    chance = largest_share(videos, counts)
    lost = None
    if metric == TOP1 and chance is not None:
        accuracies = [one.accuracy for one in outcome.networks]
        lost = chance if at_chance(accuracies, videos=videos, chance=chance) else None
    rows = _rows(outcome)
    if as_json:
        from dataclasses import asdict

        print_json(
            {
                "study": loaded.name,
                "metric": metric,
                "epochs": outcome.epochs,
                "covered": outcome.covered,
                "pool": outcome.pool,
                "at_chance": lost is not None,
                "networks": rows,
                "agreement": [asdict(one) for one in outcome.agreements],
                "shares": outcome.shares,
                "share_agreement": [asdict(one) for one in outcome.share_agreements],
            }
        )
        return
    _print(loaded, outcome, rows[:top], metric)
    if lost is not None:
        print_line(
            f"note: no network is clear of always naming one class ({lost:.3f}), so their order says nothing; the "
            "supernet needs more --epochs"
        )
    print_line(f"database: {path}")


def _checked(study: Study, strategy: str) -> Strategy:
    """The strategy by name; refuses what has no supernet, and a machine without NNI, before torch is imported.

    Raises:
        StudyError: No family of the space has a supernet, or there is no such strategy.
        SearchError: NNI is not installed.
    """
    from nas.errors import SearchError, StudyError, unknown
    from nas.search.supernet.paths import FAMILIES, STRATEGIES

    known = next((one for one in STRATEGIES if one == strategy), None)
    if known is None:
        raise StudyError(unknown("--strategy", strategy, STRATEGIES))
    families = [space.family for space in study.space.families]
    if not set(families) & set(FAMILIES):
        raise StudyError(
            f"a supernet needs a family that has one, but the space of {study.name} has {', '.join(families)} "
            f"(choices: {', '.join(FAMILIES)})"
        )
    missing = [name for name in ("nni", "pytorch_lightning") if find_spec(name) is None]
    if missing:
        raise SearchError(f"nas supernet needs {missing[0]}: pip install 'video-nas[nni]'")
    return known


class _Shown(SearchPrinter):
    """A search's listener that counts networks once they are measured with the shared weights."""

    def __call__(self, news: News) -> None:
        """Shows one piece of news."""
        if news.kind != "shared":
            super().__call__(news)
            return
        if "shared" not in self._shown:
            self.close()
            self._shown["shared"] = Progress("networks")
        self._shown["shared"].update(news.done, news.total)


def _rows(outcome: SupernetOutcome) -> list[dict[str, Any]]:
    return [
        {
            "rank": rank,
            "digest": one.candidate.digest,
            "shared": one.accuracy,
            "loss": one.loss,
            "log_share": outcome.log_shares.get(one.candidate.digest),
            "macs": one.candidate.cost.macs,
            "alone": outcome.alone.get(one.candidate.digest),
            "description": one.candidate.spec.describe(),
        }
        for rank, one in enumerate(outcome.networks, start=1)
    ]


def _print(study: Study, outcome: SupernetOutcome, rows: list[dict[str, Any]], metric: str) -> None:
    columns = {
        "rank": "rank",
        "digest": "digest",
        "shared": f"{metric} with shared weights",
        **({"log_share": "log share"} if outcome.shares else {}),
        "macs": "MACs",
        **({"alone": "by itself"} if any(row["alone"] is not None for row in rows) else {}),
        "description": "network",
    }
    title = f"{study.name}: networks by shared weights, {outcome.epochs} epochs of a supernet"
    print_table(rows, columns, title)
    others = outcome.pool - outcome.covered
    rest = f"; {others:,} of other families have none" if others else ""
    print_line(
        f"{len(outcome.networks):,} of {outcome.covered:,} networks measured that are paths of the supernet{rest}"
    )
    if outcome.shares:
        places = [{"place": place, **shares} for place, shares in outcome.shares.items() if len(shares) > 1]
        forms = dict.fromkeys(form for row in places for form in row)
        print_table(places, {form: form for form in forms}, "shares of forms by DARTS")
    if not outcome.agreements:
        print_line("none of them was trained by itself yet; after `nas search`, this says how well the orders agree")
        return
    rows = [_agreement(study, one, "shared weights") for one in outcome.agreements]
    rows += [_agreement(study, one, "shares by DARTS") for one in outcome.share_agreements]
    print_table(
        rows,
        {
            "of": "order",
            "at": "trained by itself",
            "networks": "networks",
            "tau": "tau",
            "interval": "95 %",
            "best": "in the best fifth",
            "given": "given MACs",
            "macs": "of MACs alone",
        },
        "Kendall's tau with training each network by itself",
    )


def _agreement(study: Study, one: Agreement, of: str) -> dict[str, Any]:
    few = f"too few ({one.best})" if one.tau_best is None else f"{one.tau_best:.2f} ({one.best})"
    return {
        "of": of,
        "at": study.search.fidelity.label(one.rung),
        "networks": one.networks,
        "tau": "unknown" if one.tau is None else f"{one.tau:.2f}",
        "interval": "" if one.interval is None else f"{one.interval[0]:.2f} to {one.interval[1]:.2f}",
        "best": few,
        "given": "" if one.tau_given_macs is None else f"{one.tau_given_macs:.2f}",
        "macs": "" if one.tau_macs is None else f"{one.tau_macs:.2f}",
    }
