"""What the domains of a residual search space mean: valid values, where they have an effect, their spec.

Settings are a mapping from places to values. A place is `(domain,)`, `(domain, stage)` or `(domain, stage,
block)`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import lru_cache, partial
from typing import cast

from search_spaces.resnet_specs import (
    Placement,
    depth_blocks,
    ints,
    make_resnet,
    make_stem,
    place,
    scale,
    temporal_strides,
)
from search_spaces.spec import (
    EXPANSION,
    KERNELS,
    KINDS,
    MIDPLANES,
    ArchSpec,
    Block,
    Kind,
    Midplanes,
    SpecError,
    TemporalOp,
    block_midplanes,
    nearest,
)

Scalar = str | int | float | bool
Place = tuple[str] | tuple[str, int] | tuple[str, int, int]
Settings = Mapping[Place, Scalar]

# What a domain is where a space leaves it out: together, R3D-18.
DEFAULTS: Mapping[str, Scalar] = {
    "depth": 18,
    "widths": "",
    "stem_width": 0,
    "width": 1.0,
    "placement": "all",
    "stem": "3x7x7",
    "kind": "3d",
    "kernel": 3,
    "dilation": "1",
    "midplanes": "per_conv",
    "temporal_stride": "as_paper",
}
_ANY = ("network", "stage", "block")
SCOPES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(DEFAULTS, ("network",)),
    **dict.fromkeys(("kind", "kernel", "dilation", "midplanes"), _ANY),
    "temporal_stride": ("network", "stage"),
}


def normalise(domain: str, value: object, scope: str) -> Scalar:
    """Returns a value of a domain as the scalar that stands for it, such as `1|2|4` for a list of dilations.

    Raises:
        SpecError: The value is not one that the domain can have.
    """
    if isinstance(value, list | tuple):
        join = {"dilation": "|", "placement": ","}.get(domain, "-")
        if domain not in ("dilation", "placement", "depth", "widths", "temporal_stride") or not value:
            raise SpecError(f"a value of {domain} cannot be the list {list(value)}")
        value = join.join(map(str, value))
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise SpecError(f"a value of {domain} must be text or a number, but is {value}")
    if domain == "temporal_stride" and scope == "stage" and value not in ("none", "as_paper", 1, 2):
        raise SpecError(f"temporal_stride of a stage must be none, as_paper, 1 or 2, but is {value}")
    _CHECKS[domain](value)
    return _dilation_label(value) if domain == "dilation" else float(value) if domain == "width" else value


def _check_choice(name: str, choices: tuple[Scalar, ...], value: Scalar) -> None:
    if not any(type(value) is type(c) and value == c for c in choices):
        raise SpecError(f"{name} must be one of its choices, but is {value}{nearest(value, choices)}")


def _check_number(name: str, value: Scalar) -> None:
    if isinstance(value, str) or value <= 0 or (name == "stem_width" and not isinstance(value, int)):
        kind = "a whole number of at least 1" if name == "stem_width" else "a number above 0"
        raise SpecError(f"{name} must be {kind}, but is {value}")


def _check_widths(value: Scalar) -> None:
    if 0 in ints(str(value)):
        raise SpecError(f"widths must be at least 1, but are {value}")


def _check_placement(value: Scalar) -> None:
    # A network of nine stages of 200 blocks fits every label that has a valid form.
    place(str(value), (200,) * 9)


def _check_stride(value: Scalar) -> None:
    if value not in ("none", "as_paper", 1, 2):
        label = str(value)
        temporal_strides(label, [True] * (label.count("-") + 1))


def _dilation_label(value: Scalar) -> Scalar:
    dilations = sorted({int(part) for part in str(value).split("|")})
    return dilations[0] if len(dilations) == 1 else "|".join(map(str, dilations))


def _check_dilation(value: Scalar) -> None:
    parts = str(value).split("|")
    if isinstance(value, float) or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise SpecError(f"dilation must be whole numbers of at least 1, alone or as 1|2|4, but is {value}")


_CHECKS: Mapping[str, Callable[[Scalar], object]] = {
    "depth": lambda value: depth_blocks(value),
    "widths": _check_widths,
    "stem_width": partial(_check_number, "stem_width"),
    "width": partial(_check_number, "width"),
    "placement": _check_placement,
    "stem": lambda value: make_stem(str(value)),
    "kind": partial(_check_choice, "kind", KINDS),
    "kernel": partial(_check_choice, "kernel", KERNELS),
    "dilation": _check_dilation,
    "midplanes": partial(_check_choice, "midplanes", MIDPLANES),
    "temporal_stride": _check_stride,
}


@lru_cache(maxsize=4096)
def _operator(kind: Kind, kernel: int, dilation: Scalar, midplanes: Midplanes) -> TemporalOp:
    dilations = tuple(int(part) for part in str(dilation).split("|"))
    return TemporalOp(kind=kind, kernel=kernel, dilation=dilations, midplanes=midplanes)


class ResNetSites:
    """The places of a residual space and what values do there."""

    def __init__(self, scopes: Mapping[str, str], values: Mapping[str, tuple[Scalar, ...]]) -> None:
        """Makes it for the domains of one space.

        Args:
            scopes: `network`, `stage` or `block` for each domain of the space.
            values: Values of each domain of the space.
        """
        self.scopes = dict(scopes)
        # A placement decides whether a stem can be temporal, and a kind for the whole network whether a
        # placement says anything; a kind for each stage or block says something only where the placement is.
        kinds = ("kind", "placement", "stem") if scopes.get("kind", "network") == "network" else ()
        order = ("depth", "widths", "stem_width", "width", *(kinds or ("placement", "stem", "kind")))
        self.order = tuple(d for d in (*order, "kernel", "dilation", "midplanes", "temporal_stride") if d in scopes)
        stems = values.get("stem", (DEFAULTS["stem"],))
        self._stem_can_be_temporal = any(make_stem(str(s)).temporal_kernel > 1 for s in stems)

    def counts(self, settings: Settings) -> tuple[int, ...]:
        """Returns blocks of each stage; needs the depth to be settled."""
        return depth_blocks(settings.get(("depth",), DEFAULTS["depth"]))[1]

    def value(self, settings: Settings, domain: str, s: int, b: int) -> Scalar | None:
        """Returns a domain's value at a block, None while it is open."""
        scope = self.scopes.get(domain)
        if scope is None:
            return DEFAULTS[domain]
        if scope == "network":
            return settings.get((domain,))
        return settings.get((domain, s) if scope == "stage" else (domain, s, b))

    def fits(self, settings: Settings, domain: str, value: Scalar) -> bool:
        """Returns whether a value suits the number of stages and blocks."""
        if domain not in ("widths", "placement", "temporal_stride"):
            return True
        counts = self.counts(settings)
        if domain == "widths":
            return len(ints(str(value))) == len(counts)
        if domain == "placement":
            return _fits(str(value), counts)
        return value in ("none", "as_paper", 1, 2) or len(ints(str(value))) == len(counts)

    def in_effect(self, settings: Settings, domain: str, s: int, b: int) -> bool:
        """Returns whether a domain says anything about a block; a rule matches only where all of its do."""
        if domain == "temporal_stride":
            return b == 0
        if domain == "placement":
            return self._stem_can_be_temporal or settings.get(("kind",)) != "2d"
        if domain not in ("kind", "kernel", "dilation", "midplanes"):
            return True
        label = self.value(settings, "placement", s, b)
        counts = self.counts(settings)
        if label is not None and sum(counts[:s]) + b not in place(str(label), counts).blocks:
            return False
        kind = self.value(settings, "kind", s, b)
        if domain == "midplanes":
            return kind == "2plus1d"
        if domain == "dilation" and self.value(settings, "kernel", s, b) == 1:
            return False
        return domain == "kind" or kind != "2d"

    def effect(self, settings: Settings, here: Place, value: Scalar) -> Hashable:
        """Returns something equal for values that do the same here; None where none does anything.

        Args:
            settings: Everything before this place in the order of domains.
            here: The place.
            value: A value that fits.
        """
        domain = here[0]
        if domain == "width":
            return self._widths({**settings, here: value})
        if domain == "stem":
            label = str(settings.get(("placement",), DEFAULTS["placement"]))
            return make_stem(str(value), temporal=place(label, self.counts(settings)).stem)
        if domain == "placement":
            where = place(str(value), self.counts(settings))
            blocks = where.blocks if settings.get(("kind",)) != "2d" else ()
            return (blocks, where.stem and self._stem_can_be_temporal)
        if domain == "temporal_stride":
            return self._stride_effect(settings, here, value)
        if domain in ("kind", "kernel", "dilation", "midplanes"):
            blocks_here = self._blocks_at(settings, here)
            active = [at for at in blocks_here if self.in_effect(settings, domain, *at)]
            if not active:
                return None
            return self._mids({**settings, here: value}, active) if domain == "midplanes" else value
        return value

    def build(self, settings: Settings) -> ArchSpec:
        """Returns the canonical spec of settings that are complete."""
        depth = settings.get(("depth",), DEFAULTS["depth"])
        kind, counts = depth_blocks(depth)
        where = place(str(settings.get(("placement",), DEFAULTS["placement"])), counts)
        stem_width, *widths = self._widths(settings)
        label: Scalar | tuple[Scalar, ...]
        label = settings.get(("temporal_stride",), DEFAULTS["temporal_stride"])
        if self.scopes.get("temporal_stride") == "stage":
            # Type: ignore[assignment].
            label = tuple(settings["temporal_stride", s] for s in range(len(counts)))
        return make_resnet(
            kind=kind,
            counts=counts,
            widths=widths,
            stem=make_stem(str(settings.get(("stem",), DEFAULTS["stem"])), width=stem_width, temporal=where.stem),
            op_at=partial(self._op_at, settings, where),
            strides=partial(_strides, label),
        )

    def _op_at(self, settings: Settings, where: Placement, s: int, b: int, index: int) -> TemporalOp:
        if index not in where.blocks:
            return _FLAT
        at = [self.value(settings, domain, s, b) for domain in ("kind", "kernel", "dilation", "midplanes")]
        return _operator(*at)

    def _widths(self, settings: Settings) -> tuple[int, ...]:
        """Returns the stem's width and every stage's, multiplied."""
        return _all_widths(
            len(self.counts(settings)),
            str(settings.get(("widths",), "")),
            int(settings.get(("stem_width",), 0)),
            float(settings.get(("width",), 1.0)),
        )

    def _blocks_at(self, settings: Settings, here: Place) -> list[tuple[int, int]]:
        if len(here) == 3:
            return [(here[1], here[2])]
        counts = self.counts(settings)
        stages = range(len(counts)) if len(here) == 1 else (here[1],)
        return [(s, b) for s in stages for b in range(counts[s])]

    def _mids(self, settings: Settings, blocks: list[tuple[int, int]]) -> Hashable:
        """Returns the midplanes of (2+1)D blocks, or None where both conventions agree in all of them."""
        depth = settings.get(("depth",), DEFAULTS["depth"])
        kind = depth_blocks(depth)[0]
        widths = self._widths(settings)
        mids = []
        for s, b in blocks:
            width = widths[s + 1]
            before = widths[0] if (s, b) == (0, 0) else widths[s if b == 0 else s + 1] * EXPANSION[kind]
            kernel = int(self.value(settings, "kernel", s, b) or 0)
            both = []
            for convention in (self.value(settings, "midplanes", s, b), *MIDPLANES):
                op = _operator("2plus1d", kernel, 1, cast(Midplanes, convention))
                block = Block(kind=kind, width=width, spatial_stride=1, temporal_stride=1, temporal=op)
                both.append(block_midplanes(block, before))
            mids.append(both)
        return None if all(paper == shared for _, paper, shared in mids) else tuple(mine for mine, *_ in mids)

    def _stride_effect(self, settings: Settings, here: Place, value: Scalar) -> Hashable:
        counts = self.counts(settings)
        temporal = [self._is_temporal(settings, s) for s in range(len(counts))]
        if len(here) == 1:
            return _strides(value, temporal)
        return _strides((value,) * len(counts), temporal)[here[1]]

    def _is_temporal(self, settings: Settings, s: int) -> bool:
        kind, kernel = self.value(settings, "kind", s, 0), self.value(settings, "kernel", s, 0)
        return self.in_effect(settings, "kernel", s, 0) and not (kind == "3d" and kernel == 1)


def _strides(label: Scalar | tuple[Scalar, ...], groups_3d: list[bool] | tuple[bool, ...]) -> tuple[int, ...]:
    """Returns a stride a stage from one label, or from one value a stage."""
    if not isinstance(label, tuple):
        return (int(label),) * len(groups_3d) if label in (1, 2) else temporal_strides(str(label), groups_3d)
    named = {name: temporal_strides(name, groups_3d) for name in ("none", "as_paper")}
    return tuple(named[v][s] if isinstance(v, str) else int(v) for s, v in enumerate(label))


@lru_cache(maxsize=4096)
def _fits(label: str, counts: tuple[int, ...]) -> bool:
    try:
        place(label, counts)
    except SpecError:
        return False
    return True


@lru_cache(maxsize=4096)
def _all_widths(num_stages: int, widths: str, stem_width: int, multiplier: float) -> tuple[int, ...]:
    # Without a list of widths, stages double from the stem's; without a stem's width, it is the first stage's
    # or 64.
    base = ints(widths) if widths else tuple((stem_width or 64) * 2**s for s in range(num_stages))
    return tuple(scale(width, multiplier) for width in (stem_width or base[0], *base))


_FLAT = TemporalOp(kind="2d")
