"""2D weights into networks for clips: an image network's state dict inflated over time.

A network whose spec names its 2D parent (`ArchSpec.twin`) takes the parent's kernels, norms and, where there are as
many classes, its classifier. What the parent does not give (temporal kernels and their norms) is set so that on a clip
of identical frames the network computes what its parent computes on one of them, in evaluation. The temporal side:

| mode | k x h x w from h x w | k x 1 x 1 behind a spatial convolution |
|---|---|---|
| `replicate` | the 2D kernel over k at each of the k frames (I3D: Carreira and Zisserman 2017) | a mean over k frames |
| `centre` | the 2D kernel at the middle frame, zeros around it | the identity |
| `identity` | as `centre` | the identity, as the released code of S3D begins |
| `random` | the 2D kernel times a random profile over time that sums to 1 | random, as drawn (P3D: Qiu et al. 2017) |

The equality is exact in modes `centre` and `identity`. In `replicate` it holds in the frames that zero padding over
time does not reach, so in the middle of a clip that is long enough; so it does in `random`, but not behind a temporal
convolution that is random. What the parent does not know at all, such as attention, keeps its initial values; SE units
and gates scale what they see.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from search_spaces.convolutions import Conv3d
from search_spaces.errors import SpecError, one_of
from search_spaces.graph import STATISTICS, Graph, Shape, Unit, join
from search_spaces.modules import Block, Network, SmallInitNorm
from search_spaces.spec import ArchSpec, Twin


class Need(NamedTuple):
    """A tensor of the parent; `name` is ours within the link, `loose` says that the number of rows may differ."""

    key: str
    shape: Shape
    name: str
    loose: bool


class Part(NamedTuple):
    """A link as far as inflation goes: what it takes, what in it keeps its values, whether it is a side head."""

    needs: tuple[Need, ...]
    left: tuple[str, ...]
    side: bool


def parts_of_network(network: Network, spec: ArchSpec) -> dict[str, Part]:
    """Returns the parts of a network that was built from a spec, by link.

    Raises:
        SpecError: The network has no 2D parent, or a unit that none can stand for.
    """
    twins, parts = _by_link(spec, network.names), {}
    for name in network.names:
        block = network.get_submodule(name)
        assert isinstance(block, Block)
        parts[name] = _part(block.graph, twins[name], side=name in network.sides)
    return parts


def parts_of_spec(spec: ArchSpec, *, num_classes: int) -> dict[str, Part]:
    """Returns the parts of a network that need not be built.

    Raises:
        SpecError: As `parts_of_network`.
    """
    links = spec.canonical().links(num_classes=num_classes)
    twins = _by_link(spec, [link.name for link in links])
    parts = {}
    for name, unit in links:
        assert isinstance(unit, Unit)
        parts[name] = _part_of_unit(unit, twins[name])
    return parts


def _by_link(spec: ArchSpec, names: Sequence[str]) -> dict[str, tuple[Twin, ...]]:
    """Twins by the link that they are in, their paths within it."""
    twins: dict[str, list[Twin]] = {name: [] for name in names}
    for twin in (twin for twin in _twins(spec) if twin.path):
        keys = twin.path.split(".")
        link = next(n for i in range(len(keys), 0, -1) if (n := ".".join(keys[:i])) in twins)
        twins[link].append(twin._replace(path=twin.path[len(link) + 1 :]))
    return {name: tuple(inside) for name, inside in twins.items()}


def _twins(spec: ArchSpec) -> tuple[Twin, ...]:
    """The spec's twins; one without a path names tensors that we have no use for, such as auxiliary classifiers."""
    twins = spec.canonical().twin()
    if not twins:
        raise SpecError(f"networks of the family {spec.family} have no 2D parent whose weights they could take")
    return twins


@lru_cache(maxsize=16384)
def _part_of_unit(unit: Unit, twins: tuple[Twin, ...]) -> Part:
    return _part(unit.graph(), twins, side=unit.aside)


