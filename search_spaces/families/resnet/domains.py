"""What the domains of a residual search space do at its places: what fits, what has an effect, the spec of settings.

Settings are a mapping from places to values. A place is `(domain,)`, `(domain, stage)` or `(domain, stage, block)`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import lru_cache, partial
from typing import Any

from search_spaces.domains import Place, Scalar, Settings
from search_spaces.families.labels import placement_fits
from search_spaces.families.resnet.blocks import BOTTLENECK_KINDS, EXPANSION, Block, block_midplanes
from search_spaces.families.resnet.make import (
    HEAVY,
    Extras,
    Placement,
    depth_blocks,
    ints,
    make_resnet,
    make_stem,
    place,
    time_pools,
)
from search_spaces.families.resnet.spec import ResNetSpec
from search_spaces.families.resnet.values import (
    DEFAULTS,
    P3D_MIXED,
    SCOPES,
    TIME_FIRST,
    all_widths,
    check_cuts,
    first_temporal_stride,
    normalise,
    operator,
    stage_strides,
    values_of,
)
from search_spaces.operators import FLAT, MIDPLANES, POINTWISE_KINDS, PORT_KINDS, TemporalOp

At = tuple[int, int]

_OPERATOR = ("kind", "kernel", "dilation", "midplanes")
_FIRST = ("depth", "widths", "stem_width", "width", "first_stride", "shortcut", "relu_first")
_PLACES = ("placement", "cut", "stem")
_WHOLE = ("head", "norm_eps", "norm_momentum", "zero_init")
_LAST = ("kernel", "dilation", "midplanes", "temporal_stride", "stride_on", "time_pool", "attention", *_WHOLE)


class ResNetSites:
    """The places of a residual space and what values do there."""

    def __init__(self, scopes: Mapping[str, str], values: Mapping[str, tuple[Scalar, ...]]) -> None:
        """Makes it for the domains of one space.

        Args:
            scopes: `network`, `stage` or `block` for each domain of the space.
            values: Values of each domain of the space.

        Raises:
            SpecError: A placement needs a cut, and there is no such domain; or a cut is beyond the last block.
        """
        self.scopes = dict(scopes)
        # A placement decides whether a stem can be temporal, and a kind for the whole network whether a placement says
        # anything; a kind for each stage or block says something only where the placement is.
        once = scopes.get("kind", "network") == "network"
        spread = ("kind", *_PLACES) if once else (*_PLACES, "kind")
        self.order = tuple(d for d in (*_FIRST, *spread, *_LAST) if d in scopes)
        check_cuts(values)
        self._stem_can_be_temporal = any(make_stem(str(s)).temporal_kernel > 1 for s in values_of(values, "stem"))
        self._first_can_stride = any(first_temporal_stride(v) > 1 for v in values_of(values, "temporal_stride"))
        self._needs_bottlenecks = all(v in BOTTLENECK_KINDS for v in values_of(values, "kind"))

    def counts(self, settings: Settings) -> tuple[int, ...]:
        """Returns blocks of each stage; needs the depth to be settled."""
        return depth_blocks(settings.get(("depth",), DEFAULTS["depth"]))[1]

    def value(self, settings: Settings, domain: str, s: int, b: int) -> Any:
        """Returns a domain's value at a block, None while it is open."""
        scope = self.scopes.get(domain)
        if scope is None:
            return DEFAULTS[domain]
        if scope == "network":
            return settings.get((domain,))
        return settings.get((domain, s) if scope == "stage" else (domain, s, b))

    def picky(self, domain: str) -> bool:
        """Returns whether no value of a domain may fit at a stage or block; a depth that fits sees to it otherwise."""
        return domain == "kind" and "depth" not in self.scopes

    def fits(self, settings: Settings, domain: str, value: Scalar) -> bool:
        """Returns whether a value suits the number of stages and blocks, and their kind."""
        if domain == "kind":
            return value not in BOTTLENECK_KINDS or self._is_bottleneck(settings)
        if domain == "depth":
            return not self._needs_bottlenecks or depth_blocks(value)[0] == "bottleneck"
        if self.scopes[domain] != "network":
            return True
        counts = self.counts(settings)
        if domain == "widths":
            return len(ints(str(value))) == len(counts)
        if domain == "placement":
            return value in HEAVY or placement_fits(str(value), counts)
        if domain == "cut":
            label = settings.get(("placement",))
            return label not in HEAVY or placement_fits(f"{label}:{value}", counts)
        if domain == "temporal_stride":
            return value in ("none", "as_paper", 1, 2) or len(ints(str(value))) == len(counts)
        return domain != "time_pool" or value == "none" or len(ints(str(value))) == len(counts)

    def in_effect(self, settings: Settings, domain: str, s: int, b: int) -> bool:
        """Returns whether a domain says anything about a block; a rule matches only where all of its do."""
        if domain == "temporal_stride":
            return b == 0
        if domain == "stride_on":
            return b == 0 and (s > 0 or self._first_strides(settings)) and self._is_bottleneck(settings)
        if domain == "placement":
            return self._stem_can_be_temporal or settings.get(("kind",)) != "2d"
        if domain == "cut":
            return settings.get(("placement",)) in HEAVY and settings.get(("kind",)) != "2d"
        if domain not in _OPERATOR:
            return True
        where = self._where(settings)
        if where is not None and sum(self.counts(settings)[:s]) + b not in where.blocks:
            return False
        kind = self.value(settings, "kind", s, b)
        if domain == "midplanes":
            return kind in ("2plus1d", TIME_FIRST)
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
            where = self._where(settings)
            return make_stem(str(value), temporal=where is None or where.stem)
        if domain == "shortcut":
            return value if len(self.counts(settings)) > 1 or self._first_projects(settings) else None
        if domain == "placement":
            return self._placement_effect(settings, value)
        if domain == "temporal_stride":
            return self._stride_effect(settings, here, value)
        if domain == "time_pool":
            return value if len(here) == 2 else time_pools(str(value), len(self.counts(settings)))
        if domain not in (*_OPERATOR, "cut", "stride_on"):
            return value
        blocks = self._blocks_at(settings, here)
        if domain != "midplanes" and value not in (P3D_MIXED, "t1x1_all", *PORT_KINDS):
            return value if any(self.in_effect(settings, domain, s, b) for s, b in blocks) else None
        active = [at for at in blocks if self.in_effect(settings, domain, *at)]
        if not active:
            return None
        if domain == "kind":
            return self._kind_effect(settings, active, value)
        return self._mids({**settings, here: value}, active)

    def build(self, settings: Settings) -> ResNetSpec:
        """Returns the canonical spec of settings that are complete."""
        kind, counts = depth_blocks(settings.get(("depth",), DEFAULTS["depth"]))
        where = self._where(settings)
        assert where is not None
        stem_width, *widths = self._widths(settings)
        pools = self._whole(settings, "time_pool", len(counts))
        extras = Extras(
            stride_on=partial(self.value, settings, "stride_on"),
            attention=partial(self.value, settings, "attention"),
            first_stride=self.value(settings, "first_stride", 0, 0),
            pools=pools if isinstance(pools, tuple) else time_pools(str(pools), len(counts)),
            **{name: self.value(settings, name, 0, 0) for name in ("shortcut", "relu_first", *_WHOLE)},
        )
        strides = partial(stage_strides, self._whole(settings, "temporal_stride", len(counts)))
        return make_resnet(
            kind=kind,
            counts=counts,
            widths=widths,
            stem=make_stem(self.value(settings, "stem", 0, 0), width=stem_width, temporal=where.stem),
            op_at=partial(self._op_at, settings, where),
            strides=strides,
            extras=extras,
        )

    def _is_bottleneck(self, settings: Settings) -> bool:
        return depth_blocks(settings.get(("depth",), DEFAULTS["depth"]))[0] == "bottleneck"

    def _first_strides(self, settings: Settings) -> bool:
        """Returns whether the first stage has a stride, or may still get one."""
        label = self.value(settings, "temporal_stride", 0, 0)
        if self.value(settings, "first_stride", 0, 0) != 1:
            return True
        return label is None or first_temporal_stride(label) > 1

    def _where(self, settings: Settings) -> Placement | None:
        """Returns where time is, None while that is open."""
        label = self.value(settings, "placement", 0, 0)
        if label in HEAVY:
            cut = settings.get(("cut",))
            label = None if cut is None else f"{label}:{cut}"
        return None if label is None else place(str(label), self.counts(settings))

    def _whole(self, settings: Settings, domain: str, num_stages: int) -> Any:
        """Returns a domain's one value, or one a stage where it is chosen so."""
        if self.scopes.get(domain) == "stage":
            return tuple(settings[domain, s] for s in range(num_stages))
        return settings.get((domain,), DEFAULTS[domain])

    def _op_at(self, settings: Settings, where: Placement, s: int, b: int, index: int) -> TemporalOp:
        if index not in where.blocks:
            return FLAT
        kind, kernel, dilation, mids = (self.value(settings, domain, s, b) for domain in _OPERATOR)
        return operator(kind, kernel, dilation, mids, index % 3 if kind == P3D_MIXED else 0)

    def _widths(self, settings: Settings) -> tuple[int, ...]:
        """Returns the stem's width and every stage's, multiplied."""
        return all_widths(
            len(self.counts(settings)),
            str(settings.get(("widths",), "")),
            int(settings.get(("stem_width",), 0)),
            float(settings.get(("width",), 1.0)),
        )

    def _blocks_at(self, settings: Settings, here: Place) -> list[At]:
        if len(here) == 3:
            return [(here[1], here[2])]
        counts = self.counts(settings)
        return list(_blocks(counts)) if len(here) == 1 else [(here[1], b) for b in range(counts[here[1]])]

    def _placement_effect(self, settings: Settings, value: Scalar) -> Hashable:
        idle = settings.get(("kind",)) == "2d"
        if value in HEAVY and not idle:
            return value
        where = place(f"{value}:0" if value in HEAVY else str(value), self.counts(settings))
        return (() if idle else where.blocks, where.stem and self._stem_can_be_temporal)

    def _kind_effect(self, settings: Settings, blocks: list[At], value: Scalar) -> Scalar:
        """Returns the kind that one of several forms comes to in all of the blocks, else the value itself."""
        if value == P3D_MIXED:
            counts = self.counts(settings)
            forms = {(sum(counts[:s]) + b) % 3 for s, b in blocks}
            return f"p3d_{'abc'[forms.pop()]}" if len(forms) == 1 else value
        if value in PORT_KINDS and self.value(settings, "relu_first", 0, 0):
            return str(value).removesuffix("_port")
        if value == "t1x1_all":
            padded = self.value(settings, "shortcut", 0, 0) == "pad"
            first = self._first_projects(settings)
            if padded or not any(b == 0 and (s > 0 or first) for s, b in blocks):
                return "t1x1_both"
        return value

    def _first_projects(self, settings: Settings) -> bool:
        """Returns whether the shortcut of the first block changes planes or size, or may still do so."""
        stem_width, width, *_ = self._widths(settings)
        kind = depth_blocks(settings.get(("depth",), DEFAULTS["depth"]))[0]
        strided = self._first_can_stride or self.value(settings, "first_stride", 0, 0) == 2
        return strided or stem_width != width * EXPANSION[kind]

    def _mids(self, settings: Settings, blocks: list[At]) -> Hashable:
        """Returns the midplanes of (2+1)D blocks, or None where all conventions agree in all of them."""
        kind = depth_blocks(settings.get(("depth",), DEFAULTS["depth"]))[0]
        widths = self._widths(settings)
        mids = []
        for s, b in blocks:
            width = widths[s + 1]
            before = widths[0] if (s, b) == (0, 0) else widths[s if b == 0 else s + 1] * EXPANSION[kind]
            label, kernel, chosen = (self.value(settings, domain, s, b) for domain in ("kind", "kernel", "midplanes"))
            every = []
            for convention in (chosen, *MIDPLANES):
                op = operator(label, kernel, 1, convention, 0)
                block = Block(kind=kind, width=width, spatial_stride=1, temporal_stride=1, temporal=op)
                every.append(block_midplanes(block, before))
            mids.append(every)
        return None if all(len(set(every)) == 1 for _, *every in mids) else tuple(mine for mine, *_ in mids)

    def _stride_effect(self, settings: Settings, here: Place, value: Scalar) -> Hashable:
        counts = self.counts(settings)
        temporal = [self._is_temporal(settings, s) for s in range(len(counts))]
        if len(here) == 1:
            return stage_strides(value, temporal)
        return stage_strides((value,) * len(counts), temporal)[here[1]]

    def _is_temporal(self, settings: Settings, s: int) -> bool:
        flat = self.value(settings, "kernel", s, 0) == 1 and self.value(settings, "kind", s, 0) in (
            "3d",
            *POINTWISE_KINDS,
        )
        return self.in_effect(settings, "kernel", s, 0) and not flat


