"""Where a network computes, in which precision, and whether it is compiled."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.plugins.precision import MixedPrecision
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn

from trainer.config import ConfigError
from trainer.processes import ALONE, Team
from trainer.recipe import Precision


def usual_device() -> str:
    """`cuda` where torch can use a GPU, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def threads_of(number: int) -> Iterator[None]:
    """Lets torch compute with a number of threads meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def computes_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 numbers in hardware.

    Emulation does not count: it is slower than float32.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return False


def uses_bf16(precision: Precision, device: torch.device) -> bool:
    """Resolves `auto`: bf16 wherever the hardware has it.

    On a CPU with AVX512-BF16 the step of every network tried was 1.4 to 2.3 times as fast as in float32, from
    16 to 512 channels (`benchmarks/bench_trainer.py`), so that no exception is made for small networks.
    """
    return precision == "bf16" or (precision == "auto" and computes_bf16(device))


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """The context in which the network's forward pass runs."""
    return torch.autocast(device.type, torch.bfloat16, enabled=uses_bf16(precision, device))


def channels_last(model: nn.Module) -> None:
    """Puts the weights of convolutions into channels-last order, 2D and 3D each into their own, in place."""
    for parameter in model.parameters():
        if parameter.dim() == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
        elif parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def fabric_for(precision: Precision, device: torch.device, team: Team = ALONE) -> Fabric:
    """A Fabric of one device, or of one process among those that train together.

    Such a process was started elsewhere (`trainer.parallel`) and is told its place by the variables that torchrun sets;
    Fabric joins it with the others, over NCCL between GPUs and Gloo between CPUs, and averages gradients.
    """
    # The precision goes in as a plugin because Fabric prints a notice for the string "bf16-mixed".
    plugins: list[Any] = [MixedPrecision("bf16-mixed", device.type)] if uses_bf16(precision, device) else []
    if team.size == 1:
        devices: list[int] | int = [device.index or 0] if device.type == "cuda" else 1
        return Fabric(accelerator=device.type, devices=devices, plugins=plugins)
    fabric = Fabric(
        accelerator=device.type,
        devices=team.size,
        strategy=DDPStrategy(),
        plugins=[*plugins, TorchElasticEnvironment()],
    )
    fabric.launch()
    return fabric


_COMPILERS = ("g++", "clang++", "c++")


def compiled(model: nn.Module) -> nn.Module:
    """The network behind `torch.compile`, with the same parameters; compiled when it first runs.

    Raises:
        ConfigError: There is no C++ compiler.
    """
    wanted = os.environ.get("CXX", "")
    if not any(shutil.which(name) for name in ([wanted.split()[0]] if wanted.strip() else _COMPILERS)):
        raise ConfigError(
            f"recipe.compile needs a C++ compiler, but there is no {wanted or ', '.join(_COMPILERS)}; install one, "
            "name it in CXX, or leave recipe.compile off"
        )
    return cast(nn.Module, torch.compile(model))


@contextmanager
def compile_errors() -> Iterator[None]:
    """Turns a failure of the compiler into one line.

    Raises:
        ConfigError: The network cannot be compiled on this machine.
    """
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ConfigError(
            f"recipe.compile must be off for what torch.compile cannot compile on this machine: {reason.strip()}"
        ) from error
