"""The parts of a report, from rows of the store to values."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

from nas.ablation.answer import stated_confidence
from nas.errors import NotFoundError
from nas.places import moved
from nas.read.learned import VolumeBox
from nas.read.report.values import (
    Ablation,
    Accuracy,
    Block,
    Confusion,
    Detected,
    Effect,
    Importance,
    Level,
    Marginal,
    Motion,
    NetworkCard,
    Point,
    Promotion,
    Rung,
    Step,
    Verdict,
)
from nas.search.levels import marginal_fronts, rungs_of
from nas.store.records import (
    AblationRow,
    ArmRow,
    ArmRunRow,
    EffectRow,
    MotionTestRow,
    NetworkRow,
    PromotionRow,
    ResultRow,
    Row,
    StudyRow,
    TestedRow,
    VerdictRow,
    subset,
)
from nas.study.fidelity import EPOCHS, Fidelity
from nas.study.front import front
from nas.study.metric import accuracy_of, broken_text
from nas.train.folder import check_file, known_files, read_content
from nas.use.detection import calibration_error, curves, detections, is_detection
from nas.use.probabilities import read_scores, scores_file
from search_spaces import codec
from search_spaces.errors import SpecError
from search_spaces.families.timm.spec import TimmSpec
from trainer.outcomes import TESTS


def importances(rows: Sequence[Row]) -> tuple[Importance, ...]:
    """Of each rung, method and objective; the highest rung first.

    Args:
        rows: Of the view `importance`.
    """

    def key(row: Row) -> tuple[int, str, str]:
        return -row["rung"], row["method"], row["objective"]

    found = []
    for _, group in groupby(sorted(rows, key=key), key=key):
        members = sorted(group, key=lambda row: -row["importance"])
        first = members[0]
        found.append(
            Importance(
                method=first["method"],
                objective=first["objective"],
                epochs=first["epochs"],
                networks=first["networks"],
                factors=tuple((row["factor"], row["importance"]) for row in members if not row["other"]),
                pairs=tuple(
                    (f"{row['factor']} × {row['other']}", row["importance"]) for row in members if row["other"]
                ),
            )
        )
    return tuple(found)


def ablation(
    row: AblationRow, arms: Sequence[ArmRow], runs: Sequence[ArmRunRow], effects: Sequence[EffectRow]
) -> Ablation:
    """One ablation with its effects.

    Args:
        row: Of `Store.ablations`.
        arms: Of `Store.arms`; they know the networks.
        runs: Of `Store.arm_runs`; one that stands for two arms counts twice.
        effects: Of `Store.effects`.
    """
    digests: dict[int | None, str] = {arm["id"]: arm["digest"] for arm in arms}
    return Ablation(
        name=row["name"],
        kind=row["kind"],
        state=row["state"],
        sentence=row["sentence"] or "",
        design=row["design"] or {},
        margin=_margin(row["design"]),
        confidence=stated_confidence(effects, row["design"] if isinstance(row["design"], dict) else {}),
        runs=len(runs),
        done=sum(run["state"] == "done" for run in runs),
        effects=tuple(_effect(effect, digests.get(effect["arm_id"])) for effect in effects),
    )


def verdicts(rows: Sequence[VerdictRow]) -> tuple[Verdict, ...]:
    """Every verdict.

    Args:
        rows: Of `Store.study_verdicts`.
    """
    return tuple(
        Verdict(
            claim=row["claim"],
            document=row["document"],
            stated=row["stated"],
            difference=row["difference"],
            low=row["low"],
            high=row["high"],
            pairs=row["pairs"],
            word=row["word"],
        )
        for row in rows
    )


def motions(rows: Sequence[MotionTestRow]) -> tuple[Motion, ...]:
    """Every network's motion tests.

    Args:
        rows: Of the view `motion_tests`.
    """
    return tuple(
        Motion(
            digest=row["digest"],
            description=row["description"],
            source=row["source"],
            seed=row["seed"],
            epochs=row["epochs"],
            split=row["split"],
            num_clips=row["num_clips"],
            top1={test: top1 for test, top1 in subset(row, TESTS).items() if top1 is not None},
        )
        for row in rows
    )


def _effect(row: EffectRow, digest: str | None) -> Effect:
    return Effect(
        factor=row["factor"],
        level=row["level"],
        reference=row["reference"],
        digest=digest,
        pairs=row["pairs"],
        difference=row["difference"],
        low=row["low"],
        high=row["high"],
        p_holm=row["p_holm"],
        macs_ratio=row["macs_ratio"],
        word=row["word"],
    )


def _margin(design: Any) -> float | None:
    value = design.get("margin") if isinstance(design, dict) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None


ENOUGH = 10  # results at a rung from which on the sampler learns from it; the same holds for marginal fronts

TRIED = 3  # networks from which on a value's hypervolume says more about the value than about the sampler


def rungs(points: Sequence[Point], epochs: Sequence[int]) -> tuple[Rung, ...]:
    """Who reached each rung.

    Args:
        points: Of the search.
        epochs: Of each rung that the study planned.
    """
    planned = dict(enumerate(epochs)) | {p.rung: p.epochs for p in points}
    found = []
    for rung, number in sorted(planned.items()):
        here = [p for p in points if p.rung == rung]
        found.append(
            Rung(
                rung=rung,
                epochs=number,
                networks=len(here),
                best=max((p.accuracy for p in here), default=None),
                median=median(p.accuracy for p in here) if here else None,
                num_clips=here[0].num_clips if here else None,
            )
        )
    return tuple(found)


def steps(
    points: Sequence[Point], fidelity: Fidelity = EPOCHS, *, below: Collection[tuple[str, int]] = ()
) -> tuple[Step, ...]:
    """Hypervolume of each rung's front, each time that the rung got a result, against epochs trained until then.

    Each rung has its own sequence, for results of different fidelity do not belong on one front. The rectangle is that
    of all networks measured at any rung, as they are now. Where a rung sees a part of the data or of the clip, its
    epochs count by their share of the work.

    Args:
        points: Of the search, in the order in which they were measured.
        fidelity: Its rungs.
        below: Digest and rung of networks that do not meet the study's constraints.
    """
    if not points:
        return ()
    box = VolumeBox.of([point.values for point in points])
    spent = 0.0
    trained: dict[int, int] = {}
    reached: dict[int, list[Point]] = {}
    found: list[Step] = []
    best: dict[int, float] = {}
    for point in points:
        spent += max(0, point.epochs - trained.get(point.number, 0)) * fidelity.worth(point.rung) * point.seeds
        trained[point.number] = max(point.epochs, trained.get(point.number, 0))
        if (point.digest, point.rung) in below:
            continue
        here = reached.setdefault(point.rung, [])
        here.append(point)
        value = box.share([one.values for one in here])
        here[:] = [here[i] for i in front([one.values for one in here])]  # the rest adds nothing later, either
        if value > best.get(point.rung, -1.0):
            best[point.rung] = value
            found.append(Step(rung=point.rung, epochs=spent, share=value))
    found += [Step(rung=rung, epochs=spent, share=value) for rung, value in best.items()]  # each goes on to the end
    return tuple(found)


def marginals(evaluations: Sequence[ResultRow]) -> tuple[Marginal, ...]:
    """The front if a setting had one of its values only, for every setting that had two or more.

    They are of the highest rung with at least ten results, else of the lowest, as the sampler's history is. Settings
    whose values differ most in hypervolume come first, values of fewer than three networks aside, which have little
    because they were tried little; within a setting, the value with the most comes first.

    Args:
        evaluations: Rows of `Store.evaluations`.
    """
    reached = rungs_of(evaluations)
    if not reached:
        return ()
    rung = max((number for number, rows in reached.items() if len(rows) >= ENOUGH), default=min(reached))
    groups: dict[str, list[Level]] = {}
    for level in marginal_fronts(evaluations, rung=rung):
        groups.setdefault(level.factor, []).append(
            Level(
                level=level.level,
                networks=level.networks,
                best=max(level.accuracy),
                share=level.share,
                front=tuple(sorted(set(zip(level.macs, level.accuracy, strict=True)))),
            )
        )
    found = [
        Marginal(factor=factor, epochs=reached[rung][0]["epochs"], levels=tuple(sorted(levels, key=lambda v: -v.share)))
        for factor, levels in groups.items()
    ]
    return tuple(sorted(found, key=_agreement))


def _agreement(marginal: Marginal) -> float:
    shares = [level.share for level in marginal.levels if level.networks >= TRIED]
    return min(shares) - max(shares) if shares else 0.0


TIMM_NOTE = "Stages of timm's network, its first layers being one; `nas show` lists every part of them."


def networks_of(rows: Sequence[NetworkRow]) -> Mapping[str, NetworkCard]:
    """Networks by digest.

    Args:
        rows: Of `Store.architectures`.
    """
    return {row["digest"]: network_of(row) for row in rows}


def network_of(row: NetworkRow) -> NetworkCard:
    """One network; a spec that this version cannot read has no blocks and a note that says why."""
    blocks: tuple[Block, ...] = ()
    try:
        spec = codec.decode(row["spec"])
        if isinstance(spec, TimmSpec):
            blocks, note = tuple(_timm(spec)), TIMM_NOTE
        else:
            blocks = tuple({key: str(value) for key, value in block.items()} for block in spec.rows())
            note = ""
    except SpecError as error:
        note = f"Its blocks cannot be shown: {error}."
    return NetworkCard(
        digest=row["digest"],
        description=row["description"],
        macs=row["macs"],
        params=row["params"],
        activation_bytes=row["activation_bytes"],
        blocks=blocks,
        note=note,
    )


def _timm(spec: TimmSpec) -> list[Block]:
    """What the spec says of each stage; the parts of a stage are timm's to know, and asking it imports torch."""
    rows = [
        {
            "site": f"stages.{i}",
            "block": spec.model,
            "operator": stage.temporal.kind,
            "kernel": str(stage.temporal.kernel) if stage.temporal.kind != "2d" else "1",
            "dilation": "|".join(map(str, stage.temporal.dilation)) if stage.temporal.kind != "2d" else "1",
            "pool": str(stage.pool),
            "attention": stage.attention,
        }
        for i, stage in enumerate(spec.stages)
    ]
    empty = dict.fromkeys(rows[0], "")
    shift = [] if spec.shift.kind == "none" else [{**empty, "site": "shift", "block": spec.shift.kind}]
    head = f"{spec.head.kind} {spec.head.width}" if spec.head.kind != "average" else "average"
    return [*rows, *shift, {**empty, "site": "head", "block": head}]


