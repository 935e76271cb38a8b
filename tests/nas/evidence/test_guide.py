"""The guide: its example runs, and its tables are what the code computes."""

from __future__ import annotations

import re
from pathlib import Path

from nas.evidence.paired import power_curve, visible_difference
from nas.evidence.words import Looks

GUIDE = (Path(__file__).parents[3] / "docs" / "evidence.md").read_text(encoding="utf-8")
PAIRS = (3, 5, 8, 10, 20)


def rows(title: str) -> list[list[float]]:
    """The numbers of the table whose header begins so."""
    body = GUIDE.split(f"| {title} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [[float(cell) for cell in line.strip("| ").split("|")] for line in body]


def test_the_example_prints_one_word_and_one_sentence(capsys: object) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    exec(compile(code, "docs/evidence.md", "exec"), {})
    said = capsys.readouterr().out  # type: ignore[attr-defined]
    assert re.match(r"(better|undecided) 3d .* 2d .*\(95 % interval .*; 3 pairs\)", said)


def test_visible_differences_are_those_of_the_code() -> None:
    table = rows("standard deviation")
    assert len(table) == 5
    for sd, *seen in table:
        assert seen == [round(100 * visible_difference(sd / 100, pairs), 1) for pairs in PAIRS]


def test_the_power_curve_is_that_of_the_code() -> None:
    curve = power_curve([0.01, 0.02, 0.03, 0.05, 0.08], 0.02, PAIRS)
    expected = [[pairs, *(round(100 * chance) for chance in row)] for pairs, row in zip(PAIRS, curve, strict=True)]
    assert rows("pairs") == expected


def test_the_shares_of_the_looks_are_those_of_the_code() -> None:
    plan = Looks(seeds=(3, 5, 8))
    shares = [f"{plan.level(look):.4f}" for look in range(3)]
    assert f"{shares[0]}, {shares[1]} and {shares[2]}" in GUIDE
