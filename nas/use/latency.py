"""How long a network takes for clips on this machine, beside others that take turns with it."""

from __future__ import annotations

import platform
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

import torch
from torch import nn

from nas.errors import NasError
from trainer.device import channels_last

ENGINES = ("torch", "onnxruntime")
_WARM_SECONDS, _WARM_RUNS = 0.3, 3
_FEWEST = 5  # runs of each network, however long one takes


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """Milliseconds that a network takes for a batch of clips.

    Attributes:
        median: Of the runs.
        low: First quartile.
        high: Third quartile.
        runs: How many there were.
    """

    median: float
    low: float
    high: float
    runs: int


def latencies(
    runs: Sequence[Callable[[], object]],
    *,
    seconds: float = 2.0,
    progress: Callable[[int, int], None] = lambda d, t: None,
) -> list[Latency]:
    """Times functions that take turns, so that a machine that slows down meanwhile favours none of them.

    Args:
        runs: Each computes once, and returns when it is done.
        seconds: To spend on each, warm-up aside.
        progress: Hears (rounds done, rounds that are expected).

    Returns:
        One result a function, in order.
    """
    for run in runs:
        began, count = time.perf_counter(), 0
        while count < _WARM_RUNS or time.perf_counter() - began < _WARM_SECONDS:
            run()
            count += 1
    taken: list[list[float]] = [[] for _ in runs]
    order, shuffle, end = list(range(len(runs))), random.Random(0), time.perf_counter() + seconds * len(runs)
    while time.perf_counter() < end or len(taken[0]) < _FEWEST:
        shuffle.shuffle(order)
        for i in order:
            began = time.perf_counter()
            runs[i]()
            taken[i].append(1000 * (time.perf_counter() - began))
        spent = sum(map(sum, taken)) / 1000
        progress(len(taken[0]), max(_FEWEST, round(len(taken[0]) * seconds * len(runs) / max(spent, 1e-9))))
    found = [quantiles(times, n=4, method="inclusive") for times in taken]
    return [Latency(median=q[1], low=q[0], high=q[2], runs=len(times)) for q, times in zip(found, taken, strict=True)]


def machine(device: str, threads: int) -> str:
    """The machine in words, such as `x86_64 CPU, 1 thread`."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {threads} thread{'' if threads == 1 else 's'}"


def in_torch(model: nn.Module, shape: tuple[int, int, int, int], *, batch: int, device: str) -> Callable[[], object]:
    """A forward pass of a network in evaluation, float32 and channels-last.

    Args:
        model: The network; it is moved to the device.
        shape: Of a clip (C, T, H, W).
        batch: Clips at once.
        device: `cpu` or `cuda`.

    Raises:
        NasError: There is no such device here.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise NasError("--device cuda needs a GPU that torch can use, but there is none here")
    model = model.to(device).eval()
    channels_last(model)
    clips = torch.randn(batch, *shape, device=device).to(memory_format=torch.channels_last_3d)

    def run() -> None:
        with torch.inference_mode():
            model(clips)
        if device == "cuda":
            torch.cuda.synchronize()

    run()  # what cannot be computed says so before anything is timed
    return run


def in_onnxruntime(content: bytes | Path, *, batch: int, number: int) -> Callable[[], object]:
    """A run of an ONNX file on the CPU.

    Args:
        content: The file, or its bytes.
        batch: Clips at once.
        number: Threads.

    Raises:
        NasError: onnxruntime is missing, or the file cannot be run so.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise NasError(f"--engine onnxruntime needs {error.name}: pip install 'video-nas[deploy]'") from error
    import numpy as np

    options = ort.SessionOptions()
    options.intra_op_num_threads = number
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        (entry,) = session.get_inputs()
        shape = [batch if not isinstance(size, int) else size for size in entry.shape]
        if shape[0] != batch:
            raise ValueError(f"it takes {shape[0]} clips at once")
        kind = np.uint8 if entry.type == "tensor(uint8)" else np.float32
        clips = np.random.default_rng(0).integers(0, 2, shape).astype(kind)
        session.run(None, {entry.name: clips})
    except Exception as error:  # onnxruntime has no class of its own for them
        name = content.name if isinstance(content, Path) else "the network"
        raise NasError(f"{name} cannot be run by onnxruntime: {' '.join(str(error).split())[:200]}") from error
    return lambda: session.run(None, {entry.name: clips})
