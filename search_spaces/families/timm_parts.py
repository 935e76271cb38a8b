"""Parts of timm's networks with time in them, and heads: how they are built."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

from torch import nn

from search_spaces.families.timm_heads import FrameHead, temporal_head
from search_spaces.families.timm_layers import Clock, FrameWise, Pseudo3d, factorised, inflated, pseudo3d
from search_spaces.families.timm_shift import Interlace, Shift
from search_spaces.families.timm_sites import Site, branch, part_of, sites
from search_spaces.families.timm_source import Source, make_trainable
from search_spaces.families.timm_trace import fixed_size
from search_spaces.families.timm_walk import plan
from search_spaces.layers import zero_last_norms
from search_spaces.spec import POINTWISE_KINDS, TemporalOp


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
        share: Of so many planes, TSM shifts one forward and one back.
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
