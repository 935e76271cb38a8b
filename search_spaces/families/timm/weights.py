"""Values of a trained 2D network of timm for a network made of its parts.

On a clip of identical frames, the network then computes what its 2D parent does for one of them, in evaluation and in
the modes that `search_spaces.inflate` says so of. TSM and TIN are no part of the parent, and change what it computes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from search_spaces.errors import SpecError, one_of
from search_spaces.families.timm.layers import Factorised, FrameWise, Over, Pseudo3d
from search_spaces.families.timm.shift import Interlace
from search_spaces.families.timm.trace import template
from search_spaces.families.timm.walk import plan
from search_spaces.graph import Link
from search_spaces.inflate import MODES, Inflated, Mode, averaged, inflate_weight, rectified_moments
from search_spaces.modules import Network, SmallInitNorm

Shape = tuple[int, ...]

# The least that keeps a rectified T which adds nothing from being cut off from every gradient.
_AJAR = 1e-12


def load_2d(network: nn.Module, model: str, state: Mapping[str, Tensor], mode: Mode) -> Inflated:
    """Sets a network's values from those of the 2D network that it is made of.

    Args:
        network: Built from the spec of a network for clips.
        model: timm's name of the 2D network.
        state: Its state dict. The classifier may be missing or of another number of classes: ours stays.
        mode: How kernels get their temporal side; in `random`, the temporal convolutions of P3D keep what they have.

    Raises:
        SpecError: There is no such mode, the weights are of another network, or a (2+1)D convolution cannot take them.
            Nothing is changed then.
    """
    one_of("mode", mode, MODES)
    assert isinstance(network, Network)
    parts = [module for module in network.modules() if isinstance(module, FrameWise)]
    for part in parts:
        for module in part.modules():
            if isinstance(module, Factorised):
                raise _no_parent(module)
    taken = _match(model, {key: tuple(value.shape) for key, value in state.items()}, _classifier(network, model))
    with torch.no_grad():
        for part in parts:
            for path, origin in part.origins.items():
                for name, value in _own(part.get_submodule(path)):
                    key = f"{origin}.{name}".lstrip(".")
                    if key in taken:
                        value.copy_(_fitted(state[key], value))
            for module in part.modules():
                if isinstance(module, Over) and module.origin:
                    conv = module.conv
                    assert isinstance(conv, nn.Conv3d)
                    kernel = averaged(state[f"{module.origin}.weight"], conv.weight.shape[1])
                    conv.weight.copy_(inflate_weight(kernel, conv.weight.shape[2], mode))
                    if conv.bias is not None:
                        conv.bias.copy_(state[f"{module.origin}.bias"])
                elif isinstance(module, Pseudo3d) and mode != "random":
                    _still(module, mode)
        for module in network.modules():
            if isinstance(module, SmallInitNorm):
                nn.init.zeros_(module.weight)
    counted = [key for key in taken if not key.endswith("num_batches_tracked")]
    return Inflated(taken=len(counted), left=tuple(_left(network, model, taken)))


def check_2d(model: str, links: Sequence[Link], shapes: Mapping[str, Shape]) -> Inflated:
    """Says what `load_2d` would; builds the network on the meta device.

    Args:
        model: timm's name of the 2D network.
        links: The network for clips.
        shapes: Shape of each tensor of the 2D network, by name.

    Raises:
        SpecError: As `load_2d`.
    """
    with torch.device("meta"):
        network = Network(links)
        return load_2d(network, model, {key: torch.empty(shape) for key, shape in shapes.items()}, "centre")


def parent_shapes(model: str, *, num_classes: int) -> dict[str, Shape]:
    """Returns the shape of each tensor of the 2D network, by name, were it for as many classes."""
    last = plan(model).classifier
    shapes = {key: tuple(value.shape) for key, value in template(model).state_dict().items()}
    return {
        key: (num_classes, *shape[1:]) if key.startswith(f"{last}.") else shape
        for key, shape in shapes.items()
        if not key.endswith("num_batches_tracked")
    }


def _classifier(network: Network, model: str) -> dict[str, Shape]:
    """Returns the shapes that a classifier has to have so that ours can take its values; none if it cannot."""
    last = plan(model).classifier
    head = network.get_submodule(network.names[-1])
    assert isinstance(head, FrameWise)
    ours = {origin: path for path, origin in head.origins.items()}
    if last not in ours:
        return {}
    return {f"{last}.{name}": tuple(value.shape) for name, value in _own(head.get_submodule(ours[last]))}


def _match(model: str, shapes: Mapping[str, Shape], classifier: Mapping[str, Shape]) -> set[str]:
    """Holds weights against what timm's network has; returns the names of those to take."""
    last = plan(model).classifier
    needed = {key: tuple(value.shape) for key, value in template(model).state_dict().items()}
    body = {key: shape for key, shape in needed.items() if not key.startswith(f"{last}.")}
    missing = [key for key in body if key not in shapes and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in shapes if key not in needed]
    other = [
        f"{key} {_size(shapes[key])}, not {_size(shape)}"
        for key, shape in body.items()
        if key in shapes and shapes[key] != shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another size", other))
    found = [f"{kind}: {', '.join(keys)}" for kind, keys in kinds if keys]
    if found:
        raise SpecError(f"the weights are not those of {model}; {'; '.join(found)}")
    # A classifier may be a 1x1 convolution there.
    fits = bool(classifier) and all(shapes.get(key, ())[: len(shape)] == shape for key, shape in classifier.items())
    return {key for key in shapes if key in body or (fits and key in classifier)}


def _left(network: Network, model: str, taken: set[str]) -> Iterator[str]:
    """Yields the modules of ours that keep their values."""
    for name in network.names:
        link = network.get_submodule(name)
        if not isinstance(link, FrameWise):
            if any(True for _ in link.parameters()):
                yield name
            continue
        for path, module in link.named_modules():
            if isinstance(module, Interlace):
                yield f"{name}.{path}"
    if f"{plan(model).classifier}.weight" not in taken:
        yield f"{network.names[-1]}.head"


def _no_parent(pair: Factorised) -> SpecError:
    return SpecError(
        f"kind 2plus1d cannot take the 2D weights {pair.origin}: norm and ReLU stand between its two convolutions, on"
        f" {pair.spatial.out_channels} planes of its own; p3d_a is the separable kind that can"
    )


def _still(unit: Pseudo3d, mode: Mode) -> None:
    """Sets T so that the block computes what its S alone would."""
    over, norm = unit.temporal.get_submodule("conv"), getattr(unit.temporal, "norm", None)
    assert isinstance(over, Over)
    conv = over.conv
    assert isinstance(conv, nn.Conv3d)
    rectified = isinstance(getattr(unit.temporal, "act", None), nn.ReLU | nn.ReLU6)
    if unit.form != "a":
        silent, bias = (conv.weight, conv.bias) if norm is None else (norm.weight, norm.bias)
        assert bias is not None
        nn.init.zeros_(silent)
        nn.init.constant_(bias, _AJAR if rectified else 0.0)
        return
    identity = torch.eye(conv.out_channels // conv.groups).repeat(conv.groups, 1)[:, :, None, None]
    conv.weight.copy_(inflate_weight(identity, conv.kernel_size[0], mode))
    if norm is None:
        assert conv.bias is not None
        nn.init.zeros_(conv.bias)
        return
    # Its statistics are those of what S gives if its own norm gives Gaussians: then T is the identity in training, too.
    first = getattr(unit.spatial, "norm", None)
    seen, variance = torch.zeros_like(norm.bias), torch.ones_like(norm.bias)
    if isinstance(first, nn.BatchNorm2d):
        seen, variance = first.bias.clone(), first.weight.square()
        if rectified:
            seen, variance = rectified_moments(seen, variance.sqrt())
    norm.running_mean.copy_(seen)
    norm.running_var.copy_(variance)
    norm.weight.copy_((variance + norm.eps).sqrt())
    norm.bias.copy_(seen)


def _fitted(value: Tensor, ours: Tensor) -> Tensor:
    """Returns a value of timm's in the shape of ours, its mean over RGB where ours sees other planes.

    Raises:
        SpecError: Ours has more or fewer numbers, since its first layer is no convolution on the planes of an image.
    """
    if ours.dim() == 4:
        value = averaged(value, ours.shape[1])
    if value.numel() != ours.numel():
        raise SpecError(f"weights of {_size(tuple(value.shape))} cannot be averaged to {_size(tuple(ours.shape))}")
    return value.reshape(ours.shape)


def _own(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(recurse=False)
    yield from module.named_buffers(recurse=False)


def _size(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "a scalar"
