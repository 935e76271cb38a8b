"""What a network costs, exactly and before it is trained.

Counting convention: one multiply-accumulate (MAC) is 1, of convolutions and linear layers only; norms,
activations, pooling and biases are 0. The FLOPs of the papers on video networks are these MACs. All figures
are for one clip.

`cost` adds up the units of a network, each counted once for an input shape, on the meta device, where shapes
are computed and numbers are not. `count_thop` and `count_flops` count a whole network in two ways that share
no code with it or with each other; tests hold all three to the same integer.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch

# Convolutions on the meta device import this on first use, a third of a second: better spent here than in a
# cost.
import torch.fx.experimental.symbolic_shapes
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.catalogue import links
from search_spaces.layers import RandomDilationConv3d
from search_spaces.network import SideHead
from search_spaces.spec import ArchSpec, ClipError, SpecError, Unit

Shape = tuple[int, ...]

# Batch norm refuses a batch of one value a plane in training, which small clips reach in the last stage.
_BATCH = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Cost of one clip.

    Attributes:
        params: Parameters.
        macs: Multiply-accumulates in evaluation mode, every dilation of a random set included.
        train_macs: Multiply-accumulates of one forward pass in training mode, with one dilation of each set.
        activation_bytes: Bytes that a forward pass in training keeps for the backward pass, in float32: what
            grows with each clip of a batch. Parameters, running statistics and a batch's statistics are not
            in it.
    """

    params: int
    macs: int
    train_macs: int
    activation_bytes: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            params=self.params + other.params,
            macs=self.macs + other.macs,
            train_macs=self.train_macs + other.train_macs,
            activation_bytes=self.activation_bytes + other.activation_bytes,
        )


def cost(spec: ArchSpec, *, frames: int, height: int, width: int, num_classes: int) -> Cost:
    """Returns the exact cost of one clip.

    Args:
        spec: The network.
        frames: Frames of the clip.
        height: Rows, in pixels.
        width: Columns, in pixels.
        num_classes: Classes.

    Raises:
        SpecError: A size is below 1, or the clip is shorter than the network needs.
    """
    for name, value in (("frames", frames), ("height", height), ("width", width)):
        if value < 1:
            raise SpecError(f"{name} must be at least 1, but is {value}")
    shape: Any = (3, frames, height, width)
    params = macs = train_macs = 0
    kept = 0
    # What goes to the next unit, and whether a unit is known to keep it.
    between: tuple[_Between, ...] = (_Between(4 * 3 * frames * height * width, False),)
    for name, unit in links(spec, num_classes=num_classes):
        try:
            part, shape, keeps, gives = _unit_cost(unit, shape)
        except (RuntimeError, ClipError) as error:
            reason = str(error).splitlines()[0]
            raise ClipError(
                f"a clip of {frames}x{height}x{width} is too short or too small for the network: at {name}, {reason}"
            ) from error
        params += part.params
        macs += part.macs
        train_macs += part.train_macs
        # An activation between two units counts once, if any unit keeps it.
        kept += part.activation_bytes
        kept += sum(b.size for b, asked in zip(between, keeps, strict=True) if asked and not b.kept)
        between = tuple(b._replace(kept=b.kept or asked) for b, asked in zip(between, keeps, strict=True))
        between = tuple(given if isinstance(given, _Between) else between[given] for given in gives)
    return Cost(params=params, macs=macs, train_macs=train_macs, activation_bytes=kept)


def count_thop(module: nn.Module, shape: Shape) -> int:
    """Counts MACs with thop, in the module's mode.

    Args:
        module: A network; it is copied, because thop leaves buffers behind.
        shape: Shape of the input, batch included.

    Returns:
        MACs of convolutions and linear layers.
    """
    with warnings.catch_warnings():
        # thop 0.1.1 reads torch's version with distutils.
        warnings.simplefilter("ignore", DeprecationWarning)
        from thop import profile

    copied = copy.deepcopy(module).to("meta")
    handlers: dict[type[nn.Module], Any] = {}
    for layer in copied.modules():
        if any(True for _ in layer.children()):
            continue
        if isinstance(layer, _ConvNd):
            # thop looks a layer's exact type up, so a subclass of a convolution would count as nothing. It
            # also always profiles in evaluation mode, so the mode to count in is handed over.
            handlers[type(layer)] = partial(_thop_conv, training=module.training)
        elif hasattr(layer, "macs"):
            handlers[type(layer)] = _thop_own
        elif not isinstance(layer, nn.Linear):
            handlers[type(layer)] = _thop_nothing
    total, _ = profile(copied, inputs=(torch.empty(shape, device="meta"),), custom_ops=handlers, verbose=False)
    return int(total)


def count_flops(module: nn.Module, shape: Shape) -> int:
    """Counts MACs with torch's FlopCounterMode, which sees the operators that run, in the module's mode.

    Args:
        module: A network; it is copied, because training mode changes running statistics.
        shape: Shape of the input, batch included.

    Returns:
        MACs of convolutions and linear layers, half of what the counter calls floating point operations.
    """
    copied = copy.deepcopy(module).to("meta")
    with torch.no_grad(), torch.random.fork_rng(devices=[]), FlopCounterMode(display=False) as counter:
        copied(torch.empty(shape, device="meta"))
    return int(counter.get_total_flops()) // 2


