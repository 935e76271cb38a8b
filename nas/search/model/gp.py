"""A Gaussian process of log error over the settings of a network, its exact cost, and how far it has been trained.

At the last rung, of networks x with log MACs u scaled to 0..1,

    k(x, x') = 1 + 4 b (u - 1/2)(u' - 1/2) + 4 sum_j g_j (f_j - 1/2)(f_j' - 1/2) + a S(x, x')
               + s exp(-sum_i w_i D_i(x, x') - (u - u')^2 / (2 l^2)),

where D_i is 1 where a nominal setting differs and the distance of ranks where it is ordinal, and S is the share of
equal settings. Scores f_j of networks are dimensions of the sum over i, too, but no settings of S. An earlier rung r
differs from the next by a process of its own, with the same distances: y_r = f + d_r + ... + d_(R-2), so that rungs
that say little about the last are found to have large differences (after freeze-thaw, Swersky et al. 2014, with a
difference process in the place of a family of curves). Hyperparameters are those of the largest posterior density,
found by L-BFGS from their prior medians, so that they are a function of the observations alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, lapack, solve_triangular
from scipy.optimize import minimize

Array = NDArray[np.float64]

_SD = 1.0  # of the prior of a hyperparameter, in natural logarithms
_WEIGHT = 1.5  # of all settings together, the prior median
_ORDINAL = 1.35  # times as much for one whose values are ordered
_MEDIANS = {"s": 0.5, "a": 0.5, "b": 0.5, "l": 0.5, "noise": 0.02, "v": 0.1}
_SCORE = 0.2  # of the slope of a score
_RUNG_MEDIANS = {"s": 0.1, "b": 0.1, "c": 0.5, "t": 0.05}  # of the difference of a rung
_JITTER = 1e-8
_SHARED = 2.0  # results that the spread of all rungs counts as, beside those of the highest
_LEAST = 0.1  # of a deviation of log errors: that all were equal so far does not say that all are


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Networks as the kernel sees them.

    Attributes:
        bits: (networks, features) of 0 and 1: an indicator for each value of a nominal setting, a thermometer for an
            ordinal one.
        setting: (features,) which setting each belongs to, from 0.
        scale: (features,) so that the distance of a setting is the sum of `scale * |bit - bit'|`.
        ordinal: (settings,) whether values are ordered.
        cost: (networks,) log MACs scaled to 0..1.
        scores: (networks, scores) scaled to 0..1; they are the last of the settings as well.
    """

    bits: Array
    setting: NDArray[np.int64]
    scale: Array
    ordinal: NDArray[np.bool_]
    cost: Array
    scores: Array

    def __len__(self) -> int:
        return len(self.bits)

    def take(self, rows: NDArray[np.int64]) -> Encoding:
        """The same of some of the networks."""
        return replace(self, bits=self.bits[rows], cost=self.cost[rows], scores=self.scores[rows])

    @cached_property
    def similarity(self) -> Array:
        """(networks, features) whose products, summed, are the share of equal settings; 2 f - 1 for ordinal ones."""
        num_settings = len(self.ordinal) - self.scores.shape[1]
        count = max(1, num_settings)
        own = self.setting < num_settings
        bits, setting, scale = self.bits[:, own], self.setting[own], self.scale[own]
        ordinal = self.ordinal[:num_settings]
        of_feature = ordinal[setting]
        nominal = np.where(of_feature, 0.0, bits)
        ranks = np.zeros((len(bits), num_settings))
        np.add.at(ranks.T, setting[of_feature], (bits * scale)[:, of_feature].T)
        signed = np.where(ordinal, 2.0 * ranks - 1.0, 0.0)
        return np.asarray(np.concatenate([nominal, signed], axis=1) / np.sqrt(count))


@dataclass(frozen=True, kw_only=True)
class Observations:
    """What was measured.

    Attributes:
        network: (n,) rows of an encoding.
        rung: (n,) from 0.
        value: (n,) log error.
        variance: (n,) of the value, as far as it is known: what the number of videos leaves open.
    """

    network: NDArray[np.int64]
    rung: NDArray[np.int64]
    value: Array
    variance: Array

    def __len__(self) -> int:
        return len(self.value)


