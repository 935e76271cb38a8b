"""Every ablation that a study states can be planned, in each of its variants, and its claims name arms that it has."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from nas.ablation.config import BASE
from nas.ablation.plan import completed, config_of, prepared
from nas.errors import StudyError
from nas.study.files import load_study
from tests.nas.ablation.plans import preset_lookup

STUDIES = sorted((Path(__file__).parents[3] / "studies").glob("*.yaml"))
STATED = [
    pytest.param(path, name, id=f"{path.stem}-{name or 'full'}")
    for path in STUDIES
    for body in [yaml.safe_load(path.read_text(encoding="utf-8"))]
    if "ablation" in body
    for name in ["", *body.get("variants", {})]
]


@pytest.mark.parametrize(("path", "variant"), STATED)
def test_an_ablation_of_a_study_is_planned_whole(path: Path, variant: str) -> None:
    study = load_study(path, [f"data={variant}"] if variant else [])
    config = config_of(study, str(path))
    lookup = preset_lookup(study.data.clip.frames)
    plan = prepared(study, config, lookup=lookup, num_classes=study.num_classes, checksum="")
    assert [d for d in plan.arms.dropped if "own level" not in d.reason] == []
    assert len(plan.arms.arms) == 1 + sum(len(f.levels) for f in config.factors) + config.control - len(
        plan.arms.dropped
    )
    names = {BASE, *(f"{arm.factor}={arm.level}" for arm in plan.arms.arms)}
    for claim in config.claims:
        assert {claim.arm, claim.than} <= names
    assert study.texts["hypothesis"] and study.texts["decision_rule"] and study.texts["budget"]


def test_five_documents_and_their_claims_are_stated() -> None:
    with_claims = [path.stem for path in STUDIES if "claims:" in path.read_text(encoding="utf-8")]
    assert with_claims == [
        "besnet_dilation", "clip_length", "efficient_mmit", "p3d_blocks", "r2plus1d_family", "s3d_inception"
    ]  # fmt: skip


def test_an_ablation_without_factors_takes_the_decisions_of_the_space() -> None:
    path = next(path for path in STUDIES if path.stem == "kinetics_small")
    study = load_study(path, ["data=motion"])
    lookup = preset_lookup(8)
    stated = {"family": "resnet", "depth": "1-1-1", "stem_width": 16, "stem": "1x3x3/2", "kind": "2plus1d"}
    config = completed(study, config_of(study, str(path), {"base": stated}), lookup)
    assert [factor.path for factor in config.factors] == [
        d.name for d in study.space.families[0].domains if len(d.values) > 1
    ]
    plan = prepared(study, config, lookup=lookup, num_classes=8, checksum="")
    assert {"kind", "kernel", "placement", "dilation"} <= {arm.factor for arm in plan.arms.arms}
    with pytest.raises(StudyError, match="has no domain of family c3d"):
        completed(study, config_of(study, str(path), {"base": "c3d"}), lookup)
