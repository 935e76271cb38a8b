"""Per-frame networks compute what timm's own network computes for each frame, averaged."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from search_spaces.catalogue import build
from search_spaces.families.timm.family import make_timm
from search_spaces.families.timm.weights import load_2d

# The smallest of each kind, and what its images must measure.
MODELS = [
    ("resnet18", 40),
    ("resnet50", 40),
    ("seresnet18", 40),
    ("legacy_seresnet18", 40),
    ("legacy_seresnext26_32x4d", 40),
    ("regnetx_002", 40),
    ("regnety_002", 40),
    ("mobilenetv2_050", 40),
    ("mobilenetv3_small_050", 40),
    ("efficientnet_b0", 40),
    ("densenet121", 40),
    ("convnext_atto", 40),
    ("inception_v3", 80),
    ("inception_resnet_v2", 80),
    ("resnetv2_50", 40),
    ("hrnet_w18_small", 64),
    ("vit_tiny_patch16_224", 224),
]


def trained(model: str) -> nn.Module:
    """timm's network with norms of weights and statistics of their own, as trained ones have."""
    torch.manual_seed(0)
    network = timm.create_model(model, num_classes=5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval()


@pytest.mark.parametrize(("model", "size"), MODELS)
def test_logits_are_the_mean_of_timms(model, size):
    theirs = trained(model)
    spec = make_timm(model)
    torch.manual_seed(1)
    ours = build(spec, num_classes=5).eval()
    clips = torch.randn(2, 3, 2, size, size)
    with torch.no_grad():
        # In the order in memory that our networks compute in, so that rounding is not what is compared.
        frames = [clips[:, :, t].contiguous(memory_format=torch.channels_last) for t in range(2)]
        expected = torch.stack([theirs(frame) for frame in frames]).mean(0)
        assert not torch.allclose(ours(clips), expected, rtol=1e-2)
        taken = load_2d(ours, spec.model, theirs.state_dict(), "centre")
        assert taken.left == ()
        torch.testing.assert_close(ours(clips), expected, rtol=1e-5, atol=1e-5)
        # Any order in memory gives the same.
        ordered = clips.contiguous(memory_format=torch.channels_last_3d)
        torch.testing.assert_close(ours(ordered), expected, rtol=1e-5, atol=1e-5)


def test_senet154_and_large_networks_are_cut_where_timm_cuts_them():
    """Too large to run here: the chain has all of timm's parameters, in order, and shapes of maps that it computes."""
    with torch.device("meta"):
        theirs = timm.create_model("legacy_senet154", num_classes=5)
        ours = build(make_timm("legacy_senet154"), num_classes=5)
        logits = ours(torch.empty(1, 3, 2, 64, 64))
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]
    assert logits.shape == (1, 5)


@pytest.mark.parametrize("model", ["resnet18", "regnety_002", "mobilenetv2_050", "convnext_atto", "resnetv2_50"])
def test_a_seed_gives_timms_own_values(model):
    torch.manual_seed(3)
    theirs = timm.create_model(model, num_classes=5).state_dict()
    torch.manual_seed(3)
    spec = make_timm(model)
    ours = build(spec, num_classes=5)
    torch.manual_seed(4)
    other = build(spec, num_classes=5)
    load_2d(other, spec.model, theirs, "centre")
    for (name, mine), copied in zip(ours.state_dict().items(), other.state_dict().values(), strict=True):
        # But for norms that timm starts at nothing.
        faint = mine.numel() and bool((mine == 0.1).all()) and not copied.any()
        assert faint or torch.equal(mine, copied), name
