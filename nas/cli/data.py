"""`nas data`: `make`, `check`, `split` and `get`; `pack` and `flow` are in `nas.cli.pack`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nas.cli.options import JSON
from nas.cli.output import Progress, print_json, print_line, print_table
from nas.cli.pack import flow, pack
from nas.cli.resolve import videos_of
from nas.errors import NasError, unknown
from nas.study.metric import few_videos, largest_share

if TYPE_CHECKING:
    from trainer.config import DataConfig
    from trainer.data.check import DataReport, Same

app = typer.Typer(
    help="Make, fetch, check or pack a data set, or compute its flow.", no_args_is_help=True, rich_markup_mode=None
)
app.command("pack")(pack)
app.command("flow")(flow)

_SHOWN = 20


@app.command("make")
def make(
    name: str = typer.Argument("motion", help="The data set to make; motion is the one there is."),
    root: str = typer.Option("data/motion", "--root", help="Where its class folders go."),
    seed: int = typer.Option(0, "--seed", help="Seeds shapes, textures and motions."),
    as_json: bool = JSON,
) -> None:
    """Write MP4 files in which only motion tells the classes apart.

    Example: nas data make motion
    """
    if name != "motion":
        raise NasError(unknown("data set", name, ["motion"]))
    from trainer.data.motion_clips import make_motion

    progress = Progress("videos")
    try:
        written = make_motion(Path(root), seed=seed, progress=progress.update)
    finally:
        progress.close()
    if as_json:
        print_json({"name": name, "root": root, "seed": seed, "written": written})
        return
    print_line(f"motion: {written} videos written to {root}" if written else f"motion: {root} is already complete")


@app.command("check")
def check(
    target: str = typer.Argument(..., metavar="STUDY|DB|ROOT", help="A study file, a database, or a folder of videos."),
    overrides: list[str] = typer.Argument(
        None, metavar="[key=value …]", help="Settings laid over the study file; of a folder, data.layout and the like."
    ),
    decode: bool = typer.Option(False, "--decode", help="Decode every frame, not only the headers."),
    exclude: str = typer.Option(None, "--exclude", metavar="FILE", help="Write what a study should leave out."),
    workers: int = typer.Option(None, "--workers", help="Processes; as many as there are cores unless given.", min=0),
    fresh: bool = typer.Option(False, "--fresh", help="Read everything again, whatever earlier checks have read."),
    as_json: bool = JSON,
) -> None:
    """Read the header of every video; say what is wrong with which, and what is there twice.

    Exit code 1 if something is left out, or in two splits. An interrupted check goes on where it stopped, and one that
    is repeated reads only the files that have changed.

    Example: nas data check studies/kinetics_small.yaml data=motion
    """
    from dataclasses import asdict

    from trainer.data.check import check_data, excluded
    from trainer.data.layouts.definitions import check_exclude, write_exclude

    config = videos_of(target, overrides or [])
    if config.source == "pack":
        from trainer.data.check import without_digests

        said = without_digests(config)
        raise NasError(
            f"videos are needed for a check, but data.source is pack and {config.root} is a pack; its index.json "
            f"lists what was left out{f'; {said}' if said else ''}"
        )
    if exclude is not None:
        check_exclude(Path(exclude))
    place = hashlib.sha256(str(Path(config.root).resolve()).encode()).hexdigest()[:16]
    journal = Path(config.cache) / "check" / f"{place}{'-decoded' if decode else ''}.jsonl"
    if fresh:
        journal.unlink(missing_ok=True)
    progress = Progress("videos")
    try:
        report = check_data(config, decode=decode, journal=journal, num_workers=workers, progress=progress.update)
    finally:
        progress.close()
    listed = excluded(report)
    if exclude is not None:
        write_exclude(Path(exclude), listed)
    if as_json:
        shares = {name: largest_share(s.num_videos, tuple(s.per_class.values())) for name, s in report.splits.items()}
        print_json(
            {"name": config.name, "root": config.root, **asdict(report), "largest_class": shares, "few": _few(report)}
        )
    else:
        _print(config, report)
        if exclude is not None:
            print_line(
                f"{len(listed)} videos written to {exclude}; a study leaves them out with data.exclude={exclude}"
            )
    if report.problem:
        raise NasError(report.problem)
    if not report.clean:
        raise typer.Exit(1)


@app.command("split")
def split(
    root: str = typer.Argument(..., metavar="ROOT", help="A folder with one folder per class."),
    output: str = typer.Option(..., "-o", "--output", metavar="FOLDER", help="Where the lists go; a new folder."),
    val: float = typer.Option(0.15, "--val", min=0.01, max=0.9, help="Share of the videos for val."),
    test: float = typer.Option(0.15, "--test", min=0.0, max=0.9, help="Share for test; 0 makes none."),
    group: str | None = typer.Option(
        None, "--group", metavar="REGEX", help="What a path matches stays together, such as 'scene_[0-9]+'."
    ),
    seed: int = typer.Option(0, "--seed", help="Seed of the split."),
    as_json: bool = JSON,
) -> None:
    """Draw train, val and test from folders of classes, as lists: no file is moved.

    Classes are even over the splits. What --group takes for one thing (a scene, a person, a recording) is never in two.

    Example: nas data split data/motion/train -o runs/lists --val 0.2 --group '[0-9]+'
    """
    from trainer.data.partition import grouped, partition, videos_by_class, write_lists

    if val + test >= 0.99:
        raise NasError(f"--val and --test must leave something for train, but are {val:g} and {test:g}")
    classes, left_out = videos_by_class(Path(root))
    groups = grouped(sorted(classes), group or "")
    shares = {"train": 1 - val - test, "val": val, **({"test": test} if test else {})}
    splits = partition(classes, groups, shares, seed=seed)
    write_lists(Path(output), splits, classes)
    names = sorted(set(classes.values()))
    counts = {name: {part: sum(classes[p] == name for p in paths) for part, paths in splits.items()} for name in names}
    study = {"root": root, "layout": "slowfast", "annotations": output}
    if as_json:
        print_json({"classes": counts, "groups": len(set(groups.values())), "seed": seed, "data": study})
        return
    rows = [{"class": name, **counts[name]} for name in names]
    print_table(rows, {"class": "class", **{part: part for part in splits}}, f"{root}: videos")
    print_line(f"{len(classes):,} videos in {len(set(groups.values())):,} groups; lists in {output}")
    if left_out:
        print_line(f"left out: {len(left_out)} (the first: {left_out[0].path}: {left_out[0].reason})")
    print_line(f"in a study: data: {{root: {json.dumps(root)}, layout: slowfast, annotations: {json.dumps(output)}}}")


@app.command("get")
def get(
    name: str = typer.Argument(..., metavar="NAME", help="The data set to fetch; kinetics is the one there is."),
    root: str = typer.Option("data/kinetics400", "--root", help="Where it goes."),
    base: str = typer.Option(None, "--base", help="Base address of a mirror; CVDF's bucket unless given."),
    split: list[str] = typer.Option(["train", "val"], "--split", help="May be given several times."),
    limit: int = typer.Option(
        0, "--limit", help="Number of archives to take of each split, from the first; 0 takes all.", min=0
    ),
    checksums: str = typer.Option(None, "--checksums", metavar="FILE", help="Lines of `sha256  train/part_0.tar.gz`."),
    flat: bool = typer.Option(False, "--flat", help="Leave the videos flat, instead of in folders by class."),
    keep: bool = typer.Option(False, "--keep", help="Keep the archives."),
    unpack_limit: float = typer.Option(
        None,
        "--unpack-limit",
        metavar="GIB",
        min=0.001,
        max=1e6,
        help="Largest unpacked size of an archive; by default 4 times its size, and at most 64 GiB.",
    ),
    as_json: bool = JSON,
) -> None:
    """Fetch Kinetics-400 from CVDF, unpack and arrange it; exit code 1 if an archive is broken.

    It has some 240,000 videos of train and 20,000 of val. The same command goes on where it was stopped.

    Example: nas data get kinetics --split val --root data/kinetics400
    """
    if name != "kinetics":
        raise NasError(unknown("data set", name, ["kinetics"]))
    from dataclasses import asdict

    from trainer.data.kinetics import CVDF, get_kinetics
    from trainer.data.layouts.values import listed

    progress = Progress("archives")
    try:
        got = get_kinetics(
            root,
            base=base or CVDF,
            splits=split,
            limit=limit,
            checksums=_checksums(checksums),
            arrange=not flat,
            keep=keep,
            unpack_limit=round(unpack_limit * 2**30) if unpack_limit else 0,
            listener=lambda text, done, total: progress.update(done, total, text),
        )
    finally:
        progress.close()
    if as_json:
        print_json({**asdict(got), "root": str(got.root)})
    else:
        counts = ", ".join(f"{name} {count:,}" for name, count in got.videos.items())
        print_line(
            f"{got.root}: {len(got.archives) - len(got.broken)} of {len(got.archives)} archives, videos: {counts}"
        )
        if got.unlisted:
            print_line(
                f"{got.unlisted:,} videos are in no table, or under several classes, and lie in {got.root}/unlisted"
            )
        if got.unused:
            print_line(
                f"checksums without an archive: {len(got.unused):,} names of {checksums} are of no archive of"
                f" {', '.join(split)}: {listed(got.unused)}"
            )
        for archive in got.archives:
            for refused in archive.refused:
                print_line(f"not taken from {archive.name}: {refused}")
        for archive in got.broken:
            print_line(f"broken: {archive.split} {archive.name}: {archive.reason}")
    if got.broken:
        raise typer.Exit(1)


def _checksums(path: str | None) -> dict[str, str]:
    """Checksum by `split/name` or name of archive, from lines as sha256sum and md5sum write them."""
    if path is None:
        return {}
    from trainer.data.download import HASHES
    from trainer.data.layouts.text import read_lines
    from trainer.data.layouts.values import SPLITS

    found: dict[str, str] = {}
    for number, line in read_lines(Path(path)):
        digest, _, name = line.partition(" ")
        hexadecimal = len(digest) in HASHES and all(letter in "0123456789abcdef" for letter in digest.lower())
        if not name.strip() or not hexadecimal:
            raise NasError(
                f"line {number} of {path} must read `checksum  file` with a SHA-256, SHA-1 or MD5 in hex, but is "
                f"{line[:80]!r}"
            )
        file = Path(name.strip().removeprefix("*"))
        key = f"{file.parent.name}/{file.name}" if file.parent.name in SPLITS else file.name
        if found.setdefault(key, digest.lower()) != digest.lower():
            raise NasError(
                f"an archive must have one checksum, but line {number} of {path} gives {key} another one; archives of "
                f"one name are told apart by their split, as train/{file.name}"
            )
    return found


def _print(config: DataConfig, report: DataReport) -> None:
    rows = [
        {
            "split": name,
            "videos": split.num_videos,
            "left out": split.num_broken,
            "per class": _span(min(split.per_class.values()), max(split.per_class.values())),
            "largest class": largest_share(split.num_videos, tuple(split.per_class.values())),
            "frames": _range(split.frames),
            "seconds": _range(split.seconds),
            "height": _range(split.height),
            "width": _range(split.width),
            "fps": _range(split.fps),
        }
        for name, split in report.splits.items()
    ]
    print_line(report.line)
    how = "every frame was decoded" if report.decoded else "by their headers"
    print_table(rows, {key: key for key in rows[0]}, f"{config.name}: {len(report.classes)} classes, {how}")
    warning = _few(report)
    if warning is not None:
        print_line(warning)
    if report.counts:
        print_line("left out: " + ", ".join(f"{count:,} {kind}" for kind, count in report.counts.items()))
    for item in report.broken[:_SHOWN]:
        print_line(f"left out: {item.path}: {item.kind}: {item.reason}")
    _more(report.broken, "--json or --exclude FILE names all")
    for what, groups in (("leak", report.leaks), ("duplicate", report.duplicates)):
        for same in groups[:_SHOWN]:
            print_line(f"{what}: {_words(same)}")
        _more(groups, "--json names all")
    if report.outside:
        first = f"the first is {report.outside[0]}"
        print_line(f"links are followed: {len(report.outside):,} videos lie out of {config.root} ({first})")
    if report.undigested:
        print_line(report.undigested)
    if report.remarks:
        print_line("also: " + ", ".join(f"{count:,} {word}" for word, count in report.remarks.items()))


def _few(report: DataReport) -> str | None:
    """A warning where val has few videos."""
    val = report.splits.get("val")
    return None if val is None else few_videos(val.num_videos, tuple(val.per_class.values()))


def _words(same: Same) -> str:
    what = "the same bytes" if same.by == "content" else "parts of one YouTube video"
    videos = [f"{path} ({title})" for path, title in zip(same.paths, same.classes, strict=True)]
    return f"{what}: {', '.join(videos[:5])}{' ...' if len(videos) > 5 else ''}"


def _more(items: Sequence[object], where: str) -> None:
    if len(items) > _SHOWN:
        print_line(f"... and {len(items) - _SHOWN:,} more; {where}")


def _range(values: Any) -> str:
    return "" if values is None else _span(values.low, values.high)


def _span(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
