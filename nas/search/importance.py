"""Importance of each factor of a search, and of each pair: Optuna's PED-ANOVA and fANOVA.

F. Hutter, H. Hoos, K. Leyton-Brown: "An Efficient Approach for Assessing Hyperparameter Importance" (ICML 2014): a tree
is constant on boxes, so means and variances over any of its axes are sums over its leaves.

Each rung has its own Optuna study, so all networks of one answer were trained for the same number of epochs. The
parameters of one domain are one factor (`nas.search.levels.levels_of`).
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, create_trial

from nas.errors import StoreError
from nas.search.levels import MIN_NETWORKS, beyond_cost, factor_of, level_of
from nas.search.optuna_copies import close_storage, rung_name, storage_of
from nas.store import tables as m
from nas.store import write as s
from nas.store.damage import reading_optuna
from nas.store.database import Store
from nas.store.records import ResultRow, StudyRow
from nas.study.fidelity import recorded_fidelity

TREES = 64  # trees, depth and leaves are those of Optuna's evaluator, so that its forest is this one
DEPTH = 64


class Forest:
    """A forest over factors whose levels are the cells -0.5..0.5, 0.5..1.5, … of an axis.

    Args:
        points: (networks, factors) positions of the levels, 0, 1, ….
        target: (networks,) what is predicted.
        sizes: Number of levels of each factor, in the order of the columns.
        seed: Of the forest.

    Attributes:
        unseen: Share of variance that is explained of networks that a tree has not seen (out-of-bag R²).
    """

    def __init__(
        self, points: NDArray[np.float64], target: NDArray[np.float64], sizes: Mapping[str, int], *, seed: int = 0
    ) -> None:
        """Fits it."""
        from sklearn.ensemble import RandomForestRegressor

        forest = RandomForestRegressor(
            n_estimators=TREES,
            max_depth=DEPTH,
            min_samples_split=2,
            min_samples_leaf=1,
            random_state=seed,
            oob_score=True,
        )
        forest.fit(points, target)
        self.unseen = float(forest.oob_score_)
        self._names = tuple(sizes)
        bounds = np.array([(-0.5, size - 0.5) for size in sizes.values()])
        trees = [_boxes(estimator.tree_, bounds) for estimator in forest.estimators_]
        self._trees = [tree for tree in trees if tree.variance > 0]

    def singles(self) -> dict[str, float]:
        """Share of the trees' variance that each factor has by itself."""
        shares = np.mean([tree.single / tree.variance for tree in self._trees], axis=0)
        return dict(zip(self._names, shares.tolist(), strict=True))

    def pairs(self) -> dict[tuple[str, str], float]:
        """Share of the trees' variance that two factors have only together, beyond what each has by itself."""
        found = {}
        for i, j in itertools.combinations(range(len(self._names)), 2):
            shares = [
                max(0.0, tree.joint(i, j) - tree.single[i] - tree.single[j]) / tree.variance for tree in self._trees
            ]
            found[self._names[i], self._names[j]] = float(np.mean(shares))
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class _Boxes:
    """A tree as its leaves.

    Attributes:
        values: (leaves,) predictions less their mean.
        weights: (leaves,) volumes, summing to 1.
        shares: (leaves, factors) width of a leaf's box as a share of the axis.
        cells: For each factor (leaves, cells) whether a leaf's box covers the cell.
        widths: For each factor (cells,) as shares of the axis.
        variance: Of the tree over the whole space.
        single: (factors,) variance of each factor's marginal.
    """

    values: NDArray[np.float64]
    weights: NDArray[np.float64]
    shares: NDArray[np.float64]
    cells: tuple[NDArray[np.float64], ...]
    widths: tuple[NDArray[np.float64], ...]
    variance: float
    single: NDArray[np.float64]

    def joint(self, i: int, j: int) -> float:
        """Variance of the marginal of two factors."""
        mass = self.values * self.weights / (self.shares[:, i] * self.shares[:, j])
        marginal = (self.cells[i] * mass[:, None]).T @ self.cells[j]
        return float(self.widths[i] @ marginal**2 @ self.widths[j])


