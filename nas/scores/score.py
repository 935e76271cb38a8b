"""One score of one network."""

from __future__ import annotations

import math

from nas.cost import cost_of
from nas.errors import SearchError, one_line, one_of
from nas.scores import SCORES
from nas.scores import data as d
from nas.scores import structure as s
from nas.scores.untrained import drawing, drawn
from search_spaces.spec import ArchSpec, SpecError
from trainer.config import Clip


class ScoreError(SearchError):
    """A network has no such score."""


def score(
    name: str,
    spec: ArchSpec,
    clip: Clip,
    *,
    num_classes: int,
    planes: int = 3,
    seed: int = 0,
    batches: d.Batches | None = None,
) -> float:
    """Scores a network without training it; a function of its arguments alone.

    Args:
        name: One of `SCORES`.
        spec: The network.
        clip: That it sees.
        num_classes: Classes.
        planes: Planes of a clip: 3 of RGB, 2 of optical flow.
        seed: Of initial weights, and of clips where none are given.
        batches: Clips that `naswot` and `zico` look at; noise unless given.

    Returns:
        A finite number, larger for networks that are expected to be better. Torch's generator is not moved.

    Raises:
        ScoreError: There is no such score, or the network does not have it: the clip is too small for it, or what is
            computed is not finite.
    """
    if name not in SCORES:
        raise ScoreError(one_of("score", name, SCORES))
    if name == "temporal" and clip.frames < 2:
        raise ScoreError(f"the score temporal needs clips of 2 frames or more, but they have {clip.frames}")
    shape = (planes, clip.frames, clip.height, clip.width)
    try:
        if name == "params":
            value = math.log10(cost_of(spec, clip, num_classes=num_classes, planes=planes).params)
        else:
            with drawing(seed):
                network = drawn(spec, num_classes=num_classes, planes=planes)
                if name == "synflow":
                    value = s.synflow(network, shape)
                elif name == "entropy":
                    value = s.entropy(network, shape, num_classes=num_classes)
                elif name == "temporal":
                    value = s.temporal(network, shape, num_classes=num_classes)
                else:
                    seen = batches if batches is not None else d.noise(shape, num_classes, seed)
                    value = d.naswot(network, seen) if name == "naswot" else d.zico(network, seen)
    except (SpecError, RuntimeError) as error:
        raise ScoreError(f"{spec.describe()} has no score {name}: {one_line(str(error), 200)}") from error
    if not math.isfinite(value):
        raise ScoreError(f"{spec.describe()} has no score {name}: it is not finite")
    return value
