"""A network as a value: a graph of layers, free of torch.

A unit of a network is a `Graph`, whose nodes are layers that say what they compute. Everything else reads it: the
module (`search_spaces.modules`), its exact cost (`nas.cost`), the names and shapes of its tensors
(`search_spaces.inflate`). Nodes stand in the order in which the modules of a network register their parameters, which
need not be that in which they run. Shapes are of one clip: (C, T, H, W), fewer dimensions behind a mean.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from search_spaces.errors import ClipError
from search_spaces.operators import NORM_EPS, NORM_MOMENTUM, TemporalOp

if TYPE_CHECKING:
    from torch import nn

Triple = tuple[int, int, int]
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Convolution:
    """A convolution over (T, H, W).

    Attributes:
        in_planes: Planes in.
        out_planes: Planes out.
        kernel: Over (T, H, W).
        stride: Over (T, H, W).
        padding: Zeros on each side of (T, H, W) at a dilation of 1; over frames they grow with it.
        groups: Groups of planes that are convolved apart.
        dilations: Of the kernel over frames; of several, one is drawn for each mini-batch in training, and in
            evaluation the outputs of all are averaged.
        bias: Whether it has one.
        same: TensorFlow's SAME padding, by the size of the input, whatever `padding` is.
        identity: It begins as the identity, with a bias of 0.
    """

    in_planes: int
    out_planes: int
    kernel: Triple = (1, 1, 1)
    stride: Triple = (1, 1, 1)
    padding: Triple = (0, 0, 0)
    groups: int = 1
    dilations: tuple[int, ...] = (1,)
    bias: bool = False
    same: bool = False
    identity: bool = False


@dataclass(frozen=True, slots=True)
class BatchNorm:
    """A batch norm.

    Attributes:
        planes: Planes in and out.
        eps: Added to the variance. It changes neither parameters nor cost, but outputs.
        momentum: Share of a batch in the running statistics.
        last: It is at the end of a residual branch, which adds nothing where the norm's weight is 0.
        faint: Its weight begins at 0.1; see `modules.SmallInitNorm`.
    """

    planes: int
    eps: float = NORM_EPS
    momentum: float = NORM_MOMENTUM
    last: bool = False
    faint: bool = False


@dataclass(frozen=True, slots=True)
class Activation:
    """An activation; `in_place` is that of ReLU, where nobody else needs what goes in."""

    kind: Literal["relu", "silu", "sigmoid"] = "relu"
    in_place: bool = True


@dataclass(frozen=True, slots=True)
class Pooling:
    """A max or average pool.

    Attributes:
        kind: `max` or `avg`.
        kernel: Over (T, H, W).
        stride: Over (T, H, W).
        padding: On each side of (T, H, W).
        ceil: Sizes are rounded up instead of down.
        same: TensorFlow's SAME padding, of a max pool.
        least: Rows and columns that a map has to have; a smaller one is left as it is.
    """

    kind: Literal["max", "avg"]
    kernel: Triple
    stride: Triple
    padding: Triple = (0, 0, 0)
    ceil: bool = False
    same: bool = False
    least: int = 0


@dataclass(frozen=True, slots=True)
class SameAvgPool:
    """The average over windows at stride 1 that keeps the size; see `modules.same_avg_pool`."""

    kernel: Triple


@dataclass(frozen=True, slots=True)
class ValidAvgPool:
    """The average over windows at stride 1 without padding; a window is no larger than what is left of the clip."""

    kernel: Triple


@dataclass(frozen=True, slots=True)
class AdaptiveAvgPool:
    """The average of each cell of a grid over (T, H, W)."""

    grid: Triple


@dataclass(frozen=True, slots=True)
class AuxPool:
    """The average over 1x5x5 at stride 3, of maps of fewer than `cells` rows or columns that of a grid.

    Attributes:
        cells: Rows and columns of a map that is averaged by windows.
        grid: Rows and columns that others are averaged to.
    """

    cells: int
    grid: int


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean over axes of one clip, such as 1, 2, 3 for (T, H, W)."""

    axes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GlobalMean:
    """The mean over space and time before a classifier, by torch's pooling; `keep` leaves (C, 1, 1, 1)."""

    keep: bool = False


