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
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from search_spaces.attention import FaintNorm
from search_spaces.layers import P3D, Conv3d
from search_spaces.network import Network
from search_spaces.parent import Part, Shape, match, parts_of_network, parts_of_spec
from search_spaces.spec import ArchSpec, one_of

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
class TakesItself(Protocol):
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
    if isinstance(spec, TakesItself):
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
            if isinstance(module, P3D) and mode != "random":
                _still(module, mode)
            elif isinstance(module, FaintNorm):
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
    if isinstance(spec, TakesItself):
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


def _still(unit: P3D, mode: Mode) -> None:
    """Sets T of a P3D unit, which the parent does not have, so that the unit computes what its S alone would.

    B and C add T to S, so its norm makes it nothing. In A, T is the identity (or a mean over time), and so is its norm:
    running statistics are those that S has if its own norm gives Gaussians, which keeps the identity in training, too.
    """
    space, time = unit.spatial.norm, unit.temporal
    rectified = isinstance(time.act, nn.ReLU)
    if unit.form != "a":
        nn.init.zeros_(time.norm.weight)
        nn.init.constant_(time.norm.bias, _AJAR if rectified else 0.0)
        return
    assert isinstance(time.conv, Conv3d)
    identity = torch.eye(time.conv.out_channels)[:, :, None, None]
    time.conv.weight.copy_(inflate_weight(identity, time.conv.kernel_size[0], mode))
    mean, deviation = space.bias.clone(), space.weight.abs()
    if rectified:
        seen, variance = _rectified(mean, deviation)
        mean = seen
    else:
        # The parent has no ReLU here, but S has: S is lifted so that the ReLU lets it through, T's norm takes that off.
        seen, variance = mean.maximum(_LIFT * deviation + _AJAR), deviation.square()
        space.bias.copy_(seen)
    assert time.norm.running_mean is not None and time.norm.running_var is not None
    time.norm.running_mean.copy_(seen)
    time.norm.running_var.copy_(variance)
    time.norm.weight.copy_((variance + time.norm.eps).sqrt())
    time.norm.bias.copy_(mean)


def _rectified(mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of max(0, x) for x Gaussian."""
    z = mean / deviation.clamp(min=1e-12)
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    share = (1 + torch.erf(z / math.sqrt(2))) / 2
    first = mean * share + deviation * density
    second = (mean.square() + deviation.square()) * share + mean * deviation * density
    return first, (second - first.square()).clamp(min=0)
