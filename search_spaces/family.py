"""What a family of networks offers: its kind of spec, its domains for a search, and its published networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from search_spaces.domains import Domains, Scalar
from search_spaces.spec import ArchSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """An accuracy that others measured.

    Attributes:
        metric: What was measured, such as `video top-1` or `mAP`.
        value: In percent.
        frames: Frames of a clip; 0 where the source does not say.
        size: Rows and columns of a clip, in pixels; 0 where the source does not say.
        views: What of a video is averaged, such as `10 clips`.
        data: Data set.
        source: Who says so.
    """

    metric: str
    value: float
    frames: int
    size: int
    views: str
    data: str
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """A published network.

    Attributes:
        name: How it is asked for.
        family: Family in the catalogue.
        paper: Where it was published.
        year: When.
        clip: Frames, rows and columns of the clip that it was published for.
        make: From frames of a clip to the spec. Only a few networks depend on them.
        published: Accuracies to cite; empty where there is none.
    """

    name: str
    family: str
    paper: str
    year: int
    clip: tuple[int, int, int]
    make: Callable[[int], ArchSpec]
    published: tuple[Published, ...] = ()


def _nothing_to_check(values: Mapping[str, tuple[Scalar, ...]]) -> None:
    """For families that know all of their values by themselves."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """A family in the catalogue.

    Attributes:
        name: The `family` of its specs.
        spec: Its kind of spec.
        domains: What a search may choose.
        presets: Its published networks.
        least_clip: Frames, rows and columns of a clip that every network of its spaces can take, unless its own
            settings ask for more.
        sample: A space as a study file states it (`domains`, `forbid`) that holds every domain with every value of
            note, of networks that are small enough to run in tests.
        usual: Values of domains that published networks have, beside those of `sample`.
        check: What only the family's libraries know of the values of a space's domains, such as whether a model exists;
            called before a search begins, and raises SpecError.
    """

    name: str
    spec: type[ArchSpec]
    domains: Domains
    presets: tuple[Preset, ...]
    least_clip: tuple[int, int, int] = (8, 32, 32)
    sample: Callable[[], dict[str, object]]
    usual: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)
    check: Callable[[Mapping[str, tuple[Scalar, ...]]], None] = _nothing_to_check
