"""A study's database in a notebook: its tables as data frames, its networks as specs or modules."""

from __future__ import annotations

import html
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from nas.errors import NotFoundError
from nas.places import moved
from nas.read import rows as tabular
from nas.search.levels import rungs_of
from nas.store.database import Store
from nas.store.records import StudyRow
from nas.study.fidelity import recorded_fidelity
from nas.study.metric import accuracy_of, interval_text, metric_in, short_number

if TYPE_CHECKING:
    import pandas

    from nas.train.network import TrainedNetwork
    from search_spaces.spec import ArchSpec


class Opened:
    """A study that is looked at; a search may go on writing meanwhile, and every call reads anew.

    Accuracies are shares of 1, MACs are those of one clip, times are in seconds. `columns(table)` explains every
    column. Use it in a `with` block, or call `close`.

    Args:
        path: The database, or the folder that holds `study.db`.

    Attributes:
        path: The database.
        name: The study's name.
        config: The study as it was run: its file, variant and overrides merged.
        data: Classes, clips per split, checksum.

    Raises:
        StoreError: There is no such database, or it is not one of nas.
        NotFoundError: It holds no study.
    """

    def __init__(self, path: str | Path) -> None:
        """Opens the database."""
        given = Path(path)
        self.path = given / "study.db" if given.is_dir() else given
        self._store = Store(self.path)
        try:
            self._row: StudyRow = self._store.study()
        except BaseException:
            self._store.close()
            raise
        self.name: str = self._row["name"]
        self.config: dict[str, Any] = self._row["config"]
        self.data: dict[str, Any] = self._row["data"]

    def __enter__(self) -> Opened:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives the connections back."""
        self._store.close()

    def front(self) -> pandas.DataFrame:
        """The Pareto front of accuracy against MACs at the highest rung, cheapest first."""
        return self._frame("front")

    def trials(self) -> pandas.DataFrame:
        """One row a network of the search, with its settings (`setting.kind`, …) and its last result."""
        return self._frame("trials")

    def evaluations(self) -> pandas.DataFrame:
        """One row a network and rung, with its settings."""
        return self._frame("evaluations")

    def epochs(self) -> pandas.DataFrame:
        """One row an epoch of a trial: the learning curves."""
        return self._frame("epochs")

    def effects(self) -> pandas.DataFrame:
        """What the levels of ablations earn, as `nas ablate` and `nas versus` show it."""
        return self._frame("effects")

    def importance(self) -> pandas.DataFrame:
        """Importances per rung, factor and pair: those that `nas importance` stored, else computed now."""
        found = self._frame("importance")
        if len(found):
            return found
        from dataclasses import asdict

        from nas.search.importance import importances

        rows = [asdict(item) for rung in importances(self._store, self._row) for item in rung.found]
        return self._framed("importance", rows)

    def motion(self) -> pandas.DataFrame:
        """Accuracy on reversed, shuffled, frozen and single frames, one row a trained network."""
        return self._frame("motion")

    def promotions(self) -> pandas.DataFrame:
        """One row a promotion and split."""
        return self._frame("promotions")

    def verdicts(self) -> pandas.DataFrame:
        """What documents state beside what was measured."""
        return self._frame("verdicts")

    def columns(self, table: str) -> dict[str, str]:
        """What each column of a table means, with its unit.

        Args:
            table: `front`, `trials`, `evaluations`, `epochs`, `effects`, `importance`, `motion`, `promotions` or
                `verdicts`.
        """
        return {name: column.meaning for name, column in tabular.columns_of(table, []).items()}

    def spec(self, digest: str) -> ArchSpec:
        """The network whose digest begins with `digest`.

        Raises:
            NotFoundError: No digest or several begin so.
        """
        from search_spaces import codec

        return codec.decode(self._store.find(digest)["spec"])

    def network(self, digest: str, *, seed: int | None = None, device: str = "cpu") -> TrainedNetwork:
        """A promoted network with its trained weights; imports torch.

        Args:
            digest: Its beginning.
            seed: Of the promotion; that of the longest training unless given.
            device: Where its weights go.

        Raises:
            NotFoundError: No such network, or it was not promoted.
        """
        whole = self._store.find(digest)["digest"]
        done = [row for row in self._store.promotions(self._row["id"]) if row["state"] == "done"]
        mine = [row for row in done if row["digest"] == whole and seed in (None, row["seed"])]
        if not mine:
            promoted = sorted({row["digest"][:10] for row in done})
            raise NotFoundError(
                f"network {whole[:10]} was not promoted{'' if seed is None else f' with seed {seed}'} in {self.path} "
                f"(promoted: {', '.join(promoted) or 'none'}; `nas promote` trains it)"
            )
        from nas.train.folder import check_promotion
        from nas.train.network import load_network

        best = max(mine, key=lambda row: (row["epochs"], -row["seed"]))
        folder = moved(best["folder"], self.path.parent)
        check_promotion(folder, digest=whole, seed=best["seed"], epochs=best["epochs"])
        return load_network(folder, device=device)

    def _frame(self, table: str) -> pandas.DataFrame:
        return self._framed(table, tabular.rows_of(self._store, self._row, table))

    def _framed(self, table: str, rows: list[dict[str, Any]]) -> pandas.DataFrame:
        import pandas

        columns = tabular.columns_of(table, rows)
        frame = pandas.DataFrame(rows, columns=list(columns))
        kinds = {"text": "object", "digest": "object", "count": "Int64", "macs": "Int64", "params": "Int64"}
        return frame.astype(
            {n: kinds.get(c.kind, "Int64" if c.kind == "bytes" else "float64") for n, c in columns.items()}
        )

    @property
    def metric(self) -> str:
        """What accuracy is called: `top-1`, `balanced accuracy`, or `mAP`."""
        return metric_in(self._store, self._row["id"])

    def _rungs(self) -> list[tuple[int, str, int, float]]:
        """Rung, fidelity, networks and best accuracy of each rung that was reached."""
        rungs, fidelity = rungs_of(self._store.evaluations(self._row["id"])), recorded_fidelity(self._row)
        return [(rung, fidelity.label(rung), len(r), max(map(accuracy_of, r))) for rung, r in rungs.items()]

    def __repr__(self) -> str:
        reached = "; ".join(
            f"{count} {'network' if count == 1 else 'networks'} at {fidelity}, best {self.metric} {best:.3f}"
            for _, fidelity, count, best in self._rungs()
        )
        return f"<study {self.name} in {self.path}: {reached or 'no results yet'}>"

    def _repr_html_(self) -> str:
        """Shows the question, the rungs and the front in a notebook; everything that is shown is escaped."""
        rungs = "".join(
            f"<tr><td>{rung}</td><td>{fidelity}</td><td>{count}</td><td>{best:.3f}</td></tr>"
            for rung, fidelity, count, best in self._rungs()
        )
        front = "".join(
            f"<tr><td><code>{html.escape(row['digest'][:10])}</code></td>"
            f"<td>{row['accuracy']:.3f}{_interval(row)}</td>"
            f"<td>{short_number(row['macs'])}</td><td>{short_number(row['params'])}</td>"
            f"<td style='text-align:left'>{html.escape(row['description'])}</td></tr>"
            for row in tabular.rows_of(self._store, self._row, "front")
        )
        question = html.escape(str(self.config.get("question") or ""))
        return (
            f"<div><strong>{html.escape(self.name)}</strong> <code>{html.escape(str(self.path))}</code>"
            f"<p>{question}</p>"
            f"<table><thead><tr><th>rung</th><th>fidelity</th><th>networks</th><th>best {self.metric}</th></tr></thead>"
            f"<tbody>{rungs}</tbody></table>"
            f"<table><thead><tr><th>front</th><th>{self.metric}</th><th>MACs</th><th>params</th><th>network</th></tr></thead>"
            f"<tbody>{front}</tbody></table></div>"
        )


def _interval(row: dict[str, Any]) -> str:
    return "" if row["low"] is None else f" ({interval_text(row['low'], row['high'])})"
