"""Where parts get timm's modules from: timm's own network, made once for all parts of one network of ours."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import nn

from search_spaces.families.timm_layers import StridedConv2d
from search_spaces.families.timm_trace import create, template, without_classifier

# What a norm that timm starts at nothing starts from.
_FAINT = 0.1


class Source:
    """timm's network, taken apart.

    The first part that is built makes it, on the default device and drawn from torch's generator, so that a seed gives
    the values that it gives timm's constructor, at its price. On the meta device there are no values: parts are copies.
    """

    def __init__(self, model: str, num_classes: int) -> None:
        """Makes the source of a network of so many classes; timm is not asked yet."""
        self.model, self.num_classes = model, num_classes
        self._network: nn.Module | None = None
        self._taken: set[str] = set()

    def take(self, paths: Iterable[str]) -> dict[str, nn.Module]:
        """Returns modules by path, that nobody else has."""
        found = {path: self._whole(path).get_submodule(path) for path in paths}
        # All in one copy, so that what they share stays shared.
        return {k: m.train() for k, m in copy.deepcopy(found).items()} if _on_meta() else found

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
        return without_classifier(copy.deepcopy(network).train() if _on_meta() else network)

    def done(self) -> None:
        """Lets go of what nobody took."""
        self._network, self._taken = None, set()

    def _whole(self, path: str) -> nn.Module:
        if _on_meta():
            return template(self.model)
        if self._network is None or path in self._taken:
            self._network, self._taken = create(self.model, num_classes=self.num_classes), set()
        self._taken.add(path)
        return self._network


def make_trainable(module: nn.Module) -> None:
    """Changes what of timm's does not train here, in place.

    Norms that timm starts at a weight of 0 (the last of a residual branch) start at 0.1: at 0 no other weight of the branch
    has a gradient in the first step. Strided convolutions become such that tiny maps do not harm.
    """
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d) and not layer.weight.is_meta and not layer.weight.any():
            nn.init.constant_(layer.weight, _FAINT)
        elif type(layer) is nn.Conv2d and layer.stride[1] > 1 and max(layer.kernel_size) > 1:
            if not isinstance(layer.padding, str) and layer.padding_mode == "zeros":
                layer.__class__ = StridedConv2d


def _on_meta() -> bool:
    return bool(torch.get_default_device().type == "meta")
