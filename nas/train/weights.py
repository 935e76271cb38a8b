"""Initial weights of a search or a promotion: held to their checksum, and tried on every network beforehand."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import lru_cache

from torch import Tensor

from nas.errors import SearchError
from nas.study.study import Study
from search_spaces.errors import SpecError
from search_spaces.inflate import Inflated, check
from search_spaces.spec import ArchSpec
from search_spaces.weights import checksum, read_weights
from trainer.config import Init


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


def check_networks(init: Init, specs: Sequence[ArchSpec], *, num_classes: int) -> Inflated | None:
    """Makes sure that every network can begin with the weights.

    Args:
        init: The weights.
        specs: The networks, at least one.
        num_classes: Classes of the data.

    Returns:
        What becomes of the weights in the first network; None where there are none.

    Raises:
        SearchError: As `settled`, or a network cannot take them.
    """
    if not init.weights:
        return None
    shapes = {name: tuple(value.shape) for name, value in weights_of(init).items()}
    results: list[Inflated] = []
    refused: list[str] = []
    for spec in specs:
        try:
            results.append(check(spec, shapes, num_classes=num_classes))
        except SpecError as error:
            refused.append(f"{spec.describe()}: {error}")
    if refused:
        raise SearchError(
            f"every network must be able to begin with recipe.init.weights {init.weights}, but {len(refused)} of "
            f"{len(specs)} cannot, such as {refused[0]}"
        )
    return results[0]


@lru_cache(maxsize=1)
def _kept(init: Init) -> Mapping[str, Tensor]:
    return _read(init)[0]


def _read(init: Init) -> tuple[Mapping[str, Tensor], str]:
    try:
        state = read_weights(init.weights)
    except SpecError as error:
        raise SearchError(f"recipe.init.weights: {error}") from error
    found = checksum(state)
    if init.checksum and init.checksum != found:
        raise SearchError(
            f"recipe.init.weights: {init.weights} must hold the weights with checksum {init.checksum[:12]}, but holds "
            f"those with {found[:12]}; bring the former back"
        )
    return state, found
