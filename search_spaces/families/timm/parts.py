"""Parts of timm's networks with time in them, and heads: how they are built, and where their modules come from."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn

from search_spaces.families.timm.heads import FrameHead, temporal_head
from search_spaces.families.timm.layers import (
    Clock,
    FrameWise,
    Pseudo3d,
    StridedConv2d,
    factorised,
    inflated,
    is_zero_padded,
    pseudo3d,
)
from search_spaces.families.timm.shift import Interlace, Shift
from search_spaces.families.timm.sites import Site, branch, part_of, sites
from search_spaces.families.timm.trace import create, fixed_size, template, without_classifier
from search_spaces.families.timm.walk import plan
from search_spaces.modules import zero_last_norms
from search_spaces.operators import POINTWISE_KINDS, TemporalOp

# What a norm that timm starts at nothing starts from.
_FAINT = 0.1


class Source:
    """timm's network, taken apart.

    The first part that is built makes it, on the default device and drawn from torch's generator, so that a seed gives
    the values that it gives timm's constructor, at its price. On the meta device there are no values: parts are copies.
    """

    def __init__(self, model: str, num_classes: int, planes: int = 3) -> None:
        """Makes the source of a network for a number of classes and planes of an image; timm is not asked yet."""
        self.model, self.num_classes, self.planes = model, num_classes, planes
        self._network: nn.Module | None = None
        self._taken: set[str] = set()

    def take(self, paths: Iterable[str]) -> dict[str, nn.Module]:
        """Returns modules by path, that nobody else has."""
        found = {path: self._whole(path).get_submodule(path) for path in paths}
        made: dict[nn.Module, nn.Module] = {}
        return {path: _copy(module, made).train() for path, module in found.items()} if _on_meta() else found

    def classifier(self, path: str) -> nn.Linear | None:
        """Returns the classifier as a plain linear layer, also if timm has a 1x1 convolution; None if it is neither."""
        theirs = self._whole(path).get_submodule(path)
        if not isinstance(theirs, nn.Linear | nn.Conv2d):
            return None
        with torch.device("meta"):
            ours = nn.Linear(theirs.weight.shape[1], self.num_classes, bias=theirs.bias is not None)
        if not _on_meta():
            with torch.no_grad():
                ours.weight = nn.Parameter(theirs.weight.flatten(1))
            if theirs.bias is not None:
                ours.bias = nn.Parameter(theirs.bias.detach())
        return ours

    def without_classifier(self) -> nn.Module:
        """Returns the whole network without its classifier."""
        network = self._whole("")
        return without_classifier(_copy(network, {}).train() if _on_meta() else network)

    def done(self) -> None:
        """Lets go of what nobody took."""
        self._network, self._taken = None, set()

    def _whole(self, path: str) -> nn.Module:
        if _on_meta():
            return template(self.model, self.planes)
        if self._network is None or path in self._taken:
            self._network, self._taken = create(self.model, num_classes=self.num_classes, planes=self.planes), set()
        self._taken.add(path)
        return self._network


def make_trainable(module: nn.Module) -> None:
    """Changes what of timm's does not train here, in place.

    Norms that timm starts at a weight of 0 (the last of a residual branch) start at 0.1: at 0 no other weight of the
    branch has a gradient in the first step. Strided convolutions become such that tiny maps do not harm.
    """
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d) and not layer.weight.is_meta and not layer.weight.any():
            nn.init.constant_(layer.weight, _FAINT)
        elif type(layer) is nn.Conv2d and layer.stride[1] > 1 and max(layer.kernel_size) > 1 and is_zero_padded(layer):
            layer.__class__ = StridedConv2d


def _copy(module: nn.Module, made: dict[nn.Module, nn.Module]) -> nn.Module:
    """Returns a copy of a module without values, ten times as fast as a deep copy: it shares what nobody changes.

    Args:
        module: On the meta device, without hooks.
        made: Copies so far, so that what is shared stays shared.
    """
    if module in made:
        return made[module]
    out = made[module] = module.__class__.__new__(module.__class__)
    out.__dict__ = {
        key: copy.copy(value) if isinstance(value, dict | set) else value for key, value in module.__dict__.items()
    }
    out._parameters = {
        key: None if value is None else nn.Parameter(value.detach(), value.requires_grad)
        for key, value in module._parameters.items()
    }
    out._buffers = {key: None if value is None else value.detach() for key, value in module._buffers.items()}
    out._modules = {key: None if child is None else _copy(child, made) for key, child in module._modules.items()}
    return out


def _on_meta() -> bool:
    return bool(torch.get_default_device().type == "meta")


def build_part(
    source: Source, name: str, *, op: TemporalOp, shift: str, share: int, frames: int, entry: bool
) -> FrameWise:
    """Returns a part with fresh values.

    Args:
        source: timm's network.
        name: Name of the part.
        op: Operator of its convolutions.
        shift: `none`, or `tsm` or `tin` before the first convolution of the residual branch, or `tsm_block` before the
            whole block.
        share: TSM shifts one plane in `share` forward, and one back.
        frames: Frames of a clip, for TIN.
        entry: Whether it is the first of the network.
    """
    model = source.model
    part = part_of(model, name)
    found = source.take(part.paths)
    names = {path: "block" if len(found) == 1 else path.replace(".", "_") for path in found}
    origins = _origins(found)
    clock = Clock()
    whole = FrameWise({names[path]: module for path, module in found.items()}, clock, entry=entry)

    def here(path: str) -> str:
        """The path within the part of a path in timm's network."""
        top = next(top for top in names if path == top or path.startswith(f"{top}."))
        return names[top] + path[len(top) :]

    for site in sites(model, name, op):
        _inflate(whole, site, op, clock, here)
    if shift != "none":
        path = "block" if shift == "tsm_block" else here(branch(model, name))
        planes = part.in_planes
        moved = Interlace(planes, frames, clock) if shift == "tin" else Shift(planes, share, clock)
        _put(whole, path, nn.Sequential(moved, whole.get_submodule(path)))
    whole.origins = _paths(whole, origins)
    make_trainable(whole)
    return whole


