"""Weights of networks for clips by name: which layout they are of, what of them fits, what is left as drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import video

from search_spaces.catalogue import build, preset
from search_spaces.errors import SpecError
from search_spaces.pretrained import LAYOUTS, check_by_name, is_for_clips, load_by_name
from search_spaces.settings import network_of
from search_spaces.spec import ArchSpec
from search_spaces.weights import read_weights
from tests.parity.test_authors import NETWORKS

SMALL = {"depth": "1-1", "stem_width": 16, "stem": "3x3x3/2", "kind": "3d"}
PYTORCHVIDEO = [
    ("slow_r50_8x8", "pytorchvideo"),
    ("c2d_r50", "pytorchvideo, a pool behind the first stage"),
    ("csn_r101_pytorchvideo", "pytorchvideo"),
    ("r2plus1d_r50", "pytorchvideo"),
    ("slowfast_8x8_r50", "pytorchvideo: SlowFast"),
    ("x3d_s_pytorchvideo", "pytorchvideo: X3D"),
]


def shapes_of(network: nn.Module, layout: str = "video-nas") -> dict[str, tuple[int, ...]]:
    """Shapes of a network's tensors under the names of a layout."""
    named = {LAYOUTS[layout].their_name(name): tuple(value.shape) for name, value in network.state_dict().items()}
    return {name: shape for name, shape in named.items() if name}


def on_meta(spec: ArchSpec, num_classes: int = 7) -> nn.Module:
    with torch.device("meta"):
        return build(spec, num_classes=num_classes)


@pytest.mark.parametrize(
    ("make", "layout"),
    [
        *(pytest.param(make, layout, id=name) for name, make, layout in NETWORKS if layout != "TIN"),
        *(pytest.param(lambda name=name: preset(name, frames=8), layout, id=name) for name, layout in PYTORCHVIDEO),
        pytest.param(lambda: preset("s3d_v1"), "torchvision: s3d", id="s3d"),
        pytest.param(lambda: preset("s3d_v1"), "video-nas", id="our own"),
    ],
)
def test_a_layout_is_known_by_its_names(make: Callable[[], ArchSpec], layout: str) -> None:
    network = on_meta(make())
    found = check_by_name(make(), shapes_of(network, layout), num_classes=7)
    params = {name for name, _ in network.named_parameters()}
    there = {name for name in params if LAYOUTS[layout].their_name(name)}
    assert found.layout == layout
    assert found.unused == 0
    # Where norms have no weight there, ours keep theirs, which is 1.
    assert (found.left == ()) == (params == there)
    assert found.share == 1 if params == there else found.share > 0.99


def test_every_layout_is_tried() -> None:
    tried = {layout for _, _, layout in NETWORKS} | {layout for _, layout in PYTORCHVIDEO}
    assert set(LAYOUTS) == tried - {"TIN"} | {"torchvision: s3d", "video-nas"}


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state"])
def test_a_file_of_another_package_gives_its_outputs(wrapper: str | None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = video.r2plus1d_18(num_classes=5).eval()
    state: object = theirs.state_dict()
    if wrapper is not None:
        state = {wrapper: {f"module.{name}": value for name, value in theirs.state_dict().items()}, "epoch": 3}
    torch.save(state, tmp_path / "weights.pth")
    ours = build(preset("r2plus1d_18_torchvision"), num_classes=5).eval()
    load_by_name(ours, read_weights(str(tmp_path / "weights.pth")))
    clips = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(clips), theirs(clips), rtol=1e-5, atol=1e-5)


def test_a_classifier_of_other_classes_is_drawn_anew() -> None:
    spec = network_of("resnet", SMALL)
    theirs, ours = build(spec, num_classes=9), build(spec, num_classes=4)
    drawn = ours.get_submodule("head.fc").weight.clone()
    loaded = load_by_name(ours, theirs.state_dict())
    assert (loaded.share, loaded.left, loaded.unused) == (1, ("head",), 2)
    assert torch.equal(ours.get_submodule("head.fc").weight, drawn)
    assert torch.equal(ours.get_submodule("stem.conv").weight, theirs.get_submodule("stem.conv").weight)


def test_auxiliary_classifiers_are_classifiers() -> None:
    spec = network_of("inception_v3", {"width": 0.125, "aux": True})
    state = shapes_of(on_meta(spec, 9))
    found = check_by_name(spec, state, num_classes=4, at_least=1)
    assert found.share == 1
    assert {path.partition(".")[0] for path in found.left} == {"aux", "head"}


def test_a_bias_alone_is_no_likeness() -> None:
    """Another network with as many classes shares the shape of the classifier's bias, and nothing else."""
    found = check_by_name(network_of("resnet", SMALL), {"head.fc.bias": (4,), "head.fc.weight": (4, 99)}, num_classes=4)
    assert (found.taken, found.share) == (0, 0)


