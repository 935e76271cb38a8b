"""Outputs equal to those of the authors' own code, which were recorded (make_authors_golden.py)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from search_spaces.catalogue import build, preset
from search_spaces.families.resnet.blocks import Shortcut
from search_spaces.families.resnet.make import Extras, make_stem, of_depth, temporal_strides
from search_spaces.families.resnet.spec import ResNetSpec
from search_spaces.operators import TemporalOp
from search_spaces.pretrained import LAYOUTS, load_by_name
from search_spaces.spec import ArchSpec
from tests.parity.formula import GOLDEN, checksum, clip, fill_as, read, weight

# TIN's kernels lie elsewhere than TSM's, and its networks of offsets have names of their own.
TIN = [
    (r"\.conv1\.0\.offset_conv\.", ".conv1.net1.biasnet.net.conv."),
    (r"\.conv1\.0\.offset_fc1\.", ".conv1.net1.biasnet.net.fc."),
    (r"\.conv1\.0\.offset_fc2\.", ".conv1.net1.biasnet.net.lastlayer."),
    (r"\.conv1\.0\.weight_conv\.", ".conv1.net1.weightnet.net.lastlayer."),
    (r"\.conv1\.1\.", ".conv1.net2."),
]


def their_name(name: str, layout: str) -> str:
    """As the recorded networks have it: mmaction2's were run without the recogniser around backbone and head."""
    if layout == "TIN":
        for pattern, new in TIN:
            name = re.sub(pattern, new, name)
        layout = "TSM"
    return LAYOUTS[layout].their_name(name).removeprefix("cls_head.")


def port_of_p3d() -> ArchSpec:
    """qijiezhao's port has a ReLU on T in B and C, and none behind the sum."""
    spec = preset("p3d_50")
    assert isinstance(spec, ResNetSpec)
    ports = {kind: TemporalOp(kind=f"{kind}_port") for kind in ("p3d_b", "p3d_c")}  # type: ignore[arg-type]
    return replace(
        spec,
        stages=tuple(
            replace(
                stage,
                blocks=tuple(replace(b, temporal=ports.get(b.temporal.kind, b.temporal)) for b in stage.blocks),
            )
            for stage in spec.stages
        ),
    )


def kensho(depth: int, shortcut: Shortcut) -> ArchSpec:
    """R3D with 7x7x7 in the stem and no pool behind it, an option of kenshohara's code."""
    return of_depth(
        depth,
        stem=make_stem("7x7x7"),
        op_at=lambda _s, _b, _index: TemporalOp(kind="3d"),
        strides=partial(temporal_strides, "as_paper"),
        extras=Extras(shortcut=shortcut),
    )


def named(name: str) -> Callable[[], ArchSpec]:
    return lambda: preset(name, frames=8)


NETWORKS: list[tuple[str, Callable[[], ArchSpec], str]] = [
    ("i3d_piergiaj", named("i3d_piergiaj"), "pytorch-i3d"),
    ("i3d_piergiaj_odd", named("i3d_piergiaj"), "pytorch-i3d"),
    ("s3d_slim", named("s3d_slim"), "TF-Slim"),
    ("s3d_g_slim", named("s3d_g_slim"), "TF-Slim"),
    ("p3d_63_qijiezhao", port_of_p3d, "P3D"),
    ("r2plus1d_34_vmz", named("r2plus1d_34"), "torchvision, VMZ: (2+1)D"),
    ("ir_csn_152_vmz", named("csn_r152"), "torchvision, VMZ"),
    ("ip_csn_152_vmz", named("ip_csn_r152"), "torchvision, VMZ"),
    ("c3d_mmaction2", named("c3d"), "mmaction2: C3D"),
    ("csn_r50_mmaction2", named("csn_r50"), "mmaction2: CSN"),
    ("i3d_r50_mmaction2", named("i3d_r50"), "mmaction2"),
    ("slowfast_8x8_r50_slowfast", named("slowfast_8x8_r50"), "SlowFast"),
    ("slowfast_8x8_r101_slowfast", named("slowfast_8x8_r101"), "SlowFast"),
    ("i3d_nln_r50_slowfast", named("i3d_nln_r50"), "SlowFast"),
    ("x3d_s_slowfast", named("x3d_s"), "SlowFast"),
    ("tsm_r50_tsm", named("tsm_r50"), "TSM"),
    ("tsm_r50_block_tsm", named("tsm_r50_block"), "TSM"),
    ("tin_r50_tin", named("tin_r50"), "TIN"),
    ("trn_r50_trn", named("trn_r50"), "TRN"),
    ("trn_single_r50_trn", named("trn_single_r50"), "TRN of one scale"),
    ("r3d_18_kenshohara", partial(kensho, 18, "pad"), "kenshohara"),
    ("r3d_50_kenshohara", partial(kensho, 50, "conv"), "kenshohara"),
]


def test_every_golden_output_of_authors_is_compared():
    made_from = {path.stem: read(path.stem)["from"] for path in GOLDEN.glob("*.json")}
    recorded = {name for name, source in made_from.items() if not source.startswith("pytorchvideo ")}
    assert recorded == {name for name, _, _ in NETWORKS}


def rows() -> list[object]:
    slow = {"c3d_mmaction2"}
    return [pytest.param(*row, id=row[0], marks=pytest.mark.slow if row[0] in slow else ()) for row in NETWORKS]


@pytest.mark.parametrize(("golden", "make", "layout"), rows())
def test_outputs_equal_the_authors(golden, make, layout):
    recorded = read(golden)
    logits = torch.tensor(recorded["logits"])
    with torch.device("meta"):
        network = build(make(), num_classes=logits.shape[1])
    network = network.to_empty(device="cpu").eval()
    names = {name: their_name(name, layout) for name in network.state_dict()}
    blocks = [path for path, module in network.named_modules() if hasattr(module, "lookup")]
    biases = {
        path: [f"{their_name(f'{path}.{conv}.', layout)}bias" for conv in ("key", "value", "out")] for path in blocks
    }
    theirs = [name for some in (names.values(), *biases.values()) for name in some if name]
    assert checksum(theirs) == recorded["names"]
    fill_as(network, names)
    negate_offsets(network)
    if biases:  # theirs alone, so that it takes more than names to load them
        shapes = {there: network.state_dict()[name].shape for name, there in names.items()}
        for path, (key, value, out) in biases.items():
            planes, width = network.get_submodule(path).out.weight.shape[:2]
            shapes |= {key: (width,), value: (width,), out: (planes,)}
        loaded = load_by_name(network, {name: weight(name, shape) for name, shape in shapes.items()})
        assert (loaded.layout, loaded.share, loaded.unused) == (layout, 1, 0)
    with torch.no_grad():
        found = network(clip(recorded["clip"]))
    scale = logits.abs().max().item()
    assert scale > 0.2
    # Clips differ by far more than outputs may.
    assert len(logits) == 1 or logits.std(0).max() > 1e-3 * scale
    torch.testing.assert_close(found, logits, rtol=0, atol=1e-5 * scale)


@torch.no_grad()
def negate_offsets(network: nn.Module) -> None:
    """TIN's kernel moves features by their offset and ours takes them from there, so the offsets differ in sign."""
    for name, value in network.named_parameters():
        if ".offset_fc2." in name:
            value.neg_()
