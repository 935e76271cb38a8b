"""Networks of the database as rows of blocks, without asking torch or timm."""

from __future__ import annotations

from collections.abc import Mapping

from nas.report.values import Block, Network
from nas.store import Row
from search_spaces import codec
from search_spaces.families.timm_spec import TimmSpec
from search_spaces.spec import SpecError

TIMM_NOTE = "Stages of timm's network, its first layers being one; `nas show` lists every part of them."


def networks_of(rows: list[Row]) -> Mapping[str, Network]:
    """Networks by digest.

    Args:
        rows: Of `Store.architectures`.
    """
    return {row["digest"]: network_of(row) for row in rows}


def network_of(row: Row) -> Network:
    """One network; a spec that this version cannot read has no blocks and a note that says why."""
    blocks: tuple[Block, ...] = ()
    try:
        spec = codec.decode(row["spec"])
        if isinstance(spec, TimmSpec):
            blocks, note = tuple(_timm(spec)), TIMM_NOTE
        else:
            blocks = tuple({key: str(value) for key, value in block.items()} for block in spec.rows())
            note = ""
    except SpecError as error:
        note = f"Its blocks cannot be shown: {error}."
    return Network(
        digest=row["digest"],
        description=row["description"],
        macs=row["macs"],
        params=row["params"],
        activation_bytes=row["activation_bytes"],
        blocks=blocks,
        note=note,
    )


def _timm(spec: TimmSpec) -> list[Block]:
    """What the spec says of each stage; the parts of a stage are timm's to know, and asking it imports torch."""
    rows = [
        {
            "site": f"stages.{i}",
            "block": spec.model,
            "operator": stage.temporal.kind,
            "kernel": str(stage.temporal.kernel) if stage.temporal.kind != "2d" else "1",
            "dilation": "|".join(map(str, stage.temporal.dilation)) if stage.temporal.kind != "2d" else "1",
            "pool": str(stage.pool),
            "attention": stage.attention,
        }
        for i, stage in enumerate(spec.stages)
    ]
    empty = dict.fromkeys(rows[0], "")
    shift = [] if spec.shift.kind == "none" else [{**empty, "site": "shift", "block": spec.shift.kind}]
    head = f"{spec.head.kind} {spec.head.width}" if spec.head.kind != "average" else "average"
    return [*rows, *shift, {**empty, "site": "head", "block": head}]
