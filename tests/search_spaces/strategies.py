"""Specs for hypothesis, and spaces for sampling, shared by the tests of networks."""

from __future__ import annotations

from hypothesis import strategies as st

from search_spaces.space import SearchSpace, parse_space
from search_spaces.spec import KERNELS, KINDS, MIDPLANES, ArchSpec, Block, Stage, Stem, TemporalOp

WIDTHS = (8, 16, 24)

operators = st.builds(
    TemporalOp,
    kind=st.sampled_from(KINDS),
    kernel=st.sampled_from(KERNELS),
    dilation=st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple),
    midplanes=st.sampled_from(MIDPLANES),
)


@st.composite
def stems(draw: st.DrawFn) -> Stem:
    padded = draw(st.booleans())
    return Stem(
        kind=draw(st.sampled_from(["conv", "2plus1d"])),
        width=draw(st.sampled_from(WIDTHS)),
        midplanes=draw(st.integers(1, 12)),
        temporal_kernel=draw(st.sampled_from([1, 3, 5] if padded else [1, 2, 3, 4])),
        spatial_kernel=draw(st.sampled_from([1, 3, 5])),
        spatial_stride=draw(st.sampled_from([1, 2])),
        temporal_stride=draw(st.sampled_from([1, 2])),
        temporal_padding=padded,
        pool=draw(st.sampled_from(["none", "max"])),
    )


blocks = st.builds(
    Block,
    kind=st.sampled_from(["basic", "bottleneck"]),
    width=st.sampled_from(WIDTHS),
    spatial_stride=st.sampled_from([1, 2]),
    temporal_stride=st.sampled_from([1, 2]),
    temporal=operators,
)
specs: st.SearchStrategy[ArchSpec] = st.builds(
    ArchSpec,
    stem=stems(),
    stages=st.lists(
        st.builds(Stage, blocks=st.lists(blocks, min_size=1, max_size=2).map(tuple)), min_size=1, max_size=3
    ).map(tuple),
)


def wide_space() -> SearchSpace:
    """A space with every domain in it, of small networks of one to four stages."""
    return parse_space(
        {
            "domains": {
                "depth": [10, [1, 2, 1], "2-1"],
                "widths": ["8-16-24-32", "16-16-32", "8-24"],
                "width": [1.0, 2.0],
                "stem": ["1x5x5/2", "3x3x3/1", "3x5x5/2+max", "r2plus1d"],
                "stem_width": [8, 16],
                "placement": ["all", "mc2", "rmc3", "top_heavy:1", "bottom_heavy:2", "stem,0,2"],
                "kind": {"values": list(KINDS), "per": "block"},
                "kernel": {"values": [1, 3, 5], "per": "stage"},
                "dilation": {"values": [1, 2, [1, 2, 3]], "per": "stage"},
                "midplanes": ["per_conv", "shared"],
                "temporal_stride": {"values": ["none", "as_paper", 1, 2], "per": "stage"},
            },
            "forbid": [{"kind": "p3d_b", "kernel": 5}, {"depth": 10, "width": 2.0}],
        }
    )