def _boxes(tree: Any, bounds: NDArray[np.float64]) -> _Boxes:
    """The leaves of a scikit-learn tree within bounds (factors, 2)."""
    leaves: list[tuple[float, NDArray[np.float64]]] = []
    open_nodes = [(0, bounds)]
    while open_nodes:
        node, box = open_nodes.pop()
        feature, threshold = tree.feature[node], tree.threshold[node]
        if feature < 0:
            leaves.append((float(tree.value[node].reshape(-1)[0]), box))
            continue
        left, right = box.copy(), box.copy()
        left[feature, 1] = right[feature, 0] = threshold
        open_nodes += [(tree.children_left[node], left), (tree.children_right[node], right)]
    boxes = np.array([box for _, box in leaves])  # (leaves, factors, 2)
    shares = (boxes[..., 1] - boxes[..., 0]) / (bounds[:, 1] - bounds[:, 0])
    weights = shares.prod(axis=1)
    values = np.array([value for value, _ in leaves])
    values = values - values @ weights
    cells, widths, single = [], [], []
    for f, (low, high) in enumerate(bounds):
        edges = np.unique([low, *boxes[:, f, 0], high])
        middles = (edges[1:] + edges[:-1]) / 2
        inside = ((boxes[:, f, :1] < middles) & (middles < boxes[:, f, 1:])).astype(float)
        width = np.diff(edges) / (high - low)
        marginal = (values * weights / shares[:, f]) @ inside
        cells.append(inside)
        widths.append(width)
        single.append(float(width @ marginal**2))
    return _Boxes(
        values=values,
        weights=weights,
        shares=shares,
        cells=tuple(cells),
        widths=tuple(widths),
        variance=float(weights @ values**2),
        single=np.array(single),
    )


DEALS = 19  # of the results to the networks, at random
SMALLEST_PAIR = 0.005  # share of variance below which a pair is left out
OBJECTIVES = ("accuracy", "accuracy given MACs")
INACTIVE = "–"  # level of a factor that a network was not asked for


@dataclass(frozen=True, kw_only=True, slots=True)
class Importance:
    """How much one factor, or two of them together, decides.

    Attributes:
        rung: Where.
        epochs: Of the rung.
        method: `pedanova` (what decides about being among the best; sums to 1 over the factors) or `fanova` (share of
            the variance over the whole space; factors and pairs sum to at most 1).
        objective: `accuracy`, or `accuracy given MACs`: what of it the cost does not explain.
        factor: A factor.
        other: The second factor of a pair, what both do only together; else empty.
        importance: 0 to 1.
        networks: That it rests on.
    """

    rung: int
    epochs: int
    method: str
    objective: str
    factor: str
    other: str
    importance: float
    networks: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RungImportances:
    """The importances of one rung.

    Attributes:
        rung: Which.
        epochs: Of it.
        networks: With settings at this rung.
        cost_explains: Share of the variance of accuracy that log MACs explain (a parabola); None for too few networks.
        forest_explains: By objective, the share of variance that the forest behind fANOVA explains of networks that it
            has not seen (out of bag).
        found: The most important first, by objective and method, pairs last.
        notes: What could not be said, one line each.
    """

    rung: int
    epochs: int
    networks: int
    cost_explains: float | None = None
    forest_explains: Mapping[str, float] = field(default_factory=dict)
    found: tuple[Importance, ...] = ()
    notes: tuple[str, ...] = ()


def importances(store: Store, study: StudyRow) -> list[RungImportances]:
    """Importances at every rung that has results.

    Args:
        store: The database.
        study: The study's row.
    """
    rungs: dict[int, list[ResultRow]] = {}
    for row in store.evaluations(study["id"]):
        rungs.setdefault(row["rung"], []).append(row)
    if not rungs:
        return []
    if not store.holds_optuna():
        return [_too_few(rung, rows[0]["epochs"], 0) for rung, rows in sorted(rungs.items())]
    with reading_optuna(store.location):
        storage = storage_of(store.location, create=False)
    try:
        return [_rung(storage, store.location, study, rung, rows) for rung, rows in sorted(rungs.items())]
    finally:
        close_storage(storage)


