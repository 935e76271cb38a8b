"""Makes golden outputs of pytorchvideo's networks, on which the project does not depend.

    PYTHONPATH=. python -m tests.parity.make_pytorchvideo_golden [NAME ...]

with a Python that has torch and pytorchvideo 0.1.5. Each network of `NETWORKS` is filled by the formula of its names
and run in evaluation mode; golden/NAME.json gets its logits, its clip's shape, and a checksum of its names. To add a
network: a line in `NETWORKS`, and a test that says which of our names are which of theirs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, NamedTuple

import torch
from pytorchvideo.models.csn import create_csn
from pytorchvideo.models.hub import r2plus1d, resnet, slowfast
from pytorchvideo.models.x3d import create_x3d
from torch import Tensor, nn

from tests.parity.formula import record

NUM_CLASSES = 11


class Golden(NamedTuple):
    """A network of pytorchvideo and the clips that it is tried on."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    pack: Callable[[Tensor], Any] = lambda clips: clips


def two_paths(alpha: int) -> Callable[[Tensor], list[Tensor]]:
    """As in pytorchvideo's tutorial: the slow pathway's frames, and all."""

    def pack(clips: Tensor) -> list[Tensor]:
        frames = clips.shape[2]
        index = torch.linspace(0, frames - 1, frames // alpha).long()
        return [clips.index_select(2, index), clips]

    return pack


def slowfast_8x8_r50() -> nn.Module:
    # Their pool is as large as the features of 32x224x224; an adaptive one is the same there, and takes smaller clips.
    return slowfast.slowfast_r50(head_pool=nn.AdaptiveAvgPool3d, model_num_class=NUM_CLASSES)


def x3d_s() -> nn.Module:
    return create_x3d(input_clip_length=5, input_crop_size=64, head_activation=None, model_num_class=NUM_CLASSES)


def one_path(make: Callable[..., nn.Module], **settings: Any) -> Callable[[], nn.Module]:
    """A residual network of theirs; an adaptive pool takes smaller clips than that of theirs, which is as large."""
    return lambda: make(head_pool=nn.AdaptiveAvgPool3d, model_num_class=NUM_CLASSES, **settings)


NETWORKS = {
    "slow_r50_8x8": Golden(one_path(resnet.slow_r50), (2, 3, 8, 48, 64)),
    "c2d_r50": Golden(one_path(resnet.c2d_r50), (2, 3, 8, 48, 64)),
    "i3d_r50": Golden(one_path(resnet.i3d_r50), (2, 3, 8, 48, 64)),
    "r2plus1d_r50": Golden(one_path(r2plus1d.r2plus1d_r50, head_activation=None), (2, 3, 8, 64, 96)),
    "csn_r101": Golden(one_path(create_csn, model_depth=101, stem_pool=nn.MaxPool3d), (2, 3, 8, 48, 64)),
    "slowfast_8x8_r50": Golden(slowfast_8x8_r50, (2, 3, 16, 48, 64), two_paths(4)),
    "x3d_s": Golden(x3d_s, (2, 3, 5, 64, 64)),
}


def make(name: str) -> None:
    golden = NETWORKS[name]
    network = golden.make()
    made_from = f"pytorchvideo {version('pytorchvideo')}, torch {torch.__version__}"
    record(name, network, golden.shape, made_from, lambda clips: network(golden.pack(clips)))


def main(names: list[str]) -> None:
    for name in names or NETWORKS:
        make(name)


if __name__ == "__main__":
    main(sys.argv[1:])
