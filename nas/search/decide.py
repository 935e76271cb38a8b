"""What a free worker does next in a search, which depends on the study, its results and the seed alone.

The scheduler says whether a network starts or which one trains on, and the sampler which one starts; in `freeze_thaw`
one model says both. The same function decides on real trainings and on a table of known results.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

from nas.search.budget import budget_of
from nas.search.freeze_thaw import REPEAT, next_step
from nas.search.ledger import Entry, Ledger
from nas.search.model.belief import Model, Reason
from nas.search.model.encoding import ScoreSource
from nas.search.pool import Candidate, Supply
from nas.search.sampler import STARTUP, History, Proposal, propose
from nas.search.scheduler import LEDGER_SCHEDULERS, Done, Promote, Rules, Start, Wait, spent
from nas.study.objectives import OBJECTIVES, exact, measured
from nas.study.study import SearchConfig
from search_spaces.space import SearchSpace


@dataclass(frozen=True, kw_only=True, slots=True)
class Begin:
    """A network is started."""

    proposal: Proposal


@dataclass(frozen=True, kw_only=True, slots=True)
class GoOn:
    """A trial is trained to its next rung."""

    number: int
    rung: int
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Exhausted:
    """There is budget left, but no network."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settled:
    """There is budget left, but the model expects little of any step.

    Attributes:
        gain: The largest that it expects still, as a share of the hypervolume.
    """

    gain: float


Decision = Begin | GoOn | Wait | Done | Exhausted | Settled
LITTLE = 0.005
"""Share of the hypervolume below which what a step is expected to add is little."""


