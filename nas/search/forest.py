"""The random forest behind fANOVA, and what pairs of factors do in it: Optuna gives single factors only.

F. Hutter, H. Hoos, K. Leyton-Brown: "An Efficient Approach for Assessing Hyperparameter Importance" (ICML 2014): a tree
is constant on boxes, so means and variances over any of its axes are sums over its leaves.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
