"""Networks for clips made from image networks of timm, as values, and their units.

Two ways: per frame, with a temporal head and, in residual branches, TSM or TIN; and inflated, where convolutions of
chosen stages take time. They go together. Stages are counted by resolution, so that all networks have the same five:
stage 0 is what halves the image once (the stem), stages 1 to 4 end at a quarter to a thirty-second of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from search_spaces.errors import SpecError, at_least, one_of
from search_spaces.families.timm.anatomy import anatomy, chain, stages_with
from search_spaces.families.timm.known import KNOWN, NUM_STAGES, SHIFTED, TIMM_KINDS
from search_spaces.graph import Foreign, Link, Stretched
from search_spaces.operators import (
    ADDED,
    ATTENTIONS,
    FLAT,
    POINTWISE_KINDS,
    Attention,
    TemporalOp,
    canonical_op,
    check_order,
)
from search_spaces.parts import Attend, Pool
from search_spaces.spec import ArchSpec, number_text

if TYPE_CHECKING:
    from torch import Tensor, nn

    from search_spaces.families.timm.parts import Source
    from search_spaces.inflate import Inflated, Mode


class TimmNetwork:
    """timm's network of one build; made where the first unit is built."""

    def __init__(self, model: str, num_classes: int, planes: int = 3) -> None:
        """Makes it; `planes` are those of a clip. timm is not imported yet."""
        self._model, self._num_classes, self._planes = model, num_classes, planes
        self._source: Source | None = None

    def source(self) -> Source:
        """Returns what the units take their modules from."""
        if self._source is None:
            from search_spaces.families.timm.parts import Source

            self._source = Source(self._model, self._num_classes, self._planes)
        return self._source


@dataclass(frozen=True, slots=True)
class PartUnit(Foreign):
    """A part of timm's network on every frame of a clip.

    Attributes:
        model: timm's name.
        kin: Name of the first part that is made like it, so that both cost the same.
        name: Path of the part in timm's network.
        op: Operator of its convolutions.
        shift: `none`, or `tsm` or `tin` before its residual branch, or `tsm_block` before the whole block.
        share: TSM shifts one plane in `share` forward, and one back.
        frames: Frames here, for TIN.
        entry: Whether it takes the clip itself.
        network: Shared by the units of one network, so that timm's constructor runs once for all of them.
        planes: Of the clip, where it takes the clip itself.
    """

    model: str
    kin: str
    name: str = field(compare=False)
    op: TemporalOp
    shift: str
    share: int
    frames: int
    entry: bool
    network: TimmNetwork = field(compare=False, repr=False)
    planes: int = 3

    def build(self) -> nn.Module:
        """Returns the module."""
        from search_spaces.families.timm.parts import build_part

        return build_part(
            self.network.source(),
            self.name,
            op=self.op,
            shift=self.shift,
            share=self.share,
            frames=self.frames,
            entry=self.entry,
        )

    @property
    def lasting(self) -> tuple[object, ...]:
        """What its cost follows from, besides its input's shape."""
        return ("part", self.model, self.kin, self.op, self.shift, self.share, self.frames, self.entry, self.planes)

    def stretched(self) -> Stretched | None:
        """Returns it as one of other kernels and dilations, so that only one of them all has to be measured."""
        op = self.op
        if op.kind == "2d":
            return None
        # The planes between the convolutions of (2+1)D depend on the kernel.
        kernel = op.kernel if op.kind == "2plus1d" else 3
        measured = replace(self, op=replace(op, kernel=kernel, dilation=(1, 1)))
        return Stretched(measured, kernel, op.kernel, len(op.dilation))


@dataclass(frozen=True, slots=True)
class HeadUnit(Foreign):
    """timm's layers behind the maps, and the head; of a network that is no chain, the whole network and the head.

    Attributes:
        model: timm's name.
        kind: Kind of the head.
        width: Its inner width.
        frames: Frames here, for TRN.
        num_classes: Classes.
        dropout: Share of features dropped in training.
        network: As of PartUnit.
        planes: Of the clip, where it is the whole network.
    """

    model: str
    kind: str
    width: int
    frames: int
    num_classes: int
    dropout: float
    network: TimmNetwork = field(compare=False, repr=False)
    planes: int = 3

    def build(self) -> nn.Module:
        """Returns the module."""
        from search_spaces.families.timm.parts import build_head

        return build_head(
            self.network.source(),
            kind=self.kind,
            width=self.width,
            frames=self.frames,
            num_classes=self.num_classes,
            dropout=self.dropout,
        )

    @property
    def lasting(self) -> tuple[object, ...]:
        """What its cost follows from, besides its input's shape."""
        return ("head", self.model, self.kind, self.width, self.frames, self.num_classes, self.dropout, self.planes)