@lru_cache(maxsize=200_000)
def _unit_cost(unit: Unit, shape: Any) -> tuple[Cost, Any, tuple[bool, ...], tuple[_Between | int, ...]]:
    """Counts one unit on an input (C, T, H, W), or a tuple of such.

    Returns:
        Its cost, with activations that it makes and keeps; the shape of its output; which of its inputs it keeps; and
        for each of its outputs its size and whether the unit keeps it, or the index of the input that it is.
    """
    with torch.device("meta"):
        module = unit.build()
        x = _inputs(shape)
    macs = {True: 0, False: 0}

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        for training in macs:
            macs[training] += _layer_macs(layer, inputs, out, training=training) // _BATCH

    for layer in module.modules():
        if _counted(layer):
            layer.register_forward_hook(count)
        _stand_in(layer)

    # Storages by their address: views and in-place results share one. The tensors are held so that none is
    # reused.
    kept: dict[int, tuple[Tensor, int]] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = (tensor, tensor.untyped_storage().nbytes())
        return tensor

    # Drawing dilations must not move the generator of whoever asks for a cost.
    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        out = module(x)
    aside = isinstance(module, SideHead)
    if aside:
        macs[False] = 0
    inputs = [_key(t) for t in _tensors(x)]
    outside = {*inputs, *(_key(t) for t in (*module.parameters(), *module.buffers()))}
    # What has no batch dimension (batch statistics) does not grow with the clips.
    held = sum(size for key, (t, size) in kept.items() if key not in outside and t.dim() > 1) // _BATCH
    gives: tuple[_Between | int, ...] = tuple(
        inputs.index(_key(t)) if _key(t) in inputs else _Between(t.untyped_storage().nbytes() // _BATCH, _key(t) in kept)
        for t in _tensors(out)
    )
    return (
        Cost(
            params=sum(p.numel() for p in module.parameters()),
            macs=macs[False],
            train_macs=macs[True],
            activation_bytes=held,
        ),
        shape if aside else _shape(out),
        tuple(key in kept for key in inputs),
        tuple(range(len(inputs))) if aside else gives,
    )


class _Between(NamedTuple):
    """An activation that a unit hands to the next one: its bytes for one clip, and whether it is kept."""

    size: int
    kept: bool


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _inputs(shape: Any) -> Any:
    if isinstance(shape[0], int):
        return torch.empty((_BATCH, *shape)).requires_grad_()
    return tuple(_inputs(part) for part in shape)


def _tensors(value: Any) -> tuple[Tensor, ...]:
    return (value,) if isinstance(value, Tensor) else tuple(value)


def _shape(value: Any) -> Any:
    return tuple(value.shape[1:]) if isinstance(value, Tensor) else tuple(_shape(part) for part in value)


def _counted(layer: nn.Module) -> bool:
    return isinstance(layer, _ConvNd | nn.Linear) or hasattr(layer, "macs")


def _layer_macs(layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor, *, training: bool) -> int:
    """MACs of one call of a leaf, for the whole batch."""
    own = getattr(layer, "macs", None)
    if own is not None:
        return int(own(*inputs, out=out))
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return out.numel() * weight[0].numel() * _passes(layer, training=training)


class _Keep(torch.autograd.Function):
    """A layer as far as cost goes: a new tensor, and the input kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, shape: Shape) -> Tensor:
        ctx.save_for_backward(x)
        return x.new_empty(shape)


def _stand_in(layer: nn.Module) -> None:
    """Replaces the computation of layers whose own on the meta device is a chain of many operators.

    Those chains take 20 times as long, and their first run imports torch's compiler, a second by itself. What
    the stand-ins keep is held to what real tensors keep by a test.
    """
    stand_in: Callable[[Tensor], Any]
    if isinstance(layer, _BatchNorm):
        stand_in = lambda x: _Keep.apply(x, layer.weight, x.shape)  # noqa: E731
    elif isinstance(layer, nn.Linear):
        stand_in = lambda x: _Keep.apply(x, layer.weight, (*x.shape[:-1], layer.out_features))  # noqa: E731
    elif isinstance(layer, nn.AdaptiveAvgPool3d) and layer.output_size == 1:
        stand_in = lambda x: x.new_empty((*x.shape[:2], 1, 1, 1))  # noqa: E731
    else:
        return
    layer.forward = stand_in  # type: ignore[method-assign, assignment]


def _passes(layer: nn.Module, *, training: bool) -> int:
    return layer.passes(training=training) if isinstance(layer, RandomDilationConv3d) else 1


def _thop_conv(layer: Any, x: tuple[Tensor, ...], y: Tensor, *, training: bool) -> None:
    per_output = (layer.in_channels // layer.groups) * torch.Size(layer.kernel_size).numel()
    layer.total_ops += y.numel() * per_output * _passes(layer, training=training)


def _thop_nothing(layer: Any, x: tuple[Tensor, ...], y: Tensor) -> None:
    layer.total_ops += 0


def _thop_own(layer: Any, x: tuple[Tensor, ...], y: Tensor) -> None:
    layer.total_ops += layer.macs(*x, out=y)
