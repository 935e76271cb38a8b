"""What a rung is: values, refusals, clips and words; nothing is trained here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.errors import StudyError
from nas.study.fidelity import Fidelity, recorded_fidelity, worth_of
from nas.study.files import load_study
from nas.study.study import Study, changes, study_of
from nas.study.views import Views
from nas.train.cutting import plan
from nas.train.jobs import TrainJob, job_key
from tests.nas.studies import write_study
from trainer.config import Clip, DataConfig
from trainer.data.sample import eval_indices

DATA = DataConfig(
    name="d", root="", cache="", clip=Clip(frames=16, height=112, width=160, stride=2), sampling="dense", short_side=128
)


def study(folder: Path, *settings: str) -> Study:
    return load_study(write_study(folder / "tiny.yaml"), list(settings))


BAD: list[tuple[list[str], str]] = [
    (["search.fidelity=epoch"], "search.fidelity 'epoch' is not known; did you mean epochs"),
    (["search.epochs=3"], "search.epochs must be left out with search.fidelity epochs"),
    (["search.rungs=[1.5,3]"], r"search.rungs must be ascending numbers of epochs .* but is \[1\.5, 3\]"),
    (["search.rungs=[one,3]"], r"search.rungs must be ascending numbers of epochs .* but is \['one', 3\]"),
    (["search.rungs=[true,3]"], "search.rungs must be ascending numbers of epochs"),
    (["search.rungs=[0,3]"], "search.rungs must be ascending numbers of epochs"),
    (["search.fidelity=data", "search.rungs=[0.5,1]"], "search.epochs must be at least 1 with search.fidelity data"),
    (["search.fidelity=data", "search.epochs=1"], "search.rungs must be ascending shares of the training videos"),
    (["search.fidelity=data", "search.epochs=1", "search.rungs=[0,1.0]"], "search.rungs must be ascending shares"),
    (["search.fidelity=data", "search.epochs=1", "search.rungs=[0.1,0.5]"], "must end at 1, all of the data, .* 0.5"),
    (["search.fidelity=frames", "search.epochs=1", "search.rungs=[2,8]"], "must end at 4, data.clip.frames, .* 8"),
    (["search.fidelity=frames", "search.epochs=1", "search.rungs=[2.0,4]"], "ascending numbers of frames"),
    (
        ["search.fidelity=frames", "search.epochs=1", "search.rungs=[3,4]", "data.sampling=dense"],
        r"must divide data.clip.frames x data.clip.stride = 4 .* but are 3, 4 \(choices: 1, 2, 4\)",
    ),
    (["search.fidelity=size", "search.epochs=1", "search.rungs=[8,12]"], "must end at 16, data.clip.height, .* 12"),
    (["search.fidelity=size", "search.epochs=1", "search.rungs=[16,8]"], "ascending numbers of rows of pixels"),
    (
        ["search.fidelity=size", "search.epochs=3", "search.rungs=[16]", "recipe.phases=[{epochs:3}]"],
        "recipe.phases must be empty with search.fidelity size",
    ),
    (
        [
            "search.fidelity=data",
            "search.epochs=3",
            "search.rungs=[1]",
            "recipe.schedule=cosine",
            "recipe.epochs=4",
        ],
        "recipe.epochs must be 0 or search.epochs = 3 with schedule cosine",
    ),
]


@pytest.mark.parametrize(("settings", "message"), BAD, ids=[" ".join(bad[0]) for bad in BAD])
def test_rungs_that_cannot_be_get_one_line(tmp_path: Path, settings: list[str], message: str) -> None:
    with pytest.raises(StudyError, match=message) as caught:
        study(tmp_path, *settings)
    assert "\n" not in str(caught.value)


def test_a_schedule_that_ends_does_so_with_the_training_of_each_rung(tmp_path: Path) -> None:
    settings = ["search.fidelity=data", "search.epochs=3", "search.rungs=[0.5,1]"]
    assert study(tmp_path, *settings, "recipe.schedule=onecycle").recipe.epochs == 3
    with pytest.raises(StudyError, match=r"recipe\.epochs must be at least 1 with schedule onecycle"):
        study(tmp_path, "recipe.schedule=onecycle")


def test_the_fidelity_is_part_of_the_study(tmp_path: Path) -> None:
    old = study(tmp_path).config
    new = study(tmp_path, "search.fidelity=data", "search.epochs=3", "search.rungs=[0.5,1]").config
    assert set(changes(old, new)) == {"search.fidelity", "search.epochs", "search.rungs"}


def test_a_study_recorded_before_there_were_fidelities_is_the_same_study(tmp_path: Path) -> None:
    now = study(tmp_path)
    before: dict[str, Any] = {**now.config, "search": dict(now.config["search"]), "data": dict(now.config["data"])}
    for part, keys in (("search", ("fidelity", "epochs")), ("data", ("share", "crop"))):
        for key in keys:
            del before[part][key]
    assert changes(before, now.config) == {}
    recorded = study_of(before, "the record")
    assert recorded.search == now.search
    assert recorded_fidelity({"config": before}) == now.search.fidelity == Fidelity(values=(1, 2, 3))
    keys = [
        job_key(
            TrainJob(
                spec="s", num_classes=8, data=one.data, recipe=one.recipe, seed=3, folder="", until_epoch=1, opened=full
            ),
            "c",
        )
        for one in (recorded, now)
        for full in (None, one.data)
    ]
    assert set(keys) == {"985c95ba8bb0"}  # as it was when folders were named by it first


KINDS = [
    Fidelity(values=(1, 3, 9)),
    Fidelity(kind="data", values=(0.1, 0.35, 1), epochs=5),
    Fidelity(kind="frames", values=(4, 8, 16), epochs=5),
    Fidelity(kind="size", values=(56, 80, 112), epochs=5),
]


@pytest.mark.parametrize("fidelity", KINDS, ids=lambda fidelity: fidelity.kind)
def test_epochs_are_numbered_on_through_the_rungs(fidelity: Fidelity) -> None:
    assert fidelity.ends == ((1, 3, 9) if fidelity.continues else (5, 10, 15))
    for rung, end in enumerate(fidelity.ends):
        assert fidelity.before(rung) + fidelity.trained(rung) == end
        assert fidelity.trained(rung) == (end if fidelity.continues else 5)
        assert fidelity.label_of(end) == fidelity.label(rung)
    assert fidelity.full_epochs == fidelity.trained(2)


@pytest.mark.parametrize("fidelity", KINDS, ids=lambda fidelity: fidelity.kind)
def test_the_last_rung_is_the_study_itself(fidelity: Fidelity) -> None:
    assert fidelity.data_at(2, DATA) is DATA
    assert fidelity.worth(2) == 1
    assert fidelity.is_full(2)


def test_words_and_names() -> None:
    assert [k.label(1) for k in KINDS] == ["3 epochs", "35 % of the data", "8 frames", "80 pixels"]
    assert [k.at(0) for k in KINDS] == ["after 1 epoch", "at 10 % of the data", "at 4 frames", "at 56 pixels"]
    assert [k.slug(0) for k in KINDS] == ["1-epochs", "0.1-of-data", "4-frames", "56-pixels"]
    assert [k.label(7) for k in KINDS] == ["rung 7"] * 4
    assert KINDS[0].label_of(4) == "4 epochs"


def test_what_an_epoch_is_worth() -> None:
    assert [k.worth(0) for k in KINDS] == [1, 0.1, 0.25, 0.25]
    rows = [
        {"trial_id": 1, "rung": 0, "epochs": 5},
        {"trial_id": 2, "rung": 0, "epochs": 5},
        {"trial_id": 1, "rung": 1, "epochs": 10},
    ]
    assert worth_of(KINDS[2], rows) == pytest.approx(5 * 0.25 + 5 * 0.25 + 5 * 0.5)


def test_a_share_of_the_data_is_one_of_what_the_study_takes() -> None:
    half = replace(DATA, share=0.5)
    assert KINDS[1].data_at(0, half) == replace(half, share=0.05)
    assert KINDS[1].data_at(2, half) == half


@given(st.integers(1, 32), st.integers(1, 8), st.integers(1, 32), st.sampled_from(["dense", "uniform"]))
def test_fewer_frames_stand_for_the_same_stretch_of_video(full: int, stride: int, frames: int, sampling: Any) -> None:
    frames = min(frames, full)
    clip = Clip(frames=full, height=16, width=16, stride=stride)
    data = replace(DATA, clip=clip, sampling=sampling)
    found = Fidelity(kind="frames", values=(frames, full + 1), epochs=1).data_at(0, data).clip
    assert found.frames == frames
    assert found.span <= clip.span or sampling == "uniform"
    if sampling == "dense" and full % frames == 0:
        every = full // frames  # every second or third frame of the full clip, in its middle
        whole, part = (eval_indices(clip.span, one, "dense", number=0, num_clips=1) for one in (clip, found))
        assert np.diff(part).tolist() == [every * stride] * (frames - 1)
        assert set(np.diff(whole)) <= {stride}


def test_smaller_clips_keep_their_aspect_and_their_view() -> None:
    small = KINDS[3].data_at(0, DATA)
    assert small.clip == Clip(frames=16, height=56, width=80, stride=2)
    assert small.box == DATA.clip
    own = replace(DATA, crop=(120, 120), short_side=128)
    assert KINDS[3].data_at(0, own).crop == (120, 120)


@pytest.mark.parametrize("full", [False, True])
def test_views_of_a_test_cut_the_crop_and_resize_it(full: bool) -> None:
    data = replace(DATA, clip=Clip(frames=4, height=32, width=32))
    small = replace(data, clip=Clip(frames=4, height=16, width=16), crop=(32, 32))
    views = Views(clips=1, crops=3, short_sides=(48, 64), full=full)
    for a, b in zip(plan(9, 64, 96, data, views), plan(9, 64, 96, small, views), strict=True):
        assert (a.box, a.indices, a.height, a.width) == (b.box, b.indices, 2 * b.height, 2 * b.width)


def test_the_rungs_of_a_record_without_a_search_are_epochs() -> None:
    fidelity = recorded_fidelity({"config": {}})
    assert fidelity == Fidelity()
    assert (fidelity.at_epochs(9), fidelity.ends) == ("after 9 epochs", ())