def _part(graph: Graph, twins: Iterable[Twin], *, side: bool) -> Part:
    tensors = graph.tensors()
    needs: list[Need] = []
    for twin in twins:
        for path, prefix in _sources(graph, twin):
            names = [name for name in tensors if name.rpartition(".")[0] == path]
            assert names, f"there is no layer {path} that could take {prefix}"
            for name in names:
                shape = tensors[name]
                shape = shape[:2] + shape[3:] if len(shape) == 5 else shape
                needs.append(Need(join(prefix, name.rpartition(".")[2]), shape, name, not twin.norm))
    known = {need.name for need in needs}
    for site in graph.sites:
        if site.op.form:
            known |= {name for name in tensors if name.startswith(join(site.path, "temporal."))}
    params = [name for name in tensors if not name.endswith(STATISTICS)]
    return Part(tuple(needs), tuple(unknown(params, known)), side)


def _sources(graph: Graph, twin: Twin) -> list[tuple[str, str]]:
    """Our layers that a twin fills, by path, each with the prefix of its tensors in the parent."""
    path, site = twin.path, next((site for site in graph.sites if site.path == twin.path), None)
    if site is not None and site.op.kind == "csn_ip":
        raise SpecError(f"kind csn_ip cannot take 2D weights such as {twin.conv}: its planes are convolved alone")
    if site is not None and site.op.kind == "2plus1d":
        raise SpecError(
            f"kind 2plus1d cannot take 2D weights such as {twin.conv}: between its two convolutions are a norm and a "
            f"ReLU on {site.midplanes} planes of its own (p3d_a is the separable kind that can)"
        )
    if site is not None and site.op.form:
        path = join(path, "spatial")
    if path and any(node.name == path for node in graph.nodes):
        return [(path, twin.conv)]
    return [(join(path, "conv"), twin.conv), (join(path, "norm"), twin.norm)]


def unknown(params: Sequence[str], known: set[str], path: str = "") -> list[str]:
    """Returns the largest modules that hold no parameter of `known`, by path."""
    if known.issuperset(params):
        return []
    if known.isdisjoint(params):
        return [path]
    found: list[str] = []
    depth = path.count(".") + 1 if path else 0
    for name, inside in groupby(params, lambda param: param.split(".")[depth]):
        found += unknown(list(inside), known, join(path, name))
    return found


def match(parts: Mapping[str, Part], spec: ArchSpec, shapes: Mapping[str, Shape]) -> tuple[set[str], tuple[str, ...]]:
    """Holds what a network needs against a state dict.

    Args:
        parts: Of the network, in the order of its links.
        spec: Of the network.
        shapes: Shape of each tensor of the state dict.

    Returns:
        The tensors to take, and the paths of our modules that keep their initial values.

    Raises:
        SpecError: Tensors are missing, unexpected or of another shape. Allowed are a classifier for another number of
            classes, and that those of side heads are not there at all.
    """
    used: set[str] = set()
    left = [join(name, path) for name, part in parts.items() for path in part.left]
    spare = tuple(twin.conv for twin in _twins(spec) if not twin.path)
    known: set[str] = set()
    missing: list[str] = []
    other: list[str] = []
    separated = False
    last = list(parts)[-1]
    for name, part in parts.items():
        if part.side and not any(need.key in shapes for need in part.needs):
            left.append(name)
            continue
        known |= {need.key for need in part.needs}
        for need in part.needs:
            ours, theirs = trimmed(need.shape), trimmed(shapes.get(need.key, ()))
            if need.key not in shapes:
                missing.append(need.key)
            elif ours == theirs:
                used.add(need.key)
            elif need.loose and (part.side or name == last) and ours[1:] == theirs[1:]:
                left.append(join(name, need.name.rpartition(".")[0]))
            else:
                other.append(f"{need.key} {_size(shapes[need.key])}, not {_size(need.shape)}")
                separated |= need.shape[1:2] == (1,) and len(need.shape) == 4
    unexpected = [
        key for key in shapes if not (key in known or key.endswith("num_batches_tracked") or key.startswith(spare))
    ]
    complaints = [("missing", missing), ("unexpected", unexpected), ("of another shape", other)]
    if any(keys for _, keys in complaints):
        text = "; ".join(f"{len(keys)} {what} ({_few(keys)})" for what, keys in complaints if keys)
        hint = "; channel-separated (csn) units have no 2D parent" if separated else ""
        raise SpecError(f"the weights must be those of the network's 2D parent, but of its tensors are {text}{hint}")
    return used, tuple(dict.fromkeys(left))


