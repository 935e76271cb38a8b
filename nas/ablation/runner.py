"""The driver of an ablation: it trains what the plan lacks, pair by pair, and records it."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.ablation.answer import OVER, Answer, answer_of
from nas.ablation.plan import Plan, Training
from nas.ablation.variants import LevelError
from nas.errors import SearchError, StoreError
from nas.places import lines_of
from nas.store import tables as m
from nas.store import write as s
from nas.store.database import Store
from nas.store.records import RunRow, StudyRow
from nas.study.metric import told
from nas.train.crew import Crew
from nas.train.jobs import ENVIRONMENT, JobResult, after_cut
from nas.train.motion_tests import put_motion
from nas.train.session import Heartbeat, Listener, News, left_out, session_of
from nas.train.weights import check_layers, check_networks
from search_spaces import codec
from trainer.config import ConfigError
from trainer.data.clips import VideoData
from trainer.ready import check_ready

if TYPE_CHECKING:
    from nas.train.ray import RayPool


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

    def __init__(self, store: Store, study: StudyRow, plan: Plan, *, kind: str, name: str) -> None:
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

    def runs(self) -> dict[tuple[str, int], RunRow]:
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
        row = self.store.row(m.run, run)
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
                network = s.Architecture.of(spec, price)
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


@dataclass(frozen=True, kw_only=True, slots=True)
class AblationOutcome:
    """What an ablation has come to.

    Attributes:
        ablation: Its id.
        answer: Effects, words and the sentence.
        trained: Runs of which an epoch or more was trained now.
        reused: Runs that were there.
        failed: Runs that failed.
        wall_seconds: Of this session.
        busy_seconds: Of this session, with a job under way.
    """

    ablation: int
    answer: Answer
    trained: int
    reused: int
    failed: int
    wall_seconds: float
    busy_seconds: float


def check_arms(plan: Plan, data: VideoData) -> None:
    """Refuses a plan with an arm that cannot be trained, before anything is recorded.

    Raises:
        LevelError: A recipe does not go with the data, or has no such optimiser; the message names the arm.
    """
    for arm in plan.arms.arms:
        try:
            check_ready(data, arm.variant.data, arm.variant.recipe)
        except ConfigError as error:
            raise LevelError(f"{arm.factor}={arm.level}: {error}" if arm.position else str(error)) from error


def run_plan(
    store: Store,
    study: StudyRow,
    plan: Plan,
    *,
    kind: str,
    name: str,
    root: Path,
    workers: int,
    cluster: RayPool | None = None,
    listener: Listener = lambda news: None,
) -> AblationOutcome:
    """Trains what a plan lacks, and settles its effects; the caller holds the database's lock.

    Args:
        store: The database, open for writing.
        study: The study's row.
        plan: What is compared.
        kind: `ablate` or `versus`.
        name: Of the ablation.
        root: Folder of the study.
        workers: Processes that train; 0 trains here.
        cluster: The machines that train instead, if any (`nas.train.crew.joined`).
        listener: Hears of progress.

    Raises:
        SearchError: The disk is full, or every training fails.
        KeyboardInterrupt: The user stopped it; all that was done is stored.
    """
    for arm in plan.arms.arms:
        check_layers(arm.variant.recipe, [arm.variant.spec], num_classes=study["num_classes"])
        check_networks(
            arm.variant.recipe.init,
            [arm.variant.spec],
            num_classes=study["num_classes"],
            planes=arm.variant.data.planes,
        )
    record = AblationRecord(store, study, plan, kind=kind, name=name)
    crew = Crew(workers, cluster, say=lambda text: listener(News(kind="loaders", text=text)))
    return _Runner(store, study, plan, record, root, crew, listener).run()


class _Runner:
    def __init__(
        self,
        store: Store,
        study: StudyRow,
        plan: Plan,
        record: AblationRecord,
        root: Path,
        crew: Crew,
        listener: Listener,
    ) -> None:
        self.store, self.study, self.plan, self.record = store, study, plan, record
        self.root, self.crew, self.listener = root, crew, listener
        self.under_way: dict[int, Training] = {}  # run id -> what it is
        self.beat: Heartbeat
        self.found: set[int] = set()  # run ids that had all their epochs before they were submitted
        self.trained = self.reused = self.failed = 0

    def run(self) -> AblationOutcome:
        session = session_of(self.store, self.study, workers=self.crew.workers, busy=lambda: self.crew.busy_seconds)
        with session as self.beat:
            answer = self._train(self._missing())
        return AblationOutcome(
            ablation=self.record.id,
            answer=answer,
            trained=self.trained,
            reused=self.reused,
            failed=self.failed,
            wall_seconds=self.beat.wall_seconds,
            busy_seconds=self.crew.busy_seconds,
        )

    def _train(self, waiting: list[Training]) -> Answer:
        self.reused = len(self._distinct()) - len({(t.key, t.job.until_epoch) for t in waiting})
        answer = answer_of(self.store, self.record.id, self.plan.config)
        try:
            while not answer.reason:
                while self.crew.free and waiting:
                    self._submit(waiting.pop(0))
                if not self.crew:
                    break
                for run, result in self.crew.collect():
                    again = self._ended(run, result)
                    if again is not None:
                        waiting.insert(0, again)
                    elif self._pair_is_whole():
                        answer = self._look()
                self._tick()
            answer = self._look(last=True)
            self._check_hope()
        except KeyboardInterrupt:
            self._preempt_all("interrupted")
            raise
        finally:
            self.crew.close()
            for run in self.under_way:
                self.record.preempt(run, "stopped", "")
        return answer

    def _distinct(self) -> dict[tuple[str, int], Training]:
        return {(training.key, training.job.until_epoch): training for training in self.plan.trainings}

    def _missing(self) -> list[Training]:
        """Trainings that the record lacks; those that it has are linked to the arms."""
        known = self.record.runs()
        missing: dict[tuple[str, int], Training] = {}
        for training in self.plan.trainings:
            name = (training.key, training.job.until_epoch)
            old = known.get(name)
            if old is not None and old["state"] in OVER:
                self.record.link(training, old["id"])
            else:
                missing.setdefault(name, training)
        return list(missing.values())

    def _submit(self, training: Training) -> None:
        folder = self.root / "runs" / f"{training.key}-{training.job.until_epoch}"
        run = self.record.start(training, folder)
        self.under_way[run] = training
        self._begin_from_shorter(training, folder)
        if lines_of(folder) >= training.job.until_epoch:
            self.found.add(run)
        arm = self.plan.arms.arms[training.arm]
        self._say("start", f"{arm.factor}={arm.level}, seed {training.seed}: {training.job.until_epoch} epochs")
        job = dataclasses.replace(
            training.job, folder=str(folder), device=self.crew.device, left_out=left_out(self.study)
        )
        self.crew.submit(run, job, self._tick)

    def _begin_from_shorter(self, training: Training, folder: Path) -> None:
        """Takes over the checkpoint of the same training to fewer epochs, of another ablation."""
        if folder.exists():
            return
        places = self.root.glob(f"runs/{training.key}-*")
        shorter = [p for p in places if 0 < lines_of(p) <= training.job.until_epoch and (p / "last.pt").is_file()]
        if shorter:
            part = folder.with_name(folder.name + ".part")
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(max(shorter, key=lines_of), part, ignore=shutil.ignore_patterns("*.lock"))
            part.rename(folder)

    def _ended(self, run: int, result: JobResult) -> Training | None:
        """Records what came of a run; returns its training where it has to be submitted again."""
        training = self.under_way.pop(run)
        if result.reason in ENVIRONMENT:
            place = f"after epoch {lines_of(self.root / 'runs' / f'{training.key}-{training.job.until_epoch}')}"
            tries = self.record.preempt(run, result.reason, place)
            failed = after_cut(
                result, tries, place, lambda text: self._say("preempt", f"a training was cut short: {text}")
            )
            if failed is None:
                return training
            result = failed
        self.record.finish(run, result)
        for other in self.plan.trainings:  # another arm may need the very same training
            if (other.key, other.job.until_epoch) == (training.key, training.job.until_epoch):
                self.record.link(other, run)
        arm = self.plan.arms.arms[training.arm]
        what = f"{arm.factor}={arm.level}, seed {training.seed}"
        if result.reason is not None:
            self.failed += 1
            self._say("fail", f"{what} failed: {result.reason}: {result.detail}")
            if self.failed >= 3 and not self.trained and not self.found:
                raise SearchError(
                    f"the first {self.failed} trainings all failed, the last with {result.reason}: {result.detail}"
                )
        else:
            if run in self.found:
                self.reused += 1
            else:
                self.trained += 1
            val = result.epochs[-1].val
            assert val is not None
            self._say(
                "result",
                f"{what}: {told(val, self.study['accuracy'])} of {val.num_clips} clips ({result.seconds:.1f} s)",
            )
        return None

    def _check_hope(self) -> None:
        """Raises SearchError where all that was to be trained failed, now or before: that is no answer."""
        known = self.record.runs()
        rows = [known[name] for name in self._distinct() if name in known and known[name]["state"] in OVER]
        if rows and all(row["state"] == "failed" for row in rows):
            last = rows[-1]
            raise SearchError(f"all {len(rows)} trainings failed, the last with {last['reason']}: {last['detail']}")

    def _pair_is_whole(self) -> bool:
        """Whether no run of the pairs begun so far is missing."""
        whole = self._whole()
        return whole > 0 and not any(training.pair < whole for training in self.under_way.values())

    def _whole(self) -> int:
        """Pairs of which every arm has its run."""
        over = {name for name, row in self.record.runs().items() if row["state"] in OVER}
        pairs = sorted({training.pair for training in self.plan.trainings})
        for pair in pairs:
            if any((t.key, t.job.until_epoch) not in over for t in self.plan.trainings if t.pair == pair):
                return pair
        return len(pairs)

    def _look(self, *, last: bool = False) -> Answer:
        answer = answer_of(self.store, self.record.id, self.plan.config)
        state = "done" if last and not answer.reason else answer.state
        self.record.settle(state, answer.sentence, answer.rows)
        return answer

    def _preempt_all(self, reason: str) -> None:
        self.crew.close()
        for run in list(self.under_way):
            self.record.preempt(run, reason, "")
        self.under_way = {}

    def _say(self, kind: str, text: str) -> None:
        done, total = self._progress()
        self.listener(News(kind=kind, text=text, done=done, total=total))

    def _tick(self) -> None:
        self.beat()
        done, total = self._progress()
        self.listener(News(kind="tick", done=done, total=total))

    def _progress(self) -> tuple[int, int]:
        """Epochs of the plan that are trained, and epochs of all of it."""
        wanted = self._distinct()
        known = self.record.runs()
        done = 0
        for name in wanted:
            row = known.get(name)
            if row is not None:
                done += row["epochs"] if row["state"] in OVER else min(lines_of(Path(row["folder"])), row["epochs"])
        return done, len(wanted) * self.plan.config.epochs
