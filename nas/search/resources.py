"""The rungs of a search held against its data before anything is trained, and what the user is told of them."""

from __future__ import annotations

from nas.errors import SearchError
from nas.search.pool import CANNOT, Pool
from nas.search.session import Listener, News
from nas.study import Study
from trainer.data.clips import VideoData
from trainer.data.share import chosen


def check_rungs(study: Study, data: VideoData, listener: Listener) -> None:
    """Makes sure that the rungs can be trained and differ; says what each of them is.

    Raises:
        SearchError: The schedule ends before the last rung, or two shares take the same videos.
    """
    fidelity, recipe = study.search.fidelity, study.recipe
    if fidelity.continues:
        if recipe.has_horizon and recipe.epochs < fidelity.full_epochs:
            raise SearchError(
                f"recipe.epochs must be at least the last of search.rungs, {fidelity.full_epochs}, with schedule "
                f"{recipe.schedule}, which cannot be prolonged, but is {recipe.epochs}"
            )
        return
    texts = [fidelity.label(rung) for rung in range(len(fidelity))]
    if fidelity.kind == "data":
        counts = _videos(study, data)
        for rung in range(1, len(counts)):
            if counts[rung] == counts[rung - 1]:
                raise SearchError(
                    f"the shares of search.rungs must take different videos, but {texts[rung - 1]} and {texts[rung]} "
                    f"both are {counts[rung]} of the {len(data.split('train'))} training videos"
                )
        texts = [f"{text} ({count:,} training videos)" for text, count in zip(texts, counts, strict=True)]
    each = "1 epoch" if fidelity.epochs == 1 else f"{fidelity.epochs} epochs"
    listener(News(kind="rungs", text=f"rungs: {', '.join(texts)}; {each} of training at each"))


def too_small(pool: Pool, study: Study) -> list[str]:
    """What the user is told of networks that the clip of a lower rung leaves out, or that cannot be built."""
    smaller = {f"does not fit {label}": label for label in study.search.fidelity.clips(study.data)}
    return [
        f"{count} {'network does' if count == 1 else 'networks do'} not fit {smaller[reason]}, a rung of this search, "
        f"and {'is' if count == 1 else 'are'} left out"
        for reason, count in pool.dropped.items()
        if reason in smaller
    ] + [f"{count} left out, since it {text}" for text, count in pool.dropped.items() if text.startswith(CANNOT)]


def _videos(study: Study, data: VideoData) -> list[int]:
    """Training videos at each rung."""
    entries = data.split("train").entries
    shares = (study.search.fidelity.data_at(rung, study.data).share for rung in range(len(study.search.fidelity)))
    return [len(entries) if share == 1 else len(chosen(entries, share, study.seed)) for share in shares]
