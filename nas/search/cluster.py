"""Joins the Ray cluster that a command names, for as long as the command runs; loads Ray only then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nas.errors import SearchError
from nas.search.machines import Machines, places_of
from nas.search.session import Listener, News
from nas.study import Study

if TYPE_CHECKING:
    from nas.search.ray_pool import RayPool


@contextmanager
def joined(machines: Machines | None, database: Path, study: Study, listener: Listener) -> Iterator[RayPool | None]:
    """The cluster's executor; None where no cluster was named.

    Args:
        machines: The cluster, if one was named.
        database: The study's database, of which this process is the driver.
        study: Whose data every node must see.
        listener: Hears of nodes that come and go.

    Raises:
        SearchError: Ray is not installed, there is no such cluster, or a node of it cannot train.
    """
    if machines is None:
        yield None
        return
    try:
        from nas.search.ray_pool import RayPool
    except ImportError as error:
        raise SearchError("--ray needs Ray: pip install 'video-nas[ray]', on every machine") from error
    pool = RayPool(
        machines,
        database,
        places_of(study.data, study.recipe.init),
        precision=study.recipe.precision == "auto",
        say=lambda text: listener(News(kind="machines", text=text)),
    )
    try:
        yield pool
    finally:
        pool.shutdown(wait=False)