ShiftKind = Literal["none", "tsm", "tin"]
ShiftPlace = Literal["residual", "block"]
HeadKind = Literal["average", "trn", "trn_single", "conv", "lstm", "attention"]
SHIFTS: tuple[ShiftKind, ...] = ("none", "tsm", "tin")
SHIFT_PLACES: tuple[ShiftPlace, ...] = ("residual", "block")
HEADS: tuple[HeadKind, ...] = ("average", "trn", "trn_single", "conv", "lstm", "attention")
# Heads of relations between all frames, and those whose first layer is on the features of a frame.
RELATIONS: tuple[HeadKind, ...] = ("trn", "trn_single")
FRAME_HEADS: tuple[HeadKind, ...] = ("average", *RELATIONS)
_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class TimmStage:
    """Time in one stage.

    Attributes:
        temporal: Operator of its convolutions: of all larger than 1x1, or of the 1x1 convolutions of its blocks.
        pool: Kernel and stride of a max pool over time before it, which takes what is left at the end, too; 1 is none.
        attention: What stands behind it.
    """

    temporal: TemporalOp = FLAT
    pool: int = 1
    attention: Attention = "none"

    def __post_init__(self) -> None:
        """Raises SpecError where a value is out of range."""
        one_of("temporal.kind", self.temporal.kind, TIMM_KINDS)
        check_order(self.temporal, "timm's networks")
        if self.temporal.midplanes != "per_conv":
            raise SpecError(f"temporal.midplanes must be per_conv in timm's networks, but is {self.temporal.midplanes}")
        at_least("pool", self.pool, 1)
        one_of("attention", self.attention, ATTENTIONS)


@dataclass(frozen=True, kw_only=True, slots=True)
class TimmShift:
    """What moves features between frames in residual branches.

    Attributes:
        kind: `tsm` shifts planes by a frame (Lin et al. 2019); `tin` by what a small network says (Shao et al. 2020).
        every: Step between the blocks of a stage that shift, from its first on.
        share: TSM shifts one plane in `share` forward, and one back.
        place: Where TSM shifts: in the `residual` branch, so that the shortcut sees every frame as it is, or before the
            whole `block` (the paper's in-place shift, section 3.2).
    """

    kind: ShiftKind = "none"
    every: int = 1
    share: int = 8
    place: ShiftPlace = field(default="residual", metadata=ADDED)

    def __post_init__(self) -> None:
        """Raises SpecError where a value is out of range."""
        one_of("kind", self.kind, SHIFTS)
        at_least("every", self.every, 1)
        at_least("share", self.share, 2)
        one_of("place", self.place, SHIFT_PLACES)


