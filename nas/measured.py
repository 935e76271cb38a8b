"""What any unit costs: it is built and run on the meta device, where shapes are computed and numbers are not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from nas.counted import Cost, Counted, Made
from nas.shapes import RememberedShapes
from search_spaces.layers import RandomDilationConv3d
from search_spaces.network import SideHead
from search_spaces.spec import Unit

# Batch norm refuses a batch of one value a plane in training, which small clips reach in the last stage.
_BATCH = 2

_shapes = RememberedShapes()


# Whoever asks may be evaluating, where autograd keeps nothing; what is found here is remembered for good.
@torch.inference_mode(False)
@torch.enable_grad()
def measured(unit: Unit, shape: Any) -> tuple[Counted, int]:
    """Counts one unit.

    Args:
        unit: The unit.
        shape: Of its input, (C, T, H, W) or a tuple of such.

    Returns:
        What is counted; and the weights of its convolutions with random dilations, which are part of its parameters.
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

    # Storages by their address: views and in-place results share one. The tensors are held so that none is
    # reused.
    kept: dict[int, tuple[Tensor, int]] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[_key(tensor)] = (tensor, tensor.untyped_storage().nbytes())
        return tensor

    # Drawing dilations must not move the generator of whoever asks for a cost.
    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), _shapes:
        out = module(x)
    aside = isinstance(module, SideHead)
    if aside:
        macs[False] = 0
    inputs = [_key(t) for t in _each(x)]
    outside = {*inputs, *(_key(t) for t in (*module.parameters(), *module.buffers()))}
    # What has no batch dimension (batch statistics) does not grow with the clips.
    held = sum(size for key, (t, size) in kept.items() if key not in outside and t.dim() > 1) // _BATCH
    gives = tuple(
        inputs.index(_key(t)) if _key(t) in inputs else Made(t.untyped_storage().nbytes() // _BATCH, _key(t) in kept)
        for t in _each(out)
    )
    counted = Counted(
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
    return counted, sum(m.weight.numel() for m in module.modules() if isinstance(m, RandomDilationConv3d))


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _inputs(shape: Any) -> Any:
    if isinstance(shape[0], int):
        return torch.empty((_BATCH, *shape)).requires_grad_()
    return tuple(_inputs(part) for part in shape)


def _each(value: Any) -> tuple[Tensor, ...]:
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


def _passes(layer: nn.Module, *, training: bool) -> int:
    return layer.passes(training=training) if isinstance(layer, RandomDilationConv3d) else 1
