"""Motion tests of networks: what is measured, which trained weights are taken, what is stored, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.cli.main import main
from nas.store import tables as m
from nas.store import write as s
from nas.store.database import Store
from nas.study.study import study_of
from nas.train.jobs import TrainJob
from nas.train.session import locked
from nas.train.training import run_job
from search_spaces import codec
from search_spaces.catalogue import build
from tests.conformance.test_networks import clip_of, narrow_preset
from tests.nas.studies import write_study
from trainer.config import Clip, DataConfig
from trainer.data.motion_clips import make_motion
from trainer.evaluate import evaluate
from trainer.order_tests import motion_tests
from trainer.outcomes import TESTS
from trainer.recipe import Recipe

NUM_CLASSES = 7


@dataclasses.dataclass(frozen=True)
class Noise:
    """Four videos of one class each, of noise; a source of batches and the data in one."""

    clip: tuple[int, int, int]
    classes: tuple[str, ...] = tuple("abcdefg")

    def eval_batches(
        self, data: Any, config: DataConfig, *, split: str, batch_size: int, device: torch.device, part: object = None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        clips = torch.randn(4, 3, *self.clip, generator=torch.Generator().manual_seed(1))
        yield clips, torch.arange(4), torch.arange(4)


def on_noise(name: str) -> dict[str, Any]:
    """Motion tests of a published network, narrow and untrained, on noise."""
    torch.manual_seed(0)
    spec = narrow_preset(name)
    frames, height, width = clip_of(spec)
    model, data = build(spec, num_classes=NUM_CLASSES), Noise((frames, height, width))
    model = nn.Sequential(model, nn.LayerNorm(NUM_CLASSES))  # no output is certain
    config = DataConfig(name="noise", root="", cache="", clip=Clip(frames=frames, height=height, width=width))
    with torch.no_grad():  # some initial values turn branches off
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.05)
    arguments = (model, data, config, Recipe(precision="fp32"), "val")
    found = motion_tests(*arguments, batches=data)  # type: ignore[arg-type]
    assert found["forward"].metrics == evaluate(*arguments, batches=data).metrics  # type: ignore[arg-type]
    assert all(math.isfinite(result.metrics.loss) for result in found.values())
    return found


@pytest.mark.parametrize("name", ["f_r2d_18", "tsn_r18", "tsn_mobilenetv2"])
def test_a_network_that_averages_over_frames_is_blind_to_their_order(name: str) -> None:
    found = on_noise(name)
    for test in ("reversed", "shuffled"):
        assert found[test].metrics.top1 == found["forward"].metrics.top1
        assert found[test].metrics.loss == pytest.approx(found["forward"].metrics.loss, rel=1e-3)
    assert found["frozen"].metrics.loss != pytest.approx(found["forward"].metrics.loss, rel=1e-3)


@pytest.mark.parametrize(
    "name", ["r3d_18", "besnet_50", "i3d", "slowfast_4x16_r50", "x3d_s", "trn_r50", "tsm_r50", "tin_r50", "c3d"]
)
def test_a_network_that_looks_across_frames_sees_their_order(name: str) -> None:
    found = on_noise(name)
    for test in ("reversed", "shuffled"):
        assert found[test].metrics.loss != pytest.approx(found["forward"].metrics.loss, rel=1e-6)


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, motion: Path) -> Path:
    """A folder with a search of three networks."""
    folder = tmp_path_factory.mktemp("search")
    over = {"data": {"root": str(motion), "cache": str(motion.parent / "cache")}, "search": {"trials": 3}}
    assert main(["search", str(write_study(folder / "tiny.yaml", over)), "--db", str(folder / "study.db")]) == 0
    return folder


@pytest.fixture
def folder(searched: Path, tmp_path: Path) -> Path:
    """A copy of it, which has thereby moved."""
    shutil.copytree(searched, tmp_path / "moved")
    return tmp_path / "moved"


def measured(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> list[dict[str, Any]]:
    """What `nas motion --json` says."""
    capsys.readouterr()
    code = main(["motion", *words, "--study", str(folder / "study.db"), "--json"])
    out = capsys.readouterr()
    assert code == 0, out.err
    found: list[dict[str, Any]] = json.loads(out.out)
    return found


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line with which a command is refused."""
    capsys.readouterr()
    assert main(["motion", *argv]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def best(folder: Path) -> dict[str, Any]:
    """The network that the search trained longest, with its evaluation at the last rung."""
    store = Store(folder / "study.db")
    row = max(store.evaluations(1), key=lambda e: e["epochs"])
    store.close()
    return dict(row)


def query(folder: Path, text: str, *values: Any) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "study.db")) as connection:
        found = connection.execute(text, values).fetchall()
        connection.commit()
    return found


