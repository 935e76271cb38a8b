"""Torch's generators in training: what an epoch begins with, and what a checkpoint within it keeps.

Layers that draw for each clip do so where they compute, such as dropout, and each process draws other numbers. What is
drawn once for a batch, such as a random dilation, is drawn on the CPU. Where the network computes elsewhere, all
processes therefore draw alike on the CPU, which is as one process does.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from trainer.checkpoint import Partial


def seed_generators(seed: int, epoch: int, device: torch.device, *, rank: int = 0, step: int = 0) -> None:
    """Seeds torch's generators for an epoch.

    Args:
        seed: Of the run.
        epoch: From 1.
        device: Where the network computes.
        rank: Number of the process among those that train together.
        step: Steps of the epoch that are done.
    """
    torch.manual_seed(_seed_of(seed, epoch, rank, step))
    if device.type != "cpu":
        torch.default_generator.manual_seed(_seed_of(seed, epoch, 0, step))


def states_of(device: torch.device) -> list[Tensor]:
    """The states of the generators, of the CPU and where there is one of the GPU."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def go_on(partial: Partial, seed: int, epoch: int, device: torch.device, *, rank: int = 0) -> None:
    """Goes on with the generators as they were, or with others where there were fewer processes or another device.

    Args:
        partial: Where the run stands within the epoch.
        seed: Of the run.
        epoch: From 1.
        device: Where the network computes.
        rank: Number of the process.
    """
    kept = partial.generators
    if len(kept[0]) != len(states_of(device)):
        seed_generators(seed, epoch, device, rank=rank, step=partial.step)
        return
    if rank < len(kept):
        torch.set_rng_state(kept[rank][0])
    else:
        seed_generators(seed, epoch, device, rank=rank, step=partial.step)
    if device.type == "cuda":
        torch.set_rng_state(kept[0][0])
        if rank < len(kept):
            torch.cuda.set_rng_state(kept[rank][1], device)


def _seed_of(seed: int, epoch: int, rank: int, step: int) -> int:
    """Seeds of neighbouring runs and epochs have nothing in common, unlike seed + epoch."""
    text = f"{seed}/{epoch}" + (f"/{rank}/{step}" if rank or step else "")
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
