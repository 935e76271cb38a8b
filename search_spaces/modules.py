"""Graphs as modules of torch, on clips (N, C, T, H, W)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, singledispatch
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces import graph as layers
from search_spaces.convolutions import Conv3d, RandomDilationConv3d, same_padded
from search_spaces.graph import Foreign, Graph, Link, Triple, Unit


def build(unit: Unit | Foreign) -> nn.Module:
    """Returns the module of a unit, with values as torch draws them for each layer."""
    return Block(unit.graph()) if isinstance(unit, Unit) else unit.build()


class Block(nn.Module):
    """The layers of a graph, which run in its order.

    Attributes:
        graph: What it is made of.
    """

    def __init__(self, graph: Graph) -> None:
        """Makes the layers, in the order of the graph; those that have a name in common are a block of that name."""
        super().__init__()
        self.graph = graph
        items: list[tuple[str, tuple[int, ...], int]] = []  # name or "", what it takes, the node that it gives
        for i, node in enumerate(graph.nodes):
            inner, _, _ = node.scope.partition(".")
            if not inner:
                layer = operation(node.layer) if node.name else None
                if isinstance(layer, nn.Module):
                    self.add_module(node.name, layer)
                items.append((node.name, node.inputs, i))
            elif inner not in self._modules:
                part, taken, given = graph.inner(inner)
                self.add_module(inner, Block(part))
                items.append((inner, taken, given))
        self._wire(items)

    def _wire(self, items: Sequence[tuple[str, tuple[int, ...], int]]) -> None:
        """Works out what runs when, and when a tensor is let go of, since nobody needs it any more."""
        # The places of inputs come before those of nodes.
        order, first = self.graph.order(), self.graph.inputs
        self._outputs = tuple(first + i if i >= 0 else ~i for i in self.graph.outputs)
        needed, steps = set(self._outputs), []
        for name, taken, given in sorted(items, key=lambda item: -order.index(item[2])):
            places = tuple(first + source if source >= 0 else ~source for source in taken)
            done = tuple(place for place in dict.fromkeys(places) if place not in needed)
            needed.update(places)
            steps.append((name, given, places, first + given, done))
        self._steps = tuple(reversed(steps))
        self._size = first + len(self.graph.nodes)
        self._functions = self._unnamed()

    def _unnamed(self) -> dict[int, Callable[..., Tensor]]:
        return {given: operation(self.graph.nodes[given].layer) for name, given, *_ in self._steps if not name}

    def __getstate__(self) -> dict[str, Any]:
        # Functions cannot be written down.
        return {key: value for key, value in self.__dict__.items() if key != "_functions"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._functions = self._unnamed()

    def forward(self, *inputs: Any) -> Any:
        """Maps tensors, or a tuple of those that the graph takes, to what it gives."""
        values: list[Any] = [None] * self._size
        values[: self.graph.inputs] = inputs if len(inputs) == self.graph.inputs else inputs[0]
        for name, number, places, place, done in self._steps:
            # By name, so that a module that somebody replaces is replaced here, and a replica has its own.
            call = self._modules[name] if name else self._functions[number]
            values[place] = call(*[values[i] for i in places])  # type: ignore[misc]
            for i in done:
                values[i] = None
        out = self._outputs
        return values[out[0]] if len(out) == 1 else tuple([values[i] for i in out])

    def extra_repr(self) -> str:
        """Returns the layers without a name."""
        return ", ".join(str(self.graph.nodes[number].layer) for name, number, *_ in self._steps if not name)


class Network(nn.Module):
    """The chain of a spec's links.

    Attributes:
        names: Paths of the links' modules, in order.
        sides: Those of side heads: in training each sees what the next link sees, and its logits are set aside; in
            evaluation it does not run. An auxiliary classifier (Szegedy et al. 2015) is one.
    """

    def __init__(self, links: Sequence[Link]) -> None:
        """Builds every link's module under its name."""
        super().__init__()
        self.names = tuple(link.name for link in links)
        self.sides = frozenset(link.name for link in links if link.unit.aside)
        for name, unit in links:
            put(self, name, build(unit))

    def forward(self, clips: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Maps clips (N, C, T, H, W) to logits (N, classes).

        In training mode, a network with side heads returns a tuple: its logits, then those of each side head.
        """
        x: Any = clips
        sides: list[Tensor] = []
        for name in self.names:
            if name not in self.sides:
                x = self.get_submodule(name)(x)
            elif self.training:
                sides.append(self.get_submodule(name)(x))
        logits: Tensor = x
        return (logits, *sides) if sides else logits


def put(root: nn.Module, path: str, module: nn.Module) -> None:
    """Adds a module under a path, whose dots nest."""
    *parents, last = path.split(".")
    for parent in parents:
        if parent not in root._modules:
            root.add_module(parent, nn.Module())
        root = root.get_submodule(parent)
    root.add_module(last, module)


@singledispatch
def operation(layer: object) -> nn.Module | Callable[..., Tensor]:
    """Returns what computes a layer: a module where it has parameters or differs in training, else a function."""
    raise AssertionError(f"no module is known for {layer}")


@operation.register
def _(layer: layers.Convolution) -> nn.Module:
    t, h, w = layer.padding
    make: Callable[..., Conv3d] = Conv3d
    if len(layer.dilations) > 1:
        make = partial(RandomDilationConv3d, dilations=layer.dilations, padding=layer.padding)
    else:
        (dilation,) = layer.dilations
        make = partial(Conv3d, dilation=dilation, padding=(dilation * t, h, w))
    bias = layer.bias and not layer.identity
    conv = make(layer.in_planes, layer.out_planes, layer.kernel, stride=layer.stride, groups=layer.groups, bias=bias)
    conv.same, conv.identity = layer.same, layer.identity
    if layer.bias and layer.identity:
        conv.bias = nn.Parameter(torch.zeros(layer.out_planes))
    return conv


@operation.register
def _(layer: layers.BatchNorm) -> nn.Module:
    make = SmallInitNorm if layer.faint else nn.BatchNorm3d
    return make(layer.planes, eps=layer.eps, momentum=layer.momentum)


@operation.register
def _(layer: layers.Activation) -> nn.Module | Callable[..., Tensor]:
    if layer.kind == "relu":
        return nn.ReLU(layer.in_place)
    return nn.SiLU() if layer.kind == "silu" else torch.sigmoid


@operation.register
def _(layer: layers.Pooling) -> nn.Module | Callable[..., Tensor]:
    if layer.same:
        return SameMaxPool(layer.kernel, layer.stride)
    pool = nn.MaxPool3d if layer.kind == "max" else nn.AvgPool3d
    made = pool(layer.kernel, stride=layer.stride, padding=layer.padding, ceil_mode=layer.ceil)
    return made if layer.least == 0 else lambda x: made(x) if min(x.shape[3:]) >= layer.least else x


@operation.register
def _(layer: layers.SameAvgPool) -> Callable[..., Tensor]:
    return partial(same_avg_pool, kernel=layer.kernel)


@operation.register
def _(layer: layers.ValidAvgPool) -> Callable[..., Tensor]:
    def mean(x: Tensor) -> Tensor:
        return F.avg_pool3d(x, list(map(min, layer.kernel, x.shape[2:])), stride=1)

    return mean


@operation.register
def _(layer: layers.AdaptiveAvgPool) -> Callable[..., Tensor]:
    return partial(adaptive_avg_pool, grid=layer.grid)


@operation.register
def _(layer: layers.AuxPool) -> Callable[..., Tensor]:
    def mean(x: Tensor) -> Tensor:
        if min(x.shape[3:]) < layer.cells:
            return F.adaptive_avg_pool3d(x, (x.shape[2], layer.grid, layer.grid))
        return F.avg_pool3d(x, (1, 5, 5), stride=(1, 3, 3))

    return mean


@operation.register
def _(layer: layers.Mean) -> Callable[..., Tensor]:
    axes = tuple(axis + 1 for axis in layer.axes)
    return lambda x: x.mean(axes)


@operation.register
def _(layer: layers.GlobalMean) -> Callable[..., Tensor]:
    # In float32 under a CPU's autocast, as a mean is not.
    if layer.keep:
        return lambda x: F.adaptive_avg_pool3d(x, 1)
    return lambda x: F.adaptive_avg_pool3d(x, 1).flatten(1)


@operation.register
def _(layer: layers.Maximum) -> Callable[..., Tensor]:
    return lambda x: x.amax(layer.axis + 1)


@operation.register
def _(layer: layers.Linear) -> nn.Module:
    return nn.Linear(layer.in_features, layer.out_features, bias=layer.bias)


@operation.register
def _(layer: layers.Dropout) -> nn.Module:
    return nn.Dropout(layer.share)


@operation.register
def _(layer: layers.Flatten) -> Callable[..., Tensor]:
    return lambda x: x.flatten(1)


@operation.register
def _(layer: layers.PlanesLast) -> Callable[..., Tensor]:
    return lambda x: x.movedim(1, -1)


@operation.register
def _(layer: layers.Subsample) -> Callable[..., Tensor]:
    t, h, w = layer.stride

    def seen(x: Tensor) -> Tensor:
        lacking = layer.planes - x.shape[1] if layer.planes else 0
        x = x[:, : layer.planes or None, ::t, ::h, ::w]
        return F.pad(x, (0, 0, 0, 0, 0, 0, 0, lacking)) if lacking > 0 else x

    return seen


@operation.register
def _(layer: layers.SlowFrames) -> Callable[..., Tensor]:
    def seen(x: Tensor) -> Tensor:
        layer.check(x.shape[2])
        return x.index_select(2, torch.tensor(slow_frames(x.shape[2], layer.alpha), device=x.device))

    return seen


@operation.register
def _(layer: layers.StackedFrames) -> Callable[..., Tensor]:
    return partial(stacked_frames, alpha=layer.alpha)


@operation.register
def _(layer: layers.RequireFrames) -> Callable[..., Tensor]:
    def checked(x: Tensor) -> Tensor:
        layer.check(x.shape[2])
        return x

    return checked


@operation.register
def _(layer: layers.Lookup) -> nn.Module:
    return DotProductAttention()


@operation.register
def _(layer: layers.Sum) -> Callable[..., Tensor]:
    # In place is safe where a branch ends in a batch norm, a sum or a product, none of which keeps its output.
    return Tensor.add_ if layer.in_place else torch.add


@operation.register
def _(layer: layers.Concat) -> Callable[..., Tensor]:
    return lambda *planes: torch.cat(planes, 1)


@operation.register
def _(layer: layers.ScaleChannels) -> Callable[..., Tensor]:
    return lambda x, factors: x * factors[:, :, None, None, None]


class SmallInitNorm(nn.BatchNorm3d):
    """The norm at the end of a residual branch that starts near nothing.

    Wang et al. start from a weight of 0. Then no other weight of the branch has a gradient in the first step, so this
    one starts from 0.1; where 2D weights are inflated, whose network the branch must not change, `inflate` sets 0.
    """

    def reset_parameters(self) -> None:
        """Sets the weight to 0.1, the bias to 0, and forgets the running statistics."""
        super().reset_parameters()
        nn.init.constant_(self.weight, 0.1)


class SameMaxPool(nn.MaxPool3d):
    """A max pool with TensorFlow's SAME padding."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, T, H, W) to (N, C, ceil(T / stride), ...)."""
        kernel, stride = self.kernel_size, self.stride
        assert isinstance(kernel, tuple)
        assert isinstance(stride, tuple)
        x, padding = same_padded(x, kernel, stride, value=-torch.inf)
        return F.max_pool3d(x, kernel, stride, padding)


class DotProductAttention(nn.Module):
    """Values averaged by the softmax of scaled products of queries and keys.

    The two matrix products have a layer of their own, so that every counter of operations finds them.
    """

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Maps queries (N, D, T, H, W), and keys and values (N, D, T, H', W'), to (N, D, T, H, W)."""
        q, k, v = queries.flatten(2), keys.flatten(2), values.flatten(2)
        shares = torch.bmm(q.transpose(1, 2) * q.shape[1] ** -0.5, k).softmax(2)
        return torch.bmm(v, shares.transpose(1, 2)).reshape(queries.shape)

    def macs(self, queries: Tensor, keys: Tensor, values: Tensor, *, out: Tensor) -> int:
        """Multiply-accumulates of one call, the whole batch."""
        return (queries.numel() + out.numel()) * keys.shape[2:].numel()


def adaptive_avg_pool(x: Tensor, grid: Triple) -> Tensor:
    """Averages each cell of a grid over (T, H, W): adaptive pooling, in windows that every exporter can write.

    Cell i of k on an axis of n places is the average from place floor(i n / k) to place ceil((i + 1) n / k).

    Args:
        x: (N, C, T, H, W).
        grid: Cells over (T, H, W).

    Returns:
        (N, C, *grid).
    """
    sizes = x.shape[2:]
    if all(size % cells == 0 for size, cells in zip(sizes, grid, strict=True)):
        return F.avg_pool3d(x, [size // cells for size, cells in zip(sizes, grid, strict=True)])
    t, h, w = ([slice(i * n // k, -(-(i + 1) * n // k)) for i in range(k)] for n, k in zip(sizes, grid, strict=True))
    cells = [x[:, :, i, j, k] for i in t for j in h for k in w]
    means = [F.avg_pool3d(cell, cell.shape[2:]).flatten(2) for cell in cells]
    return torch.cat(means, 2).reshape(*x.shape[:2], *grid)


def same_avg_pool(x: Tensor, kernel: Triple) -> Tensor:
    """Averages windows at stride 1, and keeps the size.

    Zeros around rows and columns are counted, as in torchvision's networks; frames before the first and behind the last
    are not, so that a clip of identical frames stays one.

    Args:
        x: (N, C, T, H, W).
        kernel: Odd, over (T, H, W).

    Returns:
        The same shape.
    """
    t, h, w = (size // 2 for size in kernel)
    if all(size >= window for size, window in zip(x.shape[2:], kernel, strict=True)):
        out = F.avg_pool3d(x, kernel, stride=1, padding=(t, h, w))
    else:
        # Torch's own refuses an input smaller than the window, however it is padded.
        out = F.avg_pool3d(F.pad(x, (w, w, h, h, t, t)), kernel, stride=1)
    if t == 0:
        return out
    frames, last = torch.arange(x.shape[2], device=x.device), x.shape[2] - 1
    counted = (frames + t).clamp(max=last) - (frames - t).clamp(min=0) + 1
    return out * (kernel[0] / counted)[:, None, None].to(out.dtype)


def slow_frames(frames: int, alpha: int) -> list[int]:
    """Returns which frames of a clip the slow pathway sees.

    Of T frames it sees T / alpha, rounded up: those nearest below evenly spaced positions from the first frame to the
    last, as the authors take them. (They ask for T to be a multiple of alpha. Rounded up it is what a fusion of stride
    alpha leaves of the fast pathway.)
    """
    count = -(-frames // alpha)
    return [i * (frames - 1) // max(1, count - 1) for i in range(count)]


def stacked_frames(x: Tensor, alpha: int) -> Tensor:
    """Maps (N, C, T, H, W) to (N, alpha * C, T / alpha, H, W); T is rounded up by zeros behind the last frame."""
    num, planes, frames, height, width = x.shape
    padded = F.pad(x, (0, 0, 0, 0, 0, -frames % alpha))
    # To (N, alpha, planes, T / alpha, H, W), then the two before time as one.
    apart = padded.reshape(num, planes, -1, alpha, height, width).permute(0, 3, 1, 2, 4, 5)
    return apart.reshape(num, alpha * planes, -1, height, width)


def initialise(module: nn.Module) -> None:
    """Draws weights as torchvision does: Kaiming normal by fan-out, norms at identity, linear by 0.01, biases at 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm3d):
            layer.reset_parameters()
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, 0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def draw_by_fan_out(network: nn.Module, names: tuple[str, ...]) -> None:
    """Draws the weights of linear layers whose paths end in one of some names as `initialise` does of convolutions."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear) and name.endswith(names):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


@torch.no_grad()
def initialise_by_fan_in(network: nn.Module) -> None:
    """Gives a network that was just made the initial values of an Inception network.

    Convolutions are Kaiming uniform by fan-in: what torch drew when it made them, U(-1, 1) / sqrt(fan-in), times the
    root of 6. By fan-out, as in residual networks, the 1x1x1 convolutions that reduce planes, up to 17 to one, would
    make each block's output larger than its input; running statistics do not follow until after many steps, so in
    evaluation the network would explode. Linear layers are normal by 0.01; slim's temporal convolutions are identities.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv3d):
            layer.weight.mul_(6**0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, 0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    for layer in network.modules():
        if isinstance(layer, Conv3d) and layer.identity:
            nn.init.dirac_(layer.weight)


def zero_last_norms(network: nn.Module) -> None:
    """Sets the weights of the last norm of every residual branch to 0 (Goyal et al. 2017, section 5.1)."""
    for block in network.modules():
        if isinstance(block, Block):
            for name in block.graph.last_norms():
                nn.init.zeros_(block.get_parameter(f"{name}.weight"))
