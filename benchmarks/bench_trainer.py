"""Clips per second of the trainer's step against a plain loop over torchvision's network, and bf16 against fp32.

    python benchmarks/bench_trainer.py [--threads 1] [--rounds 7] [--only big|small|memory|gpu]

`gpu` (where there is one) compares with torchvision's references/video_classification, in clips per second and in
peak memory; `memory` says what gradient accumulation and activation checkpointing save, and what they cost.

Every variant trains on clips that are already in memory. Variants take turns, one step each, so that whatever else
the machine does falls on all of them; what is printed are medians and their ratios to the first variant.

What was tried, and why the defaults are what they are (AMD EPYC with AVX512-BF16, one thread, torch 2.15):

- R(2+1)D-18, 8x56x56, batch 8, by processor time against the plain loop: fp32 contiguous 1.03 x, fp32
  channels-last 0.94 x, bf16 contiguous 2.36 x, bf16 channels-last 2.56 x.
- Widths 16 to 64, batch 16 to 32, averaged weights included: fp32 contiguous 0.94 to 1.00 x, fp32 channels-last
  1.08 to 1.28 x, bf16 contiguous 1.41 to 2.06 x, bf16 channels-last 1.57 to 2.53 x. So channels-last pays everywhere
  but for wide networks in fp32, and bf16 pays everywhere.
- AdamW on 31 million weights takes 98 ms, 112 ms with foreach (which is made for GPUs), 19 ms fused; the averaged
  weights take 8 ms.
- More threads than idle cores are ruinous: OpenMP's threads wait for each other at every kernel, and a bf16 step of
  30 ms took 320 ms on two threads while other processes were using the two cores. One process a core, one thread each.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.catalogue import build, preset
from trainer.device import computes_bf16
from trainer.learner import Learner, Losses, blocks_of, recomputed
from trainer.recipe import Recipe

Step = Callable[[], None]


def plain(model: nn.Module, clips: Tensor, labels: Tensor) -> Step:
    """The loop of the tutorials: float32, contiguous, AdamW as torch gives it."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-4, weight_decay=0.05)

    def step() -> None:
        loss = F.cross_entropy(model(clips), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def reference(model: nn.Module, clips: Tensor, labels: Tensor, *, amp: bool) -> Step:
    """A step of torchvision's references/video_classification/train.py, at its settings."""
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    scaler = torch.amp.GradScaler("cuda", enabled=amp)

    def step() -> None:
        with torch.autocast("cuda", enabled=amp):
            output = model(clips)
            loss = F.cross_entropy(output, labels)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        output.topk(5, 1)[1].t().eq(labels[None]).float().sum().item()  # its accuracy, at each step
        loss.item()

    return step


def ours(model: nn.Module, clips: Tensor, labels: Tensor, num_classes: int, **options: object) -> Step:
    """What `fit` does for each batch."""
    recipe = Recipe(**{"lr": 1e-4, "batch_size": len(clips), "ema_decay": 0.0, "warmup_epochs": 0.0} | options)
    learner = Learner(model.train(), recipe, clips.device)
    learner.training(1)
    losses = Losses(1)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        loss = learner.step(clips, labels, lr=recipe.lr, share=None, num_classes=num_classes, done=done)
        losses.add(loss, len(labels))

    return step


def compare(title: str, variants: Mapping[str, Step], *, num_clips: int, rounds: int) -> None:
    """Prints the median clips per second of each variant, and its ratio to the first by wall and by processor time."""
    walls: dict[str, list[float]] = {name: [] for name in variants}
    works: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name, step in variants.items():
            wall, work = time.perf_counter(), time.process_time()
            step()
            if turn:  # the first is for warming up
                walls[name].append(time.perf_counter() - wall)
                works[name].append(time.process_time() - work)
    print(f"\n{title}")
    wall, work = (statistics.median(next(iter(times.values()))) for times in (walls, works))
    for name in variants:
        median = statistics.median(walls[name])
        print(
            f"  {name:<38} {num_clips / median:8.1f} clips/s  {wall / median:5.2f} x"
            f"  (processor time {work / statistics.median(works[name]):5.2f} x;"
            f" {1e3 * min(walls[name]):.0f} to {1e3 * max(walls[name]):.0f} ms)",
            flush=True,
        )


def big(rounds: int) -> None:
    """R(2+1)D-18 at 8x56x56, batch 8."""
    clips, labels = torch.randn(8, 3, 8, 56, 56), torch.randint(0, 400, (8,))

    def network() -> nn.Module:
        return build(preset("r2plus1d_18_torchvision", frames=8), num_classes=400)

    variants = {
        "torchvision, plain loop, fp32": plain(torchvision.models.video.r2plus1d_18(num_classes=400), clips, labels)
    }
    for name, options in {
        "ours, fp32": {"precision": "fp32", "channels_last": False},
        "ours, fp32, averaged weights": {"precision": "fp32", "channels_last": False, "ema_decay": 0.99},
        "ours, fp32, channels-last": {"precision": "fp32"},
        "ours, bf16, channels-last": {"precision": "bf16"},
        "ours, bf16, channels-last, averaged": {"precision": "bf16", "ema_decay": 0.99},
    }.items():
        variants[name] = ours(network(), clips, labels, 400, **options)
    compare("R(2+1)D-18, 8x56x56, batch 8", variants, num_clips=8, rounds=rounds)


def small_network(widths: tuple[int, ...]) -> nn.Module:
    """A stage a width: a 3x3x3 convolution that halves the picture, then a (2+1)D pair."""
    layers: list[nn.Module] = []
    before = 3
    for width in widths:
        for inner, outer, kernel, stride in (
            (before, width, (3, 3, 3), (1, 2, 2)),
            (width, width, (1, 3, 3), (1, 1, 1)),
            (width, width, (3, 1, 1), (1, 1, 1)),
        ):
            padding = tuple(k // 2 for k in kernel)
            layers += [
                nn.Conv3d(inner, outer, kernel, stride=stride, padding=padding, bias=False),
                nn.BatchNorm3d(outer),
                nn.ReLU(inplace=True),
            ]
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(before, 10))


def small(rounds: int) -> None:
    """Networks of a search on one core."""
    for widths, batch, clip in (
        ((16, 32), 32, (8, 32, 32)),
        ((16, 32, 64), 16, (8, 32, 32)),
        ((32, 64), 16, (8, 32, 32)),
        ((16, 32, 64), 16, (16, 64, 80)),
    ):
        clips, labels = torch.randn(batch, 3, *clip), torch.randint(0, 10, (batch,))
        variants = {"plain loop, fp32": plain(small_network(widths), clips, labels)}
        for precision in ("fp32", "bf16"):
            for channels_last in (False, True):
                name = f"ours, {precision}{', channels-last' if channels_last else ''}, averaged"
                variants[name] = ours(
                    small_network(widths), clips, labels, 10,
                    precision=precision, channels_last=channels_last, ema_decay=0.99,
                )  # fmt: skip
        title = f"widths {'-'.join(map(str, widths))}, {'x'.join(map(str, clip))}, batch {batch}"
        compare(title, variants, num_clips=batch, rounds=rounds)


def memory(rounds: int) -> None:
    """R(2+1)D-18 at 8x56x56, batch 8: bytes that autograd keeps for the backward pass, and the time of a step."""
    clips, labels = torch.randn(8, 3, 8, 56, 56), torch.randint(0, 400, (8,))
    variants = {}
    for name, options in {
        "ours, fp32": {},
        "ours, fp32, accumulate 4": {"accumulate": 4},
        "ours, fp32, checkpointing": {"checkpointing": True},
    }.items():
        model = build(preset("r2plus1d_18_torchvision", frames=8), num_classes=400)
        recipe = Recipe(precision="fp32", ema_decay=0.0, **options)
        with recomputed(blocks_of(model) if recipe.checkpointing else []):
            kept = bytes_kept(model, clips[: 8 // recipe.accumulate])
        variants[f"{name}: {kept / 2**20:.0f} MiB kept"] = ours(model, clips, labels, 400, precision="fp32", **options)
    compare("R(2+1)D-18, 8x56x56, batch 8, memory", variants, num_clips=8, rounds=rounds)


def bytes_kept(model: nn.Module, clips: Tensor) -> int:
    """Bytes of activations that a forward pass keeps, each storage once, parameters left out."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    sizes: dict[int, int] = {}
    alive: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model.train()(clips).sum()
    return sum(sizes.values())


def gpu(rounds: int) -> None:
    """R(2+1)D-18 at 16x112x112, batch 24, against torchvision's reference loop; peak memory of each alone."""
    device = torch.device("cuda")
    torch.backends.cudnn.benchmark = True  # as the reference has it
    clips, labels = torch.randn(24, 3, 16, 112, 112, device=device), torch.randint(0, 400, (24,), device=device)

    def theirs(amp: bool) -> Step:
        return reference(torchvision.models.video.r2plus1d_18(num_classes=400).to(device), clips, labels, amp=amp)

    def own(**options: object) -> Step:
        return ours(build(preset("r2plus1d_18_torchvision", frames=16), num_classes=400), clips, labels, 400, **options)

    variants: dict[str, Callable[[], Step]] = {
        "torchvision's reference, fp32": lambda: theirs(False),
        "torchvision's reference, fp16": lambda: theirs(True),
        "ours, bf16": lambda: own(precision="bf16"),
        "ours, bf16, compile": lambda: own(precision="bf16", compile=True),
        "ours, bf16, compile, contiguous": lambda: own(precision="bf16", compile=True, channels_last=False),
        "ours, bf16, checkpointing": lambda: own(precision="bf16", checkpointing=True),
    }
    print("\nR(2+1)D-18, 16x112x112, batch 24, on a GPU")
    first = 0.0
    for name, make in variants.items():
        torch.cuda.empty_cache()
        step = make()
        for _ in range(5):
            step()
        torch.cuda.reset_peak_memory_stats()
        times = []
        for _ in range(max(rounds, 20)):
            torch.cuda.synchronize()
            began = time.perf_counter()
            step()
            torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
        speed = 24 / statistics.median(times)
        first = first or speed
        peak = torch.cuda.max_memory_allocated() / 2**30
        print(f"  {name:<38} {speed:8.1f} clips/s  {speed / first:5.2f} x  peak {peak:.2f} GiB", flush=True)
        del step


def machine() -> str:
    """Processor, threads and versions, in one line."""
    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return (
        f"{model}, {torch.get_num_threads()} thread(s), bf16 in hardware: {computes_bf16(torch.device('cpu'))}, "
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, timm {timm.__version__}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=("big", "small", "memory", "gpu"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(machine())
    for name, run in {"small": small, "big": big, "memory": memory, "gpu": gpu}.items():
        if arguments.only in (None, name) and (name != "gpu" or torch.cuda.is_available()):
            run(arguments.rounds)
