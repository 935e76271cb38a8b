"""What a search has learned, in the lines of `nas status` and `nas watch`, and as plain values for `--json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nas.calibration import CONFIDENCE
from nas.cli.output import duration, print_table, print_words
from nas.fidelity import Fidelity

if TYPE_CHECKING:
    from nas.budget import Budget
    from nas.learned import Learned, Origin


def learned_report(learned: Learned, budget: Budget, deciding: tuple[float, float] | None) -> dict[str, Any]:
    """All figures as plain values; those that the record has nothing for are empty or None."""
    return {
        "scheduler": budget.scheduler,
        "epochs_total": budget.epochs,
        "planned": budget.networks(),
        "ranks": [asdict(one) for one in learned.ranks],
        "hypervolume": None if learned.volume is None else asdict(learned.volume),
        "proposals": [asdict(one) for one in learned.origins],
        "calibration": None if learned.calibration is None else asdict(learned.calibration),
        "expected_still": learned.still,
        "deciding": None if deciding is None else {"seconds": deciding[0], "of": deciding[1]},
    }


def print_learned(
    learned: Learned, budget: Budget, deciding: tuple[float, float] | None, fidelity: Fidelity, metric: str
) -> None:
    """Prints it all."""
    if budget.epochs:
        print_words(budget_line(budget))
    if learned.origins:
        rows = [
            {**asdict(one), "origin": said(one), "at": "" if one.rung is None else fidelity.label(one.rung)}
            for one in learned.origins
        ]
        columns = {"origin": "proposed by", "networks": "networks", "at": "highest rung", "there": "there"}
        print_table(rows, {**columns, "best": f"best {metric} there"})
    for line in lines(learned, fidelity):
        print_words(line)
    if deciding is not None:
        seconds, whole = deciding
        share = f", {100 * seconds / whole:.1f} % of the time of its sessions" if whole > 0 else ""
        print_words(f"deciding what is trained: {duration(seconds)}{share}")


def lines(learned: Learned, fidelity: Fidelity) -> list[str]:
    """Ranks, hypervolume and calibration, a line each, as far as there is something to say."""
    from nas.learned import objectives_text, worst_text

    found = []
    if learned.ranks:
        found.append(f"rank correlation: {ranks_text(learned, fidelity)}")
    if learned.volume is not None:
        own = learned.volume
        found.append(
            f"hypervolume: {own.share:.3f} {fidelity.at(own.rung)} ({objectives_text(tuple(own.worst))} scaled over "
            f"the networks tried; the reference is 5 % of the range beyond {worst_text(own.worst)})"
        )
    if learned.still is not None and learned.volume is not None:
        found.append(f"expected still: its last step was to add {learned.still:.2%} of the hypervolume, by the model")
    if learned.calibration is not None:
        told = learned.calibration
        ratio = "" if told.ratio is None else f"; the median error is {told.ratio:.2f} of what was expected"
        width = f"; the last one had {told.widening:.2f} times the model's own deviation"
        found.append(
            f"calibration: {told.inside} of {told.expectations} within the {100 * CONFIDENCE:.0f} % interval that the "
            f"model expected ({told.share:.2f}, 95 % interval {told.low:.2f} to {told.high:.2f}){ratio}{width}"
        )
    return found


def ranks_text(learned: Learned, fidelity: Fidelity) -> str:
    """The rank correlations of rungs in words."""
    unit = " epochs" if fidelity.continues else ""

    def name(rung: int) -> str:
        return f"{fidelity.ends[rung]}" if fidelity.continues else fidelity.label(rung)

    return "; ".join(f"{name(one.low)} with {name(one.high)}{unit} {one.text}" for one in learned.ranks)


def proposals_line(origins: Sequence[Origin]) -> str:
    """How many networks each origin has proposed."""
    return f"proposals: {', '.join(f'{one.networks} {said(one)}' for one in origins)}"


def said(origin: Origin) -> str:
    """Its name without a comma: `pool near`."""
    return origin.origin.replace(",", "")


def budget_line(budget: Budget) -> str:
    """What the search takes in all."""
    counts = budget.networks()
    if counts is None:
        return f"budget: {budget.epochs:,} epochs, which the model of {budget.scheduler} spends"
    most = f", search.max_epochs {budget.max_epochs:,}" if budget.max_epochs else ""
    networks = ", ".join(f"{count:,}" for count in counts)
    return f"budget: {budget.epochs:,} epochs ({budget.scheduler}{most}; networks at the rungs: {networks})"
