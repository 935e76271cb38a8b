"""Weights and clips by a formula of name and index, so that golden outputs need no stored weights.

Whole numbers are mixed, not sines taken, so every machine gets the same bits.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

GOLDEN = Path(__file__).with_name("golden")


def uniform(name: str, shape: Sequence[int], low: float, high: float) -> Tensor:
    """Float32 numbers in [low, high), decided by the name and the index."""
    mask = 0xFFFFFFFF
    h = torch.arange(torch.Size(shape).numel(), dtype=torch.int64) + zlib.crc32(name.encode())
    for shift, factor in ((16, 0x7FEB352D), (15, 0x2C1B3C6D)):
        h &= mask
        h = (h ^ (h >> shift)) * factor
    h = (h & mask) >> 8
    return (low + h.double() / 2**24 * (high - low)).float().reshape(*shape)


def weight(name: str, shape: Sequence[int]) -> Tensor:
    """A parameter or buffer of a network, by its name there; its last part says what it is."""
    last = name.rsplit(".", 1)[-1]
    if last == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    if last == "running_var":
        return uniform(name, shape, 0.5, 2.0)
    if last in ("running_mean", "bias"):
        return uniform(name, shape, -0.2, 0.2)
    if len(shape) == 1:
        return uniform(name, shape, 0.5, 1.0)
    bound = (6 / torch.Size(shape[1:]).numel()) ** 0.5
    return uniform(name, shape, -bound, bound)


def clip(shape: Sequence[int]) -> Tensor:
    """A batch of clips (N, 3, T, H, W), each frame of cells of 8x8 pixels, which averages leave different."""
    *front, height, width = shape
    coarse = uniform("clip", (*front, -(-height // 8), -(-width // 8)), -2.0, 2.0)
    fine = coarse.repeat_interleave(8, dim=-1).repeat_interleave(8, dim=-2)
    return fine[..., :height, :width].contiguous()


def fill(network: nn.Module) -> None:
    """Gives a network the weights that its own names stand for."""
    network.load_state_dict({name: weight(name, value.shape) for name, value in network.state_dict().items()})


def fill_as(network: nn.Module, names: Mapping[str, str]) -> None:
    """Gives a network the weights of another.

    Args:
        network: Ours.
        names: For each name in its state dict, the name there. A tensor that is there of another shape is reshaped by
            the loading, which is right for 1x1x1 convolutions and linear layers. One that is not there has no name:
            the weight of a norm, which is 1, or a count of batches.
    """
    own = network.state_dict()
    assert set(names) == set(own), set(names) ^ set(own)
    values = {name: weight(there, own[name].shape) for name, there in names.items() if there}
    network.load_state_dict({name: values.get(name, torch.ones_like(value)) for name, value in own.items()})


def renamed(name: str, rules: Sequence[tuple[str, str]]) -> str:
    """The name after the one rule whose pattern is all of it."""
    found = [re.sub(pattern, new, name) for pattern, new in rules if re.fullmatch(pattern, name)]
    assert len(found) == 1, (name, found)
    return found[0]


def checksum(names: Iterable[str]) -> int:
    """One number for a set of names."""
    return zlib.crc32("\n".join(sorted(names)).encode())


def record(
    name: str, network: nn.Module, shape: Sequence[int], made_from: str, run: Callable[[Tensor], Tensor]
) -> None:
    """Fills a network of others, runs it on clips in evaluation mode, and writes its golden file.

    Args:
        name: Of the file.
        network: Theirs.
        shape: Of the clips (N, 3, T, H, W).
        made_from: Whose it is, at which version.
        run: From clips to logits (N, classes), by the network.
    """
    network.eval()  # some return nothing
    fill(network)
    with torch.no_grad():
        logits = run(clip(shape))
    text = {
        "from": made_from,
        "clip": list(shape),
        "names": checksum(network.state_dict()),
        "logits": [[float(f"{value:.9g}") for value in row] for row in logits.tolist()],
    }
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / f"{name}.json").write_text(json.dumps(text, indent=1) + "\n")
    print(name, logits)


def read(name: str) -> dict[str, Any]:
    """A golden file."""
    found: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    return found
