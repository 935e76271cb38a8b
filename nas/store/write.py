"""Rows as they are written, within a transaction of `Store.write`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Table, func, select

from nas.store import tables as m

if TYPE_CHECKING:
    from nas.cost.layers import Cost
    from search_spaces.spec import ArchSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """An architecture with its exact cost at the study's clip."""

    digest: str
    description: str
    spec: Mapping[str, Any]
    params: int
    macs: int
    train_macs: int
    activation_bytes: int

    @classmethod
    def of(cls, spec: ArchSpec, price: Cost) -> Architecture:
        """The network of a spec."""
        from search_spaces import codec  # every family, which who only reads has no use for

        return cls(digest=codec.digest(spec), description=spec.describe(), spec=codec.encode(spec), **asdict(price))


def insert(connection: Connection, table: Table, **values: Any) -> int:
    """Adds a row; returns its integer key."""
    key = connection.execute(table.insert(), values).inserted_primary_key
    assert key is not None
    return int(key[0])


def put_network(connection: Connection, network: Architecture, *, clip: str, num_classes: int) -> Architecture:
    """Stores an architecture and its cost, once; returns it as it is stored, which may be from an earlier time."""
    a, c = m.architecture, m.cost
    known = connection.execute(select(a.c.description).where(a.c.digest == network.digest)).scalar()
    if known is None:
        values = {"digest": network.digest, "description": network.description, "spec": dict(network.spec)}
        connection.execute(a.insert(), values)
    else:
        network = replace(network, description=known)
    key = (c.c.digest == network.digest) & (c.c.clip == clip) & (c.c.num_classes == num_classes)
    costs = ("params", "macs", "train_macs", "activation_bytes")
    price = connection.execute(select(*(c.c[name] for name in costs)).where(key)).first()
    if price is not None:
        return replace(network, **dict(zip(costs, price, strict=True)))
    values = {name: getattr(network, name) for name in costs}
    connection.execute(c.insert(), {"digest": network.digest, "clip": clip, "num_classes": num_classes, **values})
    return network


def put_event(connection: Connection, study_id: int, kind: str, *, trial: int, rung: int) -> None:
    """Appends to the log of decisions and outcomes."""
    values = {"study_id": study_id, "kind": kind, "trial": trial, "rung": rung, "at": now()}
    connection.execute(m.event.insert(), values)


def put_epochs(connection: Connection, trial_id: int, epochs: Iterable[Mapping[str, Any]]) -> None:
    """Stores those epochs of a trial that are not stored yet."""
    last = connection.execute(select(func.max(m.epoch.c.epoch)).where(m.epoch.c.trial_id == trial_id)).scalar()
    new = [{"trial_id": trial_id, **row} for row in epochs if row["epoch"] > (last or 0)]
    if new:
        connection.execute(m.epoch.insert(), new)


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
