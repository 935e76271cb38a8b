"""What is said of recorded runs: words, early ends, incomplete pairs, factorials, verdicts."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nas.ablation.answer import Answer, answer_of, stated_confidence
from nas.ablation.config import CONTROL
from nas.ablation.designs import Arm
from nas.ablation.plan import plan_of
from nas.ablation.runner import AblationRecord
from nas.ablation.verdict import verdict, verdicts_of
from nas.evidence.interval import level
from nas.read.report.parts import ablation
from nas.store.database import Store
from nas.study.metric import intervals
from nas.train.jobs import JobResult
from tests.nas.ablation.plans import arms, config
from trainer.metrics import EpochResult, Metrics

CLIPS = 200


def result(rate: float, rng: random.Random) -> JobResult:
    """A training whose network is right on a share of clips."""
    correct = "".join("1" if rng.random() < rate else "0" for _ in range(CLIPS))
    metrics = Metrics(top1=correct.count("1") / CLIPS, top5=1.0, loss=1.0, num_clips=CLIPS)
    epoch = EpochResult(epoch=3, train_loss=1.0, lr=0.1, seconds=2.0, steps=1, clips_per_s=1.0, val=metrics)
    return JobResult(epochs=(epoch,), seconds=6.0, correct=correct)


class Recorded:
    """An ablation in a database, whose runs end as a test says."""

    def __init__(self, folder: Path, rate: Callable[[Arm], float], *, kind: str = "ablate", **over: Any) -> None:
        self.config = config(**over)
        self.store = Store(folder / "study.db", create=True)
        study = self.store.add_study(
            name="demo", seed=0, clip="8x32x32", num_classes=8, config={}, data={"checksum": "abc"}
        )
        self.plan = plan_of(self.config, arms(**over), num_classes=8, seed=0, checksum="abc")
        row = next(row for row in self.store.studies() if row["id"] == study)
        self.record = AblationRecord(self.store, row, self.plan, kind=kind, name="a")
        self.rate, self.rng = rate, random.Random(1)

    def train(self, pairs: int, *, failing: tuple[int, int] | None = None) -> Answer:
        """Ends the runs of the first pairs; (arm, pair) of `failing` fails."""
        for training in self.plan.trainings:
            name = (training.key, training.job.until_epoch)
            if training.pair >= pairs or name in self.record.runs():
                continue
            run = self.record.start(training, Path("folder"))
            arm = self.plan.arms.arms[training.arm]
            broken = JobResult(epochs=(), seconds=1.0, reason="non_finite_loss", detail="x")
            ends = broken if failing == (training.arm, training.pair) else result(self.rate(arm), self.rng)
            self.record.finish(run, ends)
        return answer_of(self.store, self.record.id, self.config)


def better_if(level: str, *, by: float = 0.2) -> Callable[[Arm], float]:
    return lambda arm: 0.7 + by * (arm.level == level)


def test_words_tell_what_differs_from_what_does_not(tmp_path: Path) -> None:
    over = {"factors": {"kind": ["2d", "3d", "p3d_a"]}, "seeds": 5, "margin": 0.1}
    rates = {"2d": 0.4, "3d": 0.9}
    answer = Recorded(tmp_path, lambda arm: rates.get(arm.level, 0.7), **over).train(5)
    words = {(row["factor"], row["level"]): row["word"] for row in answer.rows}
    assert words["kind", "2d"] == "worse" and words["kind", "3d"] == "better"
    assert words[CONTROL, "base, other seeds"] in ("equivalent", "undecided")
    assert answer.reason == answer.state == "decided"
    assert any(text.startswith("kind=3d is better than the base by") for text in answer.details)
    assert answer.sentence.startswith("better: kind=3d (+") and "worse: kind=2d (-" in answer.sentence
    ratio = next(row["macs_ratio"] for row in answer.rows if row["level"] == "2d")
    assert 0 < ratio < 1


def test_operators_are_compared_with_the_level_that_a_study_names(tmp_path: Path) -> None:
    over = {"factors": {"kind": ["2d", "3d"], "kernel": [5]}, "against": {"kind": "2d"}, "seeds": 5}
    answer = Recorded(tmp_path, lambda arm: 0.3 if arm.level == "2d" else 0.8, **over).train(5)
    rows = {(row["factor"], row["level"]): row for row in answer.rows}
    assert set(rows) == {("kind", "2plus1d"), ("kind", "3d"), ("kernel", "5"), (CONTROL, "base, other seeds")}
    for kind in ("2plus1d", "3d"):
        assert rows["kind", kind]["word"] == "better" and rows["kind", kind]["reference"] == "kind=2d"
        assert rows["kind", kind]["macs_ratio"] > 1
    assert rows["kernel", "5"]["reference"] == "the base"
    assert any(text.startswith("kind=2plus1d is better than kind=2d by") for text in answer.details)


def test_an_ablation_ends_at_the_first_look_that_decides_it(tmp_path: Path) -> None:
    over = {"factors": {"kind": ["3d"]}, "control": False, "seeds": 9, "min_seeds": 3, "looks": 3}
    recorded = Recorded(tmp_path, better_if("3d", by=0.3), **over)
    assert recorded.train(2).reason == ""
    early = recorded.train(3)
    assert early.reason == "decided" and early.state == "decided"
    assert early.rows[0]["pairs"] == 3
    # runs beyond the look that ended it change nothing: their order of arrival must not
    assert recorded.train(5).rows == early.rows


@pytest.mark.parametrize("pairs", [3, 4, 9])
def test_one_place_states_the_level_of_the_intervals(tmp_path: Path, pairs: int) -> None:
    over = {"factors": {"kind": ["3d"]}, "control": False, "seeds": 9, "min_seeds": 3, "looks": 3}
    recorded = Recorded(tmp_path, better_if("3d", by=0.0 if pairs > 3 else 0.25), kind="versus", **over)
    answer = recorded.train(pairs)
    recorded.record.settle(answer.state, answer.sentence, answer.rows)
    row = recorded.store.ablations(1)[0]
    rows = recorded.store.effects(row["id"])
    confidence = stated_confidence(rows, row["design"])
    assert confidence is not None and confidence > 0.96  # the looks share the error
    # what the sentence, the table's caption and the report say is one number
    assert f"{level(confidence)} interval" in " ".join(answer.details)
    shown = ablation(row, recorded.store.arms(1), recorded.store.arm_runs(1), rows)
    assert shown.confidence == confidence and level(confidence) in intervals(shown.confidence)
    assert recorded.store.view("ablation_effects", "demo")[0]["confidence"] == confidence
    # a record of an earlier version did not keep it, and with several looks it is not what was asked for
    old = [{**effect, "confidence": None} for effect in rows]
    assert stated_confidence(old, row["design"]) is None
    assert stated_confidence(old, {**row["design"], "looks": 1}) == 0.95
    recorded.store.close()


def test_claims_are_judged_at_the_level_of_the_look_at_which_their_ablation_ended(tmp_path: Path) -> None:
    claims = [{"claim": "3d is better", "document": "d", "arm": "kind=3d"}]
    over = {"factors": {"kind": ["3d"]}, "control": False, "seeds": 9, "min_seeds": 3, "claims": claims}
    widths = []
    for looks in (1, 3):
        recorded = Recorded(tmp_path / str(looks), better_if("3d", by=0.1), looks=looks, **over)
        recorded.train(3)
        (found,) = verdicts_of(recorded.store, recorded.store.ablations(1)[0], recorded.config)
        assert found.high is not None and found.low is not None
        widths.append(found.high - found.low)
        recorded.store.close()
    assert widths[1] > 1.1 * widths[0]


def test_between_two_looks_nothing_is_decided(tmp_path: Path) -> None:
    over = {"factors": {"kind": ["3d"]}, "control": False, "seeds": 9, "min_seeds": 3, "looks": 3}
    recorded = Recorded(tmp_path, better_if("3d", by=0.0), **over)
    assert recorded.train(3).reason == ""
    assert recorded.train(5).reason == ""
    assert recorded.train(9).reason in ("spent", "decided")


def test_it_ends_when_intervals_are_as_short_as_was_asked_for(tmp_path: Path) -> None:
    over = {"factors": {"kind": ["3d"]}, "control": False, "seeds": 9, "min_seeds": 3, "looks": 3, "precision": 0.9}
    recorded = Recorded(tmp_path, better_if("3d", by=0.0), **over)
    assert recorded.train(3).reason == "precise"


def test_a_pair_with_a_failed_run_is_left_out_and_said_so(tmp_path: Path) -> None:
    over = {"factors": {"kind": ["3d"]}, "control": False, "seeds": 4, "min_seeds": 2}
    answer = Recorded(tmp_path, better_if("3d"), **over).train(4, failing=(1, 2))
    assert answer.reason and answer.rows[0]["pairs"] == 3
    assert "1 incomplete pair left out" in answer.details[0]


def test_a_factorial_gives_main_effects_and_interactions(tmp_path: Path) -> None:
    factors = {"kind": ["2plus1d", "3d"], "kernel": [3, 5]}

    def rate(arm: Arm) -> float:
        return 0.4 + 0.2 * (arm.levels.get("kind") == "3d") + 0.2 * (arm.levels.get("kernel") == "5")

    answer = Recorded(tmp_path, rate, design="factorial", factors=factors, control=False, seeds=5).train(5)
    found = {row["factor"]: row for row in answer.rows}
    assert found["kind"]["word"] == found["kernel"]["word"] == "better"
    assert found["kind"]["difference"] == pytest.approx(0.2, abs=0.05)
    interaction = next(row for name, row in found.items() if name not in factors)
    assert interaction["word"] == "undecided" and abs(interaction["difference"]) < 0.1


def test_versus_compares_every_two_and_names_the_one_that_beats_all(tmp_path: Path) -> None:
    networks = {
        "slow": {"family": "resnet", "depth": "1-1", "stem_width": 8, "kind": "3d"},
        "good": {"family": "resnet", "depth": "1-1-1", "stem_width": 8, "kind": "p3d_a"},
    }
    over = {"factors": {"network": networks}, "control": False, "seeds": 5, "kind": "versus"}
    answer = Recorded(tmp_path, better_if("good", by=0.25), **over).train(5)
    assert len(answer.rows) == 3
    assert answer.sentence == "good is better than each of the base, slow"


def test_versus_calls_the_first_network_by_its_name(tmp_path: Path) -> None:
    over = {"base": "f_r2d_18", "factors": {"network": {"r3d_18": "r3d_18"}}, "control": False, "seeds": 3}
    answer = Recorded(tmp_path, better_if("r3d_18"), kind="versus", **over).train(3)
    assert answer.sentence.startswith("r3d_18 is better than f_r2d_18 by")


@pytest.mark.parametrize(
    ("expect", "word", "said"),
    [
        ("better", "better", "reproduced"),
        ("better", "worse", "contradicted"),
        ("better", "equivalent", "contradicted"),
        ("equivalent", "equivalent", "reproduced"),
        ("equivalent", "worse", "contradicted"),
        ("worse", "undecided", "undecided"),
    ],
)
def test_a_claim_is_reproduced_contradicted_or_undecided(expect: str, word: str, said: str) -> None:
    assert verdict(expect, word) == said


@pytest.mark.parametrize("looks", [1, 3])
def test_no_word_is_said_between_looks(tmp_path: Path, looks: int) -> None:
    """Who asks after each pair, and stops at the first word, hears none at the level of a look that is not reached."""
    claims = [{"claim": "3d is better", "document": "d", "arm": "kind=3d"}]
    over = {"factors": {"kind": ["3d"]}, "control": False, "seeds": 8, "min_seeds": 4, "looks": looks, "claims": claims}
    recorded = Recorded(tmp_path, better_if("3d", by=0.25), **over)
    said = {}
    for pairs in range(2, 9):
        answer = recorded.train(pairs)
        (found,) = verdicts_of(recorded.store, recorded.store.ablations(1)[0], recorded.config)
        said[pairs] = (answer.reason, {row["word"] for row in answer.rows}, found.word)
    first = 8 if looks == 1 else 4
    assert all(words == ("", {"undecided"}, "undecided") for pairs, words in said.items() if pairs < first)
    assert all(words == ("decided", {"better"}, "reproduced") for pairs, words in said.items() if pairs >= first)
    recorded.store.close()


def test_claims_between_two_levels_are_judged_by_their_own_pairs(tmp_path: Path) -> None:
    claims = [
        {"claim": "3d beats 2d", "document": "d", "arm": "kind=3d", "than": "kind=2d", "stated": 2},
        {"claim": "2d beats the base", "document": "d", "arm": "kind=2d"},
    ]
    rates = {"2d": 0.4, "3d": 0.8}
    over = {"factors": {"kind": ["2d", "3d"]}, "seeds": 5, "claims": claims}
    recorded = Recorded(tmp_path, lambda arm: rates.get(arm.level, 0.6), **over)
    recorded.train(5)
    row = recorded.store.ablations(1)[0]
    found = verdicts_of(recorded.store, row, recorded.config)
    assert [item.word for item in found] == ["reproduced", "contradicted"]
    assert found[0].difference == pytest.approx(0.4, abs=0.08)
