"""One place says which number decides, and what it is called."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.accuracies import accuracy_of, broken_text, in_points, metric_of, said, standard_error, told
from nas.report.charts import curves_chart, front_chart
from nas.report.values import Curve, Point
from trainer.metrics import Metrics

SHARES = st.floats(0, 1)


@given(top1=SHARES, found=st.one_of(st.none(), SHARES))
def test_a_row_decides_by_what_training_decides_by(top1: float, found: float | None) -> None:
    metrics = Metrics(top1=top1, top5=1.0, loss=0.0, num_clips=8, map_sample=found)
    row = {"top1": top1, "map_sample": found}
    assert accuracy_of(row) == metrics.accuracy
    assert said(row) == told(metrics)
    assert said(row).startswith("top-1 " if found is None else "mAP ")
    assert accuracy_of({"top1": top1}) == top1  # as a row of an earlier version


def test_no_row_at_all_is_of_one_label() -> None:
    assert metric_of([]) == "top-1"
    assert metric_of([{"map_sample": None}, {"map_sample": 0.5}]) == "mAP"


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0234, "+2.3"), (-0.0041, "-0.4"), (-0.0004, "0.0"), (0.0004, "0.0"), (-0.0, "0.0"), (1.0, "+100.0")],
)
def test_a_difference_in_points_has_its_sign_and_nothing_has_none(share: float, text: str) -> None:
    assert in_points(share) == text


def test_a_standard_error_is_that_of_the_binomial_distribution_and_none_of_average_precision() -> None:
    assert standard_error(0.5, 100, "top-1") == pytest.approx(0.05)
    assert standard_error(1.0, 100, "top-1") == 0.0
    assert standard_error(0.5, 0, "top-1") == 0.0
    assert standard_error(0.5, 100, "mAP") is None


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        (None, ""),
        ({"num_clips": 0, "videos": {}}, ""),
        ({"num_clips": 1, "videos": {"a": "empty"}}, "1 clip of 1 video could not be read (the first, a: empty)"),
        (
            {"num_clips": 1234, "videos": {"a": "empty", "b": "gone"}},
            "1,234 clips of 2 videos could not be read (the first, a: empty)",
        ),
    ],
)
def test_broken_clips_in_words(broken: dict[str, Any] | None, text: str) -> None:
    assert broken_text(broken) == text


def test_a_chart_of_average_precision_names_it_and_draws_no_chance() -> None:
    usual: dict[str, Any] = {"number": 0, "rung": 0, "epochs": 1, "error": 0.1, "num_clips": 9, "settings": {}}
    points = [Point(digest="a", accuracy=0.5, macs=10, front=True, **usual)]
    curves = [Curve(number=0, digest="a", kind="front", values=((1, 0.5),))]
    for metric, rules in (("top-1", 1), ("mAP", 0)):
        points = [replace(point, error=0.1 if rules else None) for point in points]
        assert [mark.bar is not None for mark in front_chart(points, {}, 4, metric).marks] == [bool(rules)]
        assert any("s.e." in text for _, text in front_chart(points, {}, 4, metric).legend) == bool(rules)
        for chart in (front_chart(points, {}, 4, metric), curves_chart(curves, 4, metric)):
            assert chart.y_title == f"{metric} on val"
            assert len(chart.rules) == rules
            labels = [mark.label for mark in chart.marks] + [line.label for line in chart.lines if line.label]
            assert all(f"{metric} 50.0" in label for label in labels) and labels
