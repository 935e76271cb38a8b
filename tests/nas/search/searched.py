"""A search without trainings, for tests of samplers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nas.search.model.belief import Model, Result
from nas.search.pool import Candidate, CandidatePool, Supply
from nas.search.sampler import History, Observation, Proposal, propose
from nas.study.samplers import sampler_of
from nas.study.study import Study


@dataclass
class Searched:
    """A search without trainings: its networks, and what they are told to have."""

    study: Study
    pool: CandidatePool
    digests: list[str] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    history: list[Observation] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    supply: Supply = field(init=False)
    model: Model = field(init=False)

    def __post_init__(self) -> None:
        self.supply = Supply(self.study, self.pool, num_classes=8)
        self.model = Model(self.pool.candidates, ("macs",), 1)

    def tell(self, candidate: Candidate, error: float | None, *costs: float | None) -> None:
        """A network has this error; None while it is in training."""
        self.digests.append(candidate.digest)
        self.settings[candidate.digest] = candidate.params
        if error is None:
            self.history.append(Observation(params=candidate.params, objectives=None))
            return
        objectives = (error, *(cost for cost in costs if cost is not None))
        self.results.append(Result(digest=candidate.digest, rung=0, errors=(min(1.0, error),), videos=100))
        self.history.append(Observation(params=candidate.params, objectives=objectives))

    def fail(self, candidate: Candidate) -> None:
        """A network was tried in vain."""
        self.digests.append(candidate.digest)
        self.settings[candidate.digest] = candidate.params

    def ask(self, sampler: Any, *, initial: int = 6, objectives: int = 2, seed: int = 0) -> Proposal | None:
        """What a sampler proposes."""
        known = {result.digest for result in self.results}
        found = {digest: self.supply.of(digest, self.settings[digest]) for digest in self.digests}
        return propose(
            sampler=sampler_of(sampler),
            space=self.study.space,
            supply=self.supply,
            model=self.model,
            seen=History(
                digests=self.digests,
                networks={digest: one for digest, one in found.items() if one is not None},
                results=self.results,
                pending=[(digest, 0) for digest in self.digests if digest not in known],
                history=self.history,
            ),
            num_objectives=objectives,
            initial=initial,
            seed=seed,
        )
