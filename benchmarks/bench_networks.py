"""Our networks beside those of torchvision and timm: time to build, and clips per second in evaluation, as ratios.

    python benchmarks/bench_networks.py [threads]

Both sides take turns in one process; a ratio is that of the medians (evaluation: over four pairs,
built in both orders).
"""

from __future__ import annotations

import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable

import timm
import torch
import torchvision
from torch import Tensor, nn

from search_spaces.catalogue import build, preset

CLASSES = 400


class PerFrame(nn.Module):
    """An image network on every frame, logits averaged: what a user writes by hand."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, clips: Tensor) -> Tensor:
        """Maps (N, 3, T, H, W) to (N, classes)."""
        return self.net(clips.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(clips), -1)).mean(1)


def theirs() -> dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]]:
    video = torchvision.models.video
    return {
        "r3d_18": (lambda: video.r3d_18(num_classes=CLASSES), (16, 112, 112)),
        "r2plus1d_18_torchvision": (lambda: video.r2plus1d_18(num_classes=CLASSES), (16, 112, 112)),
        "s3d_v1": (lambda: video.s3d(num_classes=CLASSES), (16, 224, 224)),
        "tsn_r50": (lambda: PerFrame(timm.create_model("resnet50", num_classes=CLASSES)), (8, 224, 224)),
    }


def only_built() -> dict[str, Callable[[], nn.Module]]:
    video = torchvision.models.video
    return {
        "mc3_18": lambda: video.mc3_18(num_classes=CLASSES),
        "inception_v3_2d": lambda: torchvision.models.inception_v3(
            num_classes=CLASSES, init_weights=False, aux_logits=False
        ),
        "tsn_r101": lambda: PerFrame(timm.create_model("resnet101", num_classes=CLASSES)),
        "tsn_senet154": lambda: PerFrame(timm.create_model("legacy_senet154", num_classes=CLASSES)),
        "tsn_inception_resnet_v2": lambda: PerFrame(timm.create_model("inception_resnet_v2", num_classes=CLASSES)),
    }


def clock(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    print(
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, timm {timm.__version__}, "
        f"Python {platform.python_version()}, {torch.get_num_threads()} threads"
    )
    constructors = {**{name: make for name, (make, _) in theirs().items()}, **only_built()}
    print("time to build, ours over theirs (at most 1.5)")
    for name, make in constructors.items():
        ours, other = [], []
        build(preset(name), num_classes=CLASSES)
        make()
        for _ in range(5):
            ours.append(clock(lambda name=name: build(preset(name), num_classes=CLASSES)))
            other.append(clock(make))
        mine, reference = statistics.median(ours), statistics.median(other)
        print(f"  {name:26} {mine / reference:5.2f}   ({1000 * mine:.0f} and {1000 * reference:.0f} ms)", flush=True)
    print("clips/s in evaluation, ours over theirs (at least 0.98)")
    for name, (make, clip) in theirs().items():
        clips = torch.randn(1, 3, *clip)
        makers: tuple[Callable[[], nn.Module], ...] = (
            lambda name=name, clip=clip: build(preset(name, frames=clip[0]), num_classes=CLASSES),
            make,
        )
        seconds: list[list[float]] = [[], []]
        for order in ((0, 1), (1, 0)) * 2:  # where its weights lie in memory alone moves a network by 3 %
            pair = dict(sorted({i: makers[i]().eval() for i in order}.items()))
            with torch.inference_mode():
                for net in pair.values():
                    net(clips)
                for turn in range(8):
                    for i in order if turn % 2 else reversed(order):
                        seconds[i].append(clock(lambda i=i, pair=pair, clips=clips: pair[i](clips)))
        mine, reference = (statistics.median(side) for side in seconds)
        print(f"  {name:26} {reference / mine:5.3f}   ({1 / mine:.2f} and {1 / reference:.2f} clips/s)", flush=True)


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main()