@dataclass(frozen=True, slots=True)
class Maximum:
    """The largest value along an axis of one clip."""

    axis: int


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer on the last axis."""

    in_features: int
    out_features: int
    bias: bool = True


@dataclass(frozen=True, slots=True)
class Dropout:
    """A dropout of a share of values, in training."""

    share: float


@dataclass(frozen=True, slots=True)
class Flatten:
    """All values of one clip in a row."""


@dataclass(frozen=True, slots=True)
class PlanesLast:
    """Maps (C, T, H, W) as (T, H, W, C), for a linear layer at every place."""


@dataclass(frozen=True, slots=True)
class Subsample:
    """The input at every stride-th place over (T, H, W).

    Attributes:
        stride: Over (T, H, W).
        planes: Planes out: those that are too many are left out, those that are missing are zeros; 0 keeps them.
    """

    stride: Triple
    planes: int = 0


@dataclass(frozen=True, slots=True)
class SlowFrames:
    """The frames that the slow pathway sees; see `modules.slow_frames`."""

    alpha: int

    def check(self, frames: int) -> None:
        """Raises ClipError for a clip of fewer frames than it needs."""
        if frames < self.alpha:
            raise ClipError(f"the slow pathway needs a clip of at least alpha = {self.alpha} frames, but got {frames}")


@dataclass(frozen=True, slots=True)
class StackedFrames:
    """Every alpha frames stacked as planes; where frames are no multiple of alpha, zeros follow the last one."""

    alpha: int


@dataclass(frozen=True, slots=True)
class RequireFrames:
    """Its input, which must have a number of frames."""

    frames: int

    def check(self, frames: int) -> None:
        """Raises ClipError for a clip of fewer frames than it needs."""
        if frames < self.frames:
            raise ClipError(f"the stem needs a clip of at least {self.frames} frames, but got {frames}")


@dataclass(frozen=True, slots=True)
class Lookup:
    """Values averaged by the softmax of scaled products of queries and keys; takes queries, keys and values."""


@dataclass(frozen=True, slots=True)
class Sum:
    """The sum of two inputs; `in_place`, the second is added to the first in its own memory."""

    in_place: bool = False


@dataclass(frozen=True, slots=True)
class Concat:
    """The planes of all inputs, joined in order."""


@dataclass(frozen=True, slots=True)
class ScaleChannels:
    """Maps (C, T, H, W) times factors (C,)."""


Layer = (
    Convolution
    | BatchNorm
    | Activation
    | Pooling
    | SameAvgPool
    | ValidAvgPool
    | AdaptiveAvgPool
    | AuxPool
    | Mean
    | GlobalMean
    | Maximum
    | Linear
    | Dropout
    | Flatten
    | PlanesLast
    | Subsample
    | SlowFrames
    | StackedFrames
    | RequireFrames
    | Lookup
    | Sum
    | Concat
    | ScaleChannels
)


class Node(NamedTuple):
    """A layer in its place.

    Attributes:
        layer: What it computes.
        inputs: Nodes whose outputs it takes, by index; input i of the graph is `~i`.
        name: Path of its module in the unit; empty for what is no module.
        scope: Path of the module that it is in.
    """

    layer: Layer
    inputs: tuple[int, ...]
    name: str = ""
    scope: str = ""


class TemporalSite(NamedTuple):
    """A temporal operator in its place: the path of its layers in the unit, and the planes between those of (2+1)D."""

    path: str
    op: TemporalOp
    midplanes: int = 0


@dataclass(frozen=True, slots=True)
class Graph:
    """A unit of a network.

    Attributes:
        nodes: In the order in which their parameters are registered.
        outputs: Nodes that it gives, by index, or `~i` for its input i.
        inputs: Tensors that it takes.
        sites: Where temporal operators stand.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]
    inputs: int = 1
    sites: tuple[TemporalSite, ...] = ()

    def order(self) -> tuple[int, ...]:
        """Returns the indices of the nodes in an order in which they can run: theirs as far as possible."""
        if all(source < i for i, node in enumerate(self.nodes) for source in node.inputs):
            return tuple(range(len(self.nodes)))
        done: list[int] = []
        waiting = dict(enumerate(self.nodes))
        while waiting:
            i = next(i for i, node in waiting.items() if not any(source in waiting for source in node.inputs))
            done.append(i)
            del waiting[i]
        return tuple(done)

    def inner(self, name: str) -> tuple[Graph, tuple[int, ...], int]:
        """Returns the part in the module of a name as a graph, the nodes that it takes, and the one that it gives."""
        inside = [i for i, node in enumerate(self.nodes) if node.scope.partition(".")[0] == name]
        places = {source: i for i, source in enumerate(inside)}
        outside = [node for i, node in enumerate(self.nodes) if i not in places]
        (given,) = (i for i in inside if i in self.outputs or any(i in node.inputs for node in outside))
        taken = tuple(dict.fromkeys(j for i in inside for j in self.nodes[i].inputs if j not in places))
        places |= {source: ~i for i, source in enumerate(taken)}
        start = len(name) + 1
        nodes = tuple(
            Node(layer, tuple(places[j] for j in inputs), path[start:], scope[start:])
            for layer, inputs, path, scope in (self.nodes[i] for i in inside)
        )
        return Graph(nodes, (places[given],), len(taken)), taken, given

    def tensors(self) -> dict[str, Shape]:
        """Returns the shapes of parameters and of the statistics of norms, by name, in order."""
        return {join(node.name, name): shape for node in self.nodes for name, shape in _tensors(node.layer).items()}

    def last_norms(self) -> tuple[str, ...]:
        """Returns the paths of the norms at the end of residual branches."""
        return tuple(node.name for node in self.nodes if isinstance(node.layer, BatchNorm) and node.layer.last)


