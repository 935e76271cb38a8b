"""Convolutions in bfloat16 on a CPU, where small inputs have met broken kernels; averages over a grid."""

from __future__ import annotations

import pytest
import torch

from search_spaces.convolutions import Conv3d, RandomDilationConv3d
from search_spaces.modules import grid_mean

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
    torch.testing.assert_close(grid_mean(x, grid), torch.nn.AdaptiveAvgPool3d(grid)(x))
