"""Convolutions in bfloat16 on a CPU, where small inputs have met broken kernels; averages; blocks as modules."""

from __future__ import annotations

import copy
import pickle
from functools import partial

import pytest
import torch
from torch import nn

from search_spaces.catalogue import build, preset
from search_spaces.convolutions import Conv3d, RandomDilationConv3d
from search_spaces.modules import adaptive_avg_pool

SMALL = [
    # frames, side, kernel, dilation, stride
    (2, 6, (3, 1, 1), 1, (1, 1, 1)),
    (4, 6, (5, 1, 1), 1, (1, 1, 1)),
    (3, 6, (5, 3, 3), 1, (2, 1, 1)),
    (4, 6, (7, 3, 3), 1, (2, 2, 2)),
    (2, 6, (3, 3, 3), 2, (1, 1, 1)),
    (1, 4, (3, 3, 3), 1, (1, 1, 1)),
    (2, 1, (1, 3, 3), 1, (1, 2, 2)),
    (1, 1, (3, 3, 3), 1, (2, 2, 2)),
    (8, 6, (3, 3, 3), 1, (1, 1, 1)),
]


def gradients(conv: Conv3d, x: torch.Tensor, *, bf16: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Output, gradient of the input and of the weight."""
    x = x.clone().requires_grad_()
    conv.weight.grad = None
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        y = conv(x)
    y.backward(torch.linspace(-1, 1, y.numel()).view(y.shape).to(y.dtype))
    assert x.grad is not None
    assert conv.weight.grad is not None
    return y.detach().float(), x.grad, conv.weight.grad


@pytest.mark.parametrize(("frames", "side", "kernel", "dilation", "stride"), SMALL)
@pytest.mark.parametrize(
    "order", [torch.contiguous_format, torch.channels_last_3d], ids=["contiguous", "channels_last"]
)
def test_bf16_gradients_are_those_of_fp32(
    frames: int,
    side: int,
    kernel: tuple[int, int, int],
    dilation: int,
    stride: tuple[int, int, int],
    order: torch.memory_format,
) -> None:
    torch.manual_seed(0)
    padding = (dilation * (kernel[0] // 2), kernel[1] // 2, kernel[2] // 2)
    conv = Conv3d(16, 32, kernel, stride=stride, padding=padding, dilation=dilation).to(memory_format=order)
    x = torch.randn(4, 16, frames, side, side).contiguous(memory_format=order)
    exact = gradients(conv, x, bf16=False)
    first = gradients(conv, x, bf16=True)
    for a, b in zip(first, exact, strict=True):
        assert (a - b).abs().max() <= 0.03 * b.abs().max()
    for _ in range(3):  # where memory is read that nobody wrote, two calls differ
        for a, b in zip(gradients(conv, x, bf16=True), first, strict=True):
            assert torch.equal(a, b)


def test_a_random_dilation_larger_than_the_clip_has_right_gradients() -> None:
    conv = RandomDilationConv3d(8, 8, (5, 1, 1), stride=(1, 1, 1), padding=(2, 0, 0), dilations=(1, 2, 3))
    x = torch.randn(2, 8, 4, 5, 5)
    for seed in range(6):
        torch.manual_seed(seed)
        exact = gradients(conv, x, bf16=False)
        torch.manual_seed(seed)
        for a, b in zip(gradients(conv, x, bf16=True), exact, strict=True):
            assert (a - b).abs().max() <= 0.03 * b.abs().max()


@pytest.mark.parametrize("sizes", [(1, 4, 4), (2, 8, 12), (1, 1, 1), (3, 5, 7), (2, 3, 9)])
@pytest.mark.parametrize("grid", [(1, 4, 4), (2, 3, 1)])
def test_a_grid_average_is_adaptive_pooling(sizes, grid):
    x = torch.randn(2, 3, *sizes, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(adaptive_avg_pool(x, grid), torch.nn.AdaptiveAvgPool3d(grid)(x))


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build(preset(name).scaled(1 / 8), num_classes=5, dropout=0.3)


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("p3d_50", ("stages.0.0", "stages.0.0.conv2", "stages.0.1.conv2.spatial", "stages.0.0.shortcut", "head")),
        ("r2plus1d_18", ("stem.conv", "stages.1.0.conv1.conv")),
        ("slowfast_8x8_r50", ("stem.slow", "fusion.0.lateral", "stages.0.0.fast.conv1")),
        ("s3d_g", ("stages.0.0.branch0", "stages.0.0.branch1.1.temporal")),
        ("x3d_s", ("stages.0.0.gate", "stages.0.0.conv2")),
    ],
)
def test_every_part_of_a_block_is_a_module_that_runs(name: str, paths: tuple[str, ...]) -> None:
    """A hook on it hears what goes in and comes out, and it can be called alone."""
    whole = network(name).eval()
    given: dict[str, tuple[torch.Tensor, ...]] = {}
    found: dict[str, torch.Tensor] = {}

    def before(module: nn.Module, inputs: tuple[torch.Tensor, ...], *, path: str) -> None:
        given[path] = tuple(x.clone() for x in inputs)  # what follows may change them

    def behind(module: nn.Module, inputs: tuple[torch.Tensor, ...], out: torch.Tensor, *, path: str) -> None:
        found[path] = out.clone()

    hooks = []
    for path in paths:
        part = whole.get_submodule(path)
        hooks += [
            part.register_forward_pre_hook(partial(before, path=path)),
            part.register_forward_hook(partial(behind, path=path)),
        ]
    with torch.no_grad():
        whole(torch.randn(1, 3, 16, 64, 64))
        assert set(given) == set(found) == set(paths)
        for hook in hooks:
            hook.remove()
        for path in paths:
            torch.testing.assert_close(whole.get_submodule(path)(*given[path]), found[path], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["r2plus1d_18", "slowfast_8x8_r50", "s3d_g_slim", "x3d_s", "inception_v3_2d", "c3d"])
def test_a_copy_computes_with_its_own_values(name: str) -> None:
    whole, clip = network(name).eval(), torch.randn(1, 3, 16, 96, 96)
    with torch.no_grad():
        expected = whole(clip)
        replica = replicate_for_data_parallel(whole)
        for copied in (copy.deepcopy(whole), pickle.loads(pickle.dumps(whole)), replica):
            torch.testing.assert_close(copied(clip), expected, rtol=0, atol=0)
        for layer in replica.modules():
            for key in layer._parameters:
                value = layer._parameters[key]
                layer._parameters[key] = None if value is None else torch.zeros_like(value)
        assert not torch.equal(replica(clip), expected)
        torch.testing.assert_close(whole(clip), expected, rtol=0, atol=0)


def replicate_for_data_parallel(module: nn.Module) -> nn.Module:
    """A replica as `nn.DataParallel` makes one: a copy of every module's attributes, children put in afterwards."""
    replica = module._replicate_for_data_parallel()
    for name, child in module._modules.items():
        replica._modules[name] = replicate_for_data_parallel(child)
    for name, value in module._parameters.items():
        replica._parameters[name] = value
    return replica


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("r3d_18", "head.dropout"),
        ("slowfast_8x8_r50", "head.dropout"),
        ("x3d_s", "head.expand"),
        ("inception_v3_2d", "head.dropout"),
    ],
)
def test_a_classifier_sees_means_in_float32_where_convolutions_are_in_bfloat16(name: str, path: str) -> None:
    whole = network(name).train()
    seen: list[torch.dtype] = []
    whole.get_submodule(path).register_forward_hook(lambda module, inputs, out: seen.append(inputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        whole(torch.randn(2, 3, 16, 96, 96))
    assert seen == [torch.float32]