def build_head(source: Source, *, kind: str, width: int, frames: int, num_classes: int, dropout: float) -> FrameHead:
    """Returns timm's layers behind the maps and a temporal head, with fresh values.

    Of a network that is no chain, the head holds the whole network without its classifier.
    """
    found = plan(source.model)
    last = source.classifier(found.classifier) if kind == "average" else None
    if found.parts:
        tail = source.take(found.tail)
        size = None
    else:
        tail = {"": source.without_classifier()}
        size = fixed_size(source.model)
    source.done()
    origins = _origins(tail if last is None else {**tail, found.classifier: last})
    head = temporal_head(kind, found.features, num_classes, dropout=dropout, width=width, frames=frames, last=last)
    named = {path.replace(".", "_") or "network": layer for path, layer in tail.items()}
    whole = FrameHead(named, head, num_classes=num_classes, size=size)
    whole.origins = _paths(whole, origins)
    make_trainable(whole)
    return whole


def start_branches(network: nn.Module, *, at_zero: bool) -> None:
    """Sets the weights of the last norm of each branch, of timm's blocks that can begin at 0 and of attention.

    Args:
        network: With fresh values.
        at_zero: 0, or else 1; attention keeps its values then.
    """
    if at_zero:
        zero_last_norms(network)
    for block in network.modules():
        if hasattr(block, "zero_init_last"):
            for norm in _last_norms(block):
                nn.init.constant_(norm.get_parameter("weight"), 0.0 if at_zero else 1.0)


def _last_norms(block: nn.Module) -> list[nn.Module]:
    """The norms that timm's block sets to 0, or those of the P3D convolution that has taken them along."""
    found = dict(block.named_modules())
    unit = found.get("conv2")
    last = found.get("conv3.bn") or found.get("bn3") or found["bn2"]
    if not isinstance(unit, Pseudo3d) or isinstance(last, nn.BatchNorm2d):
        return [last]
    return [unit.get_submodule("temporal.norm"), *([unit.get_submodule("spatial.norm")] if unit.form != "a" else [])]


def _inflate(whole: nn.Module, site: Site, op: TemporalOp, clock: Clock, here: Callable[[str], str]) -> None:
    conv = whole.get_submodule(here(site.conv))
    assert isinstance(conv, nn.Conv2d)
    if op.kind == "3d" or op.kind in POINTWISE_KINDS:
        _put(whole, here(site.conv), inflated(conv, op, clock, site.conv))
        return
    if op.kind == "2plus1d":
        _put(whole, here(site.conv), factorised(conv, op, clock, site.conv))
        return
    norm = whole.get_submodule(here(site.norm)) if site.norm else None
    act = whole.get_submodule(here(site.act)) if site.act else None
    if site.shared:
        act = copy.deepcopy(act)
    _put(whole, here(site.conv), pseudo3d(conv, norm, act, op, clock, behind=site.shared))
    if site.norm:
        _put(whole, here(site.norm), nn.Identity())
    if site.act and not site.shared:
        _put(whole, here(site.act), nn.Identity())


def _put(whole: nn.Module, path: str, module: nn.Module) -> None:
    owner, _, name = path.rpartition(".")
    whole.get_submodule(owner).add_module(name, module)


def _origins(found: Mapping[str, nn.Module]) -> dict[nn.Module, str]:
    """Returns the paths in timm's network of its modules that have values."""
    return {
        module: f"{path}.{inner}".strip(".")
        for path, top in found.items()
        for inner, module in top.named_modules()
        if _has_values(module)
    }


def _paths(whole: nn.Module, origins: Mapping[nn.Module, str]) -> dict[str, str]:
    return {path: origins[module] for path, module in whole.named_modules() if module in origins}


def _has_values(module: nn.Module) -> bool:
    return bool(module._parameters or module._buffers)
