"""A supernet of NNI 3.0: places, forms and units as NNI's choices, with weights that units of one form share.

What is NNI's: the space (`ModelSpace`), the choice among forms (`LayerChoice`), the choice among units (`Categorical`),
the supernet that its strategy makes of them, and how a path is passed on to its parts (`resample`). `RandomOneShot`
(Guo et al. 2020, "Single Path One-Shot") puts `PathSamplingLayer` in the place of each `LayerChoice`; `DARTS` (Liu et
al. 2019) gives each an architecture parameter and puts `DifferentiableMixedLayer` there.

What is not: NNI's mixed operations know linear layers, 2D convolutions and their norms, and its strategies refuse a
`MutableConv3d` ("has dangling mutables and is not supported"), so that `SharedUnit` holds the weights of convolutions
over time, by NNI's rule: of channels the first ones, of a kernel the centre. NNI draws each choice by itself, which
gives networks that the study's space does not have; here a path is that of a network of the pool, drawn evenly. NNI
trains in Lightning; here the study's own trainer trains, with its recipe, and a training goes on where it was killed.
So the two steps of DARTS, for weights and for architecture parameters, are those of batches, by a coin.
"""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nas.search.supernet.paths import SKIP, Cover, Path, Strategy, mixture
from search_spaces.graph import Unit
from search_spaces.modules import Block, build, initialise, put


@contextlib.contextmanager
def _still() -> Iterator[None]:
    """Without what NNI prints, and without warnings of code that is older than its libraries."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


with _still():
    import nni
    from nni.mutable import Categorical
    from nni.nas.nn.pytorch import LayerChoice, ModelSpace
    from nni.nas.oneshot.pytorch.supermodule.base import BaseSuperNetModule
    from nni.nas.oneshot.pytorch.supermodule.differentiable import DifferentiableMixedLayer
    from nni.nas.strategy import DARTS, RandomOneShot

    nni.silence_stdout()


class _Templates(list[nn.Module]):
    """Units without weights of their own; copies of a supernet have them in common."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Templates:
        return self


class SharedUnit(BaseSuperNetModule):  # type: ignore[misc]
    """The units of one form at one place, with one set of weights.

    Each weight is as large as that of any unit. A unit takes the first of its channels and the centre of its kernel, so
    that what it computes is what the same unit computes by itself with these weights.
    """

    def __init__(self, units: Sequence[Unit], label: str, *, zero_init: bool) -> None:
        """Draws the weights from torch's generator.

        Args:
            units: Of one form.
            label: Of the choice among them.
            zero_init: Whether residual branches add nothing at first.
        """
        super().__init__()
        self.choice = Categorical(range(len(units)), label=label)
        self.add_mutable(self.choice)
        with torch.device("meta"):
            self._templates = _Templates(build(unit) for unit in units)
        self._chosen = 0
        self.learns = True
        self.shared = _largest(self._templates)
        initialise(self.shared)
        if zero_init:
            for name in _last_norms(self._templates):
                nn.init.zeros_(self.shared.get_parameter(f"{name}.weight"))

    @classmethod
    def mutate(cls, module: nn.Module, name: str, memo: dict[str, Any], mutate_kwargs: dict[str, Any]) -> bool:
        """NNI's hook: such a module is part of a supernet as it is."""
        return isinstance(module, cls)

    def resample(self, memo: dict[str, Any]) -> dict[str, Any]:
        """Takes the unit that a path names; where the path goes through another form, nothing is done."""
        self._chosen = memo.get(self.choice.label, self._chosen)
        return {}

    def forward(self, x: Tensor) -> Tensor:
        """Computes what the chosen unit does."""
        unit = self._templates[self._chosen]
        unit.train(self.training)
        own = self.weights(self._chosen)
        result: Tensor = functional_call(unit, own if self.learns else {k: v.detach() for k, v in own.items()}, (x,))
        return result

    def weights(self, number: int) -> dict[str, Tensor]:
        """The weights and statistics of a unit by their names in it: views of those that all share."""
        own = self.shared.state_dict(keep_vars=True)
        return {name: _part(own[name], like.shape) for name, like in self._templates[number].state_dict().items()}


class MixedForms(DifferentiableMixedLayer):  # type: ignore[misc]
    """In training, the sum of all forms that may stand where a path goes, by their shares; else the path's own form."""

    learns = False

    def resample(self, memo: dict[str, Any]) -> dict[str, Any]:
        """Takes the forms that a path names; see `paths.mixture`."""
        self._own = memo[self.label]
        named = [form for form in self.names if form != SKIP and self[form].choice.label in memo]
        self._forms = [self._own] if self._own == SKIP else named
        return {}

    def forward(self, x: Tensor) -> Tensor:
        """Computes the sum; the shares are those among the forms that are here."""
        if not self.training or len(self._forms) == 1:
            own: Tensor = self[self._own](x)
            return own
        parameters = self._arch_alpha if self.learns else self._arch_alpha.detach()
        shares = self._softmax(parameters[[self.names.index(form) for form in self._forms]])
        mixed: Tensor = self._reduction([self[form](x) for form in self._forms], shares)
        return mixed

    def shares(self) -> dict[str, float]:
        """The share of each form among all of the place."""
        forms = [form for form in self.names if form != SKIP]
        found = self._softmax(self._arch_alpha.detach()[[self.names.index(form) for form in forms]])
        return dict(zip(forms, found.tolist(), strict=True))