def keep(database: Path, found: Sequence[Importance]) -> str | None:
    """Stores importances in the place of those of an earlier time, unless a search holds the database.

    Args:
        database: The SQLite file.
        found: What to store.

    Returns:
        None where they are stored, otherwise why they are not, in one line.
    """
    lock = FileLock(f"{database}.lock")
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError) as error:
        why = "a running search holds the database" if isinstance(error, Timeout) else f"{error.strerror}"
        return f"not stored: {why}"
    try:
        with Store(database, create=True) as store:
            study = store.study()["id"]
            with store.write() as connection:
                connection.execute(m.importance.delete().where(m.importance.c.study_id == study))
                for item in found:
                    s.insert(connection, m.importance, study_id=study, **asdict(item))
    except StoreError as error:
        return f"not stored: {error}"
    finally:
        lock.release()
    return None


def _rung(storage: RDBStorage, location: str, study: StudyRow, rung: int, rows: Sequence[ResultRow]) -> RungImportances:
    epochs = rows[0]["epochs"]
    name = rung_name(study["name"], rung, recorded_fidelity(study))
    macs = {row["id"]: row["macs"] for row in rows}
    with reading_optuna(location):
        try:
            trials = optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)
        except KeyError:  # no driver has got as far as to copy this rung
            trials = []
    trials = [trial for trial in trials if trial.params and trial.user_attrs.get("evaluation") in macs]
    if len(trials) < MIN_NETWORKS:
        return _too_few(rung, epochs, len(trials))
    choices = _choices(trials)
    accuracy = np.array([trial.values[0] for trial in trials])
    residual, explained = beyond_cost(accuracy, [macs[trial.user_attrs["evaluation"]] for trial in trials])
    found: list[Importance] = []
    notes: list[str] = []
    forests: dict[str, float] = {}

    def add(method: str, objective: str, values: Mapping[tuple[str, str], float]) -> None:
        for (factor, other), value in sorted(values.items(), key=lambda item: (item[0][1] != "", -item[1], item[0])):
            found.append(
                Importance(
                    rung=rung,
                    epochs=epochs,
                    method=method,
                    objective=objective,
                    factor=factor,
                    other=other,
                    importance=value,
                    networks=len(trials),
                )
            )

    for objective, target in zip(OBJECTIVES, (accuracy, residual), strict=True):
        if not choices or float(np.ptp(target)) < 1e-9:
            what = "every network has the same settings" if not choices else f"every network has the same {objective}"
            notes.append(f"{what}, so nothing decides")
            continue
        singles, beyond = _pedanova(trials, choices, target)
        if beyond:
            add("pedanova", objective, {(factor, ""): value for factor, value in singles.items()})
            if len(beyond) < len(singles):
                notes.append(
                    f"PED-ANOVA of {objective}: beyond chance {'is' if len(beyond) == 1 else 'are'} {', '.join(beyond)}"
                )
        else:
            notes.append(
                f"PED-ANOVA of {objective} is left out: no factor tells the best networks from the others "
                "better than chance does"
            )
        forest, singles = _fanova(trials, choices, target)
        forests[objective] = forest.unseen
        if forest.unseen <= 0:
            notes.append(
                f"fANOVA of {objective} is left out: its forest predicts networks that it has not seen no better than "
                "their mean does; it needs more networks, or more clips"
            )
            continue
        pairs = {pair: value for pair, value in forest.pairs().items() if value >= SMALLEST_PAIR}
        add("fanova", objective, {**{(factor, ""): value for factor, value in singles.items()}, **pairs})
    return RungImportances(
        rung=rung,
        epochs=epochs,
        networks=len(trials),
        cost_explains=explained,
        forest_explains=forests,
        found=tuple(found),
        notes=tuple(notes),
    )


def _too_few(rung: int, epochs: int, networks: int) -> RungImportances:
    note = f"{networks} networks with settings, and importances need {MIN_NETWORKS}"
    return RungImportances(rung=rung, epochs=epochs, networks=networks, notes=(note,))


def _levels(trial: FrozenTrial) -> dict[str, str]:
    family = trial.params.get("family")
    return {factor_of(name, family): level_of(value) for name, value in trial.params.items()}


