"""A folder as a user has it, for tests that run commands as texts show them, and what keeps those small."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from nas.cli.main import main
from nas.store.database import Store

ROOT = Path(__file__).parents[3]
# What would take minutes is made small; nothing else of a command is changed.
SEARCH = ["search.trials=3", "search.initial=3", "search.rungs=[1]", "search.workers=0", "search.pool=60"]
TRAINED = ["ablation.epochs=1", "ablation.seeds=2", "ablation.min_seeds=2"]
SMALL = {
    "search": [*SEARCH, "recipe.batch_size=8"],
    "space": ["search.pool=60"],
    "supernet": [*SEARCH, "recipe.batch_size=8", "--epochs", "1", "--networks", "3"],
    "promote": ["promote.epochs=1", "promote.recipe.schedule=anytime"],
    "dashboard": ["--help"],  # it serves until it is stopped; a test of its own starts it
    "probe": ["--kind", "svm"],
    "verdict": TRAINED,
    "ablate": [*TRAINED, "recipe.batch_size=8", "--workers", "0"],
    "versus": ["--seeds", "2", "--epochs", "1", "recipe.batch_size=8", "--workers", "0"],
}


def make_world(folder: Path) -> None:
    """Writes studies, small motion data, a study of the user's own; and searches and an ablation that have ended."""
    from trainer.data.motion_clips import make_motion

    (folder / "studies").symlink_to(ROOT / "studies")
    make_motion(folder / "data" / "motion", train_per_class=2, val_per_class=1, test_per_class=1, frames=8, size=40)
    stated = yaml.safe_load((ROOT / "studies" / "kinetics_small.yaml").read_text("utf-8"))
    own = {key: stated[key] for key in ("recipe", "search")}
    own["data"] = {**stated["data"], **stated["variants"]["motion"]["data"]}
    own["recipe"]["batch_size"] = 8
    own["search"]["rungs"] = [1]
    base = {"family": "resnet", "depth": "1-1", "stem_width": 8, "stem": "1x3x3/2", "kind": "2plus1d"}
    own["ablation"] = {"base": base, "factors": {"kind": ["2d"]}, "seeds": 2, "min_seeds": 2, "epochs": 1}
    for name in ("study", "gestures"):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"name": name, **own}), encoding="utf-8")
    search = ["search", "studies/kinetics_small.yaml", "data=motion", *SMALL["search"]]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(search) == 0
        for seed, name in enumerate(("a", "b")):
            assert main([*search, f"seed={seed}", "--db", f"runs/{name}/study.db"]) == 0
        shutil.copytree("runs/b", "runs/short")
        database = "runs/kinetics_small/study.db"
        assert main(["promote", database, "--best-under", "1T", "--seeds", "2", *SMALL["promote"]]) == 0
        assert main(["ablate", "studies/p3d_blocks.yaml", "data=motion", *SMALL["ablate"]]) == 0


def small(words: list[str]) -> list[str]:
    """What is laid over a command; an ablation in the database of a search needs that search's settings, too."""
    if "search.fidelity=frames" in words:  # whose rungs end at the frames of a clip
        return [{"search.rungs=[1]": "search.rungs=[4,8]"}.get(word, word) for word in SMALL["search"]]
    searched = words[0] == "ablate" and "studies/kinetics_small.yaml" in words
    return [*SMALL.get(words[0], []), *(SEARCH if searched else [])]


def words_of(command: str, folder: Path) -> list[str]:
    """The words of a command after `nas`, with a network of this folder where the text names one of another's."""
    store = Store(folder / "runs/kinetics_small/study.db")
    digest = store.front("kinetics_small")[0]["digest"]
    store.close()
    folders = sorted(folder.glob("runs/kinetics_small/promoted/*-seed?-*"))
    command = re.sub(r"runs/kinetics_small/promoted/fccd16e46e-seed0-\w+", str(folders[0]), command)
    words = shlex.split(re.sub(r"\b[0-9a-f]{10}\b(?!-seed)|\bDIGEST\b", digest, command))
    if words[0] == "ensemble":  # what a shell would make of the pattern
        words = ["ensemble", *map(str, folders)]
    return words
