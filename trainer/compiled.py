"""Compiling a network, where the machine can."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import nn

from trainer.config import ConfigError

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