def _choices(trials: Sequence[FrozenTrial]) -> dict[str, tuple[str, ...]]:
    """Levels of every factor that is not the same in all networks, in the order in which the study offers them."""
    offered: dict[str, dict[str, None]] = {}
    for trial in trials:
        for name, distribution in trial.distributions.items():
            assert isinstance(distribution, CategoricalDistribution)
            levels = offered.setdefault(factor_of(name, trial.params.get("family")), {})
            levels.update(dict.fromkeys(level_of(choice) for choice in distribution.choices))
    seen = [_levels(trial) for trial in trials]
    return {
        factor: tuple(levels)
        for factor, levels in sorted(offered.items())
        if len({found.get(factor, INACTIVE) for found in seen}) > 1
    }


def _in_memory(
    params: Sequence[Mapping[str, str | float]],
    target: NDArray[np.float64],
    distributions: Mapping[str, CategoricalDistribution | FloatDistribution],
) -> optuna.Study:
    """A study of the factors instead of the parameters, with one objective, to be maximised."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for own, value in zip(params, target.tolist(), strict=True):
        study.add_trial(create_trial(params=dict(own), distributions={f: distributions[f] for f in own}, value=value))
    return study


def _pedanova(
    trials: Sequence[FrozenTrial], choices: Mapping[str, tuple[str, ...]], target: NDArray[np.float64]
) -> tuple[dict[str, float], list[str]]:
    """PED-ANOVA of being among the best tenth, at least five networks.

    Watanabe et al., "PED-ANOVA" (IJCAI 2023, arXiv 2304.10255); a factor that does not apply to all networks counts
    by how many it applies to (conditional PED-ANOVA, arXiv 2601.20800). Since it always finds something, the same is
    done with the results dealt out to the networks at random: a factor is beyond chance if it is more important than
    any is in any of 19 such deals, which happens to no factor at all in 19 of 20 searches where nothing matters.

    Returns:
        Importances that sum to 1, and the factors beyond chance.
    """
    distributions = {factor: CategoricalDistribution(levels) for factor, levels in choices.items()}
    own = [{factor: level for factor, level in _levels(trial).items() if factor in choices} for trial in trials]
    evaluator = PedAnovaImportanceEvaluator(target_quantile=max(0.1, 5 / len(trials)))

    def raw(values: NDArray[np.float64]) -> dict[str, float]:
        with _quiet():
            return evaluator.evaluate(_in_memory(own, values, distributions), params=list(choices))

    found = raw(target)
    rng = np.random.default_rng(0)
    chance = max(max(raw(rng.permutation(target)).values()) for _ in range(DEALS))
    total = sum(found.values()) or 1.0
    beyond = [factor for factor, value in found.items() if value > chance]
    return {factor: float(value) / total for factor, value in found.items()}, beyond


def _fanova(
    trials: Sequence[FrozenTrial], choices: Mapping[str, tuple[str, ...]], target: NDArray[np.float64]
) -> tuple[Forest, dict[str, float]]:
    """The forest, and each factor's share of its variance, by Optuna (Hutter et al., ICML 2014).

    A factor is one axis with a cell of width 1 for each level, so that every level has the same weight (Optuna's own
    encoding of categories, one axis a level, also weighs networks that have no level or several). That a factor does
    not apply is a level, too.
    """
    levels = {factor: (*offered, INACTIVE) for factor, offered in choices.items()}
    seen = [_levels(trial) for trial in trials]
    for factor in levels:
        if all(factor in found for found in seen):
            levels[factor] = choices[factor]
    rows = [{factor: float(levels[factor].index(found.get(factor, INACTIVE))) for factor in choices} for found in seen]
    distributions = {factor: FloatDistribution(-0.5, len(offered) - 0.5) for factor, offered in levels.items()}
    with _quiet():
        singles = FanovaImportanceEvaluator(seed=0).evaluate(_in_memory(rows, target, distributions))
    points = np.array([[row[factor] for factor in sorted(choices)] for row in rows])
    sizes = {factor: len(levels[factor]) for factor in sorted(choices)}
    return Forest(points, target, sizes), {factor: float(value) for factor, value in singles.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna without its log and its advice, which the notes replace."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
