"""2D weights in networks made from timm's: on identical frames the inflated network is its 2D parent."""

from __future__ import annotations

from functools import cache

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from search_spaces.catalogue import build
from search_spaces.errors import SpecError
from search_spaces.families.timm.anatomy import stages_for
from search_spaces.families.timm.spec import TimmShift, TimmSpec, TimmStage
from search_spaces.families.timm.weights import check_2d, load_2d, parent_shapes
from search_spaces.inflate import check, inflate
from search_spaces.operators import FLAT, TemporalOp

MODELS = ("resnet26", "legacy_seresnet18", "regnety_002", "mobilenetv3_small_050", "densenet121", "convnext_atto")
P3D = ("p3d_a", "p3d_b", "p3d_c", "p3d_b_port", "p3d_c_port")
KINDS = ("2d", "3d", *P3D, "t1x1_first", "t1x1_both", "t1x1_all")
SIZE = 32


@cache
def parent(model: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """A network of timm as if it were trained: every norm and scale of its own."""
    torch.manual_seed(0)
    network = timm.create_model(model, num_classes=5)
    for name, value in network.named_parameters():
        if name.endswith("gamma"):
            nn.init.uniform_(value, 0.5, 1.5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval(), network.state_dict()


def spec_of(model: str, ops: list[TemporalOp], pools: list[int], **more: object) -> TimmSpec:
    stages = tuple(
        TimmStage(temporal=op if i in stages_for(model, op.kind) else FLAT, pool=pool)
        for i, (op, pool) in enumerate(zip(ops, pools, strict=True))
    )
    return TimmSpec(model=model, stages=stages, **more).canonical()


def still(frames: int) -> tuple[Tensor, Tensor]:
    image = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(5))
    return image, image[:, :, None].expand(-1, -1, frames, -1, -1)


@settings(max_examples=20, deadline=None)
@given(
    model=st.sampled_from(MODELS),
    ops=st.lists(
        st.builds(
            TemporalOp,
            kind=st.sampled_from(KINDS),
            kernel=st.sampled_from((3, 5)),
            dilation=st.sampled_from(((1,), (2,), (1, 2))),
        ),
        min_size=5,
        max_size=5,
    ),
    pools=st.lists(st.sampled_from((1, 1, 2)), min_size=3, max_size=3),
    mode=st.sampled_from(("centre", "identity")),
    frames=st.sampled_from((1, 3, 4)),
)
def test_on_identical_frames_it_is_its_parent(model, ops, pools, mode, frames):
    theirs, state = parent(model)
    spec = spec_of(model, ops, [1, 1, *pools])
    network = build(spec, num_classes=5)
    assert load_2d(network, spec.model, state, mode).left == ()
    image, clip = still(frames)
    with torch.no_grad():
        expected = theirs(image)
        difference = (network.eval()(clip) - expected).abs().max()
    # Logits of untrained networks are of any size.
    assert difference <= 1e-5 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("model", ["resnet18", "mobilenetv3_small_050", "densenet121"])
@pytest.mark.parametrize("kind", ["3d", "p3d_a"])
def test_replicated_weights_are_the_parent_where_padding_does_not_reach(model, kind):
    state = parent(model)[1]
    spec = spec_of(model, [FLAT, FLAT, TemporalOp(kind=kind), FLAT, FLAT], [1] * 5)
    network = build(spec, num_classes=5).eval()
    load_2d(network, spec.model, state, "replicate")
    reach = sum(isinstance(m, nn.Conv3d) for m in network.modules())
    frames = 2 * reach + 1
    maps: list[Tensor] = []
    network.get_submodule(network.names[-2]).register_forward_hook(lambda _, __, out: maps.append(out))
    image, clip = still(frames)
    flat = build(spec_of(model, [FLAT] * 5, [1] * 5), num_classes=5).eval()
    load_2d(flat, spec_of(model, [FLAT] * 5, [1] * 5).model, state, "centre")
    flat.get_submodule(flat.names[-2]).register_forward_hook(lambda _, __, out: maps.append(out))
    with torch.no_grad():
        network(clip)
        flat(image[:, :, None])
    torch.testing.assert_close(maps[0][:, :, reach], maps[1][:, :, 0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(maps[0][:, :, 0], maps[1][:, :, 0], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("kind", P3D)
def test_an_inflated_network_goes_on_learning(kind):
    """Temporal layers that add nothing at first are not dead."""
    spec = spec_of("resnet18", [TemporalOp(kind=kind)] * 5, [1] * 5)
    network = build(spec, num_classes=5).train()
    load_2d(network, spec.model, parent("resnet18")[1], "centre")
    network(torch.randn(4, 3, 3, SIZE, SIZE)).logsumexp(1).sum().backward()
    wake = "norm.weight" if kind != "p3d_a" else "conv.conv.weight"
    grads = [p.grad for name, p in network.named_parameters() if name.endswith(f"temporal.{wake}")]
    assert len(grads) == 17
    assert all(grad is not None and grad.abs().max() > 0 for grad in grads)


@pytest.mark.parametrize("kind", P3D)
def test_an_inflated_unit_is_near_its_parent_in_training_too(kind):
    """Where each norm has statistics of the batch: T's own are then those that S gives."""
    state = parent("regnety_002")[1]
    outputs = []
    for op in (FLAT, TemporalOp(kind=kind)):
        spec = spec_of("regnety_002", [op, FLAT, FLAT, FLAT, FLAT], [1] * 5)
        network = build(spec, num_classes=5).train()
        load_2d(network, spec.model, state, "centre")
        stem = network.get_submodule("backbone.stem")
        outputs.append(stem(torch.randn(4, 3, 4, 64, 64, generator=torch.Generator().manual_seed(1))))
    flat, inflated = outputs
    assert (inflated - flat).norm() < 0.05 * flat.norm()
    assert flat.std() > 0.1


def test_random_weights_are_not_the_parents_but_sum_to_them():
    theirs, state = parent("resnet18")
    spec = spec_of("resnet18", [TemporalOp(kind="3d")] * 5, [1] * 5)
    network = build(spec, num_classes=5).eval()
    load_2d(network, spec.model, state, "random")
    weight = network.get_parameter("backbone.layer1.0.block.conv1.conv.weight")
    torch.testing.assert_close(weight.sum(2), state["layer1.0.conv1.weight"], rtol=1e-4, atol=1e-5)
    image, clip = still(3)
    with torch.no_grad():
        assert not torch.allclose(network(clip), theirs(image), rtol=1e-2, atol=1e-2)


def test_what_is_taken_and_what_is_left_is_said():
    _, state = parent("resnet18")
    spec = TimmSpec(
        model="resnet18", shift=TimmShift(kind="tin"), stages=(TimmStage(),) * 4 + (TimmStage(attention="se"),)
    )
    network = build(spec, num_classes=7)
    found = load_2d(network, spec.model, state, "centre")
    assert found.taken == len(state) - 2 - sum(key.endswith("num_batches_tracked") for key in state)
    assert len(found.left) == 10
    assert {"attention.4", "head.head", "backbone.layer1.0.block.conv1.0"} <= set(found.left)
    assert (
        check_2d(
            spec.model, spec.canonical().links(num_classes=7), {key: tuple(value.shape) for key, value in state.items()}
        )
        == found
    )
    given = {key: tuple(value.shape) for key, value in state.items()}
    assert inflate(network, spec, state, "centre") == check(spec, given, num_classes=7) == found
    shapes = parent_shapes(spec.model, num_classes=7)
    assert shapes["fc.weight"] == (7, 512)
    assert shapes["layer1.0.conv1.weight"] == (64, 64, 3, 3)
    fits = check_2d(spec.model, spec.canonical().links(num_classes=7), shapes)
    assert (fits.taken, "head.head" in fits.left) == (found.taken + 2, False)


def test_weights_of_another_network_are_refused_and_change_nothing():
    _, state = parent("resnet18")
    spec = TimmSpec(model="resnet18")
    network = build(spec, num_classes=5)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    bad = {key: value for key, value in state.items() if key != "layer2.0.conv1.weight"}
    bad |= {"extra": torch.zeros(1), "bn1.bias": torch.zeros(3)}
    message = (
        "the weights are not those of resnet18; missing: layer2.0.conv1.weight; unexpected: extra; of another size:"
        " bn1.bias 3, not 64"
    )
    with pytest.raises(SpecError) as error:
        load_2d(network, spec.model, bad, "centre")
    assert str(error.value) == message
    with pytest.raises(SpecError, match="mode must be one of its choices, but is center; did you mean centre"):
        load_2d(network, spec.model, state, "center")
    pair = TimmSpec(model="resnet18", stages=(*(TimmStage(),) * 4, TimmStage(temporal=TemporalOp(kind="2plus1d"))))
    with pytest.raises(SpecError, match=r"2plus1d cannot take the 2D weights layer4\.0\.conv1: norm and ReLU stand"):
        load_2d(build(pair, num_classes=5), pair.model, state, "centre")
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
