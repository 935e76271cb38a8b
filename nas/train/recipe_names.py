"""What tells the recipes of promotions apart: networks trained with other recipes are not seeds of one training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas.store.records import PromotionRow

DIGITS = 6  # of a recipe's digest, as it is shown


def are_several(promotions: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a network was trained for the same epochs with more than one recipe.

    Args:
        promotions: Rows of `Store.promotions`, or of the table of them.
    """
    of_training: dict[tuple[str, int], str] = {}  # a recipe's digest is of its epochs, too, which stand beside it
    return any(
        of_training.setdefault((row["digest"], row["epochs"]), row["recipe_digest"]) != row["recipe_digest"]
        for row in promotions
    )


def told_apart(promotions: Sequence[PromotionRow]) -> dict[str, str]:
    """The recipes by their digest, each with the settings in which it differs from the others, such as `lr 0.02`.

    Args:
        promotions: Rows of `Store.promotions`.

    Returns:
        Nothing where no network was trained for the same epochs with more than one recipe.
    """
    if not are_several(promotions):
        return {}
    from nas.study.study import changes  # every family, which most tables have no use for

    recipes = {row["recipe_digest"]: {"recipe": row["recipe"]} for row in promotions}
    said: dict[str, dict[str, str]] = {digest: {} for digest in recipes}
    for digest, one in recipes.items():
        for other in recipes.values():
            said[digest] |= {key.removeprefix("recipe."): str(mine) for key, (mine, _) in changes(one, other).items()}
    return {digest: ", ".join(f"{key} {found[key]}" for key in sorted(found)) for digest, found in said.items()}


def recipe_lines(apart: Mapping[str, str]) -> list[str]:
    """`told_apart`, a line each."""
    return [f"recipe {digest[:DIGITS]}: {text or 'as the others'}" for digest, text in apart.items()]
