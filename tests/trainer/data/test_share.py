"""A share of the training videos: nested, at least one of each class, the same in any order."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config import Clip, ConfigError, DataConfig
from trainer.data.clips import eval_batches, open_data, train_batches
from trainer.data.dataset import chosen, with_share
from trainer.data.entries import Entry
from trainer.fit import fit
from trainer.recipe import Recipe

SHARES = st.floats(0.001, 1.0)


@st.composite
def listed(draw: st.DrawFn) -> list[Entry]:
    """Videos of one to six classes, some of them with several labels or none."""
    several = draw(st.booleans())
    labels = draw(st.lists(st.lists(st.integers(0, 5), max_size=3, unique=True), min_size=1, max_size=60))
    return [
        Entry(
            path=f"train/{number}.mp4",
            label=mine[0] if mine else 0,
            num_frames=4,
            height=8,
            width=8,
            offset=0,
            fps=0.0,
            labels=tuple(mine) if several else (),
        )
        for number, mine in enumerate(labels)
    ]


def paths(entries: list[Entry], share: float, seed: int) -> set[str]:
    return {entries[row].path for row in chosen(entries, share, seed)}


@settings(max_examples=150, deadline=None)
@given(listed(), SHARES, SHARES, st.integers(0, 9))
def test_a_smaller_share_is_part_of_a_larger_one(entries: list[Entry], a: float, b: float, seed: int) -> None:
    small, large = sorted((a, b))
    assert paths(entries, small, seed) <= paths(entries, large, seed)
    assert paths(entries, 1.0, seed) == {entry.path for entry in entries}


@settings(max_examples=150, deadline=None)
@given(listed(), SHARES, st.integers(0, 9))
def test_every_class_keeps_a_video(entries: list[Entry], share: float, seed: int) -> None:
    def classes(rows: list[Entry]) -> set[int]:
        return {label for entry in rows for label in (entry.labels or (entry.label,))}

    taken = [entries[row] for row in chosen(entries, share, seed)]
    assert classes(taken) >= classes(entries)


@settings(max_examples=150, deadline=None)
@given(listed(), SHARES, st.integers(0, 9), st.randoms(use_true_random=False))
def test_the_order_of_the_list_does_not_matter(entries: list[Entry], share: float, seed: int, rng: object) -> None:
    mixed = list(entries)
    rng.shuffle(mixed)  # type: ignore[attr-defined]
    assert paths(mixed, share, seed) == paths(entries, share, seed)
    rows = chosen(entries, share, seed)
    assert rows.tolist() == sorted(set(rows.tolist()))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), SHARES, st.integers(0, 9))
def test_each_class_gives_its_share(labels: list[int], share: float, seed: int) -> None:
    kinds = {"num_frames": 4, "height": 8, "width": 8, "offset": 0, "fps": 0.0}
    entries = [Entry(path=f"{i}.mp4", label=label, **kinds) for i, label in enumerate(labels)]  # type: ignore[arg-type]
    taken = Counter(labels[row] for row in chosen(entries, share, seed))
    for label, count in Counter(labels).items():
        assert taken[label] >= 1
        assert abs(taken[label] - max(1.0, share * count)) <= 0.5


def test_the_seed_draws_the_share() -> None:
    entries = [
        Entry(path=f"{i}.mp4", label=i % 2, num_frames=4, height=8, width=8, offset=0, fps=0.0) for i in range(40)
    ]
    drawn = [tuple(chosen(entries, 0.5, seed)) for seed in range(6)]
    assert drawn == [tuple(chosen(entries, 0.5, seed)) for seed in range(6)]
    assert len(set(drawn)) == 6


def network() -> torch.nn.Module:
    """A small network for eight classes."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv3d(3, 4, 3), torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten(), torch.nn.Linear(4, 8)
    )


def config_of(motion: Path, **changes: object) -> DataConfig:
    usual = DataConfig(
        name="motion",
        root=str(motion),
        cache=str(motion.parent / "cache"),
        clip=Clip(frames=4, height=16, width=16),
        sampling="uniform",
        short_side=16,
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


def test_training_sees_the_share_and_evaluation_sees_everything(motion: Path, tmp_path: Path) -> None:
    whole = open_data(config_of(motion))
    half = with_share(whole, 0.5, 7)
    assert len(half.split("train")) == len(whole.split("train")) // 2
    assert half.split("val") is whole.split("val")
    assert (half.checksum, half.met) == (whole.checksum, whole.met)
    seen: list[int] = []
    for share in (1.0, 0.5):
        config = config_of(motion, share=share)
        recipe = Recipe(batch_size=4, warmup_epochs=0)
        result = fit(
            network(), whole, config, recipe, seed=7, until_epoch=1, folder=tmp_path / str(share), device="cpu"
        ).epochs[0]
        seen.append(result.steps)
        assert result.val is not None
        assert result.val.num_clips == len(whole.split("val"))
    assert seen == [8, 4]


def test_a_run_goes_on_with_its_own_share_only(motion: Path, tmp_path: Path) -> None:
    data, recipe = open_data(config_of(motion)), Recipe(batch_size=4, warmup_epochs=0)
    for share, until in ((0.5, 1), (0.5, 2)):
        fit(network(), data, config_of(motion, share=share), recipe, seed=0, until_epoch=until, folder=tmp_path)
    with pytest.raises(ConfigError, match=r"data\.share is None and was 0\.5"):
        fit(network(), data, config_of(motion), recipe, seed=0, until_epoch=3, folder=tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"share": 0.0}, r"data\.share must be in \(0, 1\], but is 0\.0"),
        ({"share": 1.5}, r"data\.share must be in \(0, 1\], but is 1\.5"),
        ({"crop": (0, 8)}, r"data\.crop must be \[rows, columns\] of at least 1 pixel"),
        ({"crop": (32, 32)}, r"data\.short_side must be at least 32, but is 16"),
    ],
)
def test_bad_values_get_one_line(motion: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(motion, **changes)


def test_what_was_begun_without_them_goes_on(motion: Path) -> None:
    assert not {"share", "crop"} & config_of(motion).identity().keys()
    changed = config_of(motion, share=0.5, crop=(8, 8), clip=Clip(frames=4, height=4, width=4)).identity()
    assert (changed["share"], changed["crop"]) == (0.5, (8, 8))


@pytest.mark.parametrize("scale", [None, (0.5, 1.0)])
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_crop_is_the_same_view_at_another_resolution(
    motion: Path, split: str, scale: tuple[float, float] | None
) -> None:
    """The means of 2x2 pixels of the large clip are the small clip, but for what the filter sees beyond them."""
    large = config_of(motion, clip=Clip(frames=4, height=12, width=12), crop_scale=scale)
    small = replace(large, clip=Clip(frames=4, height=6, width=6), crop=(12, 12))
    data = open_data(large)

    def clips(config: DataConfig) -> np.ndarray:
        if split == "train":
            return next(train_batches(data, config, batch_size=8, seed=1, epoch=1))[0].numpy()
        return next(eval_batches(data, config, split=split, batch_size=8))[0].numpy()

    halved = clips(large).reshape(8, 3, 4, 6, 2, 6, 2).mean(axis=(4, 6))
    assert np.corrcoef(halved.ravel(), clips(small).ravel())[0, 1] > 0.97
    if split == "val" or scale is None:  # a random share of the frame is the same without the crop
        assert np.corrcoef(halved.ravel(), clips(replace(small, crop=None)).ravel())[0, 1] < 0.9
