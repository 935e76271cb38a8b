"""A first study for a data set: which clip, space, recipe and rungs fit the videos, the machine and the hours.

Everything is decided by rules that the text of the study gives beside each value. What an epoch takes is measured on
three networks of the space, from the cheapest to the dearest, and explained by a + b x MACs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from nas.errors import SearchError
from nas.search.budget import Budget
from nas.search.pool import Candidate, CandidatePool, build_pool
from nas.study.files import load_study
from nas.study.metric import short_number
from nas.study.study import Study

SIZES = (112, 88, 64, 48, 32)  # rows and columns of a clip, the largest that fits first
FEWEST, MOST = 18, 150  # networks of a search
STEPS = 1800  # of a training in full: what the gestures and the motion data need to tell networks apart
SHORTEST, LONGEST = 9, 180  # epochs of a training in full
USED = 0.9  # share of the time that workers train
_LOOKED = 300  # networks of the space that are looked at for its range of MACs
_SIDES = re.compile(r"left|right|clockwise|turn", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What is known of the videos.

    Attributes:
        name: Of the data.
        data: Where they lie: `root`, and where it is not found by itself `layout`, `annotations` and the like.
        classes: Names of the classes.
        videos: Usable ones of each split.
        per_class: Videos of train of each class.
        frames: Of a video, the middle one; 0 if not known.
        seconds: Its length; 0 if not known.
        fps: Its frames per second; 0 if not known.
        short_side: The shorter of rows and columns, the middle one; 0 if not known.
        multi_label: Whether a video may have several labels.
    """

    name: str
    data: Mapping[str, str]
    classes: tuple[str, ...]
    videos: Mapping[str, int]
    per_class: tuple[int, ...]
    frames: float
    seconds: float
    fps: float
    short_side: float
    multi_label: bool

    @property
    def chance(self) -> float:
        """Top-1 of always naming the most frequent class."""
        return max(self.per_class) / max(1, sum(self.per_class))

    @property
    def imbalance(self) -> float:
        """Videos of the most frequent class for each of the rarest."""
        return max(self.per_class) / max(1, min(self.per_class))


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What the study is to keep to.

    Attributes:
        hours: Of the search.
        workers: Trainings at once.
        slots: Cores or GPUs: more trainings at once than these are no faster.
        device: `cpu` or `cuda`.
        macs: Most of a clip; None for what the hours allow.
    """

    hours: float
    workers: int
    slots: int
    device: str
    macs: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Timed:
    """A network whose epoch was timed: its MACs of a clip, and the seconds of an epoch with its evaluation."""

    description: str
    macs: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """A study.

    Attributes:
        text: The file.
        hours: That the search is expected to take.
        timed: What that rests on.
        fits: Whether that is within the hours that were asked for.
    """

    text: str
    hours: float
    timed: tuple[Timed, ...]
    fits: bool


Timer = Callable[[Candidate, Study], float]
"""Seconds of an epoch of a network, with its evaluation on val."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """What is still open when the videos are known."""

    size: int
    limit: int
    trials: int
    rungs: tuple[int, ...]
    hours: float = 0.0
    timed: tuple[Timed, ...] = ()


def draft(facts: Facts, wish: Wish, timer: Timer, *, say: Callable[[str], None] = lambda text: None) -> Draft:
    """Decides on a study.

    Args:
        facts: Of the videos.
        wish: Hours, device, MACs.
        timer: Times one epoch.
        say: Hears what is timed.

    Returns:
        The first that fits, from the largest clip on; the smallest one where none does.

    Raises:
        SearchError: No network has as few MACs as are asked for.
    """
    rungs = _rungs(facts)
    native = facts.short_side or SIZES[0]
    sizes = [size for size in SIZES if size <= max(native, SIZES[-1])]
    found: _Plan | None = None
    for size in sizes:
        open_ = _Plan(size=size, limit=wish.macs or 0, trials=FEWEST, rungs=rungs)
        study = _study(_text(facts, wish, open_))
        try:
            pool = build_pool(study, num_classes=len(facts.classes))
        except SearchError:
            if size == sizes[-1]:
                raise
            continue  # of a smaller clip, some network may have as few MACs as are asked for
        try:
            timed = _timed(pool, study, timer, say)
        except MemoryError:
            say(f"a clip of {study.data.clip} does not fit into memory")
            continue
        found = _fitted(facts, wish, open_, pool, timed)
        if found.hours <= wish.hours:
            break
    if found is None:
        raise SearchError("no network of the space fits into memory, not even with the smallest clip; free some")
    return Draft(text=_text(facts, wish, found), hours=found.hours, timed=found.timed, fits=found.hours <= wish.hours)


def _rungs(facts: Facts) -> tuple[int, ...]:
    steps = max(1, facts.videos["train"] // _batch(facts))
    last = 9 * max(1, round(min(max(STEPS / steps, SHORTEST), LONGEST) / 9))
    return last // 9, last // 3, last


def _batch(facts: Facts) -> int:
    return 16 if facts.videos["train"] < 1000 else 32


def _timed(pool: CandidatePool, study: Study, timer: Timer, say: Callable[[str], None]) -> tuple[Timed, ...]:
    """The cheapest network, the dearest, and the one in the middle of log MACs."""
    all_ = pool.candidates
    middle = math.sqrt(all_[0].cost.macs * all_[-1].cost.macs)
    chosen = {
        one.digest: one for one in (all_[0], min(all_, key=lambda c: abs(math.log(c.cost.macs / middle))), all_[-1])
    }
    found = []
    for one in chosen.values():
        seconds = timer(one, study)
        found.append(Timed(description=one.spec.describe(), macs=one.cost.macs, seconds=seconds))
        say(
            f"{short_number(one.cost.macs)} MACs at {study.data.clip}: {seconds:.1f} s per epoch "
            f"({found[-1].description})"
        )
    return tuple(found)


def epoch_at(timed: Sequence[Timed], macs: float) -> float:
    """Seconds of an epoch of a network with these MACs: a + b x MACs, by least squares of relative errors."""
    if len({one.macs for one in timed}) < 2:
        return timed[0].seconds
    weights = [1 / one.seconds**2 for one in timed]
    whole = sum(weights)
    mean_x = sum(w * one.macs for w, one in zip(weights, timed, strict=True)) / whole
    mean_y = sum(w * one.seconds for w, one in zip(weights, timed, strict=True)) / whole
    spread = sum(w * (one.macs - mean_x) ** 2 for w, one in zip(weights, timed, strict=True))
    slope = (
        sum(w * (one.macs - mean_x) * (one.seconds - mean_y) for w, one in zip(weights, timed, strict=True)) / spread
    )
    slope = max(slope, 0.0)
    return max(mean_y + slope * (macs - mean_x), min(one.seconds for one in timed) / 2)


def _fitted(facts: Facts, wish: Wish, plan: _Plan, pool: CandidatePool, timed: tuple[Timed, ...]) -> _Plan:
    """The limit of MACs and the number of networks that fill the hours, or the least that there can be."""
    least, most = pool.candidates[0].cost.macs, pool.candidates[-1].cost.macs  # those beyond the limit are left out

    def hours(limit: float, trials: int) -> float:
        budget = Budget(trials=trials, ends=plan.rungs, eta=3).epochs
        grid = [least * (limit / least) ** (k / 8) for k in range(9)]  # a search is spread over log MACs
        epoch = sum(epoch_at(timed, macs) for macs in grid) / len(grid)
        return budget * epoch / min(wish.workers, wish.slots) / USED / 3600

    limit = float(most)
    if wish.macs is None:
        floor = min(4.0 * least, limit)  # of a narrower range there is little to search
        while limit > floor and hours(limit, FEWEST) > wish.hours:
            limit = max(floor, limit / 1.1)
    trials = FEWEST
    while trials < MOST and hours(limit, trials + 1) <= wish.hours:
        trials += 1
    rounded = wish.macs or _round(limit, least)
    return replace(plan, limit=rounded, trials=trials, hours=hours(limit, trials), timed=timed)


def _round(macs: float, least: int) -> int:
    """Two digits, and no less than the cheapest network."""
    step = int(10 ** max(0, int(math.log10(macs)) - 1))
    return max(math.ceil(macs / step) * step, least)


def _study(text: str) -> Study:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "study.yaml"
        path.write_text(text, encoding="utf-8")
        study = load_study(path)
    return replace(study, search=replace(study.search, pool=_LOOKED))


def _text(facts: Facts, wish: Wish, plan: _Plan) -> str:
    """The study file, each value with its reason."""
    small, few = plan.size <= 64, facts.videos["train"] < 3000
    frames = next((n for n in (16, 8, 4) if n <= facts.frames), 4) if facts.frames else 16
    uniform = facts.seconds <= 15
    stride = max(1, round(2.5 * (facts.fps or 25) / frames))
    side = min(-(-plan.size * 9 // 64) * 8, max(int(facts.short_side) or plan.size, plan.size))
    sides = sorted(name for name in facts.classes if _SIDES.search(name))
    batch, last = _batch(facts), plan.rungs[-1]
    steps = last * max(1, facts.videos["train"] // batch)
    why = "as asked for" if wish.macs else "what fits into the hours"
    uneven = not facts.multi_label and facts.imbalance >= 3
    splits = ", ".join(f"{count:,} {split}" for split, count in facts.videos.items())
    least, most = min(facts.per_class), max(facts.per_class)
    per_class = f"{most:,}" if least == most else f"{least:,} to {most:,}"
    length = f", {facts.seconds:.1f} s at {facts.fps:.0f} frames per second" if facts.seconds and facts.fps else ""
    lines = [
        f"# {_plain(facts.name)}: {len(facts.classes)} classes; videos: {splits}; {per_class} of a class in "
        f"train{length}.",
        f"# Always naming the largest class is right in {facts.chance:.3f} of train.",
    ]
    if plan.timed:
        lines += [
            f"# The search takes about {_duration(plan.hours)} on this machine ({wish.device}, trainings at once: "
            f"{wish.workers}), besides decoding the videos once.",
            "# Measured, seconds per epoch: "
            + "; ".join(f"{short_number(one.macs)} MACs {one.seconds:.1f}" for one in plan.timed)
            + ".",
        ]
    lines += [
        "",
        f"name: {_quoted(_name(facts.name))}",
        "",
        "question: Which network is the most accurate for its MACs?",
        "",
    ]
    lines += ["data:", f"  name: {_quoted(_name(facts.name))}"]
    lines += [f"  {key}: {value if key == 'per_class' else _quoted(value)}" for key, value in facts.data.items()]
    lines += [
        f"  num_classes: {len(facts.classes)}",
        f"  clip: {{frames: {frames}, height: {plan.size}, width: {plan.size}, stride: {1 if uniform else stride}}}"
        f"  # {_why_size(facts, plan, wish)}",
        "  sampling: uniform   # a clip spans the whole video"
        if uniform
        else f"  sampling: dense     # videos are long: a clip is {frames * stride / (facts.fps or 25):.1f} s of them",
        f"  short_side: {side}",
        "  short: loop         # a video that is too short is repeated",
        f"  flip: {str(not sides).lower()}         # "
        + (
            f"mirrored, {_plain(sides[0])} would be another class"
            if sides
            else "check that a mirrored video keeps its class"
        ),
    ]
    lines += [] if uniform else ["  eval_clips: 2"]
    lines += ["  num_workers: 0"] if wish.device == "cpu" else ["  num_workers: 4"]
    lines += [
        "",
        "space:",
        "  family: resnet",
        "  domains:",
        f"    depth: {'[1-1-1, 2-2-2]' if few or small else '[10, 18]'}  # blocks per stage"
        + ("; deeper networks need more videos" if few else ""),
    ]
    if few or small:
        lines += [
            "    stem_width: [16]",
            "    width: [0.5, 1.0, 2.0]",
            f"    stem: {'[1x3x3/1, 1x3x3/2, 3x3x3/2]' if plan.size <= 48 else '[1x5x5/2+max, 1x5x5/4, 3x5x5/4]'}",
        ]
    else:
        lines += ["    width: [0.5, 0.75, 1.0]", "    stem: [3x7x7, r2plus1d]"]
    lines += [
        "    placement: [all, none, mc3, rmc3]      # where time is: everywhere, nowhere, early, late",
        "    kind: [3d, 2plus1d, p3d_a, p3d_c]",
        "    kernel: [3, 5]",
        "    temporal_stride: [none, as_paper]",
        "  forbid:",
        "    - {kind: 3d, kernel: 5}                # dear, and no published network has it",
        *(["", "constraints:", f"  - macs <= {_macs(plan.limit)}  # {why}"] if plan.limit else []),
        "",
        "recipe:",
        f"  batch_size: {batch}",
        "  optimizer: adamw",
        f"  lr: {0.004 if few else 0.002}",
        "  weight_decay: 0.05",
        "  schedule: anytime   # warm-up, then constant: a training can be prolonged to the next rung",
        f"  warmup_epochs: {3 if last >= 90 else 1}",
        f"  ema_decay: {0.98 if steps < 5000 else 0.99 if steps < 50_000 else 0.999}",
        f"  dropout: {0.3 if few else 0.2}",
        f"  eval_every: {5 if last >= 90 else 1}  # rungs are always evaluated",
    ]
    if facts.multi_label:
        lines.append("  loss: bce           # a video may have several labels")
    elif len(facts.classes) > 2:
        lines.append("  label_smoothing: 0.1")
    if uneven:
        lines.append(
            f"  balance: sqrt       # the largest class has {facts.imbalance:.0f} times the videos of the smallest"
        )
    lines += [
        "",
        "search:",
        f"  trials: {plan.trials}          # networks that are begun; more find better ones, in as much more time",
        f"  initial: {min(12, plan.trials // 2)}         # of them evenly over MACs, before the model proposes",
        f"  rungs: [{', '.join(map(str, plan.rungs))}]  # epochs; the best third goes on; the last are {steps:,} steps",
        "  eta: 3",
        f"  workers: {wish.workers}",
    ]
    if uneven:
        lines.append("  accuracy: balanced  # the mean over classes, since these are uneven")
    lines += [
        "",
        "promote:",
        f"  epochs: {max(last, 30) if last < 90 else last}",
        "  recipe: {schedule: onecycle}",
    ]
    return "\n".join(lines) + "\n"


def _why_size(facts: Facts, plan: _Plan, wish: Wish) -> str:
    if facts.short_side and plan.size > 0.9 * facts.short_side:
        return f"videos have {facts.short_side:.0f} rows or columns"
    return (
        "as large as the videos are"
        if plan.size == SIZES[0]
        else f"larger ones do not fit into {_duration(wish.hours)}"
    )


def _duration(hours: float) -> str:
    return f"{60 * hours:.0f} minutes" if hours < 2 else f"{hours:.1f} hours"


def _macs(value: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= size and value % (size // 1000) == 0:
            return f"{value / size:.10g}{unit}"
    return str(value)


def _name(text: str) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._-")
    return name or "videos"


def _quoted(text: str) -> str:
    """A text as YAML's double-quoted scalar, in which OmegaConf sees neither a reference nor a missing value.

    Raises:
        SearchError: It is no text, as a path of other bytes.
    """
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise SearchError(f"a study is text, but {text!a} is none; rename the folder, or link to it")
    text = "./???" if text == "???" else text
    # A backslash before a reference is one of OmegaConf's escapes, and has to be doubled there.
    text = re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", text)
    return '"' + "".join(_escaped(letter) for letter in text) + '"'


def _escaped(letter: str) -> str:
    if letter in '"\\':
        return f"\\{letter}"
    return letter if letter.isprintable() else f"\\U{ord(letter):08x}"


def _plain(text: str) -> str:
    """A name as it can stand in a comment."""
    return "".join(letter for letter in text if letter.isprintable())[:60]
