"""Outputs equal to those of the authors' own code, which were recorded (make_authors_golden.py)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
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
from search_spaces.spec import ArchSpec
from tests.parity.formula import GOLDEN, checksum, clip, fill_as, read, weight

# Replaced one after the other in our names, whose `stages.0` is `layer1` beforehand.
Rules = Sequence[tuple[str, str]]

HEADS = [(r"^head\.fc\.", "fc."), (r"^stem\.conv\.(?=weight)", "conv1."), (r"^stem\.norm\.", "bn1.")]
SHORTCUTS = [(r"\.shortcut\.conv\.", ".downsample.0."), (r"\.shortcut\.norm\.", ".downsample.1.")]
RESNET = [*HEADS, *SHORTCUTS, (r"\.conv(\d)\.conv\.", r".conv\1."), (r"\.conv(\d)\.norm\.", r".bn\1.")]
# Each unit is a chain there: convolution (a chain of its own where it is a pair), norm, ReLU.
VMZ = [
    (r"\.conv\.mix\.", ".0.0."),
    (r"(layer.*\.conv2)\.conv\.norm\.", r"\1.0.1."),
    (r"\.conv\.conv\.", ".0.2."),
    (r"\.conv\.spatial\.", ".0.0."),
    (r"\.conv\.norm\.", ".0.1."),
    (r"\.conv\.temporal\.", ".0.3."),
    (r"^stem\.0\.(\d)", r"stem.\1"),
    *SHORTCUTS,
    (r"\.conv(\d)\.conv\.", r".conv\1.0."),
    (r"\.conv(\d)\.norm\.", r".conv\1.1."),
    (r"^head\.fc\.", "fc."),
]
PAIRS = [*VMZ, (r"^stem\.norm\.", "stem.4.")]
CSN = [*VMZ, (r"^stem\.conv\.", "stem.0."), (r"^stem\.norm\.", "stem.1.")]
P3D = [
    (r"^stem\.conv\.", "conv1_custom."),
    (r"^(layer4\.\d+\.)conv2\.conv\.", r"\1conv_normal."),
    (r"^(layer4\.\d+\.)conv2\.norm\.", r"\1bn_normal."),
    (r"\.conv3\.conv\.", ".conv4."),
    (r"\.conv3\.norm\.", ".bn4."),
    (r"\.conv2\.spatial\.conv\.", ".conv2."),
    (r"\.conv2\.spatial\.norm\.", ".bn2."),
    (r"\.conv2\.temporal\.conv\.", ".conv3."),
    (r"\.conv2\.temporal\.norm\.", ".bn3."),
    *RESNET,
]
MMACTION = [
    (r"^stem\.conv\.", "conv1.conv."),
    (r"^stem\.norm\.", "conv1.bn."),
    (r"\.shortcut\.conv\.", ".downsample.conv."),
    (r"\.shortcut\.norm\.", ".downsample.bn."),
    (r"\.norm\.", ".bn."),
    (r"^(conv1|layer)", r"backbone.\1"),
    (r"^head\.fc\.", "fc_cls."),
]
# The depthwise convolution is a chain of one there.
MMACTION_CSN = [(r"\.conv2\.", ".conv2.0."), *MMACTION]
C3D = [
    (r"^conv(\d)\.0\.0\.", r"backbone.conv\1a.conv."),
    (r"^conv(\d)\.1\.0\.", r"backbone.conv\1b.conv."),
    (r"^head\.2\.", "backbone.fc6."),
    (r"^head\.5\.", "backbone.fc7."),
    (r"^head\.8\.", "fc_cls."),
]
I3D = [
    (r"^conv1\.", "Conv3d_1a_7x7."),
    (r"^conv2b\.", "Conv3d_2b_1x1."),
    (r"^conv2c\.", "Conv3d_2c_3x3."),
    *((rf"^layer{s + 1}\.{b}\.", f"Mixed_{s + 3}{'bcdef'[b]}.") for s, n in enumerate((2, 5, 2)) for b in range(n)),
    (r"\.branch0\.0\.", ".b0."),
    (r"\.branch(\d)\.0\.", r".b\1a."),
    (r"\.branch(\d)\.1\.", r".b\1b."),
    (r"\.conv\.", ".conv3d."),
    (r"\.norm\.", ".bn."),
    (r"^head\.fc\.", "logits.conv3d."),
]
SLIM = [
    (r"^.*\.norm\.(weight|num_batches_tracked)$", ""),
    (r"^conv1\.", "Conv2d_1a_7x7."),
    (r"^conv2b\.", "Conv2d_2b_1x1."),
    (r"^conv2c\.", "Conv2d_2c_3x3."),
    (r"^attention2c\.fc\.", "Conv2d_2c_3x3.self_gating.transformer_W."),
    *((rf"^layer{s + 1}\.{b}\.", f"Mixed_{s + 3}{'bcdef'[b]}.") for s, n in enumerate((2, 5, 2)) for b in range(n)),
    (r"\.branch0\.(?=1)", ".Branch_0.Conv2d_0a_1x1."),
    (r"\.branch([12])\.(?=2)", r".Branch_\1.Conv2d_0b_3x3."),
    (r"\.branch3\.(?=2)", ".Branch_3.Conv2d_0b_1x1."),
    (r"_(\dx\d)\.\d\.fc\.", r"_\1.self_gating.transformer_W."),
    (r"\.branch([012])\.0\.", r".Branch_\1.Conv2d_0a_1x1."),
    (r"\.branch([12])\.1\.", r".Branch_\1.Conv2d_0b_3x3."),
    (r"\.branch3\.1\.", ".Branch_3.Conv2d_0b_1x1."),
    (r"\.spatial\.", "."),
    (r"\.norm\.", ".BatchNorm."),
    (r"\.conv\.", "."),
    (r"^head\.fc\.", "Logits.Conv2d_0c_1x1."),
]
# Both pathways, or one alone; the letters of the three convolutions of a block.
SLOWFAST = [
    *((rf"^layer{s}\.(\d+)\.last\.", rf"s{s + 1}.pathway0_nonlocal\1.") for s in range(1, 5)),
    *(
        (rf"(nonlocal\d+)\.{ours}\.", rf"\1.{theirs}.")
        for ours, theirs in (
            ("query", "conv_theta"),
            ("key", "conv_phi"),
            ("value", "conv_g"),
            ("out", "conv_out"),
            ("norm", "bn"),
        )
    ),
    *(
        (rf"^layer{s}\.(\d+)\.{path}\.", rf"s{s + 1}.pathway{i}_res\1.")
        for s in range(1, 5)
        for path, i in (("slow", 0), ("fast", 1))
    ),
    *((rf"^layer{s}\.(\d+)\.", rf"s{s + 1}.pathway0_res\1.") for s in range(1, 5)),
    *((rf"\.conv{n}\.conv\.", f".branch2.{letter}.") for n, letter in ((1, "a"), (2, "b"), (3, "c"))),
    *((rf"\.conv{n}\.norm\.", f".branch2.{letter}_bn.") for n, letter in ((1, "a"), (2, "b"), (3, "c"))),
    (r"\.shortcut\.conv\.", ".branch1."),
    (r"\.shortcut\.norm\.", ".branch1_bn."),
    *((rf"^fusion\.{k}\.lateral\.conv\.", f"s{k + 1}_fuse.conv_f2s.") for k in range(4)),
    *((rf"^fusion\.{k}\.lateral\.norm\.", f"s{k + 1}_fuse.bn.") for k in range(4)),
    *((rf"^stem\.{path}\.", f"s1.pathway{i}_stem.") for path, i in (("slow", 0), ("fast", 1))),
    (r"^stem\.spatial\.", "s1.pathway0_stem.conv_xy."),
    (r"^stem\.temporal\.", "s1.pathway0_stem.conv."),
    (r"^stem\.", "s1.pathway0_stem."),
    (r"_stem\.norm\.", "_stem.bn."),
    (r"\.gate\.", ".branch2.se."),
    (r"^head\.conv\.conv\.", "head.conv_5."),
    (r"^head\.conv\.norm\.", "head.conv_5_bn."),
    (r"^head\.expand\.", "head.lin_5."),
    (r"^head\.fc\.", "head.projection."),
]
TIMM = [
    (r"\.conv1\.0\.offset_conv\.", ".conv1.net1.biasnet.net.conv."),
    (r"\.conv1\.0\.offset_fc1\.", ".conv1.net1.biasnet.net.fc."),
    (r"\.conv1\.0\.offset_fc2\.", ".conv1.net1.biasnet.net.lastlayer."),
    (r"\.conv1\.0\.weight_conv\.", ".conv1.net1.weightnet.net.lastlayer."),
    (r"^backbone\.conv1\.", "base_model."),
    (r"^backbone\.", "base_model."),
    (r"\.block\.1\.", ".net."),
    (r"\.block\.", "."),
    (r"^head\.head\.(fc|reduce)\.", "new_fc."),
]
TSM = [*TIMM, (r"\.conv1\.1\.", ".conv1.net.")]
TIN = [*TIMM, (r"\.conv1\.1\.", ".conv1.net2.")]
TRN = [*TIMM, (r"^head\.head\.scales\.", "consensus.fc_fusion_scales.")]
TRN_SINGLE = [*TIMM, (r"^head\.head\.scales\.0\.", "consensus.classifier.")]


def their_name(name: str, rules: Rules) -> str:
    name = re.sub(r"^stages\.(\d)", lambda found: f"layer{int(found[1]) + 1}", name)
    for pattern, new in rules:
        name = re.sub(pattern, new, name)
    return name


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


NETWORKS: list[tuple[str, Callable[[], ArchSpec], Rules]] = [
    ("i3d_piergiaj", named("i3d_piergiaj"), I3D),
    ("i3d_piergiaj_odd", named("i3d_piergiaj"), I3D),
    ("s3d_slim", named("s3d_slim"), SLIM),
    ("s3d_g_slim", named("s3d_g_slim"), SLIM),
    ("p3d_63_qijiezhao", port_of_p3d, P3D),
    ("r2plus1d_34_vmz", named("r2plus1d_34"), PAIRS),
    ("ir_csn_152_vmz", named("csn_r152"), CSN),
    ("ip_csn_152_vmz", named("ip_csn_r152"), CSN),
    ("c3d_mmaction2", named("c3d"), C3D),
    ("csn_r50_mmaction2", named("csn_r50"), MMACTION_CSN),
    ("i3d_r50_mmaction2", named("i3d_r50"), MMACTION),
    ("slowfast_8x8_r50_slowfast", named("slowfast_8x8_r50"), SLOWFAST),
    ("slowfast_8x8_r101_slowfast", named("slowfast_8x8_r101"), SLOWFAST),
    ("i3d_nln_r50_slowfast", named("i3d_nln_r50"), SLOWFAST),
    ("x3d_s_slowfast", named("x3d_s"), SLOWFAST),
    ("tsm_r50_tsm", named("tsm_r50"), TSM),
    ("tsm_r50_block_tsm", named("tsm_r50_block"), TSM),
    ("tin_r50_tin", named("tin_r50"), TIN),
    ("trn_r50_trn", named("trn_r50"), TRN),
    ("trn_single_r50_trn", named("trn_single_r50"), TRN_SINGLE),
    ("r3d_18_kenshohara", partial(kensho, 18, "pad"), RESNET),
    ("r3d_50_kenshohara", partial(kensho, 50, "conv"), RESNET),
]


def test_every_golden_output_of_authors_is_compared():
    made_from = {path.stem: read(path.stem)["from"] for path in GOLDEN.glob("*.json")}
    recorded = {name for name, source in made_from.items() if not source.startswith("pytorchvideo ")}
    assert recorded == {name for name, _, _ in NETWORKS}


def rows() -> list[object]:
    slow = {"c3d_mmaction2"}
    return [pytest.param(*row, id=row[0], marks=pytest.mark.slow if row[0] in slow else ()) for row in NETWORKS]


@pytest.mark.parametrize(("golden", "make", "rules"), rows())
def test_outputs_equal_the_authors(golden, make, rules):
    recorded = read(golden)
    logits = torch.tensor(recorded["logits"])
    with torch.device("meta"):
        network = build(make(), num_classes=logits.shape[1])
    network = network.to_empty(device="cpu").eval()
    names = {name: their_name(name, rules) for name in network.state_dict()}
    blocks = [path for path, module in network.named_modules() if hasattr(module, "lookup")]
    biases = {
        path: [f"{their_name(f'{path}.{conv}.', rules)}bias" for conv in ("key", "value", "out")] for path in blocks
    }
    theirs = [name for some in (names.values(), *biases.values()) for name in some if name]
    assert checksum(theirs) == recorded["names"]
    fill_as(network, names)
    negate_offsets(network)
    for path, (_, value, out) in biases.items():
        fold_biases(network.get_submodule(path), value, out)
    with torch.no_grad():
        found = network(clip(recorded["clip"]))
    scale = logits.abs().max().item()
    assert scale > 0.2
    # Clips differ by far more than outputs may.
    assert len(logits) == 1 or logits.std(0).max() > 1e-3 * scale
    torch.testing.assert_close(found, logits, rtol=0, atol=1e-5 * scale)


@torch.no_grad()
def fold_biases(block: nn.Module, value: str, out: str) -> None:
    """Puts the biases that the norm cancels into its mean: of the values, whose shares add up to 1, and of the output.

    That of the keys adds the same to all scores of a query, which softmax cancels.
    """
    assert block.norm.running_mean is not None
    planes, inside = block.out.weight.shape[:2]
    block.norm.running_mean -= block.out.weight.flatten(1) @ weight(value, (inside,)) + weight(out, (planes,))


@torch.no_grad()
def negate_offsets(network: nn.Module) -> None:
    """TIN's kernel moves features by their offset and ours takes them from there, so the offsets differ in sign."""
    for name, value in network.named_parameters():
        if ".offset_fc2." in name:
            value.neg_()
