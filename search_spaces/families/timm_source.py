"""Where parts get timm's modules from: timm's own network, made once for all parts of one network of ours."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import nn

from search_spaces.families.timm_layers import StridedConv2d, is_zero_padded
from search_spaces.families.timm_trace import create, template, without_classifier

# What a norm that timm starts at nothing starts from.
_FAINT = 0.1


class Source:
    """timm's network, taken apart.

    The first part that is built makes it, on the default device and drawn from torch's generator, so that a seed gives
    the values that it gives timm's constructor, at its price. On the meta device there are no values: parts are copies.
    """

    def __init__(self, model: str, num_classes: int, planes: int = 3) -> None:
        """Makes the source of a network of so many classes for images of so many planes; timm is not asked yet."""
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