def promotion(
    row: PromotionRow, networks: Mapping[str, NetworkCard], measured: Sequence[TestedRow], study: StudyRow, beside: Path
) -> Promotion:
    """One promotion.

    Args:
        row: Of `Store.promotions`.
        networks: By digest.
        measured: Rows of `Store.evaluations` with the purpose `promotion`, of every split.
        study: Row of the study, which names the classes.
        beside: Folder of the database, where the promotion's folder is looked for, too.
    """
    digest = row["digest"]
    confusion, missing, detection = None, "", None
    if row["state"] == "done":
        confusion, missing = _confusion(row["folder"], beside, study["data"].get("classes", []))
        detection = _detected(moved(row["folder"], beside))
    return Promotion(
        digest=digest,
        description=networks[digest].description if digest in networks else digest[:10],
        seed=row["seed"],
        recipe=row["recipe_digest"],
        epochs=row["epochs"],
        state=row["state"],
        folder=row["folder"],
        accuracies=tuple(
            Accuracy(
                split=e["split"],
                accuracy=accuracy_of(e),
                **subset(e, ("low", "high", "clip1", "top1", "top5", "map_class", "num_clips")),
                views=e["views"] or "",
            )
            for e in measured
            if e["promotion_id"] == row["id"]
        ),
        confusion=confusion,
        missing=missing,
        broken=broken_text(row["broken"]),
        detection=detection,
    )