class _Kernel:
    """Names and places of the hyperparameters, all as natural logarithms."""

    def __init__(self, encoding: Encoding, num_rungs: int) -> None:
        ordinal = encoding.ordinal
        count = len(ordinal)
        names = [f"w{i}" for i in range(count)] + list(_MEDIANS)
        weights = _WEIGHT / max(1, count) * np.where(ordinal, _ORDINAL, 1.0)
        medians = [*weights, *_MEDIANS.values()]
        self.slopes = [f"g{i}" for i in range(encoding.scores.shape[1])]
        names += self.slopes
        medians += [_SCORE] * len(self.slopes)
        for rung in range(num_rungs - 1):
            names += [f"{name}{rung}" for name in _RUNG_MEDIANS]
            medians += list(_RUNG_MEDIANS.values())
        self.num_settings, self.num_rungs = count, num_rungs
        self.place = {name: i for i, name in enumerate(names)}
        self.medians = np.log(np.asarray(medians))

    def __call__(self, theta: Array, name: str) -> float:
        return float(np.exp(theta[self.place[name]]))

    def weights(self, theta: Array) -> Array:
        return np.asarray(np.exp(theta[: self.num_settings]))


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """The model after some observations.

    Attributes:
        theta: Hyperparameters, as natural logarithms.
        mean: Of the observed log errors at the highest rung that has some.
        deviation: Theirs.
    """

    kernel: _Kernel
    theta: Array
    mean: float
    deviation: float
    encoding: Encoding
    observations: Observations
    chol: Array
    alpha: Array

    def predict(
        self, networks: Encoding, rung: int | None = None, rows: NDArray[np.int64] | None = None
    ) -> tuple[Array, Array]:
        """Mean and variance of the log error of networks at a rung, the last unless given, without the noise.

        Args:
            networks: Any.
            rung: From 0.
            rows: (networks,) their rows in the encoding of the observations, where they are among those; it matters
                only below the last rung.

        Returns:
            Two arrays (networks,).
        """
        last = self.kernel.num_rungs - 1
        rungs = np.full(len(networks), last if rung is None else rung)
        seen = self.observations
        cross = _covariance(self.kernel, self.theta, networks, rungs, self._taken, seen.rung)
        if rows is not None:
            same = rows[:, None] == seen.network[None, :]
            above = np.maximum(rungs[:, None], seen.rung[None, :])
            for r in range(last):
                cross += self.kernel(self.theta, f"t{r}") * (same & (above <= r))
        z = cross @ self.alpha
        half = solve_triangular(self.chol, cross.T, lower=True, check_finite=False)
        prior = _prior_variance(self.kernel, self.theta, networks, rungs)
        variance = np.maximum(prior - np.einsum("ij,ij->j", half, half), 1e-10)
        return self.mean + self.deviation * z, self.deviation**2 * variance

    def with_means(self, pending: Sequence[tuple[int, int]]) -> Posterior:
        """The same after further observations that fall on their means; hyperparameters and means stay.

        Args:
            pending: Row of the encoding and rung of each.
        """
        added = self.observations
        for rung in sorted({rung for _, rung in pending}):
            rows = np.asarray([row for row, at in pending if at == rung], dtype=np.int64)
            mean, _ = self.predict(self.encoding.take(rows), rung, rows)
            added = Observations(
                network=np.append(added.network, rows),
                rung=np.append(added.rung, np.full(len(rows), rung)),
                value=np.append(added.value, mean),
                variance=np.append(added.variance, np.zeros(len(rows))),
            )
        z = (added.value - self.mean) / self.deviation
        chol, alpha = _Problem(self.kernel, self.encoding, added, z, self.deviation).solved(self.theta)
        return replace(self, observations=added, chol=chol, alpha=alpha)

    @property
    def noise(self) -> float:
        """Variance of the log error of a network between seeds."""
        return self.deviation**2 * self.kernel(self.theta, "noise")

    def noise_of(self, network: int) -> float:
        """Variance of a result of an observed network: between seeds, and by the number of videos.

        Args:
            network: Row of the encoding.
        """
        own = self.observations.network == network
        share = self.kernel(self.theta, "v")
        return self.noise + share * float(self.observations.variance[own].max(initial=0.0))

    @cached_property
    def _taken(self) -> Encoding:
        return self.encoding.take(self.observations.network)


def _distance(weights: Array, left: Encoding, right: Encoding) -> Array:
    """Sum of the weighted distances of all settings, (left, right)."""
    per_bit = weights[left.setting] * left.scale
    scaled = left.bits * per_bit
    return np.asarray((scaled.sum(1)[:, None] + (right.bits @ per_bit)[None, :]) - 2.0 * scaled @ right.bits.T)