def trimmed(shape: Shape) -> Shape:
    """Returns the shape without the ones at its end: a linear layer is a convolution of kernel 1."""
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _size(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "a number"


def _few(keys: Sequence[str]) -> str:
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")


Mode = Literal["replicate", "centre", "random", "identity"]

_RGB = 3
MODES: tuple[Mode, ...] = ("replicate", "centre", "random", "identity")
# Standard deviations by which a signal is lifted that a ReLU must let through: out of a Gaussian's reach.
_LIFT = 8.0
# Keeps a silenced ReLU open: at 0 it has no gradient, and its branch would be silent for ever.
_AJAR = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class Inflated:
    """What became of the weights.

    Attributes:
        taken: Tensors of the 2D network that were used.
        left: Modules of ours that keep their initial values: attention and the like, side heads that the 2D network
            does not have, and classifiers for another number of classes than its own.
    """

    taken: int
    left: tuple[str, ...]


@runtime_checkable
class InflatesItself(Protocol):
    """A spec whose networks take 2D weights in their own way, such as those that are made of their parent's modules."""

    def take_2d(self, network: nn.Module, state: Mapping[str, Tensor], mode: Mode) -> Inflated:
        """Does what `inflate` does."""

    def check_2d(self, shapes: Mapping[str, Shape], *, num_classes: int) -> Inflated:
        """Does what `check` does."""


def inflate_weight(weight: Tensor, kernel: int, mode: Mode) -> Tensor:
    """Returns a 2D kernel with a temporal side.

    Args:
        weight: (O, I, h, w).
        kernel: Frames k.
        mode: `replicate`, `centre` or `identity`, or `random`, which draws from torch's generator.

    Returns:
        (O, I, k, h, w), whose sum over time is the 2D kernel.

    Raises:
        SpecError: There is no such mode.
    """
    one_of("mode", mode, MODES)
    profile = torch.zeros(len(weight), kernel)
    if mode == "replicate":
        profile += 1 / kernel
    elif mode == "random":
        noise = torch.randn(len(weight), kernel) / kernel
        profile += 1 / kernel + noise - noise.mean(1, keepdim=True)
    else:
        profile[:, kernel // 2] = 1
    return weight[:, :, None] * profile.to(weight)[:, None, :, None, None]


def averaged(weight: Tensor, planes: int) -> Tensor:
    """Returns a kernel for images of other planes: the mean over its planes, for each of them.

    The cross-modality initialisation of TSN (Wang et al. 2016, section 3.2), with which a network for optical flow
    begins with weights for RGB.

    Args:
        weight: (O, 3, h, w), or anything else, which stays as it is.
        planes: Planes of the images, P.

    Returns:
        (O, P, h, w); the weight itself where it has P planes, or is no kernel for RGB.
    """
    if weight.dim() != 4 or weight.shape[1] != _RGB or planes == _RGB:
        return weight
    return weight.mean(1, keepdim=True).expand(-1, planes, -1, -1)


def inflate(network: nn.Module, spec: ArchSpec, state: Mapping[str, Tensor], mode: Mode) -> Inflated:
    """Sets a network's values from those of its 2D parent; in mode `random`, draws from torch's generator.

    Args:
        network: Built from `spec`, for clips of any planes; of other than three, its first kernels are `averaged`.
        spec: Names the parent's layers.
        state: The parent's state dict, by timm's or torchvision's names.
        mode: How kernels get their temporal side.

    Raises:
        SpecError: There is no such mode, the network has no 2D parent or a unit that none can stand for, or the weights
            are of another network. Nothing is changed then.
    """
    one_of("mode", mode, MODES)
    if isinstance(spec, InflatesItself):
        return spec.take_2d(network, state, mode)
    assert isinstance(network, Network)
    parts = parts_of_network(network, spec)
    state = _for_planes(state, parts[network.names[0]])
    used, left = match(parts, spec, {key: tuple(value.shape) for key, value in state.items()})
    with torch.no_grad():
        for name, part in parts.items():
            own = network.get_submodule(name).state_dict()
            for need in part.needs:
                if need.key in used:
                    value, target = state[need.key].reshape(need.shape), own[need.name]
                    target.copy_(inflate_weight(value, target.shape[2], mode) if target.dim() == 5 else value)
        for module in network.modules():
            if isinstance(module, Block) and mode != "random":
                for site in (site for site in module.graph.sites if site.op.form):
                    _still(module.get_submodule(site.path), site.op.form, mode)
            elif isinstance(module, SmallInitNorm):
                nn.init.zeros_(module.weight)
    return Inflated(taken=len(used), left=left)


def check(spec: ArchSpec, shapes: Mapping[str, Shape], *, num_classes: int) -> Inflated:
    """Says what `inflate` would, without building the network.

    Args:
        spec: The network.
        shapes: Shape of each tensor of the 2D network, by name.
        num_classes: Classes of our network.

    Raises:
        SpecError: As `inflate`.
    """
    if isinstance(spec, InflatesItself):
        return spec.check_2d(shapes, num_classes=num_classes)
    used, left = match(parts_of_spec(spec, num_classes=num_classes), spec, shapes)
    return Inflated(taken=len(used), left=left)


def parent_shapes(spec: ArchSpec, *, num_classes: int) -> dict[str, Shape]:
    """Returns the shape of each tensor of the 2D parent, by name, were it for as many classes.

    Raises:
        SpecError: The network has no 2D parent, or a unit that none can stand for.
    """
    return {
        need.key: need.shape for part in parts_of_spec(spec, num_classes=num_classes).values() for need in part.needs
    }


def _for_planes(state: Mapping[str, Tensor], first: Part) -> Mapping[str, Tensor]:
    """The state dict with kernels for the planes that the first part of the network sees."""
    needs = {need.key: need.shape for need in first.needs if len(need.shape) == 4}
    return {key: averaged(value, needs[key][1]) if key in needs else value for key, value in state.items()}


def _still(unit: nn.Module, form: str, mode: Mode) -> None:
    """Sets T of a P3D unit, which the parent does not have, so that the unit computes what its S alone would.

    B and C add T to S, so its norm makes it nothing. In A, T is the identity (or a mean over time), and so is its norm:
    running statistics are those that S has if its own norm gives Gaussians, which keeps the identity in training, too.
    """
    space, norm = unit.get_submodule("spatial.norm"), unit.get_submodule("temporal.norm")
    assert isinstance(space, nn.BatchNorm3d) and isinstance(norm, nn.BatchNorm3d)
    rectified = hasattr(unit.get_submodule("temporal"), "act")
    if form != "a":
        nn.init.zeros_(norm.weight)
        nn.init.constant_(norm.bias, _AJAR if rectified else 0.0)
        return
    conv = unit.get_submodule("temporal.conv")
    assert isinstance(conv, Conv3d)
    identity = torch.eye(conv.out_channels)[:, :, None, None]
    conv.weight.copy_(inflate_weight(identity, conv.kernel_size[0], mode))
    mean, deviation = space.bias.clone(), space.weight.abs()
    if rectified:
        seen, variance = rectified_moments(mean, deviation)
        mean = seen
    else:
        # The parent has no ReLU here, but S has: S is lifted so that the ReLU lets it through, T's norm takes that off.
        seen, variance = mean.maximum(_LIFT * deviation + _AJAR), deviation.square()
        space.bias.copy_(seen)
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.copy_(seen)
    norm.running_var.copy_(variance)
    norm.weight.copy_((variance + norm.eps).sqrt())
    norm.bias.copy_(mean)


def rectified_moments(mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of max(0, x) for x Gaussian."""
    z = mean / deviation.clamp(min=1e-12)
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    share = (1 + torch.erf(z / math.sqrt(2))) / 2
    first = mean * share + deviation * density
    second = (mean.square() + deviation.square()) * share + mean * deviation * density
    return first, (second - first.square()).clamp(min=0)
