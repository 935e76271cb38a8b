"""`recipe.init` from the study file to the record: 2D weights that a search and a promotion begin with."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import shutil
import sqlite3
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file

from nas.cli.main import main
from nas.errors import SearchError, StoreError, StudyError
from nas.search.driver import run_search
from nas.store.database import Store
from nas.study.files import load_study
from nas.study.study import Study, changes, study_of
from nas.train.jobs import TrainJob, job_key
from nas.train.session import News
from nas.train.training import first_network, network
from nas.train.weights import _kept, check_networks, settled, settled_study
from search_spaces import codec
from search_spaces.inflate import MODES, Mode, parent_shapes
from search_spaces.settings import network_of
from search_spaces.spec import ArchSpec
from search_spaces.weights import checksum
from tests.nas.studies import TINY, merged, write_study
from trainer.config import Clip, DataConfig
from trainer.recipe import Init, InitMode, Recipe

OLD = Path(__file__).parents[2] / "golden" / "databases" / "schema_1.db"
# One epoch that moves nothing, so that a checkpoint shows what training began with.
STANDING = {"lr": 1e-9, "weight_decay": 0.0, "ema_decay": 0.0, "optimizer": "sgd", "precision": "fp32"}


def weights_for(study: Study, path: Path, *, num_classes: int = 8, seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights of the 2D parent of the study's networks, also written to a file."""
    generator = torch.Generator().manual_seed(seed)
    shapes = parent_shapes(study.space.random(random.Random(0)).spec, num_classes=num_classes)
    state = {name: torch.rand(shape, generator=generator) + 0.1 for name, shape in shapes.items()}
    torch.save(state, path)
    return state


def study_at(folder: Path, motion: Path | None = None, **init: Any) -> Study:
    """The tiny study with a search of two networks; `init` is its recipe.init."""
    over: dict[str, Any] = {"recipe": {**STANDING, "init": init}, "search": {"trials": 2, "rungs": [1]}}
    if motion is not None:
        over["data"] = {"root": str(motion), "cache": str(motion.parent / "cache")}
    return load_study(write_study(folder / "tiny.yaml", over))


@pytest.fixture(scope="module")
def searched(
    tmp_path_factory: pytest.TempPathFactory, motion: Path
) -> tuple[Path, dict[str, torch.Tensor], list[News]]:
    """A folder with a search that began with `weights.pth`, a parent of ten classes."""
    folder = tmp_path_factory.mktemp("init")
    study = study_at(folder, motion, weights=str(folder / "weights.pth"), mode="centre")
    state = weights_for(study, folder / "weights.pth", num_classes=10)
    news: list[News] = []
    run_search(study, folder / "study.db", workers=0, listener=news.append)
    return folder, state, news


def copied(source: Path, to: Path) -> Path:
    """A copy of a finished search; its weights still lie where they did."""
    shutil.copytree(source, to, dirs_exist_ok=True)
    return to


