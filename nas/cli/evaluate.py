"""`nas evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nas.cli.output import Progress, print_json, print_line, print_table
from nas.cli.testing import CACHE, CLIPS, CROPS, DATA, FULL, JSON, OVERRIDES, SIDES, located, show_test, views_asked

if TYPE_CHECKING:
    from nas.using.exchange import BackwardsRow


def evaluate(
    path: str = typer.Argument(..., metavar="PATH", help="A folder that `nas promote` left."),
    data: str = DATA,
    overrides: list[str] = OVERRIDES,
    split: str = typer.Option("val", "--split", help="val, test or train; test is only read if it is named here."),
    clips: int | None = CLIPS,
    crops: int | None = CROPS,
    short_sides: str | None = SIDES,
    full: bool | None = FULL,
    backwards: bool = typer.Option(False, "--backwards", help="Play the clips backwards, too, and compare."),
    videos: str | None = typer.Option(
        None, "--videos", metavar="FILE", help="Write path, label and probabilities of each video (.csv or .jsonl)."
    ),
    cache: str | None = CACHE,
    as_json: bool = JSON,
) -> None:
    """Test a trained network on any videos of its classes: clip@1, video@1, video@5, classes, confusions.

    Example: nas evaluate runs/kinetics_small/promoted/fccd16e46e-seed0-e7c92da6f4d5 data/motion --clips 10 --crops 3
    """
    from dataclasses import asdict

    if videos is not None:
        from nas.using.scores import check_videos_file

        check_videos_file(Path(videos))
    progress = Progress("videos")
    try:
        from nas.using.networks import judged_network

        found = judged_network(
            path,
            lambda config: located(config, data, overrides or [], cache),
            lambda usual: views_asked(usual, clips, crops, short_sides, full),
            split=split,
            backwards=backwards,
            progress=progress.update,
        )
    finally:
        progress.close()
    if videos is not None:
        from nas.using.scores import save_videos

        save_videos(Path(videos), found.scores)
    if as_json:
        from nas.using.accuracy import as_plain

        print_json(
            {
                "network": path,
                "digest": found.digest,
                "data": found.root,
                "checksum": found.checksum,
                "left_out": [asdict(one) for one in found.left_out],
                **as_plain(found.result),
                "backwards": [asdict(row) for row in found.backwards],
            }
        )
        return
    show_test(found.result, f"{path}: {split} of {found.root}")
    if found.left_out:
        first = found.left_out[0]
        print_line(f"left out: {len(found.left_out)} videos (the first: {first.path}: {first.reason})")
    if found.backwards:
        show_backwards(found.backwards)
    if videos is not None:
        print_line(f"{len(found.scores.paths):,} videos written to {videos}")


def show_backwards(rows: tuple[BackwardsRow, ...]) -> None:
    """Prints what becomes of each class backwards."""
    lines: list[dict[str, Any]] = [
        {
            "class": row.name,
            "videos": row.num_videos,
            "right": row.right,
            "right_backwards": row.right_backwards,
            "becomes": f"{row.becomes} ({row.becoming} of {row.right})" if row.becomes else "",
            "exchanges": "exchange" if row.exchanges else "stays" if row.becomes == row.name else "",
        }
        for row in rows
    ]
    columns = {
        "class": "class",
        "videos": "videos",
        "right": "right",
        "right_backwards": "right backwards",
        "becomes": "right ones become, backwards",
        "exchanges": "",
    }
    print_table(lines, columns, "the same clips played backwards")
