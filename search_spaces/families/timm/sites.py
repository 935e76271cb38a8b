"""Where time can go in timm's networks: convolutions that take an operator, and residual branches that take a shift."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from torch import nn

from search_spaces.errors import SpecError
from search_spaces.families.timm.known import Anatomy, Piece
from search_spaces.families.timm.layers import is_idempotent, is_zero_padded
from search_spaces.families.timm.trace import Call, trace
from search_spaces.families.timm.walk import Part, plan
from search_spaces.operators import POINTWISE_KINDS, Kind, TemporalOp

# Residual blocks of timm and the first convolution of their branch, which takes no other input than the block's own.
_BRANCHES = {
    "BasicBlock": "conv1",
    "Bottleneck": "conv1",
    "Bottle2neck": "conv1",
    "ResNestBottleneck": "conv1",
    "SelectiveKernelBasic": "conv1",
    "SelectiveKernelBottleneck": "conv1",
    "SEBottleneck": "conv1",
    "SEResNetBlock": "conv1",
    "SEResNetBottleneck": "conv1",
    "SEResNeXtBottleneck": "conv1",
    "InvertedResidual": "conv_pw",
    "DepthwiseSeparableConv": "conv_dw",
    "EdgeResidual": "conv_exp",
    "ConvNeXtBlock": "conv_dw",
}
_SHORTCUTS = ("downsample", "shortcut", "skip", "id")


class Site(NamedTuple):
    """A convolution that takes an operator.

    Attributes:
        conv: Its path.
        norm: Path of the norm that alone follows it; empty if there is none.
        act: Path of the activation that alone follows those, if it is not in the norm; else empty.
        shared: Whether that activation runs elsewhere, too.
    """

    conv: str
    norm: str
    act: str
    shared: bool


@lru_cache(maxsize=16384)
def sites(model: str, name: str, op: TemporalOp) -> tuple[Site, ...]:
    """Returns the convolutions of a part that take an operator.

    Args:
        model: Network of timm.
        name: Name of the part.
        op: The operator; one of a pointwise kind is for the 1x1 convolutions, others for those that are larger.

    Raises:
        SpecError: A convolution cannot take it.
    """
    if op.kind == "2d":
        return ()
    calls = trace(model)
    paths = part_of(model, name).paths
    inside = [call for path in paths for call in calls[path].walk()]
    found: dict[str, list[Site]] = {}
    for call in inside:
        conv, top = call.module, next(path for path in paths if f"{call.path}.".startswith(f"{path}."))
        if not isinstance(conv, nn.Conv2d) or _is_pooled(call, calls[top]):
            continue
        pointwise = conv.kernel_size == (1, 1)
        if pointwise != (op.kind in POINTWISE_KINDS):
            continue
        if pointwise and op.kind != "t1x1_all" and _is_shortcut(call.path, top):
            continue
        _check_conv(model, call.path, conv)
        site = Site(call.path, "", "", False) if pointwise else _site(call, inside)
        found.setdefault(_block(call, calls[top]), []).append(site)
    if op.kind == "t1x1_first":
        return tuple(block[0] for block in found.values())
    return tuple(site for block in found.values() for site in block)


@lru_cache(maxsize=4096)
def branch(model: str, name: str) -> str:
    """Returns the path of the convolution that begins the residual branch of a part; empty if it is no such block."""
    paths = part_of(model, name).paths
    call = trace(model)[paths[0]]
    attribute = _BRANCHES.get(type(call.module).__name__, "")
    first = getattr(call.module, attribute, None) if attribute else None
    if len(paths) > 1 or not isinstance(first, nn.Module) or not getattr(call.module, "has_skip", True):
        return ""
    begin = trace(model).get(f"{paths[0]}.{attribute}")
    # A block that is a chain has no shortcut.
    return "" if begin is None or begin.x is not call.x or call.is_chain() else begin.path


@lru_cache(maxsize=4096)
def kin(model: str, name: str) -> str:
    """Returns the name of the first part that is made like this one, of the same modules and planes."""
    return next(part.name for part in plan(model).parts if _make(model, part.name) == _make(model, name))


@lru_cache(maxsize=4096)
def _make(model: str, name: str) -> tuple[object, ...]:
    part = part_of(model, name)
    modules = [trace(model)[path].module for path in part.paths]
    values = [(key, tuple(value.shape)) for module in modules for key, value in module.state_dict().items()]
    return (part.in_planes, part.out_planes, part.stage, tuple(values), tuple(map(repr, modules)))


@lru_cache(maxsize=4096)
def part_of(model: str, name: str) -> Part:
    """Returns a part by name."""
    return next(part for part in plan(model).parts if part.name == name)


def dissect(model: str) -> Anatomy:
    """Returns what is known of a network once it was built; raises SpecError as `plan`."""
    found = plan(model)
    pieces = tuple(
        Piece(
            name=part.name,
            stage=part.stage,
            in_planes=part.in_planes,
            out_planes=part.out_planes,
            stride=part.stride,
            kin=kin(model, part.name),
            shifts=bool(branch(model, part.name)),
            spatial=_takes(model, part.name, "3d"),
            pointwise=_takes(model, part.name, "t1x1_first"),
            shortcuts=_takes(model, part.name, "t1x1_all"),
        )
        for part in found.parts
    )
    return Anatomy(model, found.features, pieces)


def _takes(model: str, name: str, kind: Kind) -> bool | str:
    try:
        return bool(sites(model, name, TemporalOp(kind=kind)))
    except SpecError as error:
        return str(error)


def _site(call: Call, inside: list[Call]) -> Site:
    """Finds the norm and the activation that follow a convolution."""
    behind = call
    norm, act = "", ""
    after = _follower(call, inside)
    if after is not None and isinstance(after.module, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm):
        norm, behind = after.path, after
        after = _follower(behind, inside)
    fused = norm and not isinstance(getattr(behind.module, "act", nn.Identity()), nn.Identity)
    if after is not None and not fused and type(after.module).__module__.rpartition(".")[2].startswith("activation"):
        act = after.path
    times = sum(other.path == act for other in inside)
    if times > 1 and not is_idempotent(_module(inside, act)):
        act = ""
    return Site(call.path, norm, act, times > 1 and act != "")


def _follower(call: Call, inside: list[Call]) -> Call | None:
    """Returns the layer, no container and not the identity, that takes what a call returned."""
    for other in inside:
        leaf = not other.inner or isinstance(other.module, nn.BatchNorm2d)
        if other is not call and leaf and call.feeds(other) and not isinstance(other.module, nn.Identity):
            return other
    return None


def _module(inside: list[Call], path: str) -> nn.Module:
    return next(call.module for call in inside if call.path == path)


def _is_pooled(call: Call, whole: Call) -> bool:
    """Returns whether a convolution sees averages of the image, as those of squeeze-excitation do."""
    return call.x is not None and whole.x is not None and call.x.shape[2] == 1 < whole.x.shape[2]


def _block(call: Call, whole: Call) -> str:
    """Returns the path of the block that a convolution is in: the part, or one of its layers that has several."""
    for inner in whole.inner:
        convs = [other for other in inner.walk() if isinstance(other.module, nn.Conv2d)]
        if len(convs) > 1 and any(other is call for other in convs):
            return inner.path
    return whole.path


def _is_shortcut(path: str, top: str) -> bool:
    return any(name in _SHORTCUTS for name in path[len(top) + 1 :].split("."))


def _check_conv(model: str, path: str, conv: nn.Conv2d) -> None:
    reason = ""
    if type(conv) is not nn.Conv2d:
        reason = f"is a {type(conv).__name__}, a convolution of its own kind"
    elif not is_zero_padded(conv):
        reason = "is not padded by a number of zeros"
    elif conv.dilation != (1, 1):
        reason = f"has a dilation of {conv.dilation[0]}"
    if reason:
        raise SpecError(f"model {model} cannot be inflated: its convolution {path} {reason}")
