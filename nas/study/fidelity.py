"""What a rung of a search is: more epochs of one training, or a training of its own on more data, frames or pixels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from nas.errors import StudyError
from trainer.config import Clip, DataConfig
from trainer.recipe import Recipe

FIDELITIES = ("epochs", "data", "frames", "size")
_UNITS = {"epochs": "epochs", "data": "of-data", "frames": "frames", "size": "pixels"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Fidelity:
    """The rungs of a search.

    With `epochs`, a rung continues the training of the rung below. With the others, each rung is a training from
    scratch, and the epochs of a trial are numbered on through its rungs: those of rung r follow those of rung r - 1.

    Attributes:
        kind: `epochs`, `data`, `frames` or `size`.
        values: The resource at each rung, rising: epochs, shares of the training videos, frames, or rows of a clip.
        epochs: Of the training at each rung; unused by kind `epochs`.
    """

    kind: str = "epochs"
    values: tuple[float, ...] = ()
    epochs: int = 0

    def __len__(self) -> int:
        return len(self.values)

    @property
    def continues(self) -> bool:
        """Whether a rung goes on from the checkpoint of the rung below."""
        return self.kind == "epochs"

    @property
    def ends(self) -> tuple[int, ...]:
        """Epochs that a trial has been trained in all when it reaches each rung."""
        if self.continues:
            return tuple(int(value) for value in self.values)
        return tuple(self.epochs * (rung + 1) for rung in range(len(self)))

    def before(self, rung: int) -> int:
        """Epochs of a trial that do not belong to the training of a rung."""
        return 0 if self.continues else self.epochs * rung

    def trained(self, rung: int) -> int:
        """Epochs of the training whose result a rung holds."""
        return self.ends[rung] - self.before(rung)

    @property
    def full_epochs(self) -> int:
        """Epochs of the training whose result the last rung holds."""
        return self.trained(len(self) - 1)

    def is_full(self, rung: int) -> bool:
        """Whether a rung sees all videos with the full clip."""
        return self.continues or rung == len(self) - 1

    def worth(self, rung: int) -> float:
        """What an epoch at a rung costs as a share of one with all videos and the full clip.

        Videos and frames count as they are; pixels by the area, since the work of a convolution grows with it.
        """
        if self.is_full(rung) or not 0 <= rung < len(self):
            return 1.0
        share = self.values[rung] / self.values[-1]
        return share * share if self.kind == "size" else share

    def label(self, rung: int) -> str:
        """A rung in words: `9 epochs`, `33 % of the data`, `8 frames`, `80 pixels`."""
        if not 0 <= rung < len(self):
            return f"rung {rung}"
        value = self.values[rung]
        if self.kind == "data":
            return f"{100 * value:.3g} % of the data"
        if self.kind == "size":
            return f"{value:g} pixels"
        return _plural(int(value), self.kind)

    def at(self, rung: int) -> str:
        """The same behind a result: `after 9 epochs`, `at 33 % of the data`."""
        return f"{'after' if self.continues else 'at'} {self.label(rung)}"

    def label_of(self, epochs: int) -> str:
        """The rung that a trial has reached after `epochs` in all, in words."""
        return self.label(self.ends.index(epochs)) if epochs in self.ends else _plural(epochs, "epochs")

    def at_epochs(self, epochs: int) -> str:
        """The same behind a result."""
        return self.at(self.ends.index(epochs)) if epochs in self.ends else f"after {_plural(epochs, 'epochs')}"

    def slug(self, rung: int) -> str:
        """The end of the name of a rung's Optuna study: `9-epochs`, `0.33-of-data`, `8-frames`, `80-pixels`."""
        return f"{self.values[rung]:g}-{_UNITS[self.kind]}"

    def data_at(self, rung: int, full: DataConfig) -> DataConfig:
        """How a rung takes clips from the data, in training and in evaluation.

        Fewer frames stand for the same stretch of video: dense sampling takes every other frame, say, instead of half
        the time. Smaller clips show the same part of the picture: it is cut as for the full clip, then resized.

        Args:
            rung: From 0.
            full: The study's data.
        """
        if self.is_full(rung):
            return full
        value, clip = self.values[rung], full.clip
        if self.kind == "data":
            return replace(full, share=full.share * value)
        if self.kind == "frames":
            frames = int(value)
            stride = clip.stride if full.sampling == "uniform" else clip.stride * clip.frames // frames
            return replace(full, clip=replace(clip, frames=frames, stride=stride))
        width = max(1, round(clip.width * value / clip.height))
        crop = full.crop or (clip.height, clip.width)
        return replace(full, clip=replace(clip, height=int(value), width=width), crop=crop)

    def clips(self, full: DataConfig) -> dict[str, Clip]:
        """The clips of the rungs that are smaller than the full one, by the rung's label."""
        if self.kind not in ("frames", "size"):
            return {}
        return {self.label(rung): self.data_at(rung, full).clip for rung in range(len(self) - 1)}


