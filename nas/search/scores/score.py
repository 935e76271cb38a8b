"""Scores of networks that are not trained: one score of one network, and those of a search, kept in its database."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property

from nas.cost.cost import cost_of
from nas.errors import SearchError, one_line, unknown
from nas.search.model.encoding import CandidateLike
from nas.search.pool import Candidate
from nas.search.scores import data as d
from nas.search.scores import structure as s
from nas.search.scores.data import Batches
from nas.search.scores.structure import drawing, drawn
from nas.store.database import Store
from nas.study.features import BY_DATA, SCORES, STORED
from nas.study.study import Study
from search_spaces.errors import SpecError
from search_spaces.spec import ArchSpec
from trainer.config import Clip


class ScoreError(SearchError):
    """A network has no such score."""


def score(
    name: str,
    spec: ArchSpec,
    clip: Clip,
    *,
    num_classes: int,
    planes: int = 3,
    seed: int = 0,
    batches: d.Batches | None = None,
) -> float:
    """Scores a network without training it; a function of its arguments alone.

    Args:
        name: One of `SCORES`.
        spec: The network.
        clip: That it sees.
        num_classes: Classes.
        planes: Planes of a clip: 3 of RGB, 2 of optical flow.
        seed: Of initial weights, and of clips where none are given.
        batches: Clips that `naswot` and `zico` look at; noise unless given.

    Returns:
        A finite number, larger for networks that are expected to be better. Torch's generator is not moved.

    Raises:
        ScoreError: There is no such score, or the network does not have it: the clip is too small for it, or what is
            computed is not finite.
    """
    if name not in SCORES:
        raise ScoreError(unknown("score", name, SCORES))
    if name == "temporal" and clip.frames < 2:
        raise ScoreError(f"the score temporal needs clips of 2 frames or more, but they have {clip.frames}")
    shape = (planes, clip.frames, clip.height, clip.width)
    try:
        if name == "params":
            value = math.log10(cost_of(spec, clip, num_classes=num_classes, planes=planes).params)
        else:
            with drawing(seed):
                network = drawn(spec, num_classes=num_classes, planes=planes)
                if name == "synflow":
                    value = s.synflow(network, shape)
                elif name == "entropy":
                    value = s.entropy(network, shape, num_classes=num_classes)
                elif name == "temporal":
                    value = s.temporal(network, shape, num_classes=num_classes)
                else:
                    seen = batches if batches is not None else d.noise(shape, num_classes, seed)
                    value = d.naswot(network, seen) if name == "naswot" else d.zico(network, seen)
    except (SpecError, RuntimeError) as error:
        raise ScoreError(f"{spec.describe()} has no score {name}: {one_line(str(error), 200)}") from error
    if not math.isfinite(value):
        raise ScoreError(f"{spec.describe()} has no score {name}: it is not finite")
    return value


Progress = Callable[[int, int], None]
Clips = Callable[[], Batches]


VERSION = 2
"""Of the definitions; scores of another version are not compared."""


class StudyScores:
    """The scores that `search.features` names.

    What is stored is what decides: a score that another machine has computed differs in its last digits.

    Args:
        study: Features, clip and seed.
        num_classes: Of the data.
        store: Where scores are kept, with the id of the study there; None keeps them in memory alone.
        clips: Gives the clips that scores by data look at; None takes noise.
        checksum: Of the data, which such scores are kept with.
        progress: Called with networks scored and networks in all.

    Raises:
        SearchError: A score that another command stores is not there.
    """

    def __init__(
        self,
        study: Study,
        *,
        num_classes: int,
        store: tuple[Store, int] | None = None,
        clips: Clips | None = None,
        checksum: str = "",
        progress: Progress = lambda done, total: None,
    ) -> None:
        """Reads what is stored."""
        self.names: Sequence[str] = study.search.features
        self._study, self._num_classes, self._store, self._clips = study, num_classes, store, clips
        self._checksum, self._progress = checksum if clips is not None else "", progress
        self._known: dict[str, dict[str, float | None]] = {name: {} for name in self.names}
        for row in store[0].scores(store[1]) if store is not None else ():
            name = row["name"]
            if name in self._known and (name in STORED or row["basis"] == self._basis(name)):
                self._known[name][row["digest"]] = row["value"]
        for name in self.names:
            if name in STORED and not self._known[name]:
                where = store[0].location if store is not None else "a search on a table"
                raise SearchError(
                    f"search.features {name} is what `{STORED[name]}` stores, but {where} holds none of it; run that "
                    f"with the same settings (search.features={list(self.names)} among them) first, or leave it out"
                )

    def of(self, name: str, networks: Sequence[CandidateLike]) -> list[float | None]:
        """One score of some networks; None of a network that has it not.

        Raises:
            SearchError: Several were asked for, and none has it.
        """
        known = self._known[name]
        new = [one for one in networks if one.digest not in known] if name not in STORED else []
        refused = ""
        for done, network in enumerate(new, start=1):
            assert isinstance(network, Candidate), network
            try:
                known[network.digest] = self._scored(name, network)
            except ScoreError as error:
                known[network.digest], refused = None, str(error)
            self._progress(done, len(new))
        if refused and len(networks) > 1 and all(known[one.digest] is None for one in networks):
            raise SearchError(f"search.features {name}: {refused}; leave the feature out")
        found = {one.digest: value for one in new if (value := known[one.digest]) is not None}
        if self._store is not None:
            store, study_id = self._store
            store.put_scores(study_id, name, found, basis=self._basis(name))
        return [known.get(one.digest) for one in networks]

    def _scored(self, name: str, network: Candidate) -> float:
        data = self._study.data
        return score(
            name,
            network.spec,
            data.clip,
            num_classes=self._num_classes,
            planes=data.planes,
            seed=self._study.seed,
            batches=self._batches if name in BY_DATA else None,
        )

    @cached_property
    def _batches(self) -> Batches | None:
        return self._clips() if self._clips is not None else None

    def _basis(self, name: str) -> str:
        """What a score was made from, beside the network."""
        study = self._study
        clips = f", clips of {self._checksum[:16] or 'noise'}" if name in BY_DATA else ""
        return f"definition {VERSION}, clip {study.data.shape}, {self._num_classes} classes, seed {study.seed}{clips}"