STATISTICS = ("running_mean", "running_var")


def _tensors(layer: Layer) -> Mapping[str, Shape]:
    if isinstance(layer, BatchNorm):
        return dict.fromkeys(("weight", "bias", *STATISTICS), (layer.planes,))
    if isinstance(layer, Convolution):
        weight = (layer.out_planes, layer.in_planes // layer.groups, *layer.kernel)
        return {"weight": weight, **({"bias": (layer.out_planes,)} if layer.bias else {})}
    if isinstance(layer, Linear):
        bias = {"bias": (layer.out_features,)} if layer.bias else {}
        return {"weight": (layer.out_features, layer.in_features), **bias}
    return {}


class GraphBuilder:
    """A graph that is being drawn, node by node."""

    def __init__(self, inputs: int = 1) -> None:
        """Begins an empty graph with a number of inputs."""
        self._nodes: list[Node] = []
        self._sites: list[TemporalSite] = []
        self._inputs = inputs

    def add(self, layer: Layer, *inputs: int, name: str = "", scope: str = "") -> int:
        """Adds a node; returns its index. One without a name has a scope, the path of the module that it is in."""
        self._nodes.append(Node(layer, inputs, name, name.rpartition(".")[0] if name else scope))
        return len(self._nodes) - 1

    def rewire(self, node: int, *inputs: int) -> None:
        """Gives a node other inputs, which may have been added behind it."""
        self._nodes[node] = self._nodes[node]._replace(inputs=inputs)

    def mark(self, path: str, op: TemporalOp, midplanes: int = 0) -> None:
        """Notes that a temporal operator stands at a path."""
        self._sites.append(TemporalSite(path, op, midplanes))

    def graph(self, *outputs: int) -> Graph:
        """Returns what was drawn."""
        return Graph(tuple(self._nodes), outputs, self._inputs, tuple(self._sites))


def join(*parts: str) -> str:
    """Returns a path of names; empty ones are left out."""
    return ".".join(part for part in parts if part)


class Unit(ABC):
    """A link of the chain that a network is, as a value; equal units have equal cost on equal input shapes."""

    __slots__ = ()
    inputs: ClassVar[int] = 1
    """Tensors that it takes."""
    aside: ClassVar[bool] = False
    """In training it sees what the next link sees, and its logits are set aside; in evaluation it rests."""

    @abstractmethod
    def draw(self, builder: GraphBuilder, *inputs: int, name: str = "") -> tuple[int, ...]:
        """Draws its layers, with a prefix of their names; returns the nodes that it gives."""

    def graph(self) -> Graph:
        """Returns it as a graph."""
        builder = GraphBuilder(self.inputs)
        return builder.graph(*self.draw(builder, *(~i for i in range(self.inputs))))


class Foreign(ABC):
    """A unit whose layers are another library's, which makes its module; its cost is measured."""

    __slots__ = ()
    aside: ClassVar[bool] = False

    @abstractmethod
    def build(self) -> nn.Module:
        """Makes the module."""

    @property
    @abstractmethod
    def lasting(self) -> Hashable:
        """What its cost follows from, besides its input's shape and the versions of libraries."""

    def stretched(self) -> Stretched | None:
        """Returns it as a variation of a unit that stands for several; None if it is none."""
        return None


class Link(NamedTuple):
    """A unit and the path of its module in the network; dots nest."""

    name: str
    unit: Unit | Foreign


class Stretched(NamedTuple):
    """A unit that differs from another one in the kernel and the dilations of its temporal convolutions alone.

    Attributes:
        unit: The other, whose temporal convolutions each have a set of two dilations.
        measured: Its temporal kernel.
        kernel: The temporal kernel.
        passes: Dilations.
    """

    unit: Foreign
    measured: int
    kernel: int
    passes: int