def test_hidden_layers_of_a_head_are_taken_for_other_classes() -> None:
    spec = preset("c3d")
    found = check_by_name(spec, shapes_of(on_meta(spec, 9)), num_classes=4)
    assert found.share == 1
    assert found.left == ("head.8",)


def test_biases_of_a_non_local_block_that_does_not_fit_are_left_alone() -> None:
    spec = preset("i3d_nln_r50", frames=8)
    network = on_meta(spec)
    state = shapes_of(network, "SlowFast")
    (path,) = [name for name in state if name.endswith("s3.pathway0_nonlocal1.conv_out.weight")]
    for conv, planes in (("theta", 64), ("phi", 64), ("g", 64)):
        state[path.replace("conv_out.weight", f"conv_{conv}.bias")] = (planes,)
    whole = check_by_name(spec, state, num_classes=7)
    del state[path]
    less = check_by_name(spec, state, num_classes=7)
    assert less.taken == whole.taken - 1
    assert less.unused > whole.unused


@pytest.mark.parametrize(
    "state",
    [
        {1: torch.zeros(1)},
        {"a": torch.zeros(2, 2).to_sparse()},
        {"a": torch.zeros(2, dtype=torch.complex64)},
        {"a": torch.zeros(2, device="meta")},
        {"\ud800": torch.zeros(1)},
    ],
    ids=["number", "sparse", "complex", "meta", "surrogate"],
)
def test_what_is_no_plain_tensor_by_name_is_refused(state: dict[object, Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(SpecError, match="must hold tensors"):
        read_weights(str(tmp_path / "w.pth"))


def test_of_another_network_what_fits_is_taken() -> None:
    """In a mixed network the 2D blocks have other kernels; norms fit, and so do shortcuts."""
    spec = network_of("resnet", SMALL)
    mixed = network_of("resnet", {**SMALL, "placement": "mc2"})
    theirs, ours = build(spec, num_classes=4), build(mixed, num_classes=4)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    loaded = load_by_name(ours, theirs.state_dict())
    assert 0.05 < loaded.share < 0.95
    after, there = ours.state_dict(), theirs.state_dict()
    for name, value in after.items():
        inside = any(name.startswith(f"{path}.") for path in loaded.left)
        taken = there[name].shape == value.shape and not name.endswith("num_batches_tracked")
        assert taken != inside or not name.endswith(("weight", "bias")), name
        assert torch.equal(value, there[name] if taken else before[name])
    assert loaded == check_by_name(mixed, shapes_of(theirs), num_classes=4)


def test_too_small_a_share_is_refused_and_nothing_is_changed() -> None:
    mixed = network_of("resnet", {**SMALL, "placement": "mc2"})
    state = build(network_of("resnet", SMALL), num_classes=4).state_dict()
    ours = build(mixed, num_classes=4)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    with pytest.raises(SpecError, match=r"at_least 0\.9 of the network's parameters .*, but [\d.]+ % of them are"):
        load_by_name(ours, state, at_least=0.9)
    with pytest.raises(SpecError, match=r"at_least 0\.9"):
        check_by_name(mixed, {name: tuple(value.shape) for name, value in state.items()}, num_classes=4, at_least=0.9)
    assert all(torch.equal(before[name], value) for name, value in ours.state_dict().items())


@pytest.mark.parametrize("name", ["conv.weight", "stem.conv.weight"])
def test_of_weights_of_nothing_like_it_nothing_is_taken(name: str) -> None:
    found = check_by_name(network_of("resnet", SMALL), {name: (4, 3, 9, 9, 9)}, num_classes=4)
    assert (found.layout, found.taken, found.share, found.left, found.unused) == ("", 0, 0, ("",), 1)


def test_weights_of_images_are_told_from_those_of_clips() -> None:
    images: dict[str, Tensor] = video.r3d_18().state_dict()
    assert is_for_clips({name: tuple(value.shape) for name, value in images.items()})
    assert not is_for_clips({"conv1.weight": (64, 3, 7, 7), "fc.bias": (8,)})
    spec = preset("tsm_r50", frames=8)
    assert is_for_clips(shapes_of(on_meta(spec)))
    assert is_for_clips(shapes_of(on_meta(spec), "TSM"))


def test_a_twin_of_other_planes_keeps_its_first_kernel() -> None:
    spec = network_of("resnet", SMALL)
    rgb, flow = build(spec, num_classes=4), build(spec, num_classes=4, planes=2)
    loaded = load_by_name(flow, rgb.state_dict())
    assert loaded.left == ("stem.conv",)
    assert loaded == check_by_name(spec, shapes_of(rgb), num_classes=4, planes=2)


def test_a_network_of_timm_is_checked_as_it_is_loaded() -> None:
    spec = preset("tsm_r50", frames=8)
    state = {name: torch.zeros(shape) for name, shape in shapes_of(on_meta(spec, 3)).items()}
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    assert load_by_name(on_meta(spec, 5), state) == check_by_name(spec, shapes, num_classes=5)