@dataclass(frozen=True, kw_only=True, slots=True)
class TimmHead:
    """From features of frames to logits of the clip.

    Attributes:
        kind: `average` of the frames' logits (TSN); `trn` relations of frames (TRN, multi-scale), `trn_single` of all
            frames alone (TRN, single-scale); `conv` a convolution over three frames; `lstm`; `attention` a weighted
            mean of the frames' features.
        width: Inner width of all but the average.
        std: Of the first values of the layer on a frame's features, which is the classifier of `average`; its bias
            begins at 0 then. The authors of TSN, TRN, TSM and TIN have 0.001; 0 leaves it as the library draws it.
    """

    kind: HeadKind = "average"
    width: int = 256
    std: float = field(default=0.0, metadata=ADDED)

    def __post_init__(self) -> None:
        """Raises SpecError where a value is out of range."""
        one_of("kind", self.kind, HEADS)
        at_least("width", self.width, 1)
        if not 0 <= self.std <= 1:
            raise SpecError(f"std must be 0 to 1, but is {self.std}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TimmSpec(ArchSpec):
    """An image network of timm on clips.

    Attributes:
        family: `timm`.
        model: timm's name, without a tag of pretrained weights. Whether timm has it is asked when it is built;
            `timm.trace.check_model` asks before.
        frames: Frames of a clip, for TIN and TRN, which have layers over all of them; unused by the others.
        stages: The five stages.
        shift: What moves features between frames.
        head: From frames to logits.
    """

    family: Literal["timm"] = "timm"
    model: str
    frames: int = 8
    stages: tuple[TimmStage, ...] = (TimmStage(),) * NUM_STAGES
    shift: TimmShift = TimmShift()
    head: TimmHead = TimmHead()

    def __post_init__(self) -> None:
        """Raises SpecError where a value is out of range."""
        check_name(self.model)
        at_least("frames", self.frames, 1)
        if len(self.stages) != NUM_STAGES:
            raise SpecError(f"stages must hold {NUM_STAGES} stages, but hold {len(self.stages)}")
        if self.stages[0].pool > 1:
            raise SpecError(f"stages.0.pool must be 1, as there is nothing before it, but is {self.stages[0].pool}")

    def canonical(self) -> TimmSpec:
        """Returns the spec without what has no effect: settings of unused shifts and heads, unused frames."""
        return _canonical(self)

    def links(self, *, num_classes: int, dropout: float = 0.0, planes: int = 3) -> tuple[Link, ...]:
        """Returns timm's parts, the pools and attention between them, and the head.

        Raises:
            SpecError: timm has no such network, or it cannot do what is asked of it.
        """
        pieces = anatomy(self.model).pieces
        network = TimmNetwork(self.model, num_classes, planes)
        frames = self._frames_at(NUM_STAGES - 1) if self.head.kind in RELATIONS else 0
        seen = 3 if pieces else planes  # of the clip, where the head is the whole network
        head = HeadUnit(self.model, self.head.kind, self.head.width, frames, num_classes, dropout, network, seen)
        if not pieces:
            _check_whole(self)
            return (Link("network", head),)
        _check_stages(self)
        links: list[Link] = []
        blocks = [0] * NUM_STAGES
        before = 0
        for i, part in enumerate(pieces):
            stage = self.stages[part.stage]
            if part.stage != before or i == 0:
                for passed in range(before + (i > 0), part.stage + 1):
                    pool = self.stages[passed].pool
                    if pool > 1:
                        links.append(Link(f"pools.{passed}", Pool(kernel=(pool, 1, 1), stride=(pool, 1, 1), ceil=True)))
                before = part.stage
            shift: ShiftKind = "none"
            if self.shift.kind != "none" and part.shifts:
                shift = self.shift.kind if blocks[part.stage] % self.shift.every == 0 else "none"
                blocks[part.stage] += 1
            unit = PartUnit(
                self.model,
                part.kin,
                part.name,
                stage.temporal if part.takes(stage.temporal.kind) else FLAT,
                "tsm_block" if shift == "tsm" and self.shift.place == "block" else shift,
                self.shift.share if shift == "tsm" else 0,
                self._frames_at(part.stage) if shift == "tin" else 0,
                i == 0,
                network,
                planes if i == 0 else 3,
            )
            links.append(Link(f"backbone.{part.name}", unit))
            last = i + 1 == len(pieces) or pieces[i + 1].stage != part.stage
            if last and stage.attention != "none":
                links.append(Link(f"attention.{part.stage}", Attend(stage.attention, part.out_planes)))
        return (*links, Link("head", head))

    def describe(self) -> str:
        """Returns one line: model, stages, shift, head."""
        stages = [
            f"{_op_text(x.temporal)}{f' /{x.pool}' if x.pool > 1 else ''}"
            f"{f' +{x.attention}' if x.attention != 'none' else ''}"
            for x in self.stages
        ]
        parts = [f"timm {self.model}"]
        if any(text != "2d" for text in stages):
            parts.append(", ".join(stages))
        if self.shift.kind != "none":
            share = f" 1/{self.shift.share}" if self.shift.kind == "tsm" else ""
            place = " of blocks" if self.shift.place == "block" else ""
            every = f" every {self.shift.every}" if self.shift.every > 1 else ""
            parts.append(f"{self.shift.kind}{share}{place}{every}")
        head = self.head.kind if self.head.kind == "average" else f"{self.head.kind} {self.head.width}"
        parts.append(f"{head} std {number_text(self.head.std)}" if self.head.std else head)
        return " | ".join((*parts, f"{self.frames} frames") if self._frames_matter() else parts)

    def rows(self) -> list[dict[str, object]]:
        """Returns one row for each part of timm's network, with the operator of its stage; asks timm."""
        known = anatomy(self.model)
        rows: list[dict[str, object]] = []
        for part in known.pieces:
            op = self.stages[part.stage].temporal
            taken = part.takes(op.kind)
            rows.append(
                {
                    "site": f"stages.{part.stage}",
                    "block": part.name,
                    "in": part.in_planes,
                    "out": part.out_planes,
                    "operator": op.kind if taken else "2d",
                    "kernel": op.kernel if taken else 1,
                    "dilation": "|".join(map(str, op.dilation)) if taken else "1",
                    "stride": f"1x{part.stride}x{part.stride}",
                }
            )
        tail: dict[str, object] = {"site": "head", "block": self.head.kind, "in": known.features, "out": "classes"}
        return [*rows, tail | {"operator": "", "kernel": "", "dilation": "", "stride": ""}]

    def scaled(self, multiplier: float, *, multiple: int = 8) -> TimmSpec:
        """Raises SpecError unless the multiplier is 1: timm's networks have the widths that they have."""
        if multiplier != 1:
            raise SpecError(f"the widths of timm's {self.model} cannot be scaled; choose a smaller model instead")
        return self

    def initialise(self, network: nn.Module) -> None:
        """Draws the values of attention, and of the head's first layer where `head.std` says so.

        All others had theirs when they were built, those of timm from timm.
        """
        from search_spaces.modules import initialise

        for name, module in network.named_children():
            if name == "attention":
                initialise(module)
        if self.head.std > 0:
            from search_spaces.families.timm.heads import draw_first

            draw_first(network, self.head.std)

    def start_branches(self, network: nn.Module, *, at_zero: bool) -> None:
        """Sets the last norms of timm's residual blocks, of those that can begin at 0, and of attention."""
        from search_spaces.families.timm.parts import start_branches

        start_branches(network, at_zero=at_zero)

    def take_2d(self, network: nn.Module, state: Mapping[str, Tensor], mode: Mode) -> Inflated:
        """Sets the network's values from those of timm's; see `timm.weights.load_2d`."""
        from search_spaces.families.timm.weights import load_2d

        return load_2d(network, self.model, state, mode)

    def check_2d(self, shapes: Mapping[str, tuple[int, ...]], *, num_classes: int) -> Inflated:
        """Says what `take_2d` would; see `timm.weights.check_2d`."""
        from search_spaces.families.timm.weights import check_2d

        return check_2d(self.model, self.canonical().links(num_classes=num_classes), shapes)

    def _frames_matter(self) -> bool:
        return self.head.kind in RELATIONS or self.shift.kind == "tin"

    def _frames_at(self, stage: int) -> int:
        """Returns frames in a stage, were there as many in the clip as the spec says."""
        frames = self.frames
        for passed in self.stages[: stage + 1]:
            frames = -(-frames // passed.pool)
        return frames


@lru_cache(maxsize=8192)
def _canonical(spec: TimmSpec) -> TimmSpec:
    shift, head = spec.shift, spec.head
    if shift.kind != "tsm":
        shift = TimmShift(kind=shift.kind, every=shift.every if shift.kind == "tin" else 1)
    if head.kind == "average":
        head = TimmHead(std=head.std)
    elif head.kind not in FRAME_HEADS:
        head = replace(head, std=0.0)
    return TimmSpec(
        model=spec.model,
        frames=spec.frames if spec._frames_matter() else 8,
        stages=tuple(replace(stage, temporal=canonical_op(stage.temporal)) for stage in spec.stages),
        shift=shift,
        head=head,
    )


def check_name(model: str) -> None:
    """Raises SpecError unless a name could be one of timm's."""
    if not _NAME.fullmatch(model):
        raise SpecError(
            f"model must be a name of timm without a tag, such as resnet50, but is {model} (best: {', '.join(KNOWN)})"
        )


def _op_text(op: TemporalOp) -> str:
    text = op.kind if op == FLAT else f"{op.kind}.{op.kernel}"
    return text if op.dilation == (1,) else f"{text} d{'|'.join(map(str, op.dilation))}"


def _check_stages(spec: TimmSpec) -> None:
    """Raises SpecError where a network that is a chain cannot do what a spec asks of it."""
    pieces, model = anatomy(spec.model).pieces, spec.model
    for i, stage in enumerate(spec.stages):
        here = any(piece.stage == i for piece in pieces)
        if stage.temporal.kind != "2d" and i not in stages_with(model, stage.temporal.kind):
            which = "1x1" if stage.temporal.kind in POINTWISE_KINDS else "larger than 1x1"
            raise SpecError(f"stages.{i}.temporal must be 2d, as {model} has no convolutions there that are {which}")
        if stage.pool > 1 and i <= pieces[0].stage:
            raise SpecError(f"stages.{i}.pool must be 1, as there is nothing before it in {model}, but is {stage.pool}")
        if stage.attention != "none" and not here:
            raise SpecError(
                f"stages.{i}.attention must be none, as {model} has no such stage, but is {stage.attention}"
            )
    if spec.shift.kind != "none" and not any(piece.shifts for piece in pieces):
        raise SpecError(f"{spec.shift.kind} needs residual branches, such as those of {SHIFTED}, but {model} has none")


def _check_whole(spec: TimmSpec) -> None:
    """Raises SpecError where a spec asks for more than features of every frame."""
    if spec.shift.kind != "none" or any(stage != type(stage)() for stage in spec.stages):
        chain(spec.model)
