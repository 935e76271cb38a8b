"""Which views stand for a video, and what is computed of their scores."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import NotFoundError
from nas.study.views import Views, usual_views
from nas.train.cutting import clips_of, plan
from nas.use.accuracy import confused, in_top, judged, over_seeds
from nas.use.multi_view import match_classes
from nas.use.networks import backwards_table
from nas.use.probabilities import Scores, read_scores, save_scores
from trainer.config import Clip, ConfigError, DataConfig
from trainer.data.augment import cut, eval_boxes
from trainer.data.sample import eval_indices
from trainer.metrics import measure


def config(**values: object) -> DataConfig:
    usual: dict[str, object] = {"clip": Clip(frames=4, height=8, width=8, stride=2), "short_side": 12}
    return DataConfig(name="x", root="", cache="", **{**usual, **values})  # type: ignore[arg-type]


SIDES = st.integers(12, 40)


@settings(deadline=None)
@given(
    SIDES,
    SIDES,
    st.integers(1, 60),
    st.integers(1, 6),
    st.sampled_from([1, 3]),
    st.lists(st.integers(8, 30), unique=True, max_size=3),
    st.booleans(),
)
def test_distinct_views_stand_for_all_that_are_asked_for_and_lie_in_the_frame(
    height: int, width: int, frames: int, clips: int, crops: int, sides: list[int], full: bool
) -> None:
    views = Views(clips=clips, crops=crops, short_sides=tuple(sides), full=full)
    found = plan(frames, height, width, config(), views)
    assert sum(view.times for view in found) == views.per_video
    assert len({(v.indices, v.box, v.height, v.width) for v in found}) == len(found)
    for view in found:
        assert all(0 <= i < frames for i in view.indices)
        assert 0 <= view.box.top <= height - view.box.height
        assert 0 <= view.box.left <= width - view.box.width
        assert min(view.box.height, view.box.width) >= 1


@settings(deadline=None)
@given(SIDES, SIDES, st.integers(4, 12), st.integers(4, 12))
def test_one_crop_at_the_short_side_of_the_data_is_that_of_training(height: int, width: int, h: int, w: int) -> None:
    clip = Clip(frames=1, height=h, width=w)
    assert eval_boxes(height, width, clip, side=min(height, width)) == eval_boxes(height, width, clip)


def test_one_crop_is_what_an_evaluation_of_training_sees() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (30, 12, 17, 3), dtype=np.uint8)
    for sampling in ("dense", "uniform"):
        for reversal in ("none", "eval"):
            data = config(sampling=sampling, reversal=reversal, eval_clips=3)
            found = [clip for clip, times in clips_of(frames, data, usual_views(data)) for _ in range(times)]
            for number, clip in enumerate(found):
                indices = eval_indices(30, data.clip, data.sampling, number=number, num_clips=3)
                out = np.empty((4, 8, 8, 3), dtype=np.uint8)
                order = indices if reversal == "none" else indices[::-1]
                cut(frames, order, eval_boxes(12, 17, data.clip)[0], out, mirror=False)
                assert np.array_equal(clip, out)
            assert len(found) == 3


def test_three_crops_cover_both_ends_of_the_longer_side() -> None:
    clip = Clip(frames=1, height=8, width=8)
    wide = eval_boxes(8, 20, clip, side=8, crops=3)
    assert [(b.top, b.left) for b in wide] == [(0, 0), (0, 6), (0, 12)]
    tall = eval_boxes(20, 10, clip, side=10, crops=3)
    assert [(b.top, b.left) for b in tall] == [(0, 1), (6, 1), (12, 1)]


def test_a_larger_short_side_shows_less_of_the_frame_and_a_full_crop_all_of_it() -> None:
    clip = Clip(frames=1, height=8, width=8)
    (at12,) = eval_boxes(24, 48, clip, side=12, crops=1)
    (at16,) = eval_boxes(24, 48, clip, side=16, crops=1)
    assert (at12.height, at16.height) == (16, 12)  # 8 of 12 rows of 24, 8 of 16
    (whole,) = plan(9, 24, 48, config(), Views(clips=1, short_sides=(16,), full=True))
    assert (whole.box.height, whole.box.width, whole.height, whole.width) == (24, 24, 16, 16)


def test_what_is_the_same_is_computed_once() -> None:
    # Seven frames are exactly one clip of four at stride 2; a square frame has one crop at its own size.
    (only,) = plan(7, 8, 8, config(short_side=8), Views(clips=10, crops=3))
    assert only.times == 30


def test_a_frame_rate_of_the_data_is_kept() -> None:
    rated = config(clip=Clip(frames=4, height=8, width=8), sampling="dense", short_side=8, fps=10.0)
    (view,) = plan(60, 8, 8, rated, Views(clips=1), rate=30.0)
    assert set(np.diff(view.indices)) == {3}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Views(clips=0), "clips must be at least 1, but is 0"),
        (lambda: Views(crops=2), "crops must be one of 1, 3, but is 2"),
        (lambda: Views(short_sides=(16, 16)), "each once"),
        (lambda: plan(9, 24, 24, config(), Views(short_sides=(7,))), "at least the crop's"),
    ],
)
def test_views_that_make_no_sense_are_refused(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]


# --- scores --------------------------------------------------------------------------------------------------------


def scores(probabilities: np.ndarray, labels: np.ndarray, **values: object) -> Scores:
    usual = {
        "split": "val",
        "classes": tuple(f"class {k}" for k in range(probabilities.shape[1])),
        "paths": tuple(f"val/{v:03d}.mp4" for v in range(len(labels))),
        "labels": labels.astype(np.int64),
        "probabilities": probabilities.astype(np.float32),
        "clips_right": (probabilities.argmax(1) == labels).astype(float),
        "views": Views(clips=2),
    }
    return Scores(**{**usual, **values})  # type: ignore[arg-type]


def drawn(videos: int, classes: int, seed: int = 0) -> Scores:
    rng = np.random.default_rng(seed)
    return scores(rng.dirichlet(np.ones(classes), videos), rng.integers(0, classes, videos))


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(2, 9), st.integers(0, 5))
def test_accuracies_and_loss_are_those_of_training(videos: int, classes: int, seed: int) -> None:
    some = drawn(videos, classes, seed)
    result = judged(some)
    metrics = measure(torch.from_numpy(some.probabilities), torch.from_numpy(some.labels))
    assert result.video1.value == pytest.approx(metrics.top1)
    assert result.video5.value == pytest.approx(metrics.top5)
    assert result.loss == pytest.approx(metrics.loss)
    assert result.num_videos == videos
    assert result.num_clips == 2 * videos


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(2, 9), st.integers(0, 5))
def test_classes_and_confusions_add_up(videos: int, classes: int, seed: int) -> None:
    result = judged(drawn(videos, classes, seed))
    matrix = np.array(result.confusion)
    assert matrix.sum() == videos
    assert np.trace(matrix) == round(result.video1.value * videos)
    assert sum(row.accuracy.num_videos for row in result.classes if row.accuracy) == videos
    assert sum(row.predicted for row in result.classes) == videos
    right = sum(row.accuracy.value * row.accuracy.num_videos for row in result.classes if row.accuracy)
    assert right == pytest.approx(np.trace(matrix))
    names = [row.name for row in result.classes]
    assert sum(count for *_, count in confused(result, names)) == videos - np.trace(matrix)


def test_the_fifth_of_equal_classes_is_in_the_top_five_and_the_sixth_is_not() -> None:
    even = np.full((6, 6), 1 / 6, dtype=np.float32)
    assert in_top(even, np.arange(6), 5).tolist() == [1, 1, 1, 1, 1, 0]


def test_seeds_have_a_mean_and_a_deviation() -> None:
    a, b = drawn(40, 3, 0), drawn(40, 3, 0)
    b = dataclasses.replace(b, probabilities=drawn(40, 3, 7).probabilities)
    found = over_seeds([a, b])
    each = [a.right.mean(), b.right.mean()]
    assert found.video1.value == pytest.approx(np.mean(each))
    assert found.std == pytest.approx(np.std(each, ddof=1))
    assert found.both is not None
    assert found.both[0] < found.video1.value < found.both[1]
    assert over_seeds([a]).std is None


def test_scores_come_back_from_their_file_without_pickle(tmp_path) -> None:  # type: ignore[no-untyped-def]
    some = dataclasses.replace(drawn(5, 3), checksum="abc", views=Views(clips=2, crops=3, short_sides=(12, 16)))
    save_scores(tmp_path / "scores.npz", some)
    again = read_scores(tmp_path / "scores.npz")
    for name in ("split", "classes", "paths", "views", "checksum"):
        assert getattr(again, name) == getattr(some, name)
    for name in ("labels", "probabilities", "clips_right"):
        assert np.array_equal(getattr(again, name), getattr(some, name))
    assert [path.name for path in tmp_path.iterdir()] == ["scores.npz"]


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04cut off"])
def test_a_file_of_other_content_is_refused(tmp_path, content: bytes) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "scores.npz").write_bytes(content)
    with pytest.raises(NotFoundError, match="must hold scores that `nas promote` wrote"):
        read_scores(tmp_path / "scores.npz")
    with pytest.raises(NotFoundError, match="must hold scores"):
        read_scores(tmp_path / "nothing.npz")


def test_classes_that_exchange_backwards_are_found() -> None:
    # Classes: left, right, up, circle. Left and right become each other; up becomes left; circle stays.
    labels = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    backwards = np.array([1, 1, 0, 0, 0, 0, 3, 3])
    rows = backwards_table(scores(np.eye(4)[labels], labels), scores(np.eye(4)[backwards], labels))
    assert [(row.name, row.becomes, row.exchanges) for row in rows] == [
        ("class 0", "class 1", True),
        ("class 1", "class 0", True),
        ("class 2", "class 0", False),
        ("class 3", "class 3", False),
    ]
    assert [row.right_backwards for row in rows] == [0, 0, 0, 2]


# --- classes by name -----------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.permutations(["a b", "c", "d's", "e (f)"]), st.integers(1, 4))
def test_classes_are_matched_by_name_in_any_order(names: list[str], count: int) -> None:
    network = ("c", "d's", "a b", "e (f)")
    there = names[:count]
    assert [network[k] for k in match_classes(network, there)] == there
    plain = [name.replace(" ", "_").replace("'", "").strip("()").upper() for name in there]
    assert match_classes(network, plain) == match_classes(network, there)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (["jump"], "class 'jump' is not known; did you mean jumping?"),
        (["jumping", "x", "y"], "nor are 1 more of the data's 3"),
        (["jumping", "Jumping"], "'jumping' and 'Jumping' are all 'jumping'"),
        (["?"], "class '\\?' is not known"),
    ],
)
def test_other_classes_are_refused_in_one_line(data: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        match_classes(("jumping", "!!"), data)
    assert "\n" not in str(caught.value)
