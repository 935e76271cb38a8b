"""The ablation's side of the store: what its driver writes, one transaction an event, and the results read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas import store as s
from nas import tables as m
from nas.ablation.plan import Plan, Training
from nas.errors import StoreError
from nas.jobs import JobResult
from nas.motion import put_motion
from nas.store import Row, Store
from search_spaces import codec


class AblationRecord:
    """Arms and runs of one ablation.

    Args:
        store: The database, open for writing.
        study: The study's row.
        plan: What is to be trained.
        kind: `ablate` or `versus`.
        name: Of the ablation.

    Raises:
        StoreError: The ablation was begun when an arm meant another network.
    """

    def __init__(self, store: Store, study: Row, plan: Plan, *, kind: str, name: str) -> None:
        """Writes the ablation and its arms, unless they are there; their trainings are written as they begin."""
        self.store, self.study, self.plan = store, study, plan
        found = [row for row in store.ablations(study["id"]) if row["name"] == name]
        self.id = found[0]["id"] if found else self._begin(kind, name)
        arms = store.arms(self.id)
        now = {arm.position: self._digest(arm.position) for arm in plan.arms.arms}
        for arm in arms:
            if arm["digest"] != now.get(arm["position"]):
                raise StoreError(
                    f"the ablation {name} of {store.location} was begun when its arm {arm['factor']}={arm['level']} "
                    f"was another network ({arm['digest'][:10]}, and {now.get(arm['position'], 'none')[:10]} now), so "
                    "results would be mixed; give --db another file"
                )
        self.arms = {row["position"]: row["id"] for row in arms}

    def runs(self) -> dict[tuple[str, int], Row]:
        """Every recorded run of the study, by key and epochs."""
        return {(row["key"], row["epochs"]): row for row in self.store.runs(self.study["id"])}

    def start(self, training: Training, folder: Path) -> int:
        """The run of a training, made or taken up again; returns its id."""
        digest = self._digest(training.arm)
        old = self.runs().get((training.key, training.job.until_epoch))
        with self.store.write() as connection:
            if old is None:
                run = s.insert(
                    connection,
                    m.run,
                    study_id=self.study["id"],
                    key=training.key,
                    digest=digest,
                    seed=training.seed,
                    epochs=training.job.until_epoch,
                    folder=str(folder),
                    state="running",
                    tries=0,
                    started_at=s.now(),
                )
            else:
                run = int(old["id"])
                connection.execute(m.run.update().where(m.run.c.id == run).values(state="running"))
        self.link(training, run)
        return run

    def link(self, training: Training, run: int) -> None:
        """Says that a run stands for a training of this ablation."""
        arm = self.arms[training.arm]
        with self.store.write() as connection:
            key = (m.arm_run.c.arm_id == arm) & (m.arm_run.c.run_id == run)
            if not connection.execute(m.arm_run.select().where(key)).first():
                connection.execute(m.arm_run.insert().values(arm_id=arm, run_id=run, pair=training.pair))

    def finish(self, run: int, result: JobResult) -> None:
        """The outcome of a run: its metrics, or why it failed."""
        values: dict[str, Any] = {"ended_at": s.now(), "seconds": sum(epoch.seconds for epoch in result.epochs)}
        if result.reason is not None:
            values |= {"state": "failed", "reason": result.reason, "detail": result.detail}
        else:
            val = result.epochs[-1].val
            assert val is not None
            values |= {
                "state": "done",
                "reason": None,
                "detail": result.detail,
                **val.plain(),
                "correct": result.correct,
            }
        with self.store.write() as connection:
            connection.execute(m.run.update().where(m.run.c.id == run).values(**values))
            if result.motion:
                row = connection.execute(m.run.select().where(m.run.c.id == run)).mappings().one()
                put_motion(
                    connection,
                    study_id=self.study["id"],
                    digest=row["digest"],
                    source="run",
                    source_id=run,
                    seed=row["seed"],
                    epochs=row["epochs"],
                    split="val",
                    order_seed=0,
                    tests=result.motion,
                )

    def preempt(self, run: int, reason: str, place: str) -> int:
        """The run was cut short and goes on later; returns how often that was so at this place."""
        row = next(row for row in self.store.runs(self.study["id"]) if row["id"] == run)
        tries = row["tries"] + 1 if (row["reason"], row["detail"]) == (reason, place) else 1
        self._update(run, {"state": "preempted", "reason": reason, "detail": place, "tries": tries})
        return tries

    def settle(self, state: str, sentence: str, effects: Sequence[Mapping[str, Any]]) -> None:
        """Writes the effects as they stand, in the place of earlier ones."""
        with self.store.write() as connection:
            connection.execute(m.effect.delete().where(m.effect.c.ablation_id == self.id))
            if effects:
                connection.execute(m.effect.insert(), [{"ablation_id": self.id, **effect} for effect in effects])
            values = {"state": state, "sentence": sentence}
            connection.execute(m.ablation.update().where(m.ablation.c.id == self.id).values(**values))

    def _begin(self, kind: str, name: str) -> int:
        plan = self.plan
        num_classes = self.study["num_classes"]
        with self.store.write() as connection:
            ablation = s.insert(
                connection,
                m.ablation,
                study_id=self.study["id"],
                name=name,
                kind=kind,
                design=plan.config.record(),
                state="running",
                created_at=s.now(),
            )
            for arm, price in zip(plan.arms.arms, plan.costs, strict=True):
                spec, clip = arm.variant.spec, arm.variant.data.shape
                network = s.Network.of(spec, price)
                s.put_network(connection, network, clip=clip, num_classes=num_classes)
                s.insert(
                    connection,
                    m.arm,
                    ablation_id=ablation,
                    position=arm.position,
                    reference=arm.reference,
                    factor=arm.factor,
                    level=arm.level,
                    digest=network.digest,
                    clip=clip,
                    changes=dict(arm.changes),
                    levels=dict(arm.levels),
                )
        return ablation

    def _digest(self, position: int) -> str:
        return codec.digest(self.plan.arms.arms[position].variant.spec)

    def _update(self, run: int, values: Mapping[str, Any]) -> None:
        with self.store.write() as connection:
            connection.execute(m.run.update().where(m.run.c.id == run).values(**values))
