"""What is wrong with a space of networks is said in one line, when the study is read or before anything is trained."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from nas.errors import NasError
from nas.search.pool import build_pool
from nas.study.files import load_study
from search_spaces.errors import SpecError
from search_spaces.settings import network_of

STUDIES = Path(__file__).parents[3] / "studies"
TIMM = "space.families.timm.domains"
V1 = "space.families.inception_v1.domains"


@pytest.mark.parametrize(
    ("study", "settings", "message"),
    [
        ("efficient_mmit", [f"{TIMM}.model=[resnt50]"], "must be a network of timm, but is resnt50; did you mean"),
        ("efficient_mmit", [f"{TIMM}.model=[swin_tiny_patch4_window7_224]"], "multiplies outside of its convolutions"),
        ("efficient_mmit", [f"{TIMM}.kind=[csn]"], "kind must be one of its choices, but is csn"),
        ("efficient_mmit", ["space.families.tim.domains.model=[resnet18]"], "did you mean timm?"),
        ("efficient_mmit", [f"{TIMM}.shft=[tsm]"], "unknown domain shft of family timm; did you mean shift?"),
        ("s3d_inception", [f"{V1}.cut=[2,12]"], "cut must be a layer or 11 for the end, but is 12"),
        ("s3d_inception", ["data.clip.frames=8", "constraints=['macs <= 1M']"], "no network of the space meets"),
        ("r2plus1d_family", ["space.domains.kind=[csn,3d,2plus1d]", "space.domains.depth=[b1-2-x]"], "b1-2-x"),
        ("p3d_blocks", ["space.domains.time_pool=[2-2]"], "fit"),
        (
            "r2plus1d_family",
            ["space.domains.stem_width=[8,10000000000]"],
            "stem_width must be at most 2,147,483,647, but is",
        ),
        ("r2plus1d_family", ["space.domains.dilation=[10000000000]"], "dilation must be at most 2,147,483,647, but is"),
        (
            "r2plus1d_family",
            ["space.domains.stem_width=[1000000000]"],
            "must be at most 9,223,372,036,854,775,807, but",
        ),
    ],
)
def test_one_line_before_anything_is_trained(study: str, settings: list[str], message: str) -> None:
    with pytest.raises((NasError, SpecError)) as caught:
        build_pool(load_study(STUDIES / f"{study}.yaml", settings), num_classes=10)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [math.inf, math.nan, 10**400, 2**31])
@pytest.mark.parametrize(
    ("family", "domain"),
    [
        ("resnet", "width"),
        ("resnet", "stem_width"),
        ("resnet", "dilation"),
        ("inception_v1", "width"),
        ("inception_v1", "norm_momentum"),
        ("slowfast", "alpha"),
        ("x3d", "depth"),
        ("x3d", "bottleneck"),
        ("x3d", "features"),
        ("timm", "head_width"),
        ("c3d", "width"),
    ],
)
def test_numbers_beyond_all_bounds_are_refused_by_name(family: str, domain: str, number: float) -> None:
    with pytest.raises(SpecError, match=rf"domains\.{domain}: .*{domain} must be .*, but is {str(number)[:9]}"):
        network_of(family, {domain: number})


def test_a_clip_that_is_too_small_names_the_place() -> None:
    with pytest.raises(NasError, match=r"does not fit the clip 8x32x32: .* too short or too small .* at \w+"):
        build_pool(
            load_study(STUDIES / "kinetics_small.yaml", ["data=motion", "search.start_with=[s3d_v3]"]), num_classes=8
        )


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_studies_are_what_they_say(path: Path) -> None:
    """Every study and variant can be read; those of a published comparison try each of their networks."""
    for settings in ([], ["data=motion"]):
        if settings and "motion" not in load_study(path).variants:
            continue
        study = load_study(path, settings)
        if len(study.search.rungs) == 1:
            size = study.space.size()
            assert size.exact
            assert size.networks == study.search.trials
