"""Cutmix, alone and with mixup."""

from __future__ import annotations

from itertools import islice

import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.losses import Cut, cutmix, cuts, mixup
from trainer.recipe import Recipe


@given(area=st.floats(0, 1), top=st.floats(0, 1), left=st.floats(0, 1), labels=st.lists(st.integers(0, 3), min_size=2))
def test_a_class_counts_by_its_share_of_the_pixels(area, top, left, labels):
    clips = torch.arange(len(labels)).float()[:, None, None, None, None].expand(-1, 3, 2, 7, 9).contiguous()
    before = clips.clone()
    cut = Cut(area=area, top=top, left=left)
    mixed, targets = cutmix(clips, torch.tensor(labels), cut=cut, num_classes=4, smoothing=0.0)
    assert torch.equal(clips, before)
    assert all(torch.equal(mixed[:, :, 0], mixed[:, :, t]) for t in range(2))  # the same box in all frames
    hot = torch.eye(4)[labels]
    for number, clip in enumerate(mixed):
        other = len(labels) - 1 - number
        share = (clip[0, 0] == number).float().mean().item()
        assert set(clip.unique().tolist()) <= {number, other}
        torch.testing.assert_close(targets[number], share * hot[number] + (1 - share) * hot[other])


def test_boxes_have_the_shares_of_their_distribution():
    areas = [cut.area for cut in islice(cuts(Recipe(cutmix=1.0), seed=0, epoch=1), 2000)]
    assert abs(sum(areas) / 2000 - 0.5) < 0.03  # Beta(1, 1) is uniform
    rows, columns = Cut(area=0.25, top=0.5, left=0.5).box(20, 40)
    assert (rows, columns) == (slice(5, 15), slice(10, 30))


def test_boxes_depend_on_seed_and_epoch_alone():
    def first(seed, epoch):
        return list(islice(cuts(Recipe(cutmix=0.5), seed=seed, epoch=epoch), 5))

    assert first(0, 1) == first(0, 1)
    assert len({tuple(first(*pair)) for pair in ((0, 1), (0, 2), (1, 1))}) == 3
    assert list(islice(cuts(Recipe(), seed=0, epoch=1), 3)) == [None] * 3


def test_with_mixup_each_takes_about_half_of_the_steps():
    taken = list(islice(cuts(Recipe(cutmix=1.0, mixup=0.2), seed=0, epoch=1), 1000))
    assert 430 < sum(cut is None for cut in taken) < 570


def test_several_labels_are_mixed_as_they_are():
    clips, labels = torch.randn(2, 3, 2, 4, 4), torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    _, targets = mixup(clips, labels, share=0.75, num_classes=3, smoothing=0.1)
    torch.testing.assert_close(targets, torch.tensor([[0.75, 1.0, 0.0], [0.25, 1.0, 0.0]]))
