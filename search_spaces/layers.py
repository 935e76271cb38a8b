"""Temporal operators as modules on clips of shape (N, C, T, H, W).

Every operator stands where a 3x3 convolution and its norm stand in a 2D residual network, keeps T up to its
stride, and brings its norms along. Convolutions have no bias, because a norm follows each of them.

Papers: Tran et al. 2018, "A Closer Look at Spatiotemporal Convolutions for Action Recognition" (2d, 3d,
2plus1d); Qiu et al. 2017, "Learning Spatio-Temporal Representation with Pseudo-3D Residual Networks" (p3d_a,
p3d_b, p3d_c); the BesNet report of the 2017 ActivityNet challenge (random dilation).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.spec import TemporalOp

Triple = tuple[int, int, int]


class Conv3d(nn.Conv3d):
    """A convolution without bias that is right in bfloat16 on a CPU, too.

    Where an input is smaller than the kernel's reach, oneDNN's bfloat16 kernels (torch 2.15) write beyond their memory
    in the backward pass: weight gradients are noise, different at each call, and now and then the process aborts. With
    the zeros put around the input beforehand they are right, so that is done there, and only there.
    """

    def __init__(
        self, in_planes: int, out_planes: int, kernel: Triple, *, stride: Triple, padding: Triple, dilation: int = 1
    ) -> None:
        """Makes the layer.

        Args:
            in_planes: Planes in.
            out_planes: Planes out.
            kernel: Kernel over (T, H, W).
            stride: Stride over (T, H, W).
            padding: Zeros on each side of (T, H, W).
            dilation: Of the kernel over T.
        """
        super().__init__(
            in_planes, out_planes, kernel, stride=stride, padding=padding, dilation=(dilation, 1, 1), bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_planes, T, H, W) to (N, out_planes, T', H', W')."""
        padding = self.padding
        assert not isinstance(padding, str)
        return self.convolve(x, (padding[0], padding[1], padding[2]), self.dilation[0])

    def convolve(self, x: Tensor, padding: Triple, dilation: int) -> Tensor:
        """Convolves with another padding and temporal dilation."""
        reach = (dilation * (self.kernel_size[0] - 1) + 1, *self.kernel_size[1:])
        if (
            x.device.type == "cpu"
            and torch.is_grad_enabled()
            and (torch.is_autocast_enabled("cpu") or x.dtype == torch.bfloat16)
            and any(size < extent for size, extent in zip(x.shape[2:], reach, strict=True))
        ):
            t, h, w = padding
            x, padding = F.pad(x, (w, w, h, h, t, t)), (0, 0, 0)
        return F.conv3d(x, self.weight, None, self.stride, padding, (dilation, 1, 1), self.groups)


class RandomDilationConv3d(Conv3d):
    """A convolution whose temporal dilation is drawn for each mini-batch.

    In training mode, one dilation of the set is drawn by torch's CPU generator at each call. In evaluation
    mode, the output is the mean of the outputs over the set. Padding follows the dilation, so all outputs
    have one shape.
    """

    def __init__(
        self, in_planes: int, out_planes: int, kernel: Triple, *, stride: Triple, dilations: tuple[int, ...]
    ) -> None:
        """Makes the layer.

        Args:
            in_planes: Planes in.
            out_planes: Planes out.
            kernel: Kernel over (T, H, W), odd.
            stride: Stride over (T, H, W).
            dilations: The set of temporal dilations.
        """
        super().__init__(in_planes, out_planes, kernel, stride=stride, padding=_padding(kernel, 1))
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
        usual: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{usual}, dilations={self.dilations}"

    def _at(self, x: Tensor, dilation: int) -> Tensor:
        kernel = self.kernel_size
        return self.convolve(x, _padding((kernel[0], kernel[1], kernel[2]), dilation), dilation)