def test_a_trial_is_measured_as_its_search_measured_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = best(folder)
    (one,) = measured(capsys, folder, expected["digest"][:8])
    assert (one["source"], one["epochs"], one["seed"], one["split"]) == ("trial", expected["epochs"], 3, "val")
    assert one["tests"]["forward"] == {"top1": expected["top1"], "loss": pytest.approx(expected["loss"], rel=1e-6)}
    assert one["tests"]["single"]["top1"] == 0.125
    assert list(one["tests"]) == list(TESTS)
    assert one["num_clips"] == expected["num_clips"]


def test_the_view_holds_what_the_command_shows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = measured(capsys, folder, "--front")
    front = Store(folder / "study.db").front("tiny")
    assert sorted(one["digest"] for one in found) == sorted(row["digest"] for row in front)
    names = ", ".join(("digest", "source", "epochs", "split", "num_clips", *TESTS))
    rows = query(folder, f"SELECT {names} FROM motion_tests")
    assert sorted(rows) == sorted(
        (
            one["digest"],
            "trial",
            one["epochs"],
            "val",
            one["num_clips"],
            *(one["tests"][test]["top1"] for test in TESTS),
        )
        for one in found
    )
    for correct, top1 in query(folder, "SELECT correct, top1 FROM nas_motion"):
        assert correct.count("1") / len(correct) == top1


