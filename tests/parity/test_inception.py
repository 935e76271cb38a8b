"""Outputs equal to torchvision's s3d and inception_v3, and blocks to its googlenet's, after weights were copied."""

from __future__ import annotations

from dataclasses import replace

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import video

from search_spaces.families.inception import v1 as inception_v1
from search_spaces.families.inception import v3 as inception_v3
from search_spaces.families.inception.v3_spec import Aux
from search_spaces.inflate import inflate
from search_spaces.modules import Network
from search_spaces.operators import FLAT, TemporalOp
from search_spaces.pretrained import load_by_name
from search_spaces.spec import ArchSpec

V1 = {preset.name: preset for preset in inception_v1.FAMILY.presets}
V3 = {preset.name: preset for preset in inception_v3.FAMILY.presets}


def build(spec: ArchSpec, num_classes: int) -> Network:
    return Network(spec.links(num_classes=num_classes))


def shaken(network: nn.Module) -> nn.Module:
    """Gives norms values of their own, so that each of them matters."""
    torch.manual_seed(1)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(layer.running_mean, -0.2, 0.2)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
            nn.init.uniform_(layer.weight, 0.8, 1.6)
            nn.init.uniform_(layer.bias, -0.2, 0.2)
    return network


def test_s3d_v1_equals_torchvision():
    torch.manual_seed(0)
    theirs = shaken(video.s3d(num_classes=17)).eval()
    ours = build(V1["s3d_v1"].make(16), num_classes=17).eval()
    loaded = load_by_name(ours, theirs.state_dict())
    assert (loaded.layout, loaded.share, loaded.left, loaded.unused) == ("torchvision: s3d", 1, (), 0)
    for layer in ours.modules():
        if isinstance(layer, nn.BatchNorm3d):
            assert (layer.eps, layer.momentum) == (1e-3, 1e-3)
    # Two frames of 8x7 are left, so the head sees two places.
    clips = torch.randn(1, 3, 16, 256, 224)
    with torch.no_grad():
        expected, found = theirs(clips), ours(clips)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def copy_twins(spec: ArchSpec, ours: Network, state: dict[str, Tensor]) -> set[str]:
    """Copies 2D weights into units that have no time, by the spec's twins; returns what was not taken."""
    left = {key for key in state if not key.endswith("num_batches_tracked")}
    for path, conv, norm in spec.twin():
        for inner, prefix in ((".conv", conv), (".norm", norm)) if norm else (("", conv),):
            if path:
                tensors = ours.get_submodule(path + inner).state_dict()
                for name in tensors.keys() - {"num_batches_tracked"}:
                    tensors[name].copy_(state[f"{prefix}.{name}"].reshape(tensors[name].shape))
                    left.discard(f"{prefix}.{name}")
    return left


@pytest.fixture(scope="module")
def inception() -> nn.Module:
    torch.manual_seed(0)
    # Torchvision's own initial values take minutes.
    theirs = torchvision.models.inception_v3(num_classes=11, init_weights=False, dropout=0.0)
    return shaken(theirs)


@pytest.mark.parametrize("aux", [None, Aux()])
def test_inception_v3_equals_torchvision_frame_by_frame(inception, aux):
    spec = replace(V3["inception_v3_2d"].make(1), aux=aux)
    ours = build(spec, num_classes=11)
    left = copy_twins(spec, ours, inception.state_dict())
    assert all(key.startswith("AuxLogits.") for key in left)
    assert bool(left) == (aux is None)
    clips = torch.randn(2, 3, 2, 107, 139)
    with torch.no_grad():
        expected = torch.stack([inception.eval()(frame) for frame in clips.unbind(2)]).mean(0)
        found = ours.eval()(clips)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "pair", "strides"),
    [("p3d_a", "appended", (1, 1, 1, 2, 2)), ("3d", "inflated", (1, 1, 2, 2, 1)), ("p3d_c", "each", (2, 1, 1, 2, 1))],
)
def test_inflated_on_identical_frames_it_is_its_parent(inception, kind, pair, strides):
    found, _ = inflated(inception, TemporalOp(kind=kind), pair=pair, strides=strides, mode="centre", frames=9)
    torch.testing.assert_close(found, inception(IMAGE), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_replicated_it_is_so_where_padding_over_time_does_not_reach(inception):
    """The last stage, alone temporal, looks 7 frames to either side."""
    found, last = inflated(inception, TemporalOp(kind="3d"), cut=12, pair="inflated", mode="replicate", frames=16)
    features: list[Tensor] = []
    hook = inception.Mixed_7c.register_forward_hook(lambda module, inputs, out: features.append(out))
    expected = inception(IMAGE)
    hook.remove()
    for frame in (7, 8):
        torch.testing.assert_close(last[:, :, frame], features[0], rtol=1e-5, atol=1e-5)
    assert (last[:, :, 0] - features[0]).abs().max() > 1e-3
    assert (found - expected).abs().max() > 1e-5


IMAGE = torch.randn(1, 3, 75, 75, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def inflated(parent, op, *, mode, frames, pair, cut=0, strides=(1,) * 5):
    """Logits, and the last block's output, of an inflated network on identical frames."""
    spec = inception_v3.make_inception_v3(
        lambda unit: op if unit >= cut else FLAT,
        pair_at=lambda unit: pair,
        reach="kernel",
        strides=strides,
        stem_padding="valid",
        aux=False,
    )
    ours = build(spec, num_classes=11).eval()
    inflate(ours, spec, parent.eval().state_dict(), mode)
    last: list[Tensor] = []
    ours.get_submodule("stages.2.2").register_forward_hook(lambda module, inputs, out: last.append(out))
    return ours(IMAGE[:, :, None].expand(-1, -1, frames, -1, -1)), last[0]


def test_in_training_the_auxiliary_logits_are_torchvisions(inception):
    spec = replace(V3["inception_v3_2d"].make(1), aux=Aux())
    ours = build(spec, num_classes=11).train()
    copy_twins(spec, ours, inception.state_dict())
    images = torch.randn(3, 3, 299, 299)
    with torch.no_grad():
        expected = inception.train()(images)
        found = ours(images[:, :, None])
    assert isinstance(found, tuple)
    for mine, its in zip(found, expected, strict=True):
        assert its.abs().max() > 0.1
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-4)


def test_timm_has_the_same_names():
    with torch.device("meta"):
        theirs = timm.create_model("inception_v3", num_classes=11, aux_logits=True)
        ours = torchvision.models.inception_v3(num_classes=11, init_weights=False)
    assert {k: v.shape for k, v in theirs.state_dict().items()} == {k: v.shape for k, v in ours.state_dict().items()}


def test_mixed_blocks_equal_googlenets():
    """Blocks only: the 3x3 pools between them are padded otherwise."""
    torch.manual_seed(0)
    theirs = shaken(torchvision.models.googlenet(num_classes=11, init_weights=False)).eval()
    spec = V1["i2d"].make(1)
    ours = build(spec, num_classes=11).eval()
    left = copy_twins(spec, ours, theirs.state_dict())
    assert all(key.startswith("aux") for key in left)
    with torch.no_grad():
        for mine, its, planes in (("stages.0.0", "inception3a", 192), ("stages.1.4", "inception4e", 528)):
            images = torch.randn(2, planes, 9, 8)
            expected = theirs.get_submodule(its)(images)
            found = ours.get_submodule(mine)(images[:, :, None])
            assert expected.abs().max() > 0.1
            torch.testing.assert_close(found[:, :, 0], expected, rtol=1e-5, atol=1e-5)