def test_every_training_begins_with_the_weights(searched: Any) -> None:
    folder, state, news = searched
    checkpoints = sorted((folder / "trials").glob("*/last.pt"))
    assert len(checkpoints) == 2
    for path in checkpoints:
        model = torch.load(path, weights_only=True)["model"]
        torch.testing.assert_close(model["stem.conv.weight"][:, :, 0], state["conv1.weight"], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(model["stem.norm.bias"], state["bn1.bias"], rtol=1e-4, atol=1e-4)
        assert model["head.fc.weight"].shape == (8, 16)
    said = [item.text for item in news if item.kind == "init"]
    assert len(said) == 1
    # the stem, five tensors for each of four convolutions, and the shortcut's; the classifier has two more classes
    assert "begin with 30 tensors of" in said[0] and "centre; head.fc as drawn" in said[0]


def test_the_record_names_the_weights_by_what_they_are(searched: Any) -> None:
    folder, state, _ = searched
    init = Store(folder / "study.db").study()["config"]["recipe"]["init"]
    assert init == {
        "weights": str(folder / "weights.pth"),
        "mode": "centre",
        "checksum": checksum(state),
        "at_least": 0.0,
    }


def test_a_network_is_a_function_of_seed_and_weights(tmp_path: Path) -> None:
    study = study_at(tmp_path, weights=str(tmp_path / "weights.pth"))
    state = weights_for(study, tmp_path / "weights.pth")
    spec = codec.dumps(study.space.random(random.Random(0)).spec)

    def made(seed: int, mode: Any) -> dict[str, torch.Tensor]:
        init = settled(Init(weights=str(tmp_path / "weights.pth"), mode=mode))
        return network(spec, num_classes=8, dropout=0.0, seed=seed, init=init).state_dict()

    assert torch.equal(made(0, "centre")["head.fc.weight"], state["fc.weight"])
    first, again, other = made(0, "random"), made(0, "random"), made(1, "random")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_weights_elsewhere_are_the_same_weights_and_others_are_refused(
    searched: Any, motion: Path, tmp_path: Path
) -> None:
    source, state, _ = searched
    folder = copied(source, tmp_path)
    torch.save({"state_dict": state}, folder / "moved.pth")
    moved = study_at(folder, motion, weights=str(folder / "moved.pth"), mode="centre")
    news: list[News] = []
    run_search(moved, folder / "study.db", workers=0, listener=news.append)
    assert not [item for item in news if item.kind in ("start", "result")]
    weights_for(moved, folder / "moved.pth", num_classes=10, seed=1)
    with pytest.raises(
        StoreError, match=r"was made with recipe\.init\.weights=.*, but the study now says .*moved\.pth;"
    ):
        run_search(moved, folder / "study.db", workers=0)
    drawn = study_at(folder, motion, mode="centre")
    with pytest.raises(StoreError, match=r"was made with recipe\.init\.weights=.*, but the study now says ;"):
        run_search(drawn, folder / "study.db", workers=0)


def test_an_overwritten_file_is_refused(searched: Any, motion: Path, tmp_path: Path) -> None:
    source, state, _ = searched
    folder = copied(source, tmp_path)
    study = study_at(folder, motion, weights=str(source / "weights.pth"), mode="centre")
    shutil.copy(source / "weights.pth", tmp_path / "kept.pth")
    try:
        weights_for(study, source / "weights.pth", num_classes=10, seed=1)
        with pytest.raises(StoreError, match=rf"was made with recipe\.init\.checksum={checksum(state)}, but"):
            run_search(study, folder / "study.db", workers=0)
        _kept.cache_clear()  # this process may still have what it was trained with
        assert main(["promote", str(folder / "study.db"), "--best-under", "1T"]) == 2
    finally:
        shutil.copy(tmp_path / "kept.pth", source / "weights.pth")
    assert Store(folder / "study.db").promotions(1) == []


def test_a_promotion_begins_with_the_weights_and_says_so(searched: Any, motion: Path, tmp_path: Path) -> None:
    source, state, _ = searched
    folder = copied(source, tmp_path)
    command = ["promote", str(folder / "study.db"), "--best-under", "1T", "promote.epochs=1"]
    assert main(command) == 0
    assert main([*command, "promote.recipe.init.mode=random"]) == 0
    assert main([*command, "promote.recipe.init.weights=''"]) == 0
    other = weights_for(study_at(folder), folder / "other.pth", seed=1)
    assert main([*command, f"promote.recipe.init.weights='{folder / 'other.pth'}'"]) == 0
    stored = Store(folder / "study.db").promotions(1)
    init = {"weights": str(source / "weights.pth"), "mode": "centre", "checksum": checksum(state), "at_least": 0.0}
    empty = {**init, "weights": "", "checksum": ""}
    own = {**init, "weights": str(folder / "other.pth"), "checksum": checksum(other)}
    assert [row["recipe"]["init"] for row in stored] == [init, {**init, "mode": "random"}, empty, own]
    first, _, drawn, _ = (load_file(Path(row["folder"]) / "weights.safetensors") for row in stored)
    torch.testing.assert_close(first["stem.conv.weight"][:, :, 0], state["conv1.weight"], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(drawn["stem.conv.weight"][:, :, 0], state["conv1.weight"], rtol=1e-4, atol=1e-4)
    record = json.loads((Path(stored[0]["folder"]) / "network.json").read_text())["record"]
    assert record["recipe"]["init"] == init
    assert record["init"] == {"taken": 30, "left": ["head.fc"]}


def test_a_promotion_goes_on_from_a_promoted_network(
    searched: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, _, _ = searched
    folder = copied(source, tmp_path)
    command = ["promote", str(folder / "study.db"), "--best-under", "1T", "promote.epochs=1"]
    assert main(command) == 0
    (first,) = Store(folder / "study.db").promotions(1)
    tuned = [*command, f"promote.recipe.init.weights='{first['folder']}'"]
    capsys.readouterr()
    assert main([*tuned, "promote.recipe.lr=1.0e-9", "promote.recipe.weight_decay=0", "--json"]) == 0
    assert "names of video-nas" in capsys.readouterr().err
    _, second = Store(folder / "study.db").promotions(1)
    before, after = (load_file(Path(row["folder"]) / "weights.safetensors") for row in (first, second))
    for name, value in before.items():
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            torch.testing.assert_close(after[name], value, rtol=1e-4, atol=1e-5)
    record = json.loads((Path(second["folder"]) / "network.json").read_text())["record"]
    taken = sum(not name.endswith("num_batches_tracked") for name in before)
    assert record["init"] == {"layout": "video-nas", "taken": taken, "share": 1.0, "left": [], "unused": 0}
    (Path(first["folder"]) / "weights.safetensors").write_bytes(b"\0" * 100)
    _kept.cache_clear()
    assert main([*tuned, "promote.recipe.lr=2.0e-9"]) == 2
    assert "weights.safetensors was changed or damaged" in capsys.readouterr().err
    (Path(first["folder"]) / "network.json").unlink()
    assert main([*tuned, "promote.recipe.lr=2.0e-9"]) == 2
    assert "recipe.init.weights: " in capsys.readouterr().err
    assert len(Store(folder / "study.db").promotions(1)) == 2


def test_a_search_says_how_much_of_the_weights_fits(
    searched: Any, tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, _, _ = searched
    state = torch.load(next((source / "trials").glob("*/last.pt")), weights_only=True)["model"]
    torch.save(state, tmp_path / "clips.pth")
    study = study_at(tmp_path, motion, weights=str(tmp_path / "clips.pth"))
    news: list[News] = []
    run_search(study, tmp_path / "study.db", workers=0, listener=news.append)
    (text,) = [item.text for item in news if item.kind == "init"]
    assert re.fullmatch(
        r"networks begin with \d+ to 100 % of their parameters from \S+ \(\w+\), names of video-nas", text
    )
    config = ["recipe.init.at_least=1"]
    assert main(["search", str(tmp_path / "tiny.yaml"), "--db", str(tmp_path / "other.db"), *config]) == 2
    assert "at_least 1 of the network's parameters" in capsys.readouterr().err


def test_a_promotion_that_is_done_needs_its_weights_no_more(searched: Any, tmp_path: Path) -> None:
    source, _, _ = searched
    folder = copied(source, tmp_path)
    command = ["promote", str(folder / "study.db"), "--best-under", "1T", "promote.epochs=1", "--json"]
    assert main(command) == 0
    (source / "weights.pth").rename(source / "away.pth")
    _kept.cache_clear()
    try:
        assert main(command) == 0
        assert main([*command, "promote.epochs=2"]) == 2
    finally:
        (source / "away.pth").rename(source / "weights.pth")


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"recipe": {"init": {"weights": "nothing.pth"}}}, "recipe.init.weights: there is no file nothing.pth"),
    "damaged": ({"recipe": {"init": {"weights": "DAMAGED"}}}, "must hold weights that torch.save or safetensors wrote"),
    "other": (
        {"recipe": {"init": {"weights": "OTHER"}}},
        r"but 17 of 17 cannot, such as resnet 1x3x3/2-8 .*: the weights .* 25 missing",
    ),
    "kind": (
        {"recipe": {"init": {"weights": "GOOD"}}, "space": {"domains": {"kind": ["3d", "2plus1d"]}}},
        "but 2 of 4 cannot, such as .*: kind 2plus1d cannot take 2D weights",
    ),
    "mode": (
        {"recipe": {"init": {"weights": "GOOD", "mode": "center"}}},
        "recipe.init.mode must be one of .* is center",
    ),
    "checksum": ({"recipe": {"init": {"weights": "GOOD", "checksum": "ab"}}}, "must hold the weights with checksum ab"),
    "clips": (
        {"recipe": {"init": {"weights": "CLIPS"}}},
        "must be of a similar network, but none of its tensors has the name and shape of one of ours",
    ),
    "folder": ({"recipe": {"init": {"weights": "."}}}, "must be a folder that `nas promote` wrote"),
    "hub": ({"recipe": {"init": {"weights": "timm:resnet81"}}}, "timm has no model resnet81; did you mean resnet18"),
    "key": ({"recipe": {"init": {"weight": "GOOD"}}}, "did you mean recipe.init.weights"),
}


@pytest.mark.parametrize("name", BAD)
def test_unusable_weights_are_found_before_the_search(
    tmp_path: Path, motion: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    over, message = BAD[name]
    places = {key: str(tmp_path / f"{key}.pth") for key in ("GOOD", "OTHER", "DAMAGED", "CLIPS")}
    state = weights_for(study_at(tmp_path), Path(places["GOOD"]))
    torch.save({name.replace("layer", "block"): value for name, value in state.items()}, places["OTHER"])
    torch.save({"layer1.0.conv1.0.weight": torch.zeros(1, 2, 3, 3, 3)}, places["CLIPS"])
    Path(places["DAMAGED"]).write_bytes(b"no weights")
    text = json.dumps(merged(over, {"data": {"root": str(motion), "cache": str(motion.parent / "cache")}}))
    for key, place in places.items():
        text = text.replace(key, place)
    path = write_study(tmp_path / "study.yaml", json.loads(text))
    assert main(["search", str(path), "--db", str(tmp_path / "study.db")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert re.search(message, said[-1]), said[-1]
    assert said[-1].startswith("error: ") and "Traceback" not in "".join(said)
    if (tmp_path / "study.db").exists():
        assert Store(tmp_path / "study.db").trials(1) == []


def test_a_stated_checksum_holds_the_weights_to_it(tmp_path: Path) -> None:
    study = study_at(tmp_path, weights=str(tmp_path / "weights.pth"))
    state = weights_for(study, tmp_path / "weights.pth")
    init = dataclasses.replace(study.recipe.init, checksum=checksum(state))
    assert settled(init) == init == settled_study(study).recipe.init
    with pytest.raises(SearchError, match="must hold the weights with checksum 000, but holds those with"):
        settled(dataclasses.replace(init, checksum="000"))
    assert settled(Init()) == Init()
    assert check_networks(Init(), [], num_classes=8, planes=3) is None


def job(**recipe: Any) -> TrainJob:
    clip = Clip(frames=4, height=16, width=16)
    return TrainJob(
        spec="{}",
        num_classes=8,
        data=DataConfig(name="d", root="r", cache="c", clip=clip),
        recipe=Recipe(lr=0.01, **recipe),
        seed=3,
        folder="",
        until_epoch=2,
    )


def test_jobs_that_began_before_there_were_initial_weights_go_on_in_their_folders() -> None:
    assert job_key(job(), "sum") == "190810b23fe6"  # by the code of then
    assert job_key(job(init=Init(mode="centre"), aux_weight=0.4), "sum") == "190810b23fe6"


def test_a_job_goes_by_what_its_weights_are() -> None:
    init = Init(weights="a.pth", mode="centre", checksum="1")
    keys = [
        job_key(job(init=init), "sum"),
        job_key(job(init=dataclasses.replace(init, checksum="2")), "sum"),
        job_key(job(init=dataclasses.replace(init, mode="random")), "sum"),
        job_key(job(aux_weight=0.3), "sum"),
        job_key(job(), "sum"),
    ]
    assert len(set(keys)) == 5
    assert job_key(job(init=dataclasses.replace(init, weights="b.pth")), "sum") == keys[0]


def test_a_record_from_before_has_the_defaults() -> None:
    connection = sqlite3.connect(OLD)
    config = json.loads(connection.execute("SELECT config FROM nas_study").fetchone()[0])
    connection.close()
    assert "init" not in config["recipe"]
    study = study_of(config, "a database")
    assert (study.recipe.init, study.recipe.aux_weight) == (Init(), 0.4)
    now = merged(config, {"recipe": {"init": dataclasses.asdict(Init()), "aux_weight": 0.4}})
    assert changes(config, now) == {}
    now["recipe"]["aux_weight"] = 0.3
    assert changes(config, now) == {"recipe.aux_weight": (0.4, 0.3)}


def test_a_promotion_lays_its_weights_over_those_of_the_search(tmp_path: Path) -> None:
    def promoted(**init: Any) -> Init:
        recipe = {"init": {"weights": "a.pth", "mode": "centre", "checksum": "1"}}
        over = {"recipe": recipe, "promote": {"recipe": {"init": init}}}
        return load_study(write_study(tmp_path / "tiny.yaml", over)).promote.recipe.init

    assert promoted() == Init(weights="a.pth", mode="centre", checksum="1")
    assert promoted(mode="random") == Init(weights="a.pth", mode="random", checksum="1")
    assert promoted(weights="b.pth") == Init(weights="b.pth", mode="centre")
    assert promoted(weights="b.pth", checksum="2") == Init(weights="b.pth", mode="centre", checksum="2")
    with pytest.raises(
        StudyError, match=r"key 'promote\.recipe\.init\.wei' is not known; did you mean promote\.recipe\.init\.weights"
    ):
        promoted(wei="b.pth")


def test_the_rooms_agree_on_the_modes() -> None:
    assert get_args(Mode) == get_args(InitMode) == MODES
    for mode in MODES:
        assert Init(mode=mode).mode == mode
    assert "init" not in TINY["recipe"]


def test_the_recipe_says_whether_residual_branches_begin_at_zero(tmp_path: Path) -> None:
    """As published unless it says otherwise; and what was trained before there was such a key keeps its folder."""

    def at_zero(spec: ArchSpec, over: list[str]) -> int:
        recipe = load_study(write_study(tmp_path / "tiny.yaml"), over).recipe
        one = dataclasses.replace(job(), spec=codec.dumps(spec), recipe=recipe)
        return sum(bool((p == 0).all()) for n, p in first_network(one).named_parameters() if n.endswith("norm.weight"))

    small = {"depth": "1-1", "stem_width": 8}
    for spec, published in ((network_of("resnet", small), 0), (network_of("resnet", {**small, "zero_init": True}), 2)):
        assert at_zero(spec, []) == at_zero(spec, ["recipe.zero_init=as_published"]) == published
        assert at_zero(spec, ["recipe.zero_init=true"]) == 2
        assert at_zero(spec, ["recipe.zero_init=false"]) == 0
    assert job_key(job(zero_init="as_published"), "sum") == "190810b23fe6"
    assert len({job_key(job(zero_init=value), "sum") for value in (True, False, "as_published")}) == 3
    with pytest.raises(StudyError, match=r"recipe\.zero_init must be true, false or as_published, but is never"):
        load_study(write_study(tmp_path / "tiny.yaml"), ["recipe.zero_init=never"])