@lru_cache(maxsize=1024)
def _blocks(counts: tuple[int, ...]) -> tuple[At, ...]:
    return tuple((s, b) for s, count in enumerate(counts) for b in range(count))


class ResNetDomains:
    """What a search may choose in residual networks."""

    defaults = DEFAULTS
    scopes = SCOPES
    blocks_by = "depth"
    fit = ("depth", "widths", "placement", "cut", "kind", "temporal_stride", "time_pool")
    gates: Mapping[str, tuple[str, ...]] = {
        "placement": ("kind",),
        "cut": ("placement", "kind"),
        "kind": ("placement", "cut"),
        "kernel": ("placement", "cut", "kind"),
        "midplanes": ("placement", "cut", "kind"),
        "dilation": ("placement", "cut", "kind", "kernel"),
        "stride_on": ("depth", "first_stride", "temporal_stride"),
    }

    def normalise(self, domain: str, value: object, scope: str) -> Scalar:
        """Returns a value of a domain as the scalar that stands for it; see `resnet.values.normalise`."""
        return normalise(domain, value, scope)

    def sites(self, scopes: Mapping[str, str], values: Mapping[str, tuple[Scalar, ...]]) -> ResNetSites:
        """Returns the places of a space with these domains."""
        return ResNetSites(scopes, values)
