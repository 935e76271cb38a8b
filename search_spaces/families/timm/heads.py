"""From features of every frame to logits of the clip.

Average: Wang et al. 2016, "Temporal Segment Networks" (https://arxiv.org/abs/1608.00859). TRN: Zhou et al. 2018,
"Temporal Relational Reasoning in Videos" (https://arxiv.org/abs/1711.08496), multi-scale and single-scale.
LSTM: Donahue et al. 2015, "Long-term Recurrent Convolutional Networks" (https://arxiv.org/abs/1411.4389). Every head is
made of convolutions and linear layers only, so that all counters of operations find the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.errors import ClipError
from search_spaces.families.timm.layers import Clock, FrameWise, fold

# TRN: subsets of frames of each size that are looked at.
_SUBSETS = 3


class FrameHead(FrameWise):
    """timm's layers behind the maps (global pool and what follows it), then a temporal head."""

    def __init__(
        self,
        tail: Mapping[str, nn.Module],
        head: nn.Module,
        *,
        num_classes: int,
        size: tuple[int, int] | None,
    ) -> None:
        """Makes it.

        Args:
            tail: timm's layers, by name.
            head: Maps features (N, T, C) to logits.
            num_classes: Classes.
            size: Rows and columns that images must have; None if timm's layers take any.
        """
        super().__init__(tail, Clock(), entry=False)
        self.num_classes, self.size = num_classes, size
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Maps maps, or clips, (N, C, T, H, W) to logits (N, num_classes).

        Raises:
            ClipError: The clip has another size than the network takes.
        """
        frames = x.shape[2]
        if self.size is not None and tuple(x.shape[3:]) != self.size:
            height, width = self.size
            raise ClipError(f"the network takes {height}x{width} only, but the clip has {x.shape[3]}x{x.shape[4]}")
        x = fold(x)
        for name, layer in self.named_children():
            if name != "head":
                x = layer(x)
        logits: Tensor = self.head(x.reshape(x.shape[0] // frames, frames, -1))
        return logits


class Average(nn.Module):
    """Logits of every frame, averaged."""

    def __init__(self, fc: nn.Module, dropout: float) -> None:
        """Makes the head from its classifier."""
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.fc = fc

    def forward(self, x: Tensor) -> Tensor:
        """Maps features (N, T, C) to logits (N, num_classes)."""
        logits: Tensor = self.fc(self.dropout(x))
        return logits.mean(1)


class Relation(nn.Module):
    """TRN, multi-scale: what two to all frames in order say together, summed over the numbers of frames.

    With `single`, single-scale: what all frames say alone, with twice as many features inside.

    All frames are looked at once. Of the subsets of each smaller size, at most three are: in training drawn for each
    mini-batch by torch's CPU generator, all different; in evaluation always those at a sixth, a half and five sixths of
    the list of all subsets in lexicographic order, while the authors draw there, too. Both modes cost the same.
    """

    def __init__(
        self, features: int, num_classes: int, dropout: float, *, width: int, frames: int, single: bool = False
    ) -> None:
        """Makes the head.

        Args:
            features: Features of a frame.
            num_classes: Classes.
            dropout: Share of features dropped in training.
            width: Features of a frame that relations see, and of a relation.
            frames: Frames of a clip.
            single: Single-scale.
        """
        super().__init__()
        self.kind, self.frames = ("trn_single" if single else "trn"), frames
        # A single frame has no relations; what it says alone is classified.
        self.sizes = (frames,) if single else tuple(range(frames, 1, -1)) or (1,)
        inside = 2 * width if single else width
        self.dropout = nn.Dropout(dropout)
        self.reduce = nn.Linear(features, width)
        self.scales = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Linear(size * width, inside), nn.ReLU(), nn.Linear(inside, num_classes))
            for size in self.sizes
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps features (N, T, C) to logits (N, num_classes).

        Raises:
            ClipError: The clips have another number of frames than the head was made for.
        """
        if x.shape[1] != self.frames:
            raise ClipError(f"head {self.kind} was made for {self.frames} frames, but has {x.shape[1]}")
        x = self.reduce(self.dropout(x))
        logits = x.new_zeros(())
        for size, scale in zip(self.sizes, self.scales, strict=True):
            chosen = self.subsets(size)
            index = torch.tensor([i for subset in chosen for i in subset], device=x.device)
            seen = x.index_select(1, index).reshape(x.shape[0], len(chosen), -1)
            logits = logits + scale(seen).sum(1)
        return logits

    def subsets(self, size: int) -> list[list[int]]:
        """Returns the subsets of `size` frames that a call looks at, each in order."""
        every = math.comb(self.frames, size)
        num = min(_SUBSETS, every)
        if not self.training or num == every:
            return [_subset(self.frames, size, (2 * j + 1) * every // (2 * num)) for j in range(num)]
        chosen: list[list[int]] = []
        while len(chosen) < num:
            drawn = sorted(torch.randperm(self.frames, device="cpu")[:size].tolist())
            if drawn not in chosen:
                chosen.append(drawn)
        return chosen


def _subset(frames: int, size: int, rank: int) -> list[int]:
    """Returns the subset of `size` frames at a rank of the list of all in lexicographic order."""
    out: list[int] = []
    at = 0
    for left in range(size, 0, -1):
        while (beginning := math.comb(frames - at - 1, left - 1)) <= rank:
            rank -= beginning
            at += 1
        out.append(at)
        at += 1
    return out


class Convolution(nn.Module):
    """A convolution over three frames, ReLU, mean over time, linear classifier."""

    def __init__(self, features: int, num_classes: int, dropout: float, *, width: int) -> None:
        """Makes the head; `width` is the planes of the convolution."""
        super().__init__()
        self.conv = nn.Conv1d(features, width, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps features (N, T, C) to logits (N, num_classes)."""
        found = F.relu(self.conv(x.transpose(1, 2))).mean(2)
        logits: Tensor = self.fc(self.dropout(found))
        return logits


class Recurrence(nn.Module):
    """An LSTM over frames, whose states are classified and averaged."""

    def __init__(self, features: int, num_classes: int, dropout: float, *, width: int) -> None:
        """Makes the head; `width` is the length of its state."""
        super().__init__()
        self.width = width
        self.inputs = nn.Linear(features, 4 * width)
        self.states = nn.Linear(width, 4 * width, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps features (N, T, C) to logits (N, num_classes)."""
        state = cell = x.new_zeros((x.shape[0], self.width))
        states = []
        for inputs in self.inputs(x).unbind(1):
            gates = inputs + self.states(state)
            enter, keep, show, new = gates.chunk(4, 1)
            cell = keep.sigmoid() * cell + enter.sigmoid() * new.tanh()
            state = show.sigmoid() * cell.tanh()
            states.append(state)
        logits: Tensor = self.fc(self.dropout(torch.stack(states).mean(0)))
        return logits


class AttentionPool(nn.Module):
    """A mean over frames, weighted by the softmax of a score that two linear layers give each frame."""

    def __init__(self, features: int, num_classes: int, dropout: float, *, width: int) -> None:
        """Makes the head; `width` is the features between the two layers."""
        super().__init__()
        self.hidden = nn.Linear(features, width)
        # A bias would add the same to every score, and softmax would take it away.
        self.score = nn.Linear(width, 1, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps features (N, T, C) to logits (N, num_classes)."""
        shares = self.score(self.hidden(x).tanh()).softmax(1)
        logits: Tensor = self.fc(self.dropout((shares * x).sum(1)))
        return logits


def temporal_head(
    kind: str,
    features: int,
    num_classes: int,
    *,
    dropout: float,
    width: int,
    frames: int,
    last: nn.Module | None = None,
) -> nn.Module:
    """Returns a head from features (N, T, C) to logits.

    Args:
        kind: `average`, `trn`, `trn_single`, `conv`, `lstm` or `attention`.
        features: Features of a frame, C.
        num_classes: Classes.
        dropout: Share of features dropped in training.
        width: Inner width; none in `average`.
        frames: Frames of a clip, for `trn` and `trn_single`.
        last: timm's own classifier, for `average`; a fresh one if None.
    """
    if kind == "average":
        return Average(nn.Linear(features, num_classes) if last is None else last, dropout)
    if kind in ("trn", "trn_single"):
        single = kind == "trn_single"
        return Relation(features, num_classes, dropout, width=width, frames=frames, single=single)
    heads = {"conv": Convolution, "lstm": Recurrence, "attention": AttentionPool}
    return heads[kind](features, num_classes, dropout, width=width)


def draw_first(network: nn.Module, std: float) -> None:
    """Draws the head's layer on the features of a frame from a normal distribution; its bias is 0.

    Args:
        network: One whose head is `average`, `trn` or `trn_single`.
        std: Standard deviation.
    """
    for head in network.modules():
        if isinstance(head, Average | Relation):
            layer = head.fc if isinstance(head, Average) else head.reduce
            nn.init.normal_(layer.get_parameter("weight"), 0, std)
            nn.init.zeros_(layer.get_parameter("bias"))
