"""Units of networks made from timm's, as values. Torch and timm are imported only where they are built."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from search_spaces.flow import Shape, Stretched
from search_spaces.spec import TemporalOp

if TYPE_CHECKING:
    from torch import nn

    from search_spaces.families.timm_source import Source


class Network:
    """timm's network of one build; made where the first unit is built."""

    def __init__(self, model: str, num_classes: int, planes: int = 3) -> None:
        """Makes it, for clips of so many planes; timm is not imported yet."""
        self._model, self._num_classes, self._planes = model, num_classes, planes
        self._source: Source | None = None

    def source(self) -> Source:
        """Returns what the units take their modules from."""
        if self._source is None:
            from search_spaces.families.timm_source import Source

            self._source = Source(self._model, self._num_classes, self._planes)
        return self._source


@dataclass(frozen=True, slots=True)
class PartUnit:
    """A part of timm's network on every frame of a clip.

    Attributes:
        model: timm's name.
        kin: Name of the first part that is made like it, so that both cost the same.
        name: Path of the part in timm's network.
        op: Operator of its convolutions.
        shift: `none`, or `tsm` or `tin` before its residual branch, or `tsm_block` before the whole block.
        share: Of so many planes, TSM shifts one forward and one back.
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
    network: Network = field(compare=False, repr=False)
    planes: int = 3

    def build(self) -> nn.Module:
        """Returns the module."""
        from search_spaces.families.timm_parts import build_part

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

    def whole(self, shape: Shape) -> Stretched | None:
        """Returns it as one of other kernels and dilations, so that only one of them all has to be measured."""
        op = self.op
        if op.kind == "2d":
            return None
        # The planes between the convolutions of (2+1)D depend on the kernel.
        kernel = op.kernel if op.kind == "2plus1d" else 3
        measured = replace(self, op=replace(op, kernel=kernel, dilation=(1, 1)))
        return Stretched(measured, measured=kernel, kernel=op.kernel, passes=len(op.dilation))


@dataclass(frozen=True, slots=True)
class HeadUnit:
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
    network: Network = field(compare=False, repr=False)
    planes: int = 3

    def build(self) -> nn.Module:
        """Returns the module."""
        from search_spaces.families.timm_parts import build_head

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
