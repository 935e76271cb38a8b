"""A study drafted from videos: it is valid, keeps to the hours by its own measure, and is searched as it is."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.cli.main import main
from nas.errors import SearchError
from nas.search.budget import budget_of
from nas.search.draft import FEWEST, MOST, SIZES, Facts, Wish, draft, epoch_at
from nas.search.pool import Candidate, build_pool
from nas.store.database import Store
from nas.study.files import load_study
from nas.study.study import Study
from trainer.data.motion_clips import make_motion

ROOT = Path(__file__).parents[3]
FACTS = Facts(
    name="my videos",
    data={"root": '/videos ${HOME} "x"'},
    classes=("wave", "clap", "jump"),
    videos={"train": 300, "val": 90},
    per_class=(100, 100, 100),
    frames=75,
    seconds=3.0,
    fps=25.0,
    short_side=240,
    multi_label=False,
)


def clock(a: float, b: float):  # type: ignore[no-untyped-def]
    """Seconds per epoch as a machine with these speeds has them."""

    def timer(one: Candidate, study: Study) -> float:
        return a + b * one.cost.macs

    return timer


def loaded(text: str, folder: Path) -> Study:
    path = folder / "study.yaml"
    path.write_text(text, encoding="utf-8")
    return load_study(path)


@settings(max_examples=12, deadline=None)
@given(
    train=st.sampled_from([40, 160, 2_000, 80_000]),
    num_classes=st.integers(2, 40),
    seconds=st.sampled_from([0.0, 2.0, 10.0, 300.0]),
    side=st.sampled_from([0, 24, 64, 1080]),
    several=st.booleans(),
    uneven=st.booleans(),
    speed=st.sampled_from([1e-10, 1e-8, 1e-6]),
    hours=st.sampled_from([0.1, 1.0, 24.0]),
    device=st.sampled_from(["cpu", "cuda"]),
)
def test_a_draft_is_a_valid_study_within_its_hours(
    tmp_path_factory: pytest.TempPathFactory,
    train: int,
    num_classes: int,
    seconds: float,
    side: int,
    several: bool,
    uneven: bool,
    speed: float,
    hours: float,
    device: str,
) -> None:
    each = max(1, train // num_classes)
    facts = replace(
        FACTS,
        classes=tuple(f"class {k}\n: #{k}" for k in range(num_classes)),
        videos={"train": train, "val": train // 4},
        per_class=(each, *[max(1, each // 5) if uneven else each] * (num_classes - 1)),
        frames=seconds * 25,
        seconds=seconds,
        short_side=side,
        multi_label=several,
    )
    wish = Wish(hours=hours, workers=2, slots=2, device=device)
    found = draft(facts, wish, clock(0.5, speed))
    study = loaded(found.text, tmp_path_factory.mktemp("draft"))
    assert study.data.root == facts.data["root"] and study.num_classes == num_classes
    assert study.data.clip.height in SIZES and study.data.short_side >= study.data.clip.height
    assert (study.recipe.loss == "bce") == several
    assert (study.recipe.balance == "sqrt") == (
        uneven and not several and max(facts.per_class) >= 3 * min(facts.per_class)
    )
    assert FEWEST <= study.search.trials <= MOST
    pool = build_pool(replace(study, search=replace(study.search, pool=300)), num_classes=num_classes).candidates
    # By the timer's own law, over networks that are even in log MACs, as a search tries them.
    low, high = pool[0].cost.macs, study.limits[0].bound
    mean = sum(0.5 + speed * low * (high / low) ** (k / 8) for k in range(9)) / 9
    takes = budget_of(study.search).epochs * mean / 2 / 3600
    assert takes == pytest.approx(found.hours * 0.9, rel=0.15)
    assert found.fits == (found.hours <= hours)
    if not found.fits:  # then it is as small as it can be
        assert study.search.trials == FEWEST and study.data.clip.height == SIZES[-1]


def test_what_is_asked_for_is_kept_to(tmp_path: Path) -> None:
    found = draft(FACTS, Wish(hours=50, workers=1, slots=2, device="cpu", macs=50_000_000), clock(0.1, 1e-9))
    study = loaded(found.text, tmp_path)
    assert [str(limit) for limit in study.limits] == ["macs <= 50M"] and study.search.workers == 1
    assert "as asked for" in found.text and study.data.flip
    listed = replace(FACTS, data={**FACTS.data, "layout": "slowfast", "annotations": "lists", "per_class": "5"})
    data = loaded(draft(listed, Wish(hours=1, workers=1, slots=2, device="cpu"), clock(0, 1e-9)).text, tmp_path).data
    assert (data.layout, data.annotations, data.per_class) == ("slowfast", "lists", 5)
    turned = draft(
        replace(FACTS, classes=("turn left", "turn right")),
        Wish(hours=1, workers=1, slots=2, device="cpu"),
        clock(0, 1e-9),
    )
    assert not loaded(turned.text, tmp_path).data.flip
    long = draft(replace(FACTS, seconds=60.0), Wish(hours=1, workers=1, slots=2, device="cpu"), clock(0, 1e-9))
    assert loaded(long.text, tmp_path).data.sampling == "dense"


@pytest.mark.parametrize("macs", [123_456_789, 20_050_000, 50_000_000, 2_000_000_000])
def test_the_limit_is_the_one_that_was_asked_for(tmp_path: Path, macs: int) -> None:
    found = draft(FACTS, Wish(hours=50, workers=1, slots=2, device="cpu", macs=macs), clock(0.1, 1e-9))
    assert [limit.bound for limit in loaded(found.text, tmp_path).limits] == [macs]


def test_more_trainings_at_once_than_there_are_cores_are_no_faster() -> None:
    few, many = (draft(FACTS, Wish(hours=1, workers=n, slots=2, device="cpu"), clock(0.5, 1e-8)) for n in (2, 64))
    assert few.hours == many.hours


def test_what_does_not_fit_into_memory_has_a_smaller_clip(tmp_path: Path) -> None:
    def timer(one: Candidate, study: Study) -> float:
        if study.data.clip.height > 48:
            raise MemoryError
        return 1.0

    found = draft(FACTS, Wish(hours=5, workers=1, slots=2, device="cuda"), timer)
    assert loaded(found.text, tmp_path).data.clip.height == 48


@pytest.mark.parametrize(
    "root",
    [
        "null",
        "2024-01-01",
        "on",
        "12_000",
        "a\\${b}",
        "a\\\\${b}",
        "${b}",
        "x\x7f\x85\u2028y",
        "???",
        'a"b',
        "emoji \U0001f600",
    ],
)
def test_any_folder_can_be_named(tmp_path: Path, root: str) -> None:
    facts = replace(FACTS, name=root, data={"root": root})
    study = loaded(draft(facts, Wish(hours=1, workers=1, slots=2, device="cpu"), clock(0.1, 1e-9)).text, tmp_path)
    assert study.data.root.removeprefix("./") == root and study.name


def test_a_smaller_clip_is_taken_where_only_that_has_as_few_macs(tmp_path: Path) -> None:
    found = draft(FACTS, Wish(hours=50, workers=1, slots=2, device="cpu", macs=12_000_000), clock(0.1, 1e-9))
    study = loaded(found.text, tmp_path)
    assert study.data.clip.height < SIZES[0]
    assert build_pool(study, num_classes=3).candidates[-1].cost.macs <= 12_000_000
    with pytest.raises(SearchError, match="no network of the space meets macs <= 10k"):
        draft(FACTS, Wish(hours=50, workers=1, slots=2, device="cpu", macs=10_000), clock(0.1, 1e-9))


def test_seconds_follow_from_macs() -> None:
    found = draft(FACTS, Wish(hours=5, workers=1, slots=2, device="cpu"), clock(0.7, 3e-9))
    for macs in (1e6, 1e8, 1e9):
        assert epoch_at(found.timed, macs) == pytest.approx(0.7 + 3e-9 * macs, rel=1e-6)


@pytest.fixture(scope="module")
def motion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("new") / "shapes"
    make_motion(root, train_per_class=4, val_per_class=2, test_per_class=1, frames=8, size=32)
    return root


def test_a_study_of_videos_is_searched_as_it_is(
    motion: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", str(motion), "-o", "mine.yaml", "--hours", "0.01", "--workers", "1", "--macs", "8M"]) == 0
    out = capsys.readouterr().out
    assert "8 classes, 32 train, 16 val" in out and "s per epoch" in out and "note: --hours 0.01 is less than" in out
    text = (tmp_path / "mine.yaml").read_text("utf-8")
    assert "Measured, seconds per epoch: " in text and "mirrored, clockwise would be another class" in text
    short = ["search.trials=1", "search.initial=1", "search.rungs=[1]", "--workers", "0"]
    assert main(["search", "mine.yaml", *short]) == 0
    assert len(Store(tmp_path / "runs" / "shapes" / "study.db").evaluations(1)) == 1
    capsys.readouterr()
    assert main(["new", str(motion), "-o", "mine.yaml"]) == 2
    assert "mine.yaml is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["-o", "a.yaml"], "name either DATA, a folder of videos, or --example NAME"),
        (["DATA", "-o", "a.txt"], "-o must be a file that ends in .yaml, but is a.txt"),
        (["DATA", "-o", "a.yaml", "--macs", "many"], "a number above 0 such as 300M"),
        (["DATA", "-o", "a.yaml", "--hours", "nan"], "Invalid value for '--hours'"),
        (["DATA", "-o", "a.yaml", "--device", "tpu"], "device 'tpu' is not known"),
        (["nowhere", "-o", "a.yaml"], "DATA must be a folder of videos, but nowhere is none"),
        (["--example", "kinetics", "-o", "a.yaml"], "example 'kinetics' is not known; did you mean kinetics_small?"),
    ],
)
def test_bad_input_is_one_line(
    motion: Path,
    tmp_path: Path,
    command: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", *(str(motion) if word == "DATA" else word for word in command)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "a.yaml").exists()


def test_a_study_of_the_package_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "--example", "kinetics_small", "-o", "studies/mine.yaml"]) == 0
    assert (tmp_path / "studies" / "mine.yaml").read_bytes() == (ROOT / "studies" / "kinetics_small.yaml").read_bytes()


@pytest.mark.slow
def test_the_wheel_works_without_the_repository(tmp_path: Path) -> None:
    """Built and installed beside the dependencies that are there; no file of the repository is read."""

    def run(*words: str, **more: str) -> str:
        env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(tmp_path / "site"), **more}
        done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    pip = [sys.executable, "-m", "pip", "--quiet"]
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-cache-dir", "-w", str(tmp_path / "dist"), str(ROOT))
    (wheel,) = (tmp_path / "dist").glob("video_nas-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"nas/study/examples/{path.name}" for path in (ROOT / "studies").glob("*.yaml")} <= set(names)
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in names)
    run(*pip, "install", "--no-deps", "--target", str(tmp_path / "site"), str(wheel))
    nas = [sys.executable, "-c", "from nas.cli.main import run; run()"]
    assert str(tmp_path / "site") in run(sys.executable, "-c", "import nas; print(nas.__file__)")
    run(*nas, "new", "--example", "kinetics_small", "-o", "kinetics_small.yaml")
    make = "from trainer.data.motion_clips import make_motion; import pathlib; "
    run(sys.executable, "-c", make + "make_motion(pathlib.Path('data/motion'), train_per_class=4, val_per_class=2)")
    short = ["search.trials=1", "search.initial=1", "search.rungs=[1]", "recipe.batch_size=8", "--workers", "0"]
    assert "Pareto front" in run(*nas, "search", "kinetics_small.yaml", "data=motion", *short)
    run(*nas, "report", "runs/kinetics_small/study.db", "-o", "report.html")
