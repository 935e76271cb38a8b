"""`nas promote`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nas.cli.options import DB, JSON
from nas.cli.output import Progress, SearchPrinter, print_json, print_line, print_table
from nas.cli.resolve import database_of, find_spec, has_name, needs_search, not_a_preset
from nas.study.metric import interval_text

if TYPE_CHECKING:
    from nas.promotion.results import Promoted
    from nas.study.study import PromoteConfig, Study
    from search_spaces.spec import ArchSpec


def promote(
    study: str = typer.Argument(..., metavar="STUDY|DB", help="A study file, or a database."),
    arguments: list[str] = typer.Argument(
        None,
        metavar="[NETWORK] [key=value …]",
        help="Digest, preset, settings or .json file; and settings of training.",
    ),
    best_under: str = typer.Option(
        None,
        "--best-under",
        metavar="MACS",
        help="The most accurate network of the front with at most these MACs, such as 2G.",
    ),
    front: bool = typer.Option(False, "--front", help="Every network of the front."),
    seeds: int = typer.Option(None, "--seeds", min=1, help="Trainings per network."),
    devices: int = typer.Option(None, "--devices", min=0, help="GPUs per training, 0 for all; on a CPU, processes."),
    db: str = DB,
    as_json: bool = JSON,
) -> None:
    """Train chosen networks in full, and report the test split once.

    The network is one that a search found, or any other: a preset, a .json file, or settings such as
    '{preset: rmc3_18, width: 0.5}'. A network that is named so needs no search.

    Example: nas promote studies/kinetics_small.yaml --best-under 100M
    """
    from dataclasses import replace

    from nas.errors import NotFoundError, SearchError
    from nas.study.files import MOVABLE, load_study
    from nas.study.metric import parse_number

    given = arguments or []
    words = [word for word in given if "=" in word and not word.startswith("{")]
    names = [word for word in given if word not in words]
    if len(names) > 1:
        raise NotFoundError(f"name one network, but got {len(names)}: {', '.join(names)}")
    bound = parse_number(best_under) if best_under is not None else None
    path = database_of(study, db)

    from nas.places import is_database
    from nas.store.database import Store
    from nas.train.session import check_init, check_start, locked, opened_data, study_row

    own = [word for word in words if word.startswith("promote.") or word.partition("=")[0] in MOVABLE]
    named = bool(names) and has_name(names[0])
    stated = None
    # A network that has a name needs no search: the file says what the study is, the same as what the database says.
    if named and not is_database(study) and (len(own) < len(words) or not path.is_file()):
        stated = load_study(study, [word for word in words if not word.startswith("promote.")])
        # What is wrong is said before videos are decoded.
        _named_spec(names[0], stated)
        check_start(_with_settings(stated.config, own, study), path)
    elif names and not named and not path.is_file():
        raise NotFoundError(f"{not_a_preset(names[0])}; {needs_search(path)} (`nas presets` lists names)")
    else:
        check_start(None, path)
        with Store(path) as store:  # says what is missing
            row = store.study()
            if not is_database(study):
                words = _without_variant(study, row, words)
            recorded = _with_settings(row["config"], words, store.location)
            if any(word.startswith("promote.recipe") for word in words):
                check_init(recorded.promote.recipe.init)
            if names and not named:
                store.find(names[0])

    from nas.promotion.promotion import choose, put_spec, rivals
    from nas.promotion.promotion import promote as train
    from nas.train.weights import settled_study
    from trainer.optim import check_optimizer

    if stated is not None:
        check_optimizer(_with_settings(stated.config, own, study).promote.recipe)
        stated = settled_study(stated)
    with locked(path):
        with closing(SearchPrinter()) as shown:
            data = None if stated is None else opened_data(stated, shown)
        with Store(path, create=True) as store, closing(Progress("epochs")) as progress:
            row = store.study() if stated is None or data is None else study_row(store, stated, data)
            recorded = _with_settings(row["config"], words if stated is None else own, store.location)
            if named:
                spec = _named_spec(names[0], recorded)
                names = [put_spec(store, recorded, row, spec)]
            for text in [] if stated is not None or is_database(study) else _not_used(study, row["config"], words):
                progress.line(text)
            digests = choose(store, row, prefix=names[0] if names else None, best_under=bound, whole_front=front)
            near = None if bound is None else rivals(store, row, digests[0], bound)
            if near is not None:
                progress.line(near)
            config = recorded.promote if devices is None else replace(recorded.promote, devices=devices)
            results: list[Promoted] = []
            failed: list[SearchError] = []
            for digest in digests:
                for seed in range(seeds or config.seeds):
                    progress.line(f"promoting {digest[:10]}, seed {seed}: {config.epochs} epochs")

                    def listen(text: str, done: int, total: int) -> None:
                        progress.line(text)
                        progress.update(done, total)

                    try:
                        done = train(
                            store,
                            recorded,
                            row,
                            digest,
                            seed=seed,
                            config=config,
                            root=path.parent,
                            listener=listen,
                        )
                    except SearchError as error:  # is recorded; the others are trained all the same
                        failed.append(error)
                        progress.line(str(error))
                    else:
                        results.append(done)
    if not results:
        raise failed[0]
    _show(results, f"{row['name']}: promoted", config, as_json=as_json)
    if failed:
        raise SearchError(f"{len(failed)} of {len(failed) + len(results)} promotions failed; the first: {failed[0]}")


def _show_detections(results: Sequence[Promoted]) -> None:
    """Prints how well each class is told from the rest, where classes are questions of yes or no."""
    from nas.cli.videos import show_detection
    from nas.errors import NotFoundError
    from nas.use.detection import is_detection
    from nas.use.multi_view import kept_scores

    for result in results:
        try:
            scores = kept_scores(Path(result.folder), result.split)
        except NotFoundError as error:
            print_line(f"note: {error}")
            continue
        if scores is None or not is_detection(scores):
            continue
        print_line(f"{result.digest[:10]}, seed {result.seed}, on {result.split}")
        show_detection(scores)


def _show(results: Sequence[Promoted], title: str, config: PromoteConfig, *, as_json: bool) -> None:
    """Prints what came of the trainings."""
    from dataclasses import asdict

    from nas.promotion.results import summarise
    from nas.study.metric import MAP, broken_text

    summary = summarise(results)
    if as_json:
        print_json({"networks": summary, "trainings": [asdict(result) for result in results]})
        return
    for line in summary:
        line["digest"] = line["digest"][:10]
        line["interval"] = interval_text(line["low"], line["high"])
        line["both"] = interval_text(line["low_both"], line["high_both"])
    several = summary[0]["metric"] == MAP
    columns = {
        "digest": "digest",
        "clip1": "clip@1",
        **({"map_class": "mAP over classes"} if several else {}),
        "accuracy": summary[0]["metric"],
        "interval": "95 % over videos",
        "both": "over seeds and videos",
        "std": "std over seeds",
        **({"top1": "video@1"} if several else {}),
        "top5": "video@5",
        "seeds": "seeds",
        "split": "split",
        "num_clips": "videos",
        "epochs": "epochs",
        "description": "network",
    }
    print_table(summary, columns, title)
    for text in dict.fromkeys(line["views"] for line in summary if line["views"]):
        print_line(f"views of each video: {text}")
    if any(result.split == "val" for result in results):
        print_line("note: the data has no test split; val is reported, on which the networks were also chosen")
    _show_detections(results)
    asked = str(config.test)
    if several:
        print_line(
            "mAP: mean over videos of the average precision of their classes; video@1 and video@5 count one of them"
        )
    for result in results:
        if result.broken:
            print_line(f"{result.digest[:10]}, seed {result.seed}, in training: {broken_text(result.broken)}")
    if any(result.views not in ("", asked, config.test.short) for result in results):
        print_line(f"note: a test is looked at once, so what was tested earlier is not tested again with {asked}")
    for result in results:
        print_line(f"nas.load({result.folder!r})" + ("" if result.fresh else "   (trained earlier)"))
    what = "classes" if several else "classes and confusions"
    print_line(f"{what}: evaluation.json in each folder, or `nas evaluate FOLDER DATA`")


def _without_variant(study: str, row: Mapping[str, Any], words: Sequence[str]) -> list[str]:
    """Settings without `data=NAME`, which has to name the variant that the search was made with.

    Raises:
        StoreError: It names another.
    """
    from nas.errors import StoreError
    from nas.study.files import load_study

    variant = [word for word in words if word.partition("=")[0] == "data"]
    if variant:
        named, was = load_study(study, variant).data.name, row["config"]["data"]["name"]
        if named != was:
            raise StoreError(
                f"a promotion keeps the search's data, which are {was}, but {variant[-1]} takes {named}; give --db the "
                "database of a search on those"
            )
    return [word for word in words if word not in variant]


def _not_used(study: str, recorded: Mapping[str, Any], words: Sequence[str]) -> list[str]:
    """What the file says of promotions by now, where the record of the search goes first, a line each."""
    from nas.errors import NasError
    from nas.study.files import load_study

    try:
        now = load_study(study, [word for word in words if word.partition("=")[0] == "data"]).config["promote"]
    except NasError:
        return []  # a file that cannot be read any more says nothing
    was, given = recorded["promote"], {word.partition("=")[0] for word in words}
    return [
        f"note: {study} now says promote.{key}={value}, but its search was recorded with {was.get(key)}, which counts;"
        f" give {shlex.quote(f'promote.{key}={value}')} to change it"
        for key, value in now.items()
        if not isinstance(value, Mapping) and value != was.get(key, value) and f"promote.{key}" not in given
    ]


def _named_spec(name: str, study: Study) -> ArchSpec:
    """The network of a preset, settings or a file, at the frames of a study's clips."""
    otherwise = "settings change a preset or a .json file, and a digest stands alone"
    return find_spec(name, study=None, db=None, frames=study.data.clip.frames, otherwise=otherwise)


def _with_settings(config: Mapping[str, Any], words: Sequence[str], where: str) -> Study:
    """The study as recorded, with settings of this promotion; a crop that does not fit is refused, too."""
    from nas.study.files import apply_promote
    from nas.study.study import study_of

    study = study_of(apply_promote(config, words), where)
    study.promote.test.sides(study.data)
    return study
