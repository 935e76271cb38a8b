"""Specs for hypothesis, and spaces for sampling, shared by the tests of networks."""

from __future__ import annotations

from hypothesis import strategies as st

from search_spaces.catalogue import FAMILIES
from search_spaces.families.resnet.blocks import BOTTLENECK_KINDS, SHORTCUTS, Block, Stage, Stem
from search_spaces.families.resnet.spec import ResNetSpec
from search_spaces.operators import ATTENTIONS, KERNELS, KINDS, MIDPLANES, TemporalOp
from search_spaces.parts import HEAD_POOLS
from search_spaces.space import SearchSpace, parse_space

WIDTHS = (8, 16, 24)


def operators(*kinds: str) -> st.SearchStrategy[TemporalOp]:
    return st.builds(
        TemporalOp,
        kind=st.sampled_from(kinds),
        kernel=st.sampled_from(KERNELS),
        dilation=st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple),
        midplanes=st.sampled_from(MIDPLANES),
        time_first=st.booleans(),
    )


@st.composite
def stems(draw: st.DrawFn) -> Stem:
    padded = draw(st.booleans())
    return Stem(
        kind=draw(st.sampled_from(["conv", "2plus1d"])),
        width=draw(st.sampled_from(WIDTHS)),
        midplanes=draw(st.integers(1, 12)),
        temporal_kernel=draw(st.sampled_from([1, 3, 5] if padded else [1, 2, 3])),
        spatial_kernel=draw(st.sampled_from([1, 3, 5])),
        spatial_stride=draw(st.sampled_from([1, 2])),
        temporal_stride=draw(st.sampled_from([1, 2])),
        temporal_padding=padded,
        pool=draw(st.sampled_from(["none", "max"])),
        pool_frames=draw(st.sampled_from([1, 2])),
    )


def blocks(kind: str, *operator_kinds: str) -> st.SearchStrategy[Block]:
    return st.builds(
        Block,
        kind=st.just(kind),
        width=st.sampled_from(WIDTHS),
        spatial_stride=st.sampled_from([1, 2]),
        temporal_stride=st.sampled_from([1, 2]),
        temporal=operators(*operator_kinds),
        stride_on=st.sampled_from(["3x3", "1x1"]),
        attention=st.sampled_from(ATTENTIONS),
        shortcut=st.sampled_from(SHORTCUTS),
    )


BASIC_KINDS = tuple(kind for kind in KINDS if kind not in BOTTLENECK_KINDS)
specs: st.SearchStrategy[ResNetSpec] = st.builds(
    ResNetSpec,
    stem=stems(),
    stages=st.lists(
        st.builds(
            Stage,
            blocks=st.lists(
                st.one_of(blocks("basic", *BASIC_KINDS), blocks("bottleneck", *KINDS)), min_size=1, max_size=2
            ).map(tuple),
            time_pool=st.sampled_from([1, 2]),
        ),
        min_size=1,
        max_size=3,
    ).map(tuple),
    head=st.sampled_from(HEAD_POOLS),
    relu_first=st.booleans(),
)


def wide_space() -> SearchSpace:
    """A space with every domain in it, of small networks of one to four stages."""
    return parse_space(FAMILIES["resnet"].sample())