def test_nothing_is_measured_twice(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = measured(capsys, folder, "--front")
    rows = query(folder, "SELECT * FROM nas_motion")
    again = measured(capsys, folder, "--front")
    assert all(one["fresh"] for one in first)
    assert not any(one["fresh"] for one in again)
    assert [{**one, "fresh": True} for one in again] == first
    assert query(folder, "SELECT * FROM nas_motion") == rows
    assert len(rows) == 5 * len(first)


def test_another_seed_of_the_shuffles_takes_the_place_of_the_first(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = best(folder)["digest"]
    (first,) = measured(capsys, folder, digest)
    (other,) = measured(capsys, folder, digest, "--seed", "1")
    for test in ("forward", "reversed", "frozen", "single"):
        assert other["tests"][test] == first["tests"][test]
    assert other["tests"]["shuffled"]["loss"] != first["tests"]["shuffled"]["loss"]
    assert set(query(folder, "SELECT order_seed FROM nas_motion")) == {(1,)}
    assert measured(capsys, folder, digest) == [first]


def test_the_table_says_what_each_test_costs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digest = best(folder)["digest"][:10]
    (one,) = measured(capsys, folder, digest)
    assert main(["motion", digest, "--study", str(folder / "study.db")]) == 0
    out = capsys.readouterr().out
    assert "motion tests on val, top-1 (chance 0.125)" in out
    for difference in one["differences"]:
        assert f"{difference['difference']:+.3f} [{difference['low']:+.3f}, {difference['high']:+.3f}]" in out
        assert difference["word"] in out


def test_promotions_go_before_trials_and_test_is_read_only_when_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = best(folder)["digest"]
    assert main(["promote", str(folder / "study.db"), digest, "--seeds", "2"]) == 0
    store = Store(folder / "study.db")
    for split in ("val", "test"):
        expected = {
            e["seed"]: {"top1": e["top1"], "loss": pytest.approx(e["loss"], rel=1e-6)}
            for e in store.evaluations(1, purpose="promotion", split=split)
        }
        found = measured(capsys, folder, digest, *(["--split", "test"] if split == "test" else []))
        assert [one["source"] for one in found] == ["promotion", "promotion"]
        assert {one["seed"]: one["tests"]["forward"] for one in found} == expected
        splits = {"val"} if split == "val" else {"val", "test"}
        assert {row[0] for row in query(folder, "SELECT split FROM nas_motion")} == splits
    store.close()
    (trial,) = measured(capsys, folder, digest, "--source", "trial")
    assert trial["source"] == "trial"
    front = measured(capsys, folder, "--front")  # of equal fidelity
    assert digest in [one["digest"] for one in front]
    assert {one["source"] for one in front} == {"trial"}


def test_what_was_moved_with_its_database_is_found_beside_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digest = best(folder)["digest"]
    assert main(["promote", str(folder / "study.db"), digest]) == 0
    first = measured(capsys, folder, digest)
    query(folder, "DELETE FROM nas_motion")
    there = folder.rename(folder.with_name("elsewhere"))
    again = measured(capsys, there, digest)
    assert [one["tests"] for one in again] == [one["tests"] for one in first]
    assert [Path(one["folder"]).parent for one in again] == [there / "promoted"]


def add_run(folder: Path, **data: Any) -> dict[str, Any]:
    """Trains the best network as a run of an ablation does, with other clips; the row that is recorded of it."""
    store = Store(folder / "study.db", create=True)
    study, digest = study_of(store.study()["config"], ""), best(folder)["digest"]
    job = TrainJob(
        spec=codec.dumps(codec.decode(store.find(digest)["spec"])),
        num_classes=8,
        data=dataclasses.replace(study.data, **data),
        recipe=dataclasses.replace(study.recipe, batch_size=5),
        seed=11,
        folder=str(folder / "runs" / "0001-abc"),
        until_epoch=1,
    )
    result = run_job(job)
    assert result.reason is None, result.detail
    val = result.epochs[-1].val
    assert val is not None
    row = {"top1": val.top1, "top5": val.top5, "loss": val.loss, "num_clips": val.num_clips}
    row |= {"study_id": 1, "key": "abc", "digest": digest, "seed": 11, "epochs": 1, "folder": job.folder}
    with store.write() as connection:
        s.insert(connection, m.run, state="done", tries=1, started_at=s.now(), **row)
    store.close()
    return row


def test_a_run_of_an_ablation_is_measured_on_clips_of_its_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = add_run(folder, clip=Clip(frames=2, height=16, width=12), reversal="eval")
    (one,) = measured(capsys, folder, row["digest"])
    assert (one["source"], one["seed"], one["epochs"]) == ("run", 11, 1)
    assert one["tests"]["forward"] == {"top1": row["top1"], "loss": pytest.approx(row["loss"], rel=1e-6)}
    # Of two frames there is one other order.
    assert one["tests"]["shuffled"] == one["tests"]["reversed"]


def test_clips_of_one_frame_have_no_order(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = add_run(folder, clip=Clip(frames=1, height=16, width=16))
    error = refused(capsys, row["digest"], "--study", str(folder / "study.db"))
    assert "needs clips of at least 2 frames, but data.clip.frames is 1" in error


def test_a_network_whose_weights_are_gone_is_refused_with_their_place(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = best(folder)
    (place,) = (folder / "trials").glob(f"{expected['number']:05d}-*")
    shutil.rmtree(place)
    error = refused(capsys, expected["digest"][:10], "--study", str(folder / "study.db"))
    assert f"there is no {place}/last.pt; train it again" in error
    error = refused(capsys, expected["digest"][:10], "--study", str(folder / "study.db"), "--source", "promotion")
    assert f"no promotion of {expected['digest'][:10]} in" in error


def test_a_damaged_checkpoint_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = best(folder)
    (place,) = (folder / "trials").glob(f"{expected['number']:05d}-*/last.pt")
    place.write_bytes(place.read_bytes()[:1000])
    error = refused(capsys, expected["digest"][:10], "--study", str(folder / "study.db"))
    assert f"{place} is damaged" in error


def test_weights_of_another_network_are_refused_where_their_shapes_are_equal(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = best(folder)
    (place,) = (folder / "trials").glob(f"{expected['number']:05d}-*/last.pt")
    kept = torch.load(place, weights_only=True)
    assert kept["run"]["network"] == expected["digest"]
    torch.save(kept | {"run": kept["run"] | {"network": "0" * 64}}, place)
    error = refused(capsys, expected["digest"][:10], "--study", str(folder / "study.db"))
    assert f"{place} must hold the weights of {expected['digest'][:10]}, but holds those of 0000000000" in error
    assert query(folder, "SELECT * FROM nas_motion") == []


def test_videos_that_were_moved_are_found_where_the_user_says(
    folder: Path, motion: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = best(folder)["digest"]
    (one,) = measured(capsys, folder, digest)
    query(folder, "DELETE FROM nas_motion")
    query(folder, "UPDATE nas_study SET config = json_set(config, '$.data.root', '/nowhere')")
    error = refused(capsys, digest, "--study", str(folder / "study.db"))
    assert "the videos of tiny were at /nowhere, which is no folder; say where they lie now with data.root=" in error
    assert measured(capsys, folder, digest, f"data.root={motion}") == [one]

    query(folder, "DELETE FROM nas_motion")
    make_motion(tmp_path / "other", seed=1, train_per_class=2, val_per_class=1, test_per_class=0, frames=4, size=16)
    error = refused(capsys, digest, f"data.root={tmp_path / 'other'}", "--study", str(folder / "study.db"))
    assert f"those under {tmp_path / 'other'} are not those of {folder / 'trials'}" in error


def test_a_promotion_is_measured_on_the_videos_of_its_study_only(
    folder: Path, motion: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = best(folder)["digest"]
    assert main(["promote", str(folder / "study.db"), digest]) == 0
    make_motion(tmp_path / "other", seed=1, train_per_class=2, val_per_class=1, test_per_class=0, frames=4, size=16)
    error = refused(capsys, digest, f"data.root={tmp_path / 'other'}", "--study", str(folder / "study.db"))
    assert f"those under {tmp_path / 'other'} are not those of {folder / 'promoted'}" in error
    (one,) = measured(capsys, folder, digest, f"data.root={motion}")
    assert one["source"] == "promotion"


def test_beside_a_running_search_nothing_is_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digest = best(folder)["digest"]
    with locked(folder / "study.db"):
        (one,) = measured(capsys, folder, digest)
        assert not query(folder, "SELECT * FROM nas_motion")
        main(["motion", digest, "--study", str(folder / "study.db")])
        assert "note: measured, but not stored: one driver at a time" in capsys.readouterr().err
    assert measured(capsys, folder, digest) == [one]
    assert len(query(folder, "SELECT * FROM nas_motion")) == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ffff"], "no digest in .* begins with 'ffff'"),
        ([], "name one of: digests .* or --front"),
        (["ffff", "--front"], "name one of: digests .* or --front"),
        (["--front", "--split", "train"], "split 'train' is not known.*choices: val, test"),
        (["--front", "--source", "trials"], "source 'trials' is not known; did you mean trial?"),
        (["--front", "data.clip=3"], "keeps the search's data.clip"),
    ],
)
def test_what_is_not_there_is_refused(
    searched: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert re.search(message, refused(capsys, *words, "--study", str(searched / "study.db")))


def test_a_digest_needs_a_database(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--study STUDY|DB" in refused(capsys, "abc")


def test_a_study_without_results_has_no_front(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Store(tmp_path / "a.db", create=True).add_study(
        name="demo", seed=0, clip="8x32x32", num_classes=4, config={}, data={}
    )
    assert "has no front yet; run `nas search` first" in refused(capsys, "--front", "--db", str(tmp_path / "a.db"))