EPOCHS = Fidelity()


def recorded_fidelity(study: Mapping[str, Any]) -> Fidelity:
    """The rungs of a study as it was recorded; of kind `epochs` where the record does not say.

    Args:
        study: Row of the study.
    """
    search = study["config"].get("search", {})
    kind = search.get("fidelity", "epochs")
    return Fidelity(kind=kind, values=tuple(search.get("rungs", ())), epochs=search.get("epochs", 0))


def worth_of(fidelity: Fidelity, evaluations: Iterable[Mapping[str, Any]]) -> float:
    """What the trainings behind evaluations cost, in epochs with all videos and the full clip.

    Args:
        fidelity: The rungs.
        evaluations: Rows of `Store.evaluations`, each trial's in the order of its rungs.
    """
    reached: dict[int, int] = {}
    total = 0.0
    for row in evaluations:
        total += (row["epochs"] - reached.get(row["trial_id"], 0)) * fidelity.worth(row["rung"])
        reached[row["trial_id"]] = row["epochs"]
    return total


def fidelity_of(search: Mapping[str, Any], data: DataConfig, recipe: Recipe) -> Fidelity:
    """The rungs that a study states.

    Args:
        search: The plain values of `search`.
        data: The study's data, whose clip the last rung sees.
        recipe: How networks are trained.

    Raises:
        StudyError: They do not rise, do not end at the full fidelity, or cannot be trained by the recipe.
    """
    kind, epochs = search.get("fidelity", "epochs"), search.get("epochs", 0)
    values = _rising(kind, search["rungs"])
    if kind == "epochs":
        if epochs:
            raise StudyError(
                f"search.epochs must be left out with search.fidelity epochs, whose rungs are epochs, but is {epochs}"
            )
        return Fidelity(values=values)
    if epochs < 1:
        raise StudyError(
            f"search.epochs must be at least 1 with search.fidelity {kind}: the epochs of the training at each rung; "
            f"but is {epochs}"
        )
    last, name = {
        "data": (1, "all of the data"),
        "frames": (data.clip.frames, "data.clip.frames"),
        "size": (data.clip.height, "data.clip.height"),
    }[kind]
    if values[-1] != last:
        raise StudyError(
            f"search.rungs must end at {last}, {name}, with search.fidelity {kind}, but ends at {values[-1]:g}"
        )
    stretch = data.clip.frames * data.clip.stride
    if kind == "frames" and data.sampling == "dense" and any(stretch % value for value in values):
        fitting = ", ".join(str(n) for n in range(1, data.clip.frames + 1) if stretch % n == 0)
        raise StudyError(
            f"search.rungs must divide data.clip.frames x data.clip.stride = {stretch} with search.fidelity frames and "
            f"dense sampling, so that each shows the same stretch of video, but are "
            f"{', '.join(f'{value:g}' for value in values)} (choices: {fitting})"
        )
    if recipe.has_horizon and recipe.epochs != epochs:
        raise StudyError(
            f"recipe.epochs must be 0 or search.epochs = {epochs} with schedule {recipe.schedule}, which ends with "
            f"each training, but is {recipe.epochs}"
        )
    if recipe.phases and kind in ("frames", "size"):
        raise StudyError(
            f"recipe.phases must be empty with search.fidelity {kind}: both set the clip; take search.fidelity epochs "
            "or data"
        )
    return Fidelity(kind=kind, values=values, epochs=epochs)


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun[:-1] if number == 1 else noun}"


def _rising(kind: str, values: Any) -> tuple[float, ...]:
    """The rungs as numbers that rise, whole ones but for shares."""
    whole = kind != "data"
    what, example = {
        "epochs": ("numbers of epochs", "[3, 9, 27]"),
        "data": ("shares of the training videos, above 0 and at most 1,", "[0.11, 0.33, 1.0]"),
        "frames": ("numbers of frames", "[4, 8, 16]"),
        "size": ("numbers of rows of pixels", "[56, 80, 112]"),
    }[kind]
    listed = list(values) if isinstance(values, Sequence) and not isinstance(values, str) else values
    good = isinstance(listed, list) and listed and all(_is_number(value, whole) for value in listed)
    if not good or any(a >= b for a, b in pairwise((0, *listed))) or (kind == "data" and listed[-1] > 1):
        raise StudyError(f"search.rungs must be ascending {what} such as {example}, but is {listed}")
    return tuple(listed)


def _is_number(value: Any, whole: bool) -> bool:
    return isinstance(value, int if whole else int | float) and not isinstance(value, bool)