def _product(kernel: _Kernel, theta: Array, left: Encoding, right: Encoding) -> tuple[Array, Array]:
    """The product kernel and the squared differences of cost."""
    square = (left.cost[:, None] - right.cost[None, :]) ** 2
    exponent = _distance(kernel.weights(theta), left, right) + square / (2.0 * kernel(theta, "l") ** 2)
    return np.exp(-exponent), square


def _slope(left: Encoding, right: Encoding) -> Array:
    return np.asarray(4.0 * np.outer(left.cost - 0.5, right.cost - 0.5))


def _slope_of_scores(kernel: _Kernel, theta: Array, left: Encoding, right: Encoding) -> Array:
    """What networks are alike for their scores being on the same side of the middle, (left, right)."""
    weights = np.asarray([4.0 * kernel(theta, name) for name in kernel.slopes])
    return np.asarray((left.scores - 0.5) * weights @ (right.scores - 0.5).T)


def _covariance(
    kernel: _Kernel,
    theta: Array,
    left: Encoding,
    left_rung: NDArray[np.int64],
    right: Encoding,
    right_rung: NDArray[np.int64],
) -> Array:
    """Between networks at rungs and others; those of the left are taken to be no networks of the right."""
    product, _ = _product(kernel, theta, left, right)
    slope, alike = _slope(left, right), left.similarity @ right.similarity.T
    result = 1.0 + kernel(theta, "b") * slope + kernel(theta, "a") * alike + kernel(theta, "s") * product
    result += _slope_of_scores(kernel, theta, left, right)
    above = np.maximum(left_rung[:, None], right_rung[None, :])
    for rung in range(int(above.min(initial=kernel.num_rungs)), kernel.num_rungs - 1):
        own = _difference(kernel, theta, rung, product, slope)
        result += np.where(above <= rung, own, 0.0)
    return np.asarray(result)


def _difference(kernel: _Kernel, theta: Array, rung: int, product: Array, slope: Array) -> Array:
    """What the difference of a rung to the next is alike for two networks, without that of a network alone."""
    return np.asarray(
        kernel(theta, f"c{rung}") + kernel(theta, f"b{rung}") * slope + kernel(theta, f"s{rung}") * product
    )


def _prior_variance(kernel: _Kernel, theta: Array, networks: Encoding, rungs: NDArray[np.int64]) -> Array:
    slope = 4.0 * (networks.cost - 0.5) ** 2
    alike = np.einsum("ij,ij->i", networks.similarity, networks.similarity)
    result = 1.0 + kernel(theta, "b") * slope + kernel(theta, "a") * alike + kernel(theta, "s")
    for place, name in enumerate(kernel.slopes):
        result += 4.0 * kernel(theta, name) * (networks.scores[:, place] - 0.5) ** 2
    for rung in range(kernel.num_rungs - 1):
        own = kernel(theta, f"c{rung}") + kernel(theta, f"b{rung}") * slope + kernel(theta, f"s{rung}")
        result += np.where(rungs <= rung, own + kernel(theta, f"t{rung}"), 0.0)
    return np.asarray(result)


def fit(encoding: Encoding, observations: Observations, *, num_rungs: int = 1, theta: Array | None = None) -> Posterior:
    """Fits the model.

    Args:
        encoding: All networks that observations are of.
        observations: At least one.
        num_rungs: Of the search; predictions are of the last.
        theta: Hyperparameters of an earlier fit that are to be kept; None finds them.
    """
    mean, deviation = _scale(observations)
    kernel = _Kernel(encoding, num_rungs)
    problem = _Problem(kernel, encoding, observations, (observations.value - mean) / deviation, deviation)
    if theta is None:
        found = minimize(
            problem,
            kernel.medians,
            jac=True,
            method="L-BFGS-B",
            bounds=[(m - 7, m + 7) for m in kernel.medians],
            options={"maxiter": 60},
        )
        theta = np.asarray(found.x)
    chol, alpha = problem.solved(theta)
    return Posterior(
        kernel=kernel,
        theta=theta,
        mean=mean,
        deviation=deviation,
        encoding=encoding,
        observations=observations,
        chol=chol,
        alpha=alpha,
    )


