"""Initial weights of a search or a promotion: held to their checksum, and tried on every network beforehand."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from torch import Tensor, nn

from nas.errors import NotFoundError, SearchError
from nas.study.study import Study
from nas.train.folder import read_record
from nas.train.network import tensors_of
from search_spaces import inflate
from search_spaces.errors import SpecError
from search_spaces.inflate import Inflated
from search_spaces.modules import Network
from search_spaces.pretrained import LAYOUTS, Loaded, check_by_name, is_for_clips, load_by_name
from search_spaces.spec import ArchSpec
from search_spaces.weights import checksum, read_weights
from trainer.config import ConfigError
from trainer.recipe import Init, Recipe
from trainer.tuning import num_frozen

Begun = Inflated | Loaded
"""What became of initial weights in a network."""


def settled(init: Init) -> Init:
    """The initial weights with their checksum; as they are where there are none.

    Raises:
        SearchError: They cannot be read, or are not those that the checksum stands for.
    """
    return dataclasses.replace(init, checksum=_read(init)[1]) if init.weights else init


def settled_study(study: Study) -> Study:
    """The study with the checksum of the weights that its search begins with, also in what will be recorded.

    Raises:
        SearchError: As `settled`.
    """
    init = settled(study.recipe.init)
    recipe = {**study.config["recipe"], "init": dataclasses.asdict(init)}
    return dataclasses.replace(
        study, recipe=dataclasses.replace(study.recipe, init=init), config={**study.config, "recipe": recipe}
    )


def weights_of(init: Init) -> Mapping[str, Tensor]:
    """The tensors of the initial weights; kept, since the jobs of a process all begin with the same.

    Raises:
        SearchError: As `settled`.
    """
    return _kept(init if init.checksum else settled(init))


def check_layers(recipe: Recipe, specs: Sequence[ArchSpec], *, num_classes: int) -> None:
    """Makes sure that every network has the layer that `recipe.freeze` names.

    Raises:
        ConfigError: One has not.
    """
    if recipe.freeze == "none":
        return
    for spec in specs:
        names = [link.name for link in spec.links(num_classes=num_classes) if not link.unit.aside]
        try:
            num_frozen(names, recipe.freeze)
        except ConfigError as error:
            raise ConfigError(f"{error} ({spec.describe()})") from error


def check_networks(init: Init, specs: Sequence[ArchSpec], *, num_classes: int, planes: int) -> list[Begun] | None:
    """Makes sure that every network can begin with the weights.

    Args:
        init: The weights.
        specs: The networks, at least one.
        num_classes: Classes of the data.
        planes: Planes of a clip.

    Returns:
        What becomes of the weights in each network, in order; None where there are none.

    Raises:
        SearchError: As `settled`, or a network cannot take them.
    """
    if not init.weights:
        return None
    shapes = {name: tuple(value.shape) for name, value in weights_of(init).items()}
    results: list[Begun] = []
    by_name = is_for_clips(shapes)
    refused: list[str] = []
    for spec in specs:
        try:
            results.append(
                check_by_name(spec, shapes, num_classes=num_classes, planes=planes, at_least=init.at_least)
                if by_name
                else inflate.check(spec, shapes, num_classes=num_classes)
            )
        except SpecError as error:
            refused.append(f"{spec.describe()}: {error}")
    if by_name and not refused and not any(isinstance(one, Loaded) and one.share > 0 for one in results):
        raise SearchError(
            f"recipe.init.weights {init.weights} must be of a similar network, but none of its tensors has the name "
            f"and shape of one of ours; known are the names of {'; '.join(LAYOUTS)}"
        )
    if refused:
        raise SearchError(
            f"every network must be able to begin with recipe.init.weights {init.weights}, but {len(refused)} of "
            f"{len(specs)} cannot, such as {refused[0]}"
        )
    return results


def begin(network: nn.Module, spec: ArchSpec, init: Init) -> Begun:
    """Gives a network the values that it begins with; in mode `random`, draws from torch's generator.

    Raises:
        SearchError: As `settled`.
        SpecError: They are of another network, or fewer than `init.at_least`. Nothing is changed then.
    """
    state = weights_of(init)
    if not is_for_clips({name: tuple(value.shape) for name, value in state.items()}):
        return inflate.inflate(network, spec, state, init.mode)
    assert isinstance(network, Network)
    return load_by_name(network, state, heads=(network.names[-1], *network.sides), at_least=init.at_least)


def words(init: Init, begun: Sequence[Begun]) -> str:
    """What becomes of the weights in some networks, in one line."""
    source = f"{init.weights} ({init.checksum[:10]})"
    first = begun[0]
    if isinstance(first, Inflated):
        left = f"; {', '.join(first.left)} as drawn" if first.left else ""
        return f"networks begin with {first.taken} tensors of {source}, {init.mode}{left}"
    shares = sorted(one.share for one in begun if isinstance(one, Loaded))
    some = ", ".join(first.left[:8]) + (f" and {len(first.left) - 8} more" if len(first.left) > 8 else "")
    if len(begun) == 1:
        left = f"; {some} as drawn" if first.left else ""
        return f"the network begins with {first.taken} tensors of {source}, names of {first.layout}{left}"
    layouts = ", ".join(sorted({one.layout for one in begun if isinstance(one, Loaded) and one.layout}))
    share = f"{100 * shares[0]:.0f} to {100 * shares[-1]:.0f} %"
    return f"networks begin with {share} of their parameters from {source}, names of {layouts}"


@lru_cache(maxsize=1)
def _kept(init: Init) -> Mapping[str, Tensor]:
    return _read(init)[0]


def _read(init: Init) -> tuple[Mapping[str, Tensor], str]:
    try:
        folder = Path(init.weights)
        state = tensors_of(read_record(folder)) if folder.is_dir() else read_weights(init.weights)
    except (SpecError, NotFoundError) as error:
        raise SearchError(f"recipe.init.weights: {error}") from error
    found = checksum(state)
    if init.checksum and init.checksum != found:
        raise SearchError(
            f"recipe.init.weights: {init.weights} must hold the weights with checksum {init.checksum[:12]}, but holds "
            f"those with {found[:12]}; bring the former back"
        )
    return state, found
