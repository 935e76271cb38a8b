"""The example in the help of every command is run, on a study as small as it can be."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import typer

from nas.cli.main import app, main
from nas.store import Store
from tests.trainer.data.built import Clip
from tests.trainer.data.web import Server, publish

STUDIES = Path(__file__).parents[2] / "studies"
# What would take minutes is made small; nothing else of an example is changed.
SEARCH = ["search.trials=3", "search.initial=3", "search.rungs=[1]", "search.workers=0", "search.pool=60"]
SMALL = {
    "search": [*SEARCH, "recipe.batch_size=8"],
    "space": ["search.pool=60"],
    "promote": ["promote.epochs=1", "promote.recipe.schedule=anytime"],
    "dashboard": ["--help"],  # it serves until it is stopped; a test of its own starts it
    "verdict": ["ablation.epochs=1", "ablation.seeds=2", "ablation.min_seeds=2"],
}
ABLATED = [*SMALL["verdict"], "recipe.batch_size=8"]


def examples() -> dict[str, str]:
    """The example of each command, by its name."""
    found = {}
    group = typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        below = getattr(command, "commands", None) or {"": command}
        for inner, leaf in below.items():
            match = re.search(r"Example: nas (.*)", leaf.help or "")
            found[f"{name} {inner}".strip()] = match[1].strip() if match else ""
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a user has it: the studies, small motion data, and a search and an ablation that have ended."""
    from trainer.data.motion import make_motion

    folder = tmp_path_factory.mktemp("examples")
    (folder / "studies").symlink_to(STUDIES)
    make_motion(folder / "data" / "motion", train_per_class=2, val_per_class=1, test_per_class=1, frames=8, size=40)
    search = ["search", "studies/kinetics_small.yaml", "data=motion", *SMALL["search"]]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(search) == 0
        for seed, name in enumerate(("a", "b")):
            assert main([*search, f"seed={seed}", "--db", f"runs/{name}/study.db"]) == 0
        assert main(["ablate", "studies/p3d_blocks.yaml", "data=motion", *ABLATED, "--workers", "0"]) == 0
    return folder


@contextmanager
def serving(place: Path) -> Iterator[list[str]]:
    """A mirror of Kinetics with a few motion clips under its names; gives the options that name it."""
    videos = [
        path for split in ("train", "val") for path in sorted((place / "data/motion" / split).glob("[lr]*/*.mp4"))
    ]
    clips = []
    for number, path in enumerate(videos):
        named = place / "kinetics" / path.parts[-3] / path.parts[-2] / f"{number:011d}_000000_000010.mp4"
        named.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, named)
        clips.append(Clip(path=named, split=path.parts[-3], label=0))
    server = Server()
    try:
        publish(server, clips, place / "kinetics")
        yield ["--base", server.base]
    finally:
        server.close()


def test_every_command_has_an_example() -> None:
    assert not [name for name, example in examples().items() if not example]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(examples()))
def test_the_example_of_a_command_runs(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    if name == "data make":
        monkeypatch.chdir(place.parent)
    store = Store(place / "runs/kinetics_small/study.db")
    digest = store.pareto_front("kinetics_small")[0]["digest"]
    store.close()
    words = shlex.split(re.sub(r"\b[0-9a-f]{10}\b", digest, examples()[name]))
    with serving(place) if name == "data get" else nullcontext([]) as more:
        code = main([*words, *SMALL.get(name, []), *more])
    assert code in ((0, 1) if name == "doctor" else (0,))
