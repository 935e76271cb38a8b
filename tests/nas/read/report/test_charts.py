"""Charts and texts: scales, thinning and words, as pure functions."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nas.read.compare import Band, Group, SearchFront
from nas.read.plots import draw_front
from nas.read.report import axes as words
from nas.read.report.axes import ROOM, linear, logarithmic
from nas.read.report.charts import VERTICES, bands_chart, expected_chart, forest, front_chart, thin
from nas.read.report.gather import gather
from nas.read.report.page import html
from nas.read.report.values import Ablation, Effect, Point
from nas.search.calibration import Expected
from tests.nas.read.report.generated import full_study

numbers = st.lists(st.floats(-1e6, 1e6).filter(lambda v: v == 0 or abs(v) > 1e-6), min_size=1, max_size=20)


@given(numbers)
@example([250251.0, -6.1e-05])
def test_a_linear_axis_holds_every_value_in_order(values: list[float]) -> None:
    scale = linear(values, text=str)
    places = [scale.at(value) for value in sorted(values)]
    assert places == sorted(places)
    assert scale.low <= min(values) and max(values) <= scale.high
    ticks = [tick.at for tick in scale.ticks]
    assert len(ticks) >= 2
    assert ticks == sorted(set(ticks))
    assert ticks[0] >= 0 and ticks[-1] <= 100


@given(st.lists(st.floats(1, 1e13), min_size=1, max_size=20))
def test_a_logarithmic_axis_holds_every_value_and_has_room_for_its_ticks(values: list[float]) -> None:
    scale = logarithmic(values)
    assert scale.low < min(values) and max(values) < scale.high
    assert scale.at(min(values)) <= scale.at(max(values))
    places = [tick.at for tick in scale.ticks]
    assert 2 <= len(places) <= 7
    assert all(b - a >= 100 * ROOM - 0.02 for a, b in pairwise(places))


def test_ticks_at_150_and_200_stand_apart_on_a_phone() -> None:
    texts = [tick.text for tick in logarithmic([46e3, 330e3]).ticks]
    assert texts == ["50\u00a0k", "100\u00a0k", "200\u00a0k"]


def test_equal_ratios_have_equal_lengths_on_a_logarithmic_axis() -> None:
    scale = logarithmic([1e6, 1e9])
    assert scale.at(1e7) - scale.at(1e6) == pytest.approx(scale.at(1e9) - scale.at(1e8), abs=0.02)
    assert [tick.text for tick in scale.ticks] == ["1\u00a0M", "10\u00a0M", "100\u00a0M", "1\u00a0G"]


@given(
    st.one_of(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.lists(st.floats(0, 1), min_size=81, max_size=400))
)
def test_a_thinned_curve_keeps_its_ends_and_its_best(values: list[float]) -> None:
    curve = list(enumerate(values, start=1))
    kept = thin(curve)
    assert len(kept) <= VERTICES
    assert kept[0] == curve[0] and kept[-1] == curve[-1]
    assert max(v for _, v in kept) == max(values)
    assert kept == sorted(set(kept))


def point(**changes: object) -> Point:
    values = {
        "digest": "a",
        "number": 0,
        "rung": 1,
        "epochs": 9,
        "accuracy": 0.8,
        "num_clips": 512,
        "macs": 10**8,
        "settings": {},
        "front": True,
        "values": (0.2, 8.0),
    }
    values |= changes
    accuracy = float(str(values["accuracy"]))
    return Point(**{"interval": (accuracy - 0.02, accuracy + 0.02), **values})  # type: ignore[arg-type]


def test_what_was_expected_is_drawn_against_what_was_measured_on_equal_axes() -> None:
    usual: dict[str, Any] = {"number": 3, "digest": "d", "rung": 0, "gain": 0.1}
    usual |= {"low": 0.5, "high": 0.7, "accuracy": 0.6}
    chart = expected_chart([Expected(measured=own, **usual) for own in (0.8, None, 0.6)])
    assert (chart.x, chart.y) == (chart.y, chart.x)
    within, beyond = chart.marks
    assert (within.kind, beyond.kind) == ("top", "c1")
    assert within.x == pytest.approx(100 - within.y)  # on the line
    assert within.bar is not None
    assert within.bar[0] < within.y < within.bar[1]
    assert beyond.x > within.x
    (line,) = chart.lines
    assert line.points == "0,1000 1000,0"
    assert within.label == "top-1 60.0\u00a0% measured, 60.0\u00a0% (50.0 to 70.0) expected when trial 3 began"
    assert expected_chart([]).marks == ()


def test_the_front_is_drawn_over_the_others_as_steps_that_go_on_to_the_right() -> None:
    low = point(digest="c", rung=0, front=False, accuracy=0.3)
    chart = front_chart([point(), point(digest="b", macs=10**9, accuracy=0.9), low], 8)
    assert [mark.kind for mark in chart.marks] == ["low", "front", "front"]
    corners = [tuple(map(int, pair.split(","))) for pair in chart.lines[0].points.split()]
    assert len(corners) == 4
    assert corners[0][1] == corners[1][1] > corners[2][1] == corners[3][1]
    assert corners[3][0] == 1000
    top, bottom = chart.marks[-1].bar or (0, 0)
    assert top < chart.marks[-1].y < bottom
    assert [rule.text for rule in chart.rules] == ["chance 12.5\u00a0%"]


def test_what_always_naming_the_largest_class_earns_is_drawn_where_it_is_more_than_chance() -> None:
    def rules(metric: str, largest: float | None) -> list[str]:
        return [rule.text.replace("\u00a0", " ") for rule in front_chart([point()], 3, metric, largest=largest).rules]

    assert rules("top-1", 40 / 48) == ["chance 33.3 %", "largest class 83.3 %"]
    assert rules("top-1", 1 / 3) == rules("top-1", None) == ["chance 33.3 %"]
    assert rules("balanced accuracy", 40 / 48) == ["chance 33.3 %"]  # which is what it earns there, too
    assert rules("mAP", 40 / 48) == []
    assert front_chart([point()], 0).rules == ()  # of several labels per video there is no one chance


def effect(difference: float, low: float | None, high: float | None) -> Effect:
    return Effect(
        factor="kind",
        level="3d",
        reference="2d",
        digest=None,
        pairs=5,
        difference=difference,
        low=low,
        high=high,
        p_holm=None,
        macs_ratio=None,
        word="undecided",
    )


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 1)), min_size=1, max_size=8), st.floats(0.001, 0.1))
def test_a_forest_plot_always_shows_zero_the_margin_and_every_interval(
    found: list[tuple[float, float]], margin: float
) -> None:
    effects = tuple(effect(d, d - half, d + half) for d, half in found)
    plot = forest(
        Ablation(
            name="a",
            kind="ablate",
            state="done",
            sentence="",
            design={},
            margin=margin,
            confidence=0.95,
            runs=1,
            done=1,
            effects=effects,
        )
    )
    assert 0 <= plot.zero <= 100
    assert plot.margin is not None and plot.margin[0] <= plot.zero <= plot.margin[1]
    ((_, rows),) = plot.factors
    for row in rows:
        assert row.low is not None and row.high is not None
        assert 0 <= row.low <= row.x <= row.high <= 100
        assert plot.scale.low <= row.effect.difference <= plot.scale.high


def test_an_effect_without_an_interval_has_a_point_alone() -> None:
    row = forest(
        Ablation(
            name="a",
            kind="ablate",
            state="done",
            sentence="",
            design={},
            margin=None,
            confidence=None,
            runs=1,
            done=1,
            effects=(effect(0.1, None, None),),
        )
    )
    assert row.margin is None
    assert row.factors[0][1][0].low is None


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (words.amount(40_700_000), "40.7 M"),
        (words.amount(1_200_000_000), "1.2 G"),
        (words.amount(None), "–"),
        (words.amount(950), "950"),
        (words.percent(0.8457), "84.6 %"),
        (words.percent(None), "–"),
        (words.measured(0.846, 0.812, 0.874), "84.6 % (81.2 to 87.4)"),
        (words.points(0.0234), "+2.3"),
        (words.points(-0.0041), "−0.4"),
        (words.points(-0.0001), "0.0"),
        (words.points(math.nan), "–"),
        (words.interval(-0.004, 0.042), "−0.4 to +4.2"),
        (words.interval(None, None), ""),
        (words.duration(3725), "1 h 02 min"),
        (words.duration(200), "3 min 20 s"),
        (words.duration(12.2), "12 s"),
        (words.duration(None), "–"),
        (words.moment("2026-11-21T13:57:47+00:00"), "2026-11-21 13:57 UTC"),
        (words.moment("2026-11-21T15:57:47+02:00"), "2026-11-21 13:57 UTC"),
        (words.moment("yesterday"), "yesterday"),
        (words.moment(None), "–"),
        (words.plural(1, "network"), "1 network"),
        (words.plural(2, "class", "classes"), "2 classes"),
        (words.flat([1, True, {"a": None}]), "1, yes, a "),
    ],
)
def test_numbers_are_written_as_a_reader_expects_them(made: str, text: str) -> None:
    assert made.replace("\u00a0", " ") == text


def test_a_plot_is_the_drawing_of_the_report(tmp_path: Path) -> None:
    with full_study(tmp_path / "study.db", trials=12) as store:
        row = store.study()
        page = html(gather(store))
        draw_front(row, store.evaluations(row["id"]), store.front(row["name"]), tmp_path / "front.svg")
    drawn = (tmp_path / "front.svg").read_text("utf-8")
    (front,) = re.findall(r'<polyline points="[^"]+" class="line front"', drawn)
    assert front in page
    marks = r'<circle cx="([\d.]+)%" cy="([\d.]+)%" r="[\d.]+" class="mark (front|top|low)"'
    assert re.findall(marks, drawn) == re.findall(marks, page)[: len(re.findall(marks, drawn))]
    assert "var(" not in drawn and ElementTree.fromstring(drawn).tag == "{http://www.w3.org/2000/svg}svg"


def test_a_band_goes_along_its_upper_edge_and_back_along_the_lower() -> None:
    band = Band(macs=(10**6, 10**7), median=(0.5, 0.7), low=(0.4, 0.6), high=(0.6, 0.8))
    one = SearchFront(
        path="a.db",
        study="a",
        seed=0,
        config={},
        clip="8x32x32",
        num_classes=4,
        checksum="",
        epochs=9,
        num_clips=64,
        macs=(10**6, 10**7),
        accuracy=(0.5, 0.7),
    )
    group = Group(label="a <b>", members=(one, replace(one, seed=1)))
    chart = bands_chart([group], [band])
    (area,) = chart.areas
    pairs = [tuple(map(float, pair.split(","))) for pair in area.points.split()]
    assert len(pairs) % 2 == 0 and [x for x, _ in pairs] == [x for x, _ in reversed(pairs)]
    assert all(upper < lower for (_, upper), (_, lower) in zip(pairs[: len(pairs) // 2], pairs[::-1], strict=False))
    assert len(chart.marks) == 4 and chart.legend == (("c0", "a <b>, 2 seeds"),)
    assert bands_chart([replace(group, members=(one,))], [band]).areas == ()
