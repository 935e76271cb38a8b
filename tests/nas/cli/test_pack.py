"""`nas data pack`, and a study that reads what it made."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from nas.cli.pack import pack
from nas.errors import NasError
from nas.study.files import load_study
from nas.study.study import changes, study_of
from nas.train.jobs import TrainJob
from nas.train.training import close_data, opened, run_job
from search_spaces import codec
from search_spaces.catalogue import preset
from trainer.config import Clip, DataConfig
from trainer.data.clips import open_data
from trainer.data.layouts import DataError
from trainer.data.motion_clips import make_motion

app = typer.Typer()
app.command("pack")(pack)
STUDY = Path(__file__).parents[3] / "studies" / "kinetics_small.yaml"


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=True)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


@pytest.fixture(scope="module")
def motion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("motion") / "data"
    make_motion(root, train_per_class=1, val_per_class=1, test_per_class=0, frames=8, size=40)
    return root


def test_a_study_packs_what_it_needs_and_reads_it(motion: Path, tmp_path: Path) -> None:
    (motion / "train" / sorted(p.name for p in (motion / "train").iterdir())[0] / "zero.mp4").touch()
    place = f"data.root={motion}"
    out = run(str(STUDY), "data=motion", place, "-o", str(tmp_path / "pack"), "--json")
    report = json.loads(out)
    assert [one["reason"] for one in report["left_out"]] == ["the file is empty"]
    assert report["coding"] == "jpeg" and report["short_side"] == 40
    text = run(str(STUDY), "data=motion", place, "-o", str(tmp_path / "pack"))
    assert "zero.mp4: the file is empty" in text
    hint = text.splitlines()[-1].removeprefix("use it with ").split()
    data = open_data(load_study(STUDY, ["data=motion", *hint]).located_data())
    assert data.checksum == report["checksum"]
    assert {name: len(split) for name, split in data.splits.items()} == report["videos"]


def test_a_pack_of_fewer_frames_a_second_says_at_what_rate_it_is_used(motion: Path, tmp_path: Path) -> None:
    place, folder = f"data.root={motion}", tmp_path / "pack"
    text = run(str(STUDY), "data=motion", place, "-o", str(folder), "--fps", "6.25", "--max-frames", "7")
    hint = text.splitlines()[-1].removeprefix("use it with ").split()
    assert {"data.fps=6.25", "data.max_frames=7"} <= set(hint)
    config = load_study(STUDY, ["data=motion", "data.clip.frames=2", *hint]).located_data()
    packed = open_data(config)
    assert {entry.num_frames for entry in packed.split("val").entries} == {6}
    with pytest.raises(DataError, match=r"data\.fps must be stated where a pack leaves frames out"):
        open_data(dataclasses.replace(config, fps=0.0))


def test_a_folder_is_packed_as_it_is_asked(motion: Path, tmp_path: Path) -> None:
    out = run(
        str(motion),
        "-o",
        str(tmp_path / "pack"),
        "--coding",
        "raw",
        "--short-side",
        "20",
        "--max-frames",
        "4",
        "--json",
    )
    report = json.loads(out)
    assert (report["coding"], report["short_side"], report["max_frames"]) == ("raw", 20, 4)
    assert report["bytes"]["val"] == 64 + report["videos"]["val"] * 4 * (20 * 20 * 3 + 4)  # each with its digest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--coding", "jpg"], r"coding 'jpg' is not known; did you mean jpeg\? \(choices: jpeg, raw\)"),
        (["--quality", "0"], r"--quality must be from 1 to 100, but is 0"),
        (["--fps", "-1"], r"--fps must be from 0 to 1,000,000, but is -1"),
        (["--fps", "nan"], r"--fps must be from 0 to 1,000,000, but is nan"),
        (["--fps", "1000001"], r"--fps must be from 0 to 1,000,000, but is 1e\+06"),
        (["--fps", "inf"], r"--fps must be from 0 to 1,000,000, but is inf"),
        (["--short-side", "-1"], r"--short-side must be from 0 to 16,384, but is -1"),
        (["--short-side", "16385"], r"--short-side must be from 0 to 16,384, but is 16385"),
        (["--max-frames", "-2"], r"--max-frames must be at least -1, but is -2"),
        (["--workers", "-2"], r"--workers must be at least -1, but is -2"),
        (["data.flip=true"], r"settings go with a study file, but .* is a folder"),
    ],
)
def test_bad_input_gets_one_line(motion: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(NasError, match=message):
        run(str(motion), "-o", str(tmp_path / "pack"), *arguments)


def test_a_study_says_how_clips_are_loaded_and_only_how_many_may_be_broken_may_change(motion: Path) -> None:
    settings = ["data=motion", f"data.root={motion}", "data.randaugment=[2,9]", "data.crop_ratio=[0.75,1.33]"]
    study = load_study(STUDY, [*settings, "data.source=decode", "data.eval_crops=3"])
    assert study.data.randaugment == (2, 9) and study.data.crop_ratio == (0.75, 1.33) and study.data.eval_crops == 3
    old = json.loads(json.dumps(load_study(STUDY, ["data=motion"]).config))
    assert not changes(old, load_study(STUDY, ["data=motion", "data.max_broken=0.5"]).config)
    assert changes(old, load_study(STUDY, ["data=motion", "data.erasing=0.5"]).config).keys() == {"data.erasing"}
    for name in ("source", "fps", "max_broken", "eval_crops", "crop_ratio", "randaugment", "colour", "erasing"):
        del old["data"][name]  # as it was recorded before there were any of these
    assert study_of(old, "a record").data == load_study(STUDY, ["data=motion"]).data
    with pytest.raises(NasError, match=r"data\.randaugment must hold two numbers or be \[\], but is \[2\]"):
        load_study(STUDY, ["data=motion", "data.randaugment=[2]"])


def test_what_a_job_could_not_read_stands_in_its_result(motion: Path, tmp_path: Path) -> None:
    make_motion(tmp_path / "data", train_per_class=2, val_per_class=1, test_per_class=0, frames=8, size=40)
    place = [f"data.root={tmp_path / 'data'}", f"data.cache={tmp_path / 'cache'}"]
    settings = ["data.source=decode", "data.max_broken=0.2", "data.clip.frames=4"]
    study = load_study(STUDY, ["data=motion", *place, *settings])
    data = opened(study.data)
    job = TrainJob(
        spec=codec.dumps(preset("r2d_18", frames=4)),
        num_classes=len(data.classes),
        data=study.data,
        recipe=dataclasses.replace(study.recipe, batch_size=32),
        seed=0,
        folder=str(tmp_path / "job"),
        until_epoch=1,
    )
    gone = Path(study.data.root) / data.split("train").entry(3).path
    gone.unlink()
    result = run_job(job)
    assert result.reason is None
    assert result.detail == (
        f"1 clip of 1 video could not be read (the first, {data.split('train').entry(3).path}:"
        " cannot be decoded: No such file or directory)"
    )
    config = dataclasses.replace(job.data, max_broken=0.0)
    strict = dataclasses.replace(job, data=config, folder=str(tmp_path / "strict"))
    close_data()
    write = data.split("train").entry(4).path
    opened(strict.data)
    (Path(study.data.root) / write).unlink()
    result = run_job(strict)
    assert result.reason == "broken_clip" and "at most data.max_broken = 0 of the clips" in str(result.detail)


def test_data_of_another_working_folder_is_other_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = Clip(frames=2, height=16, width=16)
    config = DataConfig(name="m", root="data", cache="cache", clip=clip, short_side=16, sampling="uniform")
    for name in ("one", "two"):
        make_motion(tmp_path / name / "data", train_per_class=1, val_per_class=1, test_per_class=1, frames=4, size=16)
        monkeypatch.chdir(tmp_path / name)
        assert len(opened(config).split("train")) == 8
        assert (tmp_path / name / "cache").is_dir()
        assert opened(config) is opened(config)
    shutil.rmtree(tmp_path / "one")
    assert opened(config).split("test").entry(0).path
