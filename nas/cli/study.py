"""`nas space` and `nas keys`: what a study searches, and the keys that its file may have."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import typer

from nas.cli.options import JSON, OVERRIDES, STUDY
from nas.cli.output import Progress, print_json, print_line, print_table, print_words
from nas.cli.resolve import load_target
from nas.errors import NotFoundError, StudyError, unknown


def keys(
    part: str | None = typer.Argument(None, metavar="[KEY]", help="A key, or the beginning of some, such as recipe."),
    as_json: bool = JSON,
) -> None:
    """Show the keys of a study file: type and range, default, meaning.

    Example: nas keys recipe.init
    """
    from nas.study.schema import keys_of

    all_keys = list(keys_of())
    found = [key for key in all_keys if part is None or key.name.startswith(part)]
    if not found:
        raise NotFoundError(unknown("key", part, [key.name for key in all_keys]))
    if as_json:
        print_json([{"key": key.name, "type": key.kind, "default": key.default, "meaning": key.text} for key in found])
        return
    for key in found:
        print_line(f"{key.name} ({key.kind}; default: {key.default})")
        # Links lead from one page of the documentation to another.
        print_words("  " + re.sub(r"\[([^]]+)]\(\S+?\)", r"\1", key.text))


def space(
    study: str = STUDY,
    overrides: list[str] = OVERRIDES,
    as_json: bool = JSON,
) -> None:
    """Show a study's space: its domains, its size, and what its constraints leave of it.

    Example: nas space studies/kinetics_small.yaml data=motion
    """
    loaded = load_target(study, overrides or [])
    if not loaded.num_classes:
        raise StudyError(
            f"data.num_classes must be stated to count costs before the data is read, but is 0 in {study}; add it, or "
            "give data.num_classes=…"
        )
    from nas.search.pool import build_pool

    size = loaded.space.size()
    progress = Progress("networks costed")
    pool = build_pool(loaded, num_classes=loaded.num_classes, progress=progress.update)
    progress.close()
    strata = Counter(candidate.stratum for candidate in pool.candidates)
    report: dict[str, Any] = {
        "study": loaded.name,
        "clip": loaded.data.shape,
        "num_classes": loaded.num_classes,
        "domains": {
            f"{space.family}.{d.name}": {"values": list(d.values), "per": d.per}
            for space in loaded.space.families
            for d in space.domains
        },
        "families": dict(Counter(candidate.spec.family for candidate in pool.candidates)),
        "settings": size.settings,
        "networks": size.networks,
        "exact": size.exact,
        "pool": len(pool.candidates),
        "whole": pool.whole,
        "dropped": {str(reason): count for reason, count in pool.dropped.items()},
        "note": pool.note,
        "macs": [pool.candidates[0].cost.macs, pool.candidates[-1].cost.macs],
        "params": [
            min(c.cost.params for c in pool.candidates),
            max(c.cost.params for c in pool.candidates),
        ],
        "strata": [strata[i] for i in range(loaded.search.strata)],
    }
    if as_json:
        print_json(report)
        return
    rows = [
        {"domain": name, "per": d["per"], "values": ", ".join(str(v) for v in d["values"])}
        for name, d in report["domains"].items()
    ]
    print_table(rows, {"domain": "domain", "per": "per", "values": "values"}, f"{loaded.name}: space")
    kind = "distinct networks" if size.exact else "settings, an upper bound of its distinct networks"
    print_line(f"size: {size.networks if size.exact else size.settings:,} {kind}")
    drawn = "all of it" if pool.whole else "a random draw"
    print_line(f"pool: {len(pool.candidates):,} networks ({drawn}), by cost class {report['strata']}")
    for reason, count in pool.dropped.items():
        print_line(f"dropped{' by' if reason.kind == 'limit' else ','} {reason}: {count:,}")
    if pool.note:
        print_line(pool.note)
    print_line(f"MACs of one {report['clip']} clip: {report['macs'][0]:,} to {report['macs'][1]:,}")
