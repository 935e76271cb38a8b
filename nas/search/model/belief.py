"""What is believed of the networks of a search after some results: errors at the last rung, front, expected gains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nas.search.model.ehvi import REFERENCE, expected_improvement, reference_error, volume_of
from nas.search.model.encoding import CandidateLike, Encoder, ScoreSource
from nas.search.model.gp import Encoding, Observations, Posterior, fit
from nas.study.front import front

Array = NDArray[np.float64]

SHORT = 16
"""Networks that a proposal comes down to, where scores are features; theirs are computed."""
_NONE = 1e-12  # a variance as good as none
EVERY = 40  # results up to which hyperparameters are found anew after each; beyond, `learned_from` says when


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """A network that was measured.

    Attributes:
        digest: Of the network.
        rung: From 0.
        errors: 1 - what was measured on val, of each measured objective; what networks are chosen by first.
        videos: That it was measured on.
    """

    digest: str
    rung: int
    errors: tuple[float, ...]
    videos: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """What a model expected of a network when it was chosen.

    Attributes:
        error: Its median at the last rung.
        deviation: Of the logarithm of what a training will have, whose seed plays a part; the noise of the number of
            videos comes on top.
        gain: Expected growth of the hypervolume, as a share of what it is.
    """

    error: float
    deviation: float
    gain: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Expectation:
    """What a model expects of networks at the last rung.

    Attributes:
        error: (networks,) the median of the first measured objective.
        deviation: (networks,) of the logarithm of what a training will have, whose seed plays a part.
        gain: (networks,) expected growth of the hypervolume, as a share of what it is; without a front, of all there
            could be.
    """

    error: Array
    deviation: Array
    gain: Array

    def best(self, price: Array | float = 1.0) -> int:
        """The network with the largest gain for its price; where none is expected, that of which least is known.

        Args:
            price: (networks,) of each, or of all.
        """
        score = self.gain / price
        return int(np.argmax(score if score.max() > 0 else self.deviation))

    def reason(self, at: int) -> Reason:
        """What is expected of one of the networks."""
        return Reason(error=float(self.error[at]), deviation=float(self.deviation[at]), gain=float(self.gain[at]))


class Model:
    """Fits beliefs; what it keeps are results that it would find again.

    Args:
        candidates: Of the pool; they say which settings there are, and the range of costs.
        costs: Names of the exact objectives, such as `macs`; three objectives at most in all.
        num_rungs: Of the search.
        scores: Of networks, which the model sees as features.
        widths: By measured objective, from the best value that there could be to the worst.
        most: By measured objective, the error above which a network is of no use.
    """

    def __init__(
        self,
        candidates: Sequence[CandidateLike],
        costs: Sequence[str],
        num_rungs: int,
        scores: ScoreSource | None = None,
        widths: Sequence[float] = (1.0,),
        most: Sequence[float] = (math.inf,),
    ) -> None:
        """Nothing is fitted yet."""
        self.most = tuple(most)
        self.encoder = Encoder(candidates, scores)
        self.num_rungs, self.costs, self.widths = num_rungs, tuple(costs), tuple(widths)
        logs = np.log([[c.quantity(name) for name in costs] for c in candidates]).reshape(len(candidates), -1)
        self._low = logs.min(axis=0)
        self._span = np.where(np.ptp(logs, axis=0) > 0, np.ptp(logs, axis=0), 1.0)
        self._thetas: dict[tuple[Result, ...], tuple[Array, ...]] = {}

    def encode(self, networks: Sequence[CandidateLike], *, scored: bool = True) -> Encoding:
        """Networks as the kernel sees them; scores are guessed unless asked for."""
        return self.encoder.encode(networks, scored=scored)

    def scaled(self, networks: Sequence[CandidateLike]) -> Array:
        """(networks, costs) in logarithms, scaled to 0..1 over the pool."""
        logs = np.log([[n.quantity(name) for name in self.costs] for n in networks])
        return np.asarray((logs.reshape(len(networks), len(self.costs)) - self._low) / self._span)

    def believe(
        self, results: Sequence[Result], networks: Mapping[str, CandidateLike], pending: Sequence[tuple[str, int]] = ()
    ) -> Belief:
        """What results say.

        Args:
            results: In the order in which they were measured; at least one.
            networks: By digest, all that results and pending trainings are of.
            pending: Digest and rung of trainings under way; they are taken to end as expected.
        """
        prefix = tuple(results[: learned_from(len(results))])
        digests = list(dict.fromkeys([*(result.digest for result in results), *(key for key, _ in pending)]))
        row = {key: i for i, key in enumerate(digests)}
        encoding = self.encode([networks[key] for key in digests])
        places = list(enumerate(self.widths))
        if prefix not in self._thetas:
            seen = [_observed(prefix, row, place, width) for place, width in places]
            self._thetas = {prefix: tuple(fit(encoding, one, num_rungs=self.num_rungs).theta for one in seen)}
        posteriors = [
            fit(encoding, _observed(results, row, place, width), num_rungs=self.num_rungs, theta=theta)
            for (place, width), theta in zip(places, self._thetas[prefix], strict=True)
        ]
        if pending:
            posteriors = [one.with_means([(row[key], rung) for key, rung in pending]) for one in posteriors]
        return Belief(self, posteriors, results, networks, pending)


class Belief:
    """A fitted model; made by `Model.believe`."""

    def __init__(
        self,
        model: Model,
        posteriors: Sequence[Posterior],
        results: Sequence[Result],
        networks: Mapping[str, CandidateLike],
        pending: Sequence[tuple[str, int]],
    ) -> None:
        """Takes what was fitted."""
        self.model, self.posteriors, self.networks = model, tuple(posteriors), networks
        last = model.num_rungs - 1
        self.digests = tuple(dict.fromkeys([*(r.digest for r in results), *(key for key, _ in pending)]))
        whole = {r.digest for r in results if r.rung == last} | {key for key, rung in pending if rung == last}
        self.whole = tuple(key for key in self.digests if key in whole)
        """Digests of networks that were measured at the last rung, or are on their way to it."""

    @cached_property
    def tried(self) -> tuple[Array, Array]:
        """(errors, networks) mean and variance of the log errors of all that was tried, in the order of `digests`."""
        return self._predicted(self.posteriors[0].encoding)

    def front(self, digests: Sequence[str]) -> tuple[str, ...]:
        """Those of some networks that were tried which no other of them is expected to dominate."""
        return tuple(digests[i] for i in front(self._at(digests)))

    def best(
        self,
        networks: Sequence[CandidateLike],
        *,
        against: Sequence[str],
        reference: Sequence[float],
        price: Array | None = None,
    ) -> tuple[int, Reason]:
        """The network with the largest expected gain for its price, and what is expected of it.

        Where scores are features, they are guessed at first, and computed of the best `SHORT` networks.

        Args:
            networks: At least one.
            against: As in `expect`.
            reference: As in `expect`.
            price: (networks,) of each; the same of all unless given.
        """
        price = np.ones(len(networks)) if price is None else price
        expected = self.expect(networks, against=against, reference=reference)
        best = expected.best(price)
        if self.model.encoder.features is None:
            return best, expected.reason(best)
        first = np.argsort(-expected.gain / price, kind="stable")[:SHORT]
        short = np.asarray(sorted({best, *first.tolist()}))
        expected = self.expect([networks[i] for i in short], against=against, reference=reference, scored=True)
        at = expected.best(price[short])
        return int(short[at]), expected.reason(at)

    def expect(
        self,
        networks: Sequence[CandidateLike],
        *,
        against: Sequence[str],
        reference: Sequence[float],
        scored: bool = False,
    ) -> Expectation:
        """What is expected of networks at the last rung.

        Args:
            networks: Any; gains of those in `against` mean nothing.
            against: Digests of networks that were tried, whose hypervolume would grow.
            reference: As `reference` gives it.
            scored: Compute scores where they are features; otherwise they are guessed.
        """
        mean, variance = self._predicted(self.model.encode(networks, scored=scored))
        return self._expected(mean, variance, self.model.scaled(networks), against, reference)

    def expect_tried(
        self, digests: Sequence[str], *, against: Sequence[str], reference: Sequence[float]
    ) -> Expectation:
        """The same of networks that were tried, but not to the last rung."""
        place = {key: i for i, key in enumerate(self.digests)}
        rows = [place[key] for key in digests]
        mean, variance = self.tried[0][:, rows], self.tried[1][:, rows]
        return self._expected(
            mean, variance, self.model.scaled([self.networks[k] for k in digests]), against, reference
        )

    def expect_again(
        self, digests: Sequence[str], *, against: Sequence[str], reference: Sequence[float]
    ) -> Expectation:
        """What one more training of networks that were measured at the last rung is expected to add.

        It moves what is believed of a network, and with that the front, which is of what is believed: by how much is
        known beforehand, in which direction is not. If it turns out better, the front grows, and if worse, others take
        its place, so that the hypervolume grows on average, the more the less is known (a knowledge gradient, Frazier
        et al. 2008).

        Args:
            digests: Of the networks.
            against: As in `expect`; those that are not in it are taken to be.
            reference: As in `expect`.
        """
        place = {key: i for i, key in enumerate(self.digests)}
        tried = self._at(against)
        volume = volume_of(tried, reference)
        gains = []
        for key in digests:
            at = [place[key]]
            mean, variance = self.tried[0][:, at], self.tried[1][:, at]
            noise = np.asarray([[one.noise_of(place[key])] for one in self.posteriors])
            moved = variance**2 / (variance + noise)  # of the mean, by one more result
            cost = self.model.scaled([self.networks[key]])
            others = self._at([other for other in against if other != key])
            # Half of the variance less, so that the error itself, and not its logarithm, stays as it is on average.
            then, now = (
                expected_improvement(mean - known / 2, known, cost, front=others, reference=reference)[0]
                for known in (moved, np.full_like(moved, _NONE))
            )
            gains.append(max(0.0, float(then - now)) / volume)
        rows = [place[key] for key in digests]
        return self._told(self.tried[0][:, rows], self.tried[1][:, rows], np.asarray(gains))

    def reference(self, digests: Sequence[str]) -> tuple[float, ...]:
        """A reference point for the front of some networks that were tried: errors, then scaled costs.

        Without one, it is beyond all that were tried. What is too bad to be of use is beyond it in any case.
        """
        errors = self._at(self.front(digests) or self.digests)[:, : len(self.posteriors)]
        own = (min(reference_error(one), most) for one, most in zip(errors.T, self.model.most, strict=True))
        return (*own, *[REFERENCE] * len(self.model.costs))

    def _predicted(self, encoding: Encoding) -> tuple[Array, Array]:
        means, variances = zip(*(one.predict(encoding) for one in self.posteriors), strict=True)
        return np.asarray(means), np.asarray(variances)

    def _expected(
        self, mean: Array, variance: Array, cost: Array, against: Sequence[str], reference: Sequence[float]
    ) -> Expectation:
        tried = self._at(against)
        gain = expected_improvement(mean, variance, cost, front=tried, reference=reference)
        volume = volume_of(tried, reference)
        return self._told(mean, variance, gain / volume)

    def _told(self, mean: Array, variance: Array, gain: Array) -> Expectation:
        deviation = np.sqrt(variance[0] + self.posteriors[0].noise)
        return Expectation(error=np.exp(mean[0]), deviation=deviation, gain=gain)

    def _at(self, digests: Sequence[str]) -> Array:
        """(networks, objectives): expected errors, then scaled costs."""
        place = {key: i for i, key in enumerate(self.digests)}
        rows = [place[key] for key in digests]
        cost = self.model.scaled([self.networks[key] for key in digests])
        return np.column_stack([np.exp(self.tried[0][:, rows]).T, cost])


def learned_from(count: int) -> int:
    """The number of first results, out of all, that hyperparameters are fitted to."""
    if count < EVERY:
        return count
    found = EVERY
    while (then := found + max(10, found // 100 * 10)) <= count:
        found = then
    return found


def _observed(results: Sequence[Result], row: Mapping[str, int], place: int, width: float) -> Observations:
    """What one measured objective was; of a gap between two accuracies, from 0 to 2, the variance is a bound."""
    # As a share of its width, with which an error of 0 has a logarithm, too.
    smooth = [(r.errors[place] / width * r.videos + 0.5) / (r.videos + 1.0) for r in results]
    return Observations(
        network=np.asarray([row[r.digest] for r in results], dtype=np.int64),
        rung=np.asarray([r.rung for r in results], dtype=np.int64),
        value=np.asarray([math.log(width * error) for error in smooth]),
        variance=np.asarray([(1.0 - e) / (e * (r.videos + 1.0)) for e, r in zip(smooth, results, strict=True)]),
    )
