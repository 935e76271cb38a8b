"""Convolutions of clips (N, C, T, H, W), also with a random dilation, and SAME padding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.graph import Triple
from search_spaces.operators import same_padding


class Conv3d(nn.Conv3d):
    """A convolution that is right in bfloat16 on a CPU, too.

    Where an input is smaller than the kernel's reach, oneDNN's bfloat16 kernels (torch 2.15) write beyond their memory
    in the backward pass: weight gradients are noise, different at each call, and now and then the process aborts. With
    the zeros put around the input beforehand they are right, so that is done there, and only there.

    Attributes:
        same: TensorFlow's SAME padding by the size of the input, whatever `padding` is.
        identity: It begins as the identity.
    """

    same = False
    identity = False

    def __init__(
        self,
        in_planes: int,
        out_planes: int,
        kernel: Triple,
        *,
        stride: Triple = (1, 1, 1),
        padding: Triple = (0, 0, 0),
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        """Makes the layer.

        Args:
            in_planes: Planes in.
            out_planes: Planes out.
            kernel: Kernel over (T, H, W).
            stride: Stride over (T, H, W).
            padding: Zeros on each side of (T, H, W).
            dilation: Of the kernel over T.
            groups: Groups of planes that are convolved apart; as many as planes make it depthwise.
            bias: Add a bias to each plane.
        """
        super().__init__(
            in_planes,
            out_planes,
            kernel,
            stride=stride,
            padding=padding,
            dilation=(dilation, 1, 1),
            groups=groups,
            bias=bias,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_planes, T, H, W) to (N, out_planes, T', H', W')."""
        padding = self.padding
        assert not isinstance(padding, str)
        return self.convolve(x, (padding[0], padding[1], padding[2]), self.dilation[0])

    def convolve(self, x: Tensor, padding: Triple, dilation: int) -> Tensor:
        """Convolves with another padding and temporal dilation."""
        reach = (dilation * (self.kernel_size[0] - 1) + 1, *self.kernel_size[1:])
        if self.same:
            x, padding = same_padded(x, reach, self.stride)
        if (
            x.device.type == "cpu"
            and torch.is_grad_enabled()
            and (torch.is_autocast_enabled("cpu") or x.dtype == torch.bfloat16)
            and any(size < extent for size, extent in zip(x.shape[2:], reach, strict=True))
        ):
            t, h, w = padding
            x, padding = F.pad(x, (w, w, h, h, t, t)), (0, 0, 0)
        return F.conv3d(x, self.weight, self.bias, self.stride, padding, (dilation, 1, 1), self.groups)

    def extra_repr(self) -> str:
        """Adds SAME padding to the usual text."""
        usual: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{usual}, same" if self.same else usual


class RandomDilationConv3d(Conv3d):
    """A convolution whose temporal dilation is drawn for each mini-batch.

    In training mode, one dilation of the set is drawn by torch's CPU generator at each call. In evaluation
    mode, the output is the mean of the outputs over the set. Padding follows the dilation, so all outputs
    have one shape.
    """

    def __init__(
        self,
        in_planes: int,
        out_planes: int,
        kernel: Triple,
        *,
        stride: Triple,
        dilations: tuple[int, ...],
        padding: Triple,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        """Makes the layer.

        Args:
            in_planes: Planes in.
            out_planes: Planes out.
            kernel: Kernel over (T, H, W), odd.
            stride: Stride over (T, H, W).
            dilations: The set of temporal dilations.
            padding: Zeros on each side of (T, H, W) at a dilation of 1.
            groups: Groups of planes that are convolved apart.
            bias: Add a bias to each plane.
        """
        super().__init__(in_planes, out_planes, kernel, stride=stride, padding=padding, groups=groups, bias=bias)
        self.dilations = dilations

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_planes, T, H, W) to (N, out_planes, T', H', W')."""
        if self.training:
            choice = int(torch.randint(len(self.dilations), (), device="cpu"))
            return self._at(x, self.dilations[choice])
        total = self._at(x, self.dilations[0])
        for dilation in self.dilations[1:]:
            total = total + self._at(x, dilation)
        return total / len(self.dilations)

    def passes(self, *, training: bool) -> int:
        """Convolutions that one call computes in the given mode."""
        return 1 if training else len(self.dilations)

    def extra_repr(self) -> str:
        """Adds the set to the usual text."""
        return f"{super().extra_repr()}, dilations={self.dilations}"

    def _at(self, x: Tensor, dilation: int) -> Tensor:
        padding = self.padding
        assert not isinstance(padding, str)
        return self.convolve(x, (dilation * padding[0], padding[1], padding[2]), dilation)


def same_padded(x: Tensor, reach: Sequence[int], stride: Sequence[int], *, value: float = 0.0) -> tuple[Tensor, Triple]:
    """Returns the input of a convolution or pool with SAME padding, and how much of it the layer has to pad itself.

    A layer pads both sides alike. Where SAME has one more at the end, that one is put there beforehand.

    Args:
        x: Clips (N, C, T, H, W).
        reach: Places that the kernel reaches over, over (T, H, W).
        stride: Over (T, H, W).
        value: What to pad with.
    """
    (t, t_end), (h, h_end), (w, w_end) = map(same_padding, x.shape[2:], reach, stride)
    if t_end or h_end or w_end:
        x = F.pad(x, (0, w_end, 0, h_end, 0, t_end), value=value)
    return x, (t, h, w)