def _detected(folder: Path) -> Detected | None:
    """Classes as questions of yes or no, of test, else of val; None where they are none, or nothing is kept."""
    for split in ("test", "val"):
        path = scores_file(folder, split)
        if not path.is_file():
            continue
        try:
            scores = read_scores(check_file(folder, path.name, known_files(folder)))
        except NotFoundError:  # damaged, or not what was written
            return None
        if not is_detection(scores):
            return None
        return Detected(
            split=split, rows=detections(scores), curves=curves(scores), calibration=calibration_error(scores)
        )
    return None


def _confusion(folder: str, beside: Path, classes: Sequence[str]) -> tuple[Confusion | None, str]:
    """The confusion matrix of the test split, else of val; or why there is none."""
    file = moved(folder, beside) / "network.json"
    if not file.is_file():
        return None, f"no confusion matrix: the folder {folder} is not there"
    try:
        content = read_content(file.parent)
        if content["record"].get("multi_label"):
            return None, ""  # of several labels there is no matrix
        matrices = content["record"]["confusion"]
        split = "test" if "test" in matrices else "val"
        counts = tuple(tuple(int(count) for count in line) for line in matrices[split])
        names = tuple(str(name) for name in (classes or content["classes"]))
    except (NotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
        return None, f"no confusion matrix: {file} cannot be read ({type(error).__name__})"
    if len(names) != len(counts) or any(len(line) != len(counts) for line in counts):
        return None, f"no confusion matrix: {file} has {len(counts)} classes, and the study {len(names)}"
    return Confusion(split=split, classes=names, counts=counts), ""
