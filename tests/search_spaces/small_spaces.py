"""Spaces of residual networks small enough to be tried out in full, each with a difficulty of its own."""

from __future__ import annotations

SMALL = {"depth": ["1-1"], "widths": ["8-16"], "stem": ["1x3x3/1"]}
SPACES = {
    "dead end behind two kernels": {
        "domains": {**SMALL, "kind": {"values": ["2d", "3d", "p3d_a"], "per": "stage"}, "kernel": [3, 5]},
        "forbid": [{"kind": "3d", "kernel": 5}, {"kind": "3d", "kernel": 3}],
    },
    "kinds that need different kernels": {
        "domains": {**SMALL, "kind": {"values": ["3d", "2plus1d", "2d"], "per": "stage"}, "kernel": [3, 5]},
        "forbid": [{"kind": "3d", "kernel": 5}, {"kind": "2plus1d", "kernel": [3]}],
    },
    "placements and stems": {
        "domains": {
            **SMALL,
            "depth": ["1-1", "2-1-1"],
            "widths": ["8-16", "8-16-16"],
            "stem": ["3x3x3/1", "1x3x3/1", "r2plus1d"],
            "kind": ["2d", "3d", "2plus1d"],
            "placement": ["all", "none", "mc2", "mc3", "mc4", "rmc3", "top_heavy:1", "bottom_heavy:3", "stem,0,3"],
        },
        "forbid": [{"placement": "none", "kind": "3d"}, {"depth": "1-1", "placement": "mc3"}],
    },
    "a block at a time": {
        "domains": {
            "depth": ["1-2", "1-1"],
            "widths": ["8-16"],
            "stem": ["3x3x3/1"],
            "stem_width": [8, 16],
            "kind": {"values": ["3d", "2plus1d"], "per": "block"},
            "kernel": {"values": [1, 3], "per": "stage"},
            "midplanes": ["shared", "per_conv"],
        },
        "forbid": [{"kind": "2plus1d", "kernel": 1, "midplanes": "shared"}],
    },
    "dilations and strides": {
        "domains": {
            **SMALL,
            "depth": ["1-1", "1-1-1"],
            "widths": ["8-16", "8-16-16"],
            "width": [0.5, 1.0, 2],
            "kind": ["2d", "3d"],
            "kernel": [1, 3],
            "dilation": {"values": [1, [2, 1], 2], "per": "stage"},
            "temporal_stride": ["none", "as_paper", "1-2", [1, 1, 1]],
        },
        "forbid": [{"temporal_stride": "as_paper", "dilation": 2}, {"width": [0.5], "kernel": 3}],
    },
    "two names for one placement": {
        "domains": {**SMALL, "placement": ["all", "bottom_heavy:2"], "kernel": [3, 5]},
        "forbid": [{"placement": "all", "kernel": 5}],
    },
    "a stride concerns the first block": {
        "domains": {
            "depth": ["2-1"],
            "widths": ["8-16"],
            "kind": {"values": ["3d", "2d"], "per": "block"},
            "temporal_stride": {"values": [1, 2], "per": "stage"},
        },
        "forbid": [{"temporal_stride": 2, "kind": "3d"}],
    },
    "a stride a stage": {
        "domains": {
            **SMALL,
            "kind": {"values": ["2d", "3d"], "per": "stage"},
            "temporal_stride": {"values": ["none", "as_paper", 1, 2], "per": "stage"},
        },
        "forbid": [{"temporal_stride": 2, "kind": "2d"}],
    },
    "cuts": {
        "domains": {
            **SMALL,
            "depth": ["1-1", "b2-1-1"],
            "widths": ["8-16", "8-16-16"],
            "stem": ["3x3x3/1", "1x3x3/1+max2"],
            "placement": ["all", "top_heavy", "bottom_heavy", "top_heavy:1"],
            "cut": [0, 2, 3],
            "kind": ["2d", "3d", "csn"],
        },
        "forbid": [{"placement": "top_heavy", "cut": 2}, {"cut": 3, "kind": "csn"}],
    },
    "operators that only bottlenecks have": {
        "domains": {
            "depth": ["1-1", "b1-2"],
            "widths": ["8-16"],
            "stem": ["1x3x3/1"],
            "stem_width": [8, 32],
            "first_stride": [1, 2],
            "kind": {"values": ["3d", "t1x1_all", "t1x1_both", "p3d_mixed", "1plus2d"], "per": "block"},
            "temporal_stride": ["none", "2-1"],
        },
        "forbid": [{"kind": "p3d_mixed", "temporal_stride": "none"}],
    },
    "operators that every depth but one has": {
        "domains": {
            "depth": ["1-1", "b1-1"],
            "widths": ["8-16"],
            "kind": {"values": ["csn", "t1x1_first"], "per": "stage"},
            "kernel": {"values": [1, 3], "per": "block"},
        },
    },
    "conventions of midplanes": {
        "domains": {
            "depth": ["b1-1", "1-1"],
            "widths": ["8-16"],
            "stem_width": [8],
            "stem": ["1x3x3/1"],
            "kind": ["2plus1d", "1plus2d"],
            "kernel": {"values": [1, 3], "per": "stage"},
            "midplanes": {"values": ["per_conv", "equal", "shared"], "per": "block"},
        },
        "forbid": [{"midplanes": "equal", "kernel": 1}],
    },
    "what is settled last": {
        "domains": {
            "depth": ["1-1", "b1-1"],
            "widths": ["8-16"],
            "first_stride": [1, 2],
            "temporal_stride": {"values": ["none", 2], "per": "stage"},
            "stride_on": {"values": ["3x3", "1x1"], "per": "stage"},
            "time_pool": {"values": [1, 2], "per": "stage"},
            "attention": {"values": ["none", "gate"], "per": "block"},
            "head": ["avg", "avg_max"],
        },
        "forbid": [
            {"attention": "gate", "head": "avg_max"},
            {"stride_on": "1x1", "temporal_stride": 2},
            {"first_stride": 2, "time_pool": 2},
        ],
    },
    "pools as labels": {
        "domains": {
            **SMALL,
            "depth": ["1-1", "1-1-1"],
            "widths": ["8-16", "8-16-16"],
            "time_pool": ["none", "1-1", "2-1", [1, 2, 1]],
            "attention": ["none", "se"],
        },
        "forbid": [{"time_pool": "2-1", "attention": "se"}],
    },
}