def _scale(observations: Observations) -> tuple[float, float]:
    """Mean of the log errors at the highest rung that has some, and the deviation that hyperparameters are relative to.

    The deviation is that at the highest rung; of a few results, which may be close by luck, it counts as `_SHARED` more
    that are spread as those of all rungs are around the means of theirs.
    """
    values, rungs = observations.value, observations.rung
    top = rungs == rungs.max()
    means = {rung: float(values[rungs == rung].mean()) for rung in np.unique(rungs).tolist()}
    around = values - np.asarray([means[rung] for rung in rungs.tolist()])
    free = max(1, len(values) - len(means))
    variance = (float(np.square(around[top]).sum()) + _SHARED * float(np.square(around).sum()) / free) / (
        int(top.sum()) + _SHARED
    )
    return means[int(rungs.max())], max(_LEAST, math.sqrt(variance))


class _Problem:
    """Minus the log posterior density of the hyperparameters, with its gradient."""

    def __init__(
        self, kernel: _Kernel, encoding: Encoding, observations: Observations, z: Array, deviation: float
    ) -> None:
        self.kernel, self.z = kernel, z
        self.seen = encoding.take(observations.network)
        self.known = observations.variance / deviation**2
        rung, network = observations.rung, observations.network
        above = np.maximum(rung[:, None], rung[None, :])
        self.open = [(above <= r).astype(float) for r in range(kernel.num_rungs - 1)]
        self.same = (network[:, None] == network[None, :]).astype(float)
        self.slope = _slope(self.seen, self.seen)
        self.alike = self.seen.similarity @ self.seen.similarity.T
        self.bits = self.seen.bits

    def matrix(self, theta: Array) -> tuple[Array, Array, Array, list[Array]]:
        kernel = self.kernel
        product, square = _product(kernel, theta, self.seen, self.seen)
        total = 1.0 + kernel(theta, "b") * self.slope + kernel(theta, "a") * self.alike + kernel(theta, "s") * product
        total += _slope_of_scores(kernel, theta, self.seen, self.seen)
        for rung, mask in enumerate(self.open):
            own = _difference(kernel, theta, rung, product, self.slope) + kernel(theta, f"t{rung}") * self.same
            total += mask * own
        total[np.diag_indices_from(total)] += kernel(theta, "noise") + kernel(theta, "v") * self.known + _JITTER
        return total, product, square, self.open

    def solved(self, theta: Array) -> tuple[Array, Array]:
        total, *_ = self.matrix(theta)
        chol = np.asarray(np.linalg.cholesky(total), dtype=np.float64)
        return chol, np.asarray(cho_solve((chol, True), self.z, check_finite=False))

    def __call__(self, theta: Array) -> tuple[float, Array]:
        kernel = self.kernel
        total, product, square, masks = self.matrix(theta)
        try:
            chol = np.linalg.cholesky(total)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros_like(theta)
        alpha = cho_solve((chol, True), self.z, check_finite=False)
        inverse, _ = lapack.dpotri(chol, lower=1)
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        off = (theta - kernel.medians) / _SD
        value = 0.5 * self.z @ alpha + np.log(np.diag(chol)).sum() + 0.5 * off @ off
        m = inverse - np.outer(alpha, alpha)  # the gradient is half the sum of m * dK
        gradient = np.zeros_like(theta)

        def put(name: str, change: float) -> None:
            gradient[kernel.place[name]] += 0.5 * kernel(theta, name) * change

        put("b", float((m * self.slope).sum()))
        put("a", float((m * self.alike).sum()))
        put("noise", float(np.trace(m)))
        put("v", float(np.diag(m) @ self.known))
        for place, name in enumerate(kernel.slopes):
            off_middle = self.seen.scores[:, place] - 0.5
            put(name, float(4.0 * off_middle @ m @ off_middle))
        put("s", float((m * product).sum()))
        amplitude = np.full_like(product, kernel(theta, "s"))
        for rung, mask in enumerate(masks):
            amplitude += mask * kernel(theta, f"s{rung}")
            masked = m * mask
            put(f"s{rung}", float((masked * product).sum()))
            put(f"c{rung}", float(masked.sum()))
            put(f"b{rung}", float((masked * self.slope).sum()))
            put(f"t{rung}", float((masked * self.same).sum()))
        g = m * product * amplitude
        length = kernel(theta, "l")
        gradient[kernel.place["l"]] += 0.5 * float((g * square).sum()) / length**2
        rows = g.sum(1)
        per_bit = 2.0 * (self.bits.T @ rows - np.einsum("if,if->f", self.bits, g @ self.bits)) * self.seen.scale
        per_setting = np.bincount(self.seen.setting, weights=per_bit, minlength=kernel.num_settings)
        gradient[: kernel.num_settings] -= 0.5 * kernel.weights(theta) * per_setting[: kernel.num_settings]
        return float(value), gradient + off / _SD