class ConvNorm(nn.Module):
    """Convolution, norm and, with `act`, ReLU: the unit of which everything is made."""

    def __init__(self, conv: nn.Module, planes: int, *, act: bool) -> None:
        """Makes the unit.

        Args:
            conv: Any module that gives (N, planes, T, H, W).
            planes: Planes that it gives.
            act: End with a ReLU.
        """
        super().__init__()
        self.conv = conv
        # Epsilon is torch's default, 1e-5, as in torchvision. The released networks of the R(2+1)D paper used
        # 1e-3; it changes neither parameters nor cost, and the parity with torchvision is exact only with
        # 1e-5.
        self.norm = nn.BatchNorm3d(planes)
        # In place is safe: batch norm keeps its input for the backward pass and never its output.
        self.act = nn.ReLU(inplace=True) if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, T, H, W) to (N, planes, T', H', W')."""
        out: Tensor = self.act(self.norm(self.conv(x)))
        return out


class Conv2Plus1D(nn.Module):
    """Spatial convolution, norm, ReLU, temporal convolution: together in the place of one convolution."""

    def __init__(self, spatial: Conv3d, temporal: Conv3d) -> None:
        """Makes the pair from its two convolutions."""
        super().__init__()
        self.spatial = spatial
        self.norm = nn.BatchNorm3d(spatial.out_channels)
        self.act = nn.ReLU(inplace=True)
        self.temporal = temporal

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, T, H, W) to (N, out_planes, T', H', W')."""
        out: Tensor = self.temporal(self.act(self.norm(self.spatial(x))))
        return out


class P3D(nn.Module):
    """The three pseudo-3D blocks. A: T(S(x)). B: S(x) + T(x). C: S(x) + T(S(x)).

    S is 1x3x3, norm, ReLU and T is kx1x1, norm, ReLU, so that the ReLU comes before the sum and none after
    it. With `act=False` the unit closes the residual branch of a basic block, a place that the paper does not
    have (its blocks are bottlenecks, with a 1x1x1 behind). There the ReLUs before the sum are left out:
    behind them a branch could only ever add to the shortcut, never take away from it, and the ReLU after the
    shortcut's addition would do nothing. T still sees a rectified S in A and C.

    The temporal stride is on T in A. B needs both strides on both paths. C adds S to T(S), so S has both
    strides.
    """

    def __init__(
        self,
        op: TemporalOp,
        in_planes: int,
        out_planes: int,
        *,
        spatial_stride: int,
        temporal_stride: int,
        act: bool,
    ) -> None:
        """Makes the unit.

        Args:
            op: Operator of a p3d kind.
            in_planes: Planes in.
            out_planes: Planes out, of S and of T.
            spatial_stride: Stride over rows and columns.
            temporal_stride: Stride over frames.
            act: ReLUs before the sum (and after T in A).
        """
        super().__init__()
        self.kind = op.kind
        parallel = op.kind == "p3d_b"
        s_stride = 1 if op.kind == "p3d_a" else temporal_stride
        t_stride = 1 if op.kind == "p3d_c" else temporal_stride
        self.spatial = ConvNorm(
            spatial_conv(in_planes, out_planes, stride=(s_stride, spatial_stride, spatial_stride)),
            out_planes,
            act=act or op.kind == "p3d_a",
        )
        self.temporal = ConvNorm(
            temporal_conv(
                in_planes if parallel else out_planes,
                out_planes,
                op.kernel,
                stride=(t_stride, spatial_stride, spatial_stride) if parallel else (t_stride, 1, 1),
                dilations=op.dilation,
            ),
            out_planes,
            act=act,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_planes, T, H, W) to (N, out_planes, T', H', W')."""
        s = self.spatial(x)
        if self.kind == "p3d_a":
            out: Tensor = self.temporal(s)
        elif self.kind == "p3d_b":
            out = s + self.temporal(x)
        else:
            # Not in place: without act, the sum needs S as it was. With it, S is rectified already and this
            # is idle.
            out = s + self.temporal(s if isinstance(self.spatial.act, nn.ReLU) else F.relu(s))
        return out


def spatial_conv(in_planes: int, out_planes: int, *, stride: Triple, kernel: int = 3) -> Conv3d:
    """Returns a 1 x kernel x kernel convolution that keeps the size up to its stride."""
    shape = (1, kernel, kernel)
    return Conv3d(in_planes, out_planes, shape, stride=stride, padding=_padding(shape, 1))


def temporal_conv(
    in_planes: int,
    out_planes: int,
    kernel: int,
    *,
    stride: Triple,
    dilations: tuple[int, ...] = (1,),
    size: int = 1,
) -> Conv3d:
    """Returns a kernel x size x size convolution that keeps T up to its stride; dilation one or random."""
    shape = (kernel, size, size)
    if len(dilations) > 1:
        return RandomDilationConv3d(in_planes, out_planes, shape, stride=stride, dilations=dilations)
    padding = _padding(shape, dilations[0])
    return Conv3d(in_planes, out_planes, shape, stride=stride, padding=padding, dilation=dilations[0])


def temporal_unit(
    op: TemporalOp,
    in_planes: int,
    out_planes: int,
    *,
    midplanes: int,
    spatial_stride: int = 1,
    temporal_stride: int = 1,
    act: bool,
) -> nn.Module:
    """Returns what stands for a 3x3 convolution, its norm and, with `act`, its ReLU.

    Args:
        op: The operator.
        in_planes: Planes in.
        out_planes: Planes out.
        midplanes: Planes between the two convolutions of `2plus1d`.
        spatial_stride: Stride over rows and columns.
        temporal_stride: Stride over frames.
        act: ReLU behind; False in a unit that closes a residual branch.
    """
    both = (temporal_stride, spatial_stride, spatial_stride)
    if op.kind == "2d":
        return ConvNorm(spatial_conv(in_planes, out_planes, stride=both), out_planes, act=act)
    if op.kind == "3d":
        conv = temporal_conv(in_planes, out_planes, op.kernel, stride=both, dilations=op.dilation, size=3)
        return ConvNorm(conv, out_planes, act=act)
    if op.kind == "2plus1d":
        pair = Conv2Plus1D(
            spatial_conv(in_planes, midplanes, stride=(1, spatial_stride, spatial_stride)),
            temporal_conv(midplanes, out_planes, op.kernel, stride=(temporal_stride, 1, 1), dilations=op.dilation),
        )
        return ConvNorm(pair, out_planes, act=act)
    return P3D(op, in_planes, out_planes, spatial_stride=spatial_stride, temporal_stride=temporal_stride, act=act)


def _padding(kernel: Triple, dilation: int) -> Triple:
    return (dilation * (kernel[0] // 2), kernel[1] // 2, kernel[2] // 2)
