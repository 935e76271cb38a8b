"""Cells of NAS-Bench-201 and NAS-Bench-101 (which EC-NAS trains): exact MACs from their published skeletons.

MACs are those of convolutions and the last linear layer; pooling, normalisation and additions count nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

OPS_201 = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
OPS_101 = ("conv3x3", "conv1x1", "maxpool3x3")  # as numbered in EC-NAS
INPUT, OUTPUT = -1, -2
EDGES = tuple(itertools.combinations(range(5), 2))  # of a cell with five vertices
MAX_EDGES = 9


def macs_201(ops: Sequence[int], side: int = 32) -> int:
    """MACs of convolutions of a NAS-Bench-201 network: 7.78 M without any in its cells, 220.12 M with 3x3 everywhere.

    Args:
        ops: Index into `OPS_201` for each of the six edges.
        side: Height and width of the input.
    """
    taps = sum({"nor_conv_1x1": 1, "nor_conv_3x3": 9}.get(OPS_201[op], 0) for op in ops)
    total, pixels, planes = 3 * 16 * 9 * side**2, side**2, 16
    for stage in range(3):
        if stage:  # a residual block with stride 2: two 3x3, and 1x1 beside them
            pixels //= 4
            total += (planes * 2 * planes * 9 + (2 * planes) ** 2 * 9 + planes * 2 * planes) * pixels
            planes *= 2
        total += 5 * taps * planes**2 * pixels
    return total


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of NAS-Bench-101: what is on no path from input to output is cut away.

    Attributes:
        matrix: Upper triangular, 1 where there is an edge.
        ops: For each vertex; the first is the input, the last the output.
    """

    matrix: tuple[tuple[int, ...], ...]
    ops: tuple[int, ...]

    @classmethod
    def of(cls, matrix: Sequence[Sequence[int]], ops: Sequence[int]) -> Cell:
        """A cell without idle vertices.

        Raises:
            ValueError: No path leads from the input to the output.
        """
        used = on_path(matrix)
        if not used:
            raise ValueError("no path leads from the input to the output")
        return cls(tuple(tuple(matrix[i][j] for j in used) for i in used), tuple(ops[i] for i in used))

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for cells that are equal but for the order of their vertices."""
        n = len(self.ops)
        orders = [(0, *inner, n - 1) for inner in itertools.permutations(range(1, n - 1))]
        return min(
            (n, *(self.ops[i] for i in order), *(self.matrix[i][j] for i in order for j in order)) for order in orders
        )


def on_path(matrix: Sequence[Sequence[int]]) -> list[int]:
    """Vertices on a path from the first to the last, with both; [] without a path."""
    n = len(matrix)
    ahead, back = {0}, {n - 1}
    for i in range(n):
        if i in ahead:
            ahead |= {j for j in range(n) if matrix[i][j]}
    for j in reversed(range(n)):
        if j in back:
            back |= {i for i in range(n) if matrix[i][j]}
    used = sorted(ahead & back)
    return used if 0 in used and n - 1 in used else []


def encodings() -> Iterator[tuple[tuple[int, ...], tuple[object, ...]]]:
    """Yields (settings, key of the cell) of all cells of five vertices: ten edges, then operations, -1 if idle.

    Cells with fewer vertices are among them, with vertices on no path.
    """
    for edges in itertools.product((0, 1), repeat=len(EDGES)):
        matrix = [[0] * 5 for _ in range(5)]
        for (i, j), edge in zip(EDGES, edges, strict=True):
            matrix[i][j] = edge
        used = on_path(matrix)
        if not used or sum(matrix[i][j] for i in used for j in used) > MAX_EDGES:
            continue
        inner = [v for v in used if 0 < v < 4]
        for ops in itertools.product(range(len(OPS_101)), repeat=len(inner)):
            at = dict(zip(inner, ops, strict=True))
            cell = Cell.of(matrix, (INPUT, *(at.get(v, 0) for v in (1, 2, 3)), OUTPUT))
            yield (*edges, *(at.get(v, -1) for v in (1, 2, 3))), cell.key


def cost_101(cell: Cell) -> tuple[int, int]:
    """Parameters and MACs of the network of a cell on CIFAR-10: three stacks of three cells, 128 planes, then doubled.

    The parameters are here to check the count: they equal those that EC-NAS states for each of its cells.
    """
    params, macs, planes, pixels = 27 * 128 + 2 * 128, 27 * 128 * 32 * 32, 128, 32 * 32
    for stack in range(3):
        out = 128 * 2**stack
        for _ in range(3):
            weights, norms = _cell_101(cell, planes, out)
            params, macs, planes = params + weights + norms, macs + weights * pixels, out
        pixels //= 4
    return params + planes * 10 + 10, macs + planes * 10


def _cell_101(cell: Cell, planes: int, out: int) -> tuple[int, int]:
    """Weights of the convolutions of one cell, and parameters of their normalisations."""
    n, at = len(cell.ops), cell.matrix
    widths = _widths(cell, planes, out)
    convolutions: list[tuple[int, int, int]] = []  # side, planes in, planes out
    for v in range(1, n - 1):
        if at[0][v]:
            convolutions.append((1, planes, widths[v]))  # the input is projected
        if OPS_101[cell.ops[v]] != "maxpool3x3":
            convolutions.append((3 if OPS_101[cell.ops[v]] == "conv3x3" else 1, widths[v], widths[v]))
    if at[0][n - 1]:
        convolutions.append((1, planes, out))
    return sum(k * k * a * b for k, a, b in convolutions), sum(2 * b for _, _, b in convolutions)


def _widths(cell: Cell, planes: int, out: int) -> list[int]:
    """Planes of each vertex: those that the output concatenates share `out`, others are as wide as their widest."""
    n, at = len(cell.ops), cell.matrix
    widths = [planes, *[0] * (n - 2), out]
    if n == 2:
        return widths
    share, rest = divmod(out, sum(at[v][n - 1] for v in range(1, n - 1)))
    for v in range(1, n - 1):
        if at[v][n - 1]:
            widths[v] = share + (1 if rest else 0)
            rest -= bool(rest)
    for v in range(n - 3, 0, -1):
        if not at[v][n - 1]:
            widths[v] = max(widths[w] for w in range(v + 1, n - 1) if at[v][w])
    return widths
