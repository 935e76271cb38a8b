"""Costs of units that are measured: built and run on the meta device, where shapes are computed and nothing else."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode

from nas.cost.layers import Cost, Counted, NewOutput
from search_spaces.convolutions import RandomDilationConv3d
from search_spaces.graph import Foreign, Unit
from search_spaces.modules import build

# A bound, so that a process that counts for days does not grow: some thousand operators differ in a usual study.
_MOST = 100_000


class _TensorMeta(NamedTuple):
    """What a tensor on the meta device is."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def again(self) -> Tensor:
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device="meta")


class RememberedShapes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Operators on the meta device, each computed once for arguments of the same shapes and values.

    Torch computes shapes of many operators in Python, as chains of smaller operators: 0.3 ms for a ReLU, 2 ms for a
    batch norm. Here they are computed once and made anew in microseconds. What autograd keeps for the backward pass is
    decided before operators come here, so that stays torch's own.
    """

    def __init__(self) -> None:
        """Makes it; nothing is remembered yet."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._known: dict[Hashable, _TensorMeta | tuple[_TensorMeta | None, ...] | None] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # There is nothing to keep torch's compiler from, and keeping it would import it, which takes a second.
        return False

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        gives = _gives(func)
        if gives == "view":
            return func(*args, **kwargs)
        try:
            key = (id(func), *map(_key, args), *((name, _key(value)) for name, value in kwargs.items()))
            known = self._known.get(key, _UNKNOWN)
        except TypeError:
            return func(*args, **kwargs)
        if known is None:
            return args[0]
        if known is not _UNKNOWN:
            return known.again() if isinstance(known, _TensorMeta) else tuple(made and made.again() for made in known)
        out = func(*args, **kwargs)
        if len(self._known) >= _MOST:
            self._known.clear()
        if gives == "first":
            self._known[key] = None
        elif isinstance(out, Tensor):
            if _is_plain(out):
                self._known[key] = _made(out)
        elif isinstance(out, tuple) and all(x is None or (isinstance(x, Tensor) and _is_plain(x)) for x in out):
            self._known[key] = tuple(None if x is None else _made(x) for x in out)
        return out


_UNKNOWN: Any = object()
_KINDS: dict[int, str] = {}


def _gives(func: Any) -> str:
    """Returns whether an operator gives its `first` argument, changed; a `view` or anything else; or what is `new`."""
    # By identity: operators live as long as torch does, and hashing one takes longer than all else here.
    found = _KINDS.get(id(func))
    if found is None:
        returns = func._schema.returns
        aliases = [r.alias_info for r in returns]
        first = func._schema.arguments[0].alias_info if func._schema.arguments else None
        if not returns or not any(aliases):
            found = "new" if returns else "view"
        elif len(returns) == 1 and aliases[0].is_write and first is not None and first.is_write:
            found = "first"
        else:
            found = "view"
        _KINDS[id(func)] = found
    return found


def _key(value: Any) -> Hashable:
    """Returns what a result can depend on; raises TypeError if that is more than shapes and numbers."""
    if isinstance(value, Tensor):
        if not value.is_meta:
            raise TypeError
        return (value.shape, value.stride(), value.dtype)
    if isinstance(value, list | tuple):
        return tuple(map(_key, value))
    # 1 and 1.0 are equal, but what is multiplied by them need not be.
    return type(value), value


def _is_plain(tensor: Tensor) -> bool:
    """Returns whether a tensor on the meta device has a storage that its shape and strides explain."""
    return tensor.is_meta and tensor.layout is torch.strided and int(tensor.storage_offset()) == 0


def _made(tensor: Tensor) -> _TensorMeta:
    return _TensorMeta(tuple(tensor.shape), tensor.stride(), tensor.dtype)


# Batch norm refuses a batch of one value a plane in training, which small clips reach in the last stage.
_BATCH = 2
_shapes = RememberedShapes()


# Whoever asks may be evaluating, where autograd keeps nothing; what is found here is remembered for good.
@torch.inference_mode(False)
@torch.enable_grad()
def measured(unit: Unit | Foreign, shape: Any) -> tuple[Counted, int]:
    """Counts one unit.

    Args:
        unit: The unit.
        shape: Of its input, (C, T, H, W) or a tuple of such.

    Returns:
        What is counted; and the weights of its convolutions with random dilations, which are part of its parameters.
    """
    with torch.device("meta"):
        module = build(unit)
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
        kept[_key_of(tensor)] = (tensor, tensor.untyped_storage().nbytes())
        return tensor

    # Drawing dilations must not move the generator of whoever asks for a cost.
    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), _shapes:
        out = module(x)
    if unit.aside:
        macs[False] = 0
    inputs = [_key_of(t) for t in _each(x)]
    outside = {*inputs, *(_key_of(t) for t in (*module.parameters(), *module.buffers()))}
    # What has no batch dimension (batch statistics) does not grow with the clips.
    held = sum(size for key, (t, size) in kept.items() if key not in outside and t.dim() > 1) // _BATCH
    gives = tuple(
        inputs.index(_key_of(t))
        if _key_of(t) in inputs
        else NewOutput(t.untyped_storage().nbytes() // _BATCH, _key_of(t) in kept)
        for t in _each(out)
    )
    counted = Counted(
        Cost(
            params=sum(p.numel() for p in module.parameters()),
            macs=macs[False],
            train_macs=macs[True],
            activation_bytes=held,
        ),
        shape if unit.aside else _shape(out),
        tuple(key in kept for key in inputs),
        tuple(range(len(inputs))) if unit.aside else gives,
    )
    return counted, sum(m.weight.numel() for m in module.modules() if isinstance(m, RandomDilationConv3d))


def _key_of(tensor: Tensor) -> int:
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