class Supernet(ModelSpace):  # type: ignore[misc]
    """All networks of a cover in one; in training, every forward pass takes the path of a network drawn evenly.

    The draw is from torch's CPU generator, so that it is a function of the seed and the epoch of a training.
    """

    def __init__(self, places: Cover, *, mixed: bool = False, zero_init: bool = False) -> None:
        """Makes the space as NNI has it; `supernet_of` makes the supernet of it."""
        super().__init__()
        self._mixed = mixed
        paths = places.paths.values()
        self._paths = tuple(mixture(places, path) for path in paths) if mixed else tuple(paths)
        self._names = tuple(f"at_{place.name.replace('.', '_')}" for place in places.places)
        for name, place in zip(self._names, places.places, strict=True):
            forms: dict[str, nn.Module] = {
                form: SharedUnit(units, place.label(form), zero_init=zero_init) for form, units in place.forms.items()
            }
            if place.optional:
                forms[SKIP] = nn.Identity()
            self.add_module(name, LayerChoice(forms, label=place.name))

    def take(self, path: Path) -> None:
        """Takes the path of a network."""
        for module in self.modules():
            if isinstance(module, BaseSuperNetModule):
                module.resample(memo=dict(path))

    def shares(self) -> dict[str, dict[str, float]]:
        """The shares of forms at each place, of a supernet of DARTS; else nothing."""
        return {module.label: module.shares() for module in self.children() if isinstance(module, MixedForms)}

    def forward(self, clips: Tensor) -> Tensor:
        """Maps clips (N, C, T, H, W) to logits (N, classes); in evaluation along the path that was taken last."""
        if self.training:
            self.take(self._paths[int(torch.randint(len(self._paths), (), device="cpu"))])
            if self._mixed:
                self._turn(weights=bool(torch.randint(2, (), device="cpu")))
        x = clips
        for name in self._names:
            x = self.get_submodule(name)(x)
        return x

    def _turn(self, *, weights: bool) -> None:
        """Whether weights learn from this batch, or the shares of forms, where there are several."""
        choices = [module for module in self.children() if isinstance(module, MixedForms)]
        weights = weights or all(len(module._forms) == 1 for module in choices)
        for module in choices:
            module.learns = not weights
        for unit in self.modules():
            if isinstance(unit, SharedUnit):
                unit.learns = weights

    def weights(self, path: Path) -> dict[str, Tensor]:
        """The state of the network with this path, by the names that it has in the network by itself."""
        found = {}
        for module in (self.get_submodule(name) for name in self._names):
            form = path[module.label]
            if form != SKIP:
                unit = module[form]
                for name, value in unit.weights(path[unit.choice.label]).items():
                    found[f"{module.label}.{name}"] = value.detach().clone()
        return found


def supernet_of(places: Cover, *, strategy: Strategy = "random", zero_init: bool = False) -> Supernet:
    """Returns NNI's supernet of a cover, on the path of its first network; torch's generator draws the weights.

    Args:
        places: The networks.
        strategy: `random` is NNI's RandomOneShot, `darts` its DARTS.
        zero_init: Whether residual branches add nothing at first.
    """
    mixed = strategy == "darts"
    with _still():
        hooks = [MixedForms.mutate, SharedUnit.mutate] if mixed else [SharedUnit.mutate]
        made = (DARTS if mixed else RandomOneShot)(mutation_hooks=hooks)
        net: Supernet = made.mutate_model(Supernet(places, mixed=mixed, zero_init=zero_init))
    net.take(next(iter(places.paths.values())))
    return net


def _largest(templates: Sequence[nn.Module]) -> nn.Module:
    """The layers of units with weights as large as the largest of each, not initialised."""
    shapes: dict[str, list[int]] = {}
    owners: dict[str, nn.Module] = {}
    for template in templates:
        for name, tensor in template.state_dict().items():
            known = shapes.setdefault(name, list(tensor.shape))
            assert len(known) == tensor.ndim, f"{name} has {len(known)} and {tensor.ndim} dimensions in one form"
            shapes[name] = [max(pair) for pair in zip(known, tensor.shape, strict=True)]
        owners.update({name: module for name, module in template.named_modules() if [*module.state_dict()]})
    root = nn.Module()
    for path, owner in owners.items():
        names = [name for name, _ in (*owner.named_parameters(recurse=False), *owner.named_buffers(recurse=False))]
        if not names:
            continue
        assert isinstance(owner, nn.Conv3d | nn.BatchNorm3d | nn.Linear), f"no values are drawn for {type(owner)}"
        layer = copy.deepcopy(owner)
        for name in names:
            like = owner.state_dict()[name]
            value = torch.zeros(shapes[f"{path}.{name}"], dtype=like.dtype)
            if name in layer._parameters:
                layer.register_parameter(name, nn.Parameter(value))
            else:
                layer.register_buffer(name, value)
        put(root, path, layer)
    return root


def _last_norms(templates: Sequence[nn.Module]) -> set[str]:
    return {name for template in templates if isinstance(template, Block) for name in template.graph.last_norms()}


def _part(whole: Tensor, shape: Sequence[int]) -> Tensor:
    """The first channels (axes 0 and 1) and the centre of the kernel (the others)."""
    starts = [0 if axis < 2 else (size - shape[axis]) // 2 for axis, size in enumerate(whole.shape)]
    return whole[tuple(slice(start, start + part) for start, part in zip(starts, shape, strict=True))]
