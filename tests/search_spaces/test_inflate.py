"""2D weights in 3D networks: on identical frames the inflated network is its parent, and no file goes in unseen."""

from __future__ import annotations

import contextlib
import copy
import socket
from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
import torchvision
from huggingface_hub import constants
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.resnet import BasicBlock, Bottleneck
from timm.models.resnet import ResNet as TimmResNet
from torch import nn

from search_spaces import weights
from search_spaces.catalogue import build, preset
from search_spaces.errors import SpecError
from search_spaces.families.inception.v3 import make_inception_v3
from search_spaces.families.resnet.blocks import Block, Stage, Stem
from search_spaces.families.resnet.spec import ResNetSpec
from search_spaces.inflate import MODES, Inflated, check, inflate, inflate_weight, parent_shapes, parts_of_spec
from search_spaces.modules import Block as Module
from search_spaces.operators import FLAT, KINDS, PORT_KINDS, Kind, TemporalOp
from search_spaces.weights import checksum, read_weights

WIDTHS = (8, 16, 16, 24)
TWINNED = [kind for kind in KINDS if kind not in ("2plus1d", "csn", "csn_ip")]
FLAT_OF_BASIC = [kind for kind in TWINNED if not kind.startswith("t1x1")]


def calibrated(network: nn.Module, size: int = 64, frames: int = 0) -> nn.Module:
    """The network with norms of weights of their own and the statistics of what they see, as trained ones have.

    It is one for images, or for clips of so many frames.
    """
    generator = torch.Generator().manual_seed(2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(module.bias, -0.5, 0.5, generator=generator)
            module.momentum = None
    with torch.no_grad():
        for _ in range(3):
            network.train()(torch.randn(8, 3, *([frames] if frames else []), size, size, generator=generator))
    return network.eval()


def image_resnet(kind: str) -> nn.Module:
    torch.manual_seed(1)
    block = {"basic": BasicBlock, "bottleneck": Bottleneck}[kind]
    return calibrated(TimmResNet(block, (1, 1, 1, 1), num_classes=5, channels=WIDTHS, zero_init_last=False))


PARENTS = {kind: image_resnet(kind) for kind in ("basic", "bottleneck")}


def resnet(kind: str, ops: list[TemporalOp], *, stem: int = 3, strides=(1, 1, 1, 1), **options: Any) -> ResNetSpec:
    """A network of one block per stage whose parent is PARENTS[kind]."""
    return ResNetSpec(
        stem=Stem(width=64, temporal_kernel=stem, spatial_kernel=7, spatial_stride=2, pool="max"),
        stages=tuple(
            Stage(
                blocks=(
                    Block(kind=kind, width=width, spatial_stride=1 if s == 0 else 2, temporal_stride=t, temporal=op),
                )
            )
            for s, (width, op, t) in enumerate(zip(WIDTHS, ops, strides, strict=True))
        ),
        **options,
    )


def inception(op_at: Any, pair_at: Any = lambda unit: "appended", **options: Any) -> Any:
    """An Inception-v3 with the paddings of the image network and no strides over time, an eighth as wide."""
    settings = {"strides": (1,) * 5, "pools": (1, 1), "stem_padding": "valid", "aux": False, "width": 1 / 8}
    return make_inception_v3(op_at, pair_at=pair_at, **{**settings, **options})


def images(num: int = 2, size: int = 64) -> torch.Tensor:
    return torch.randn(num, 3, size, size, generator=torch.Generator().manual_seed(3))


def still(frames: torch.Tensor, num: int = 5) -> torch.Tensor:
    return frames[:, :, None].expand(-1, -1, num, -1, -1)


def inflated(spec: ResNetSpec, state: dict[str, torch.Tensor], mode: Any, num_classes: int = 5) -> nn.Module:
    torch.manual_seed(4)
    network = build(spec, num_classes=num_classes)
    inflate(network, spec, state, mode)
    return network.eval()


@st.composite
def networks(draw: st.DrawFn) -> tuple[str, ResNetSpec]:
    kind = draw(st.sampled_from(sorted(PARENTS)))
    op = st.builds(
        TemporalOp,
        kind=st.sampled_from(TWINNED if kind == "bottleneck" else FLAT_OF_BASIC),
        kernel=st.sampled_from([1, 3, 5]),
        dilation=st.sampled_from([(1,), (2,), (1, 3)]),
    )
    return kind, resnet(
        kind,
        draw(st.lists(op, min_size=4, max_size=4)),
        stem=draw(st.sampled_from([1, 3, 5])),
        strides=draw(st.tuples(*[st.sampled_from([1, 2])] * 4)),
        head=draw(st.sampled_from(["avg", "avg_max"])),
    )


@settings(max_examples=40, deadline=None)
@given(network=networks(), mode=st.sampled_from(["centre", "identity"]))
def test_on_identical_frames_a_network_is_its_parent(network, mode):
    kind, spec = network
    parent = PARENTS[kind]
    with torch.no_grad():
        ours = inflated(spec, parent.state_dict(), mode)(still(images()))
        torch.testing.assert_close(ours, parent(images()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", TWINNED)
def test_replicated_it_is_so_where_padding_does_not_reach(kind):
    spec = resnet("bottleneck", [TemporalOp(kind=kind)] * 4)
    network, parent = inflated(spec, PARENTS["bottleneck"].state_dict(), "replicate"), PARENTS["bottleneck"]
    features: list[torch.Tensor] = []
    network.get_submodule("stages.3.0").register_forward_hook(lambda module, inputs, out: features.append(out))
    with torch.no_grad():
        expected = copy.deepcopy(parent).double().forward_features(images(1).double())
        network.double()(still(images(1).double(), 19))
    # the stem and at most two convolutions of 3 frames in each of 4 blocks: 9 frames from each end
    torch.testing.assert_close(features[0][:, :, 9], expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(features[0][:, :, 0], expected, rtol=1e-3, atol=1e-3)


def test_a_resnet_50_of_many_operators_is_timms():
    """In float64, since rounding alone makes 7e-5 of a difference to the parent in float32."""
    parent = calibrated(timm.create_model("resnet50"))
    kinds: tuple[Kind, ...] = ("p3d_a", "p3d_b", "p3d_c", *PORT_KINDS, "3d", "t1x1_all", "2d")
    ops = [TemporalOp(kind=kind) for kind in kinds]
    blocks = iter([*ops, *ops])
    spec = ResNetSpec(
        stem=Stem(width=64, temporal_kernel=5, spatial_kernel=7, spatial_stride=2, pool="max"),
        stages=tuple(
            Stage(
                blocks=tuple(
                    Block(
                        kind="bottleneck",
                        width=64 * 2**s,
                        spatial_stride=2 if s and b == 0 else 1,
                        temporal_stride=1,
                        temporal=next(blocks),
                    )
                    for b in range(num)
                )
            )
            for s, num in enumerate((3, 4, 6, 3))
        ),
    )
    with torch.no_grad():
        network = inflated(spec, parent.state_dict(), "centre", num_classes=1000).double()
        expected = parent.double()(images().double())
        torch.testing.assert_close(network(still(images().double(), 3)), expected, rtol=1e-5, atol=1e-5)


def test_an_inception_v3_of_many_operators_is_its_frame_by_frame_network():
    """Narrow, in float64; the next test holds its names and values to timm's."""
    flat = inception(lambda unit: FLAT)
    torch.manual_seed(0)
    parent = calibrated(build(flat, num_classes=5), 107, frames=1).double()
    state = {
        need.key: parent.get_submodule(name).state_dict()[need.name].reshape(need.shape)
        for name, part in parts_of_spec(flat, num_classes=5).items()
        for need in part.needs
    }
    ops = [TemporalOp(kind="p3d_a"), TemporalOp(kind="3d", kernel=5), TemporalOp(kind="p3d_c"), FLAT]
    pairs: list[Any] = ["appended", "inflated", "each"]
    with torch.no_grad():
        expected = parent(still(images(2, 75), 1).double())
        for shift in range(2):
            spec = inception(lambda unit, s=shift: ops[(unit + s) % 4], lambda unit, s=shift: pairs[(unit + s) % 3])
            network = inflated(spec, state, "centre").double()
            assert {form for form, _ in pseudo3d(network)} == {"a", "c"}
            ours = network(still(images(2, 75), 4).double())
            torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_timms_inception_v3_fits():
    parent = timm.create_model("inception_v3").eval()
    spec = inception(lambda unit: TemporalOp(kind="3d"), width=1.0)
    with torch.no_grad():
        network = inflated(spec, parent.state_dict(), "centre", num_classes=1000)
        ours, expected = network(still(images(1, 75), 2)), parent(images(1, 75))
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_a_side_head_takes_its_weights_or_none():
    spec = inception(lambda unit: FLAT, aux=True)
    shapes = parent_shapes(spec, num_classes=5)
    assert "AuxLogits.fc.weight" in shapes
    assert check(spec, shapes, num_classes=5).left == ()
    assert check(spec, shapes, num_classes=7).left == ("aux.fc", "head.fc")
    without = {name: shape for name, shape in shapes.items() if not name.startswith("AuxLogits")}
    assert check(spec, without, num_classes=5).left == ("aux",)
    with pytest.raises(SpecError, match=r"1 missing \(AuxLogits.fc.bias\)"):
        check(spec, {name: shape for name, shape in shapes.items() if name != "AuxLogits.fc.bias"}, num_classes=5)
    # A network without one has no use for theirs.
    assert check(inception(lambda unit: FLAT), shapes, num_classes=5).left == ()


def test_a_spec_may_take_the_weights_itself():
    class Own(ResNetSpec):
        def take_2d(self, network, state, mode):
            return Inflated(taken=len(state), left=(mode,))

        def check_2d(self, shapes, *, num_classes):
            return Inflated(taken=len(shapes), left=(str(num_classes),))

    spec = resnet("basic", [FLAT] * 4)
    own = Own(stem=spec.stem, stages=spec.stages)
    network = build(spec, num_classes=5)
    assert inflate(network, own, {"a": torch.zeros(1)}, "centre") == Inflated(taken=1, left=("centre",))
    assert check(own, {"a": (1,), "b": (2,)}, num_classes=5) == Inflated(taken=2, left=("5",))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_a_kernel_sums_over_time_to_its_parent(mode, kernel):
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(5))
    ours = inflate_weight(weight, kernel, mode)
    assert ours.shape == (6, 4, kernel, 3, 3)
    torch.testing.assert_close(ours.sum(2), weight)
    if mode == "replicate":
        torch.testing.assert_close(ours[:, :, 0], weight / kernel)
    elif mode in ("centre", "identity"):
        assert torch.equal(ours[:, :, kernel // 2], weight)
        assert ours.count_nonzero() == weight.count_nonzero()


def test_a_random_profile_is_one_a_filter_and_drawn():
    weight = torch.rand(6, 4, 3, 3, generator=torch.Generator().manual_seed(5)) + 1
    torch.manual_seed(0)
    first, second = inflate_weight(weight, 3, "random"), inflate_weight(weight, 3, "random")
    assert not torch.allclose(first, second)
    profiles = first / weight[:, :, None]
    torch.testing.assert_close(profiles, profiles[:, :1, :, :1, :1].expand_as(profiles))
    assert len(profiles[:, 0, :, 0, 0].flatten().unique()) == 18


def pseudo3d(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """The P3D units of a network, each with its form."""
    blocks = [block for block in network.modules() if isinstance(block, Module)]
    return [
        (site.op.form, block.get_submodule(site.path)) for block in blocks for site in block.graph.sites if site.op.form
    ]


def test_random_leaves_temporal_convolutions_as_drawn():
    spec = resnet("bottleneck", [TemporalOp(kind="p3d_a")] * 4)
    torch.manual_seed(4)
    drawn = build(spec, num_classes=5)
    ours = inflated(spec, PARENTS["bottleneck"].state_dict(), "random")
    assert len(pseudo3d(ours)) == 4
    for (_, a), (_, b) in zip(pseudo3d(drawn), pseudo3d(ours), strict=True):
        assert torch.equal(a.temporal.conv.weight, b.temporal.conv.weight)
        assert torch.equal(b.temporal.norm.weight, torch.ones(len(b.temporal.norm.weight)))
        assert not torch.equal(a.spatial.conv.weight, b.spatial.conv.weight)


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize("kind", ["p3d_a", "p3d_b", "p3d_c", "p3d_b_port", "p3d_c_port"])
@pytest.mark.parametrize("mode", ["centre", "replicate"])
def test_what_is_silent_can_learn(block, kind, mode):
    spec = resnet(block, [TemporalOp(kind=kind)] * 4)
    network = inflated(spec, PARENTS[block].state_dict(), mode).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    labels = torch.arange(8) % 5
    for _ in range(2):  # a norm of weight 0 hides what is before it in the first step
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(torch.randn(8, 3, 4, 64, 64)), labels).backward()
        optimizer.step()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_training_begins_where_the_parent_is_too():
    """The norm of an identity T has the statistics that a batch will give it."""
    spec = resnet("bottleneck", [TemporalOp(kind="p3d_a")] * 4)
    network = inflated(spec, PARENTS["bottleneck"].state_dict(), "centre").train()
    _, unit = pseudo3d(network)[0]
    given: list[torch.Tensor] = []
    unit.temporal.conv.register_forward_hook(lambda module, inputs, out: given.append(inputs[0].clone()))
    seen: list[torch.Tensor] = []
    unit.temporal.act.register_forward_hook(lambda module, inputs, out: seen.append((out - given[-1]).square().mean()))
    with torch.no_grad():
        network(still(images(16), 2))
        nn.init.ones_(unit.temporal.norm.weight)
        nn.init.zeros_(unit.temporal.norm.bias)
        network(still(images(16), 2))
    assert seen[0].sqrt() < 0.1 < 0.3 < seen[1].sqrt()


def test_other_classes_leave_the_classifier_as_drawn():
    spec, state = resnet("basic", [FLAT] * 4), PARENTS["basic"].state_dict()
    torch.manual_seed(4)
    network = build(spec, num_classes=7)
    drawn = network.get_submodule("head.fc").weight.detach().clone()
    done = inflate(network, spec, state, "centre")
    assert done.left == ("head.fc",)
    assert done.taken == sum("num_batches" not in name for name in state) - 2
    assert torch.equal(network.get_submodule("head.fc").weight, drawn)
    assert torch.equal(network.get_submodule("stem.conv").weight[:, :, 1], state["conv1.weight"])
    assert check(spec, {name: tuple(value.shape) for name, value in state.items()}, num_classes=7) == done


def test_attention_is_left_as_drawn_save_that_a_non_local_block_does_nothing():
    spec, parent = resnet("basic", [FLAT] * 4), PARENTS["basic"]

    def with_attention(kind: Any) -> ResNetSpec:
        stages = list(spec.stages)
        stages[1] = Stage(blocks=(replace(stages[1].blocks[0], attention=kind),))
        return replace(spec, stages=tuple(stages))

    with torch.no_grad():
        for kind, same in (("nonlocal", True), ("se", False)):
            torch.manual_seed(4)
            network = build(with_attention(kind), num_classes=5)
            done = inflate(network, with_attention(kind), parent.state_dict(), "centre")
            assert [path.rpartition(".")[0] for path in done.left] == ["stages.1.0"]
            assert torch.allclose(network.eval()(still(images())), parent(images()), atol=1e-5) == same


REFUSED = [
    ("2plus1d", {}, r"kind 2plus1d cannot take 2D weights such as layer1.0.conv2: .* ReLU on 18 planes"),
    ("csn", {}, r"4 of another shape \(layer1.0.conv2.weight 8x8x3x3, not 8x1x3x3,.*channel-separated \(csn\)"),
    ("csn_ip", {}, r"kind csn_ip cannot take 2D weights such as layer1.0.conv2: its planes are convolved alone$"),
    ("3d", {"conv1.weight": None}, r"1 missing \(conv1.weight\)$"),
    ("3d", {"extra.weight": (1,), "extra.bias": (1,)}, r"2 unexpected \(extra.weight, extra.bias\)$"),
    ("3d", {"conv1.weight": (64, 3, 5, 5)}, r"1 of another shape \(conv1.weight 64x3x5x5, not 64x3x7x7\)$"),
    ("3d", {"fc.weight": (5, 95)}, r"1 of another shape \(fc.weight 5x95, not 5x96\)"),
    ("3d", {"bn1.num_batches_tracked": None}, None),
]


@pytest.mark.parametrize(("kind", "changes", "message"), REFUSED)
def test_weights_that_do_not_fit_are_refused_with_a_list(kind, changes, message):
    spec, state = resnet("bottleneck", [TemporalOp(kind=kind)] * 4), dict(PARENTS["bottleneck"].state_dict())
    for name, shape in changes.items():
        state.pop(name, None)
        if shape is not None:
            state[name] = torch.zeros(shape)
    network = build(spec, num_classes=5)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    if message is None:
        inflate(network, spec, state, "centre")
        return
    for refuse in (lambda: inflate(network, spec, state, "centre"), lambda: check(spec, shapes, num_classes=5)):
        with pytest.raises(SpecError, match=message) as caught:
            refuse()
        assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_state_dict_of_another_network_is_refused_with_few_words():
    spec = resnet("basic", [FLAT] * 4)
    state = {name: value for name, value in PARENTS["bottleneck"].state_dict().items() if "num_batches" not in name}
    with pytest.raises(SpecError, match=r"tensors are 20 unexpected \(.*, \.\.\.\); 25 of another shape") as caught:
        inflate(build(spec, num_classes=5), spec, state, "centre")
    assert len(str(caught.value)) < 500


def test_a_family_without_a_parent_and_an_unknown_mode_are_refused():
    spec = preset("c3d")
    with pytest.raises(SpecError, match="networks of the family c3d have no 2D parent"):
        check(spec, {}, num_classes=5)
    with pytest.raises(SpecError, match="mode must be one of its choices, but is center; did you mean centre"):
        inflate_weight(torch.zeros(1, 1, 3, 3), 3, "center")  # type: ignore[arg-type]


def test_the_parents_shapes_are_known_without_the_parent():
    state = {name: tuple(value.shape) for name, value in PARENTS["bottleneck"].state_dict().items()}
    spec = resnet("bottleneck", [TemporalOp(kind="t1x1_both")] * 4)
    expected = {name: shape for name, shape in state.items() if "num_batches" not in name}
    assert parent_shapes(spec, num_classes=5) == expected


STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.tensor([1.0, 2.0])}


@pytest.mark.parametrize(
    "content",
    [STATE, {"state_dict": STATE, "epoch": 3}, {"model": STATE}, {f"module.{k}": v for k, v in STATE.items()}],
    ids=["plain", "state_dict", "model", "module"],
)
def test_files_of_training_scripts_are_read(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    found = read_weights(str(tmp_path / "weights.pth"))
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)
    assert checksum(found) == checksum(STATE)


def test_a_safetensors_file_holds_the_same_weights(tmp_path):
    from safetensors.torch import save_file

    save_file(STATE, tmp_path / "weights.safetensors")
    assert checksum(read_weights(str(tmp_path / "weights.safetensors"))) == checksum(STATE)


def test_the_checksum_tells_values_names_and_shapes_apart():
    changed = {
        "value": {**STATE, "a.bias": torch.tensor([1.0, 3.0])},
        "name": {"b.weight": STATE["a.weight"], "a.bias": STATE["a.bias"]},
        "shape": {**STATE, "a.weight": STATE["a.weight"].view(3, 2)},
        "type": {**STATE, "a.bias": torch.tensor([1.0, 2.0]).view(torch.int32)},
        "fewer": {"a.bias": STATE["a.bias"]},
    }
    assert len({checksum(STATE), *map(checksum, changed.values())}) == 6
    strided = {**STATE, "a.weight": STATE["a.weight"].T.contiguous().T}
    assert checksum(dict(reversed(strided.items()))) == checksum(STATE)


class Payload:
    """What a malicious file runs when it is unpickled."""

    ran = False

    def __reduce__(self):
        return setattr, (Payload, "ran", True)


BAD_FILES: dict[str, tuple[Any, str]] = {
    "code": (
        {"a": Payload()},
        "wrote, but it is damaged, or holds pickled objects other than tensors",
    ),
    "number": ({"a": 3}, "must hold tensors by name, but a is int"),
    "list": ([torch.zeros(1)], "must hold tensors by name, but holds list"),
    "nothing": ({}, "must hold tensors by name, but holds dict"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_does_not_hold_weights_is_refused(tmp_path, name):
    content, message = BAD_FILES[name]
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(SpecError, match=message) as caught:
        read_weights(str(tmp_path / "weights.pth"))
    assert "\n" not in str(caught.value)
    assert not Payload.ran


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"not weights at all"])
def test_a_damaged_file_is_refused(tmp_path, suffix, content):
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(content)
    with pytest.raises(SpecError, match=r"must hold weights that torch.save or safetensors wrote, but ") as caught:
        read_weights(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_how_names_are_written(tmp_path):
    with pytest.raises(SpecError, match=r"there is no file .*resnet50 with weights .*timm: or torchvision:"):
        read_weights(str(tmp_path / "resnet50"))


def test_names_are_asked_of_their_hub(monkeypatch):
    asked: list[tuple[str, bool]] = []

    def create(name: str, *, pretrained: bool) -> nn.Module:
        asked.append((name, pretrained))
        return nn.Linear(2, 3)

    monkeypatch.setattr(timm, "create_model", create)
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    assert read_weights("timm:resnet18.a1_in1k").keys() == {"weight", "bias"}
    assert asked == [("resnet18.a1_in1k", True)]
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("timm:resnet51", "timm has no model resnet51; did you mean resnet5"),
        ("torchvision:resnet51", "torchvision has no model of images or videos resnet51; did you mean resnet5"),
        ("torchvision:r3d_19", "torchvision has no model of images or videos r3d_19; did you mean r3d_18"),
    ],
)
def test_an_unknown_name_gets_the_nearest(source, message):
    with pytest.raises(SpecError, match=message):
        read_weights(source)


@pytest.mark.parametrize("answers", [True, False])
def test_a_hub_that_does_not_answer_is_not_waited_for(monkeypatch, answers):
    """Its client would try five times, for a minute; what this machine has is taken all the same."""
    offline: list[bool] = []

    def create(name: str, *, pretrained: bool) -> nn.Module:
        offline.append(constants.is_offline_mode())
        return nn.Linear(2, 3)

    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        if not answers:
            server.close()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setattr(weights, "getproxies", dict)
        monkeypatch.setattr(timm, "create_model", create)
        read_weights("timm:resnet18")
    assert offline == [not answers]
    assert not constants.is_offline_mode()


@pytest.mark.parametrize("name", ["resnet18", "r3d_18"])
def test_weights_of_torchvision_are_taken_or_refused_at_once(monkeypatch, tmp_path, name):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(weights, "_reachable", lambda address: False)
    with pytest.raises(SpecError, match=rf"the weights torchvision:{name} cannot be had: their hub cannot be reached"):
        read_weights(f"torchvision:{name}")
    theirs = torchvision.models.get_model(name)
    file = torchvision.models.get_model_weights(name).DEFAULT.url.rpartition("/")[2]
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(theirs.state_dict(), tmp_path / "hub" / "checkpoints" / file)
    assert read_weights(f"torchvision:{name}").keys() == theirs.state_dict().keys()


@pytest.mark.parametrize("hub", ["timm", "torchvision"])
def test_a_hub_out_of_reach_is_said_in_one_line(monkeypatch, hub):
    def fail(name: str) -> dict[str, torch.Tensor]:
        raise OSError("We couldn't connect\nto 'https://…' to load the files")

    monkeypatch.setitem(weights._HUBS, hub, fail)
    with pytest.raises(SpecError, match=rf"the weights {hub}:resnet18 cannot be had .*: We couldn't connect$"):
        read_weights(f"{hub}:resnet18")


def test_a_factorised_stem_has_no_parent():
    spec = replace(preset("r3d_18"), stem=preset("r2plus1d_18").stem)
    with pytest.raises(SpecError, match=r"2D weights such as conv1: .* on 45 planes of its own"):
        parent_shapes(spec, num_classes=5)