class Decider:
    """Decides; what it keeps are results that it would find again.

    Args:
        search: Sampler, scheduler, budget.
        space: Whose settings Optuna sees.
        supply: What may be tried.
        seed: Of the study.
        scores: Of networks, which the model sees as features.
    """

    def __init__(
        self, search: SearchConfig, space: SearchSpace, supply: Supply, seed: int, scores: ScoreSource | None = None
    ) -> None:
        """Nothing is fitted yet."""
        self._scores = scores
        self._search, self._space, self._supply, self._seed = search, space, supply, seed
        self._rules = rules_of(search)

    @cached_property
    def _model(self) -> Model:
        """Made where it is asked for: most samplers have no use for it."""
        names = self._search.objectives
        widths = [OBJECTIVES[name].width for name in measured(names)]
        most = [
            min((1.0 - floor.bound for floor in self._search.floors if floor.quantity == name), default=math.inf)
            for name in measured(names)
        ]
        return Model(self._supply.candidates, exact(names), len(self._search.rungs), self._scores, widths, most)

    def decide(self, ledger: Ledger, seen: History) -> Decision:
        """What a free worker does next.

        Args:
            ledger: All trials so far.
            seen: The same for a sampler.
        """
        search = self._search
        decision = self._by_model(ledger, seen) if search.scheduler == "freeze_thaw" else self._by_ledger(ledger, seen)
        reason = decision.reason if isinstance(decision, GoOn) else None
        reason = decision.proposal.reason if isinstance(decision, Begin) else reason
        if search.patience and reason is not None and reason.gain < LITTLE:
            last = seen.gains[-(search.patience - 1) :] if search.patience > 1 else ()
            if len(last) == search.patience - 1 and all(gain < LITTLE for gain in last):
                rest = self._without_more(ledger) if search.scheduler != "freeze_thaw" else None
                return rest or (Wait() if ledger.num_running else Settled(gain=reason.gain))
        return decision

    def _by_ledger(self, ledger: Ledger, seen: History) -> Decision:
        search = self._search
        action = LEDGER_SCHEDULERS[search.scheduler](ledger, self._rules)
        if isinstance(action, Start | Promote) and search.max_epochs:
            rung = 0 if isinstance(action, Start) else action.rung
            step = self._steps[rung]
            if search.scheduler == "none" and isinstance(action, Start):  # it is to be trained to the end, as all are
                step = search.rungs[-1] + sum(map(self._lacking, ledger.entries))
            if spent(ledger, search.rungs) + step > search.max_epochs:
                return Wait() if ledger.num_running else Done()
        if isinstance(action, Promote):
            return GoOn(number=action.number, rung=action.rung)
        if not isinstance(action, Start):
            return action
        decision = self._started(seen)
        if isinstance(decision, Exhausted) and self._rules.num_trials > len(ledger):
            return self._without_more(ledger) or decision
        return decision

    def _without_more(self, ledger: Ledger) -> Decision | None:
        """What is done as if no more networks had been asked for than have begun; None where nothing is left."""
        search = self._search
        action = LEDGER_SCHEDULERS[search.scheduler](ledger, replace(self._rules, num_trials=len(ledger)))
        if isinstance(action, Promote):
            fits = not search.max_epochs or spent(ledger, search.rungs) + self._steps[action.rung] <= search.max_epochs
            return GoOn(number=action.number, rung=action.rung) if fits else None
        return action if isinstance(action, Wait) else None

    def _by_model(self, ledger: Ledger, seen: History) -> Decision:
        search, ends = self._search, self._search.rungs
        left = budget_of(search).epochs - spent(ledger, ends)
        may_start = len(ledger) < search.trials and left >= ends[-1]
        first = search.initial + len(self._supply.pool.named)
        if may_start and (len(ledger) < first or not seen.results):
            return self._started(seen)
        if len({result.digest for result in seen.results}) < min(STARTUP, first) and ledger.num_running:
            return Wait()
        trials = _by_network(ledger, seen)
        repeats = {entry.number for own in trials.values() for entry in own[1:]}
        waiting = [
            entry
            for entry in ledger.entries
            if 0 < len(entry.results) < len(ends)
            and not entry.running
            and not entry.failed
            and ends[-1] - ends[len(entry.results) - 1] <= left  # nothing is gone on with that cannot be finished
            and seen.digests[entry.number] in seen.networks
        ]
        for entry in waiting:
            if entry.number in repeats:  # it was decided on as a whole
                return GoOn(number=entry.number, rung=len(entry.results))
        left -= sum(self._lacking(entry) for entry in ledger.entries if entry.number in repeats)
        may_start = may_start and left >= ends[-1]
        waiting = [entry for entry in waiting if self._lacking(entry) <= left]
        results = [result for result in seen.results if result.digest in seen.networks]
        if not results:
            return Wait() if ledger.num_running else Done()
        step = next_step(
            self._model,
            self._supply,
            seen.networks,
            results,
            [(key, rung) for key, rung in seen.pending if key in seen.networks],
            {seen.digests[entry.number]: len(entry.results) for entry in waiting},
            set(seen.digests),
            self._cost,
            random.Random(f"step {self._seed} {len(ledger)} {len(seen.results)}"),
            may_start=may_start,
            repeatable=self._repeatable(trials) if search.repeats else frozenset(),
        )
        if step is None:
            return Wait() if ledger.num_running else (Exhausted() if may_start else Done())
        if step.rung == 0:
            before = len(trials[step.network.digest]) if step.origin == REPEAT else 0
            proposal = Proposal(candidate=step.network, origin=step.origin, reason=step.reason, repeat=before)
            return Begin(proposal=proposal)
        return GoOn(number=trials[step.network.digest][0].number, rung=step.rung, reason=step.reason)

    def _lacking(self, entry: Entry) -> int:
        """Epochs that a training has not begun yet; none of one that failed."""
        reached = len(entry.results) + entry.running
        return 0 if entry.failed else self._search.rungs[-1] - (self._search.rungs[reached - 1] if reached else 0)

    def _repeatable(self, trials: Mapping[str, Sequence[Entry]]) -> frozenset[str]:
        """Networks that were measured at the last rung, and of which no training is under way."""
        num_rungs, most = len(self._search.rungs), self._search.repeats
        return frozenset(
            digest
            for digest, own in trials.items()
            if len(own[0].results) == num_rungs
            and len(own) <= most
            and all(one.failed or len(one.results) == num_rungs for one in own)
        )

    def _started(self, seen: History) -> Decision:
        proposal = propose(
            sampler=self._search.sampler,
            space=self._space,
            supply=self._supply,
            model=self._model,
            seen=seen,
            num_objectives=len(self._search.objectives),
            initial=self._search.initial,
            seed=self._seed,
        )
        return Exhausted() if proposal is None else Begin(proposal=proposal)

    @cached_property
    def _steps(self) -> tuple[int, ...]:
        """Epochs from the rung before to each."""
        ends = (0, *self._search.rungs)
        return tuple(end - before for before, end in pairwise(ends))

    def _cost(self, network: Candidate, rung: int) -> float:
        """Of training a network from the rung before one to the last."""
        epochs = float(sum(self._steps[rung:]))
        return epochs * network.cost.train_macs if self._search.step_cost == "macs" else epochs


def _by_network(ledger: Ledger, seen: History) -> dict[str, list[Entry]]:
    """The trials of each network, the first one first; further ones are repeats."""
    found: dict[str, list[Entry]] = {}
    for entry in ledger.entries:
        found.setdefault(seen.digests[entry.number], []).append(entry)
    return found


def rules_of(search: SearchConfig) -> Rules:
    """What a study tells a scheduler."""
    return Rules(num_rungs=len(search.rungs), eta=search.eta, num_trials=search.trials, order=search.order)


def still(gain: float) -> str:
    """What may still be there, in words."""
    return f"a step more is expected to add {max(gain, 0.0):.2%} of the hypervolume"
