"""Jobs on the machines of a Ray cluster, one task per job; the only module that imports Ray.

Ray is a way to start processes elsewhere and to hear of their end, nothing more: what is tried again is the driver's
to decide, what is stored lies in the job's folder, and where a job trains is chosen here.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # before the import: nothing is sent anywhere
import ray
from ray.exceptions import NodeDiedError, RayError, RayTaskError, TaskUnschedulableError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nas.errors import SearchError
from nas.train.executors import WorkerLost
from nas.train.jobs import JobResult
from nas.train.machines import Facts, Machines, NodeAnswer, NodeProbe, alone, facts, look, refusal, room, shown

T = TypeVar("T")
REFRESH_SECONDS = 1.0
CONNECT_SECONDS = 5.0
PROBE_SECONDS = 300.0  # a first process on a node imports Python and torch, perhaps over a network
OBJECT_STORE = 100 * 2**20  # bytes, of a cluster of our own: jobs and results are a few kilobytes


@dataclass(slots=True)
class _Node:
    """A node of the cluster as this driver sees it; `fit` is None until it has answered the probe."""

    id: str
    name: str
    resources: Mapping[str, float]
    answer: Any
    fit: bool | None = None
    jobs: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Job:
    number: int
    call: tuple[Callable[..., Any], tuple[Any, ...]]
    outer: Future[Any]


class RayPool(Executor):
    """One task a job on the nodes of a Ray cluster.

    A node must answer a probe (`nas.train.machines`) before it gets a job. One that is there at the start and cannot
    train ends the command; one that joins later and cannot is left out, and said so. Jobs are placed on nodes here, and
    Ray never tries one again. Tasks end with the driver, however it ends: Ray kills the processes of its job.

    Args:
        machines: The cluster.
        database: The study's database; beside it lies the file that nodes are shown.
        places: Files and folders of the data.
        precision: Whether the recipe leaves its precision to the machine.
        say: Hears of nodes that come and go, a line each.
    """

    def __init__(
        self,
        machines: Machines,
        database: Path,
        places: list[str],
        *,
        precision: bool,
        say: Callable[[str], None],
    ) -> None:
        """Connects, and tries every node.

        Raises:
            SearchError: There is no such cluster, or a node cannot train; the line names it.
        """
        self._machines, self._say = machines, say
        self._threads = int(os.environ.get("OMP_NUM_THREADS", "0") or 0)
        self._nodes: dict[str, _Node] = {}
        self._gone: set[str] = set()
        self._waiting: list[_Job] = []
        self._refs: dict[int, Any] = {}
        self._numbers: dict[Future[Any], int] = {}
        self._number = 0
        self._refreshed = 0.0
        self._ends = ExitStack()
        try:
            _connect(machines.address)
            self._ends.callback(ray.shutdown)
            self._gpu = any(node["Resources"].get("GPU", 0) >= 1 for node in ray.nodes() if node["Alive"])
            precision = precision and not self._gpu
            self._mine: Facts = facts(precision=precision)
            file = database.with_name(f"{database.name}.machines")
            self._probe: NodeProbe = self._ends.enter_context(shown(file, places, precision=precision))
            self._first_look()
        except BaseException:
            self._ends.close()
            raise

    @property
    def device(self) -> str:
        """Where networks are trained; settled by what the cluster has at the start."""
        return "cuda" if self._gpu else "cpu"

    @property
    def cores(self) -> int:
        """Of a node, that a job has."""
        return self._machines.cpus

    @property
    def slots(self) -> int:
        """Jobs that the cluster has room for now, at least 1: a job may wait for a node to come."""
        self._refresh()
        jobs = sum(self._room(node) for node in self._nodes.values())
        return max(1, min(jobs, self._machines.at_most or jobs))

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Gives the job to the node with most room; keeps it until there is one.

        Args:
            fn: What trains.
            args: The job, with its `folder`.
            kwargs: None.
        """
        assert not kwargs
        outer: Future[T] = Future()
        outer.set_running_or_notify_cancel()
        self._number += 1
        self._numbers[outer] = self._number
        self._waiting.append(_Job(self._number, (fn, args), outer))
        self._place()
        return outer

    def abandon(self, future: Future[Any]) -> bool:
        """Kills the task of a job; returns whether there is one, and the job does not wait for a node."""
        ref = self._refs.get(self._numbers[future])
        if ref is not None:
            ray.cancel(ref, force=True)
        return ref is not None

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leaves the cluster, which ends the tasks; what they were doing is resumed from the checkpoints later."""
        self._waiting.clear()
        for ref in list(self._refs.values()):
            ray.cancel(ref, force=True)
        self._refs.clear()
        self._ends.close()

    def _first_look(self) -> None:
        self._refresh(strict=True)
        deadline = time.monotonic() + PROBE_SECONDS
        while any(node.fit is None for node in self._nodes.values()) and time.monotonic() < deadline:
            time.sleep(0.2)
            self._refreshed = 0.0
            self._refresh(strict=True)
        silent = [node.name for node in self._nodes.values() if node.fit is None]
        if silent:
            raise SearchError(f"node {silent[0]} of the Ray cluster does not answer within {PROBE_SECONDS:.0f} s")
        jobs = sum(self._room(node) for node in self._nodes.values())
        need = f"{self._machines.cpus} CPU{'s' if self._machines.cpus > 1 else ''}" + (
            " and a GPU" if self._gpu else ""
        )
        if not jobs:
            have = ", ".join(f"{node.name} {node.resources.get('CPU', 0):.0f}" for node in self._nodes.values())
            raise SearchError(f"a job needs {need}, but no node has as much (CPUs: {have or 'no nodes'}); lower --cpus")
        count = len(self._nodes)
        self._say(
            f"Ray: {count} node{'s' if count > 1 else ''}, {jobs} job{'s' if jobs > 1 else ''} at once, {need} each"
        )

    def _refresh(self, *, strict: bool = False) -> None:
        """Looks who has come and gone, once a second at most."""
        if time.monotonic() - self._refreshed < REFRESH_SECONDS:
            return
        self._refreshed = time.monotonic()
        alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in self._gone}
        for key in set(self._nodes) - set(alive):
            self._lose(key)
        for key, row in alive.items():
            if key in self._nodes:
                continue
            name = row["NodeName"] if row["NodeName"] != row["NodeManagerAddress"] else row["NodeManagerHostname"]
            answer = _look.options(num_cpus=0, scheduling_strategy=_at(key)).remote(self._probe)
            self._nodes[key] = _Node(key, name, row["Resources"], answer)
        for node in list(self._nodes.values()):
            if node.fit is None and ray.wait([node.answer], timeout=0)[0]:
                self._hear(node, strict=strict)
        self._place()

    def _hear(self, node: _Node, *, strict: bool) -> None:
        """Takes a node's answer to the probe."""
        try:
            seen: NodeAnswer = ray.get(node.answer)
            problem = refusal(node.name, self._mine, seen)
        except (NodeDiedError, TaskUnschedulableError):
            self._lose(node.id)
            return
        except RayError as error:
            last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            problem = f"node {node.name} cannot run video-nas ({last}); install the same video-nas there"
        if problem and strict:
            raise SearchError(problem)
        node.fit = problem is None
        if not strict:
            self._say(f"left out: {problem}" if problem else f"node {node.name} has joined")

    def _lose(self, key: str) -> None:
        node = self._nodes.pop(key, None)
        self._gone.add(key)
        if node is not None and node.fit:
            left = sum(1 for other in self._nodes.values() if other.fit)
            self._say(f"node {node.name} is gone; {f'{left} left' if left else 'none is left, waiting for one'}")

    def _room(self, node: _Node) -> int:
        if not node.fit or node.id in self._gone:
            return 0
        return room(node.resources, cpus=self._machines.cpus, gpu=self._gpu)

    def _place(self) -> None:
        """Starts jobs that wait, each on the node with most room."""
        while self._waiting:
            free = [(self._room(node) - len(node.jobs), node) for node in self._nodes.values()]
            most, node = max(free, key=lambda pair: pair[0], default=(0, None))
            if node is None or most < 1:
                return
            job = self._waiting.pop(0)
            fn, args = job.call
            options = {"num_cpus": self._machines.cpus, "num_gpus": int(self._gpu), "scheduling_strategy": _at(node.id)}
            node.jobs.add(job.number)
            ref = _train.options(**options).remote(self._probe.cwd, self._threads, fn, *args)
            self._refs[job.number] = ref
            ref.future().add_done_callback(lambda done, job=job, node=node: self._finish(done, job, node))

    def _finish(self, inner: Future[Any], job: _Job, node: _Node) -> None:
        """Passes on what came of a task; called by a thread of Ray's."""
        node.jobs.discard(job.number)
        self._refs.pop(job.number, None)
        self._numbers.pop(job.outer, None)
        error = inner.exception()
        if isinstance(error, NodeDiedError | TaskUnschedulableError):
            self._gone.add(node.id)  # Ray's list of nodes is a moment behind
        if error is None:
            job.outer.set_result(inner.result())
        elif isinstance(error, RayTaskError):
            job.outer.set_exception(error.cause)
        else:
            job.outer.set_exception(WorkerLost(f"{type(error).__name__} on node {node.name}"))


@ray.remote(max_retries=0)  # type: ignore[untyped-decorator]
def _look(probe: NodeProbe) -> NodeAnswer:
    return look(probe)


@ray.remote(max_retries=0)  # type: ignore[untyped-decorator]
def _train(cwd: str, threads: int, fn: Callable[..., JobResult], job: Any) -> JobResult:
    """Runs a job in the driver's folder, with its share of the node, alone in the job's folder."""
    os.chdir(cwd)
    import torch

    # Ray has set the variable to the task's CPUs, unless whoever started the node did; the driver's own goes first.
    torch.set_num_threads(threads or int(os.environ.get("OMP_NUM_THREADS", "1")))
    with alone(Path(job.folder)) as free:
        if not free:
            return JobResult(
                epochs=(), seconds=0.0, reason="folder_busy", detail=f"another process trains in {job.folder}"
            )
        return fn(job)


def _at(node: str) -> Any:
    return NodeAffinitySchedulingStrategy(node, soft=False)


def _connect(address: str) -> None:
    """Joins the cluster as a driver, quietly; Ray itself would try an address for many minutes."""
    settings: dict[str, Any] = {"address": "local", "include_dashboard": False, "object_store_memory": OBJECT_STORE}
    if address != "local":
        settings = {"address": _reachable(address)}
    ray._private.worker._worker_logs_enabled = False  # pages of a lost node's log; there is no public switch
    try:
        ray.init(**settings, log_to_driver=False, logging_level="CRITICAL", namespace="video-nas")
    except (RuntimeError, ConnectionError, ValueError, OSError) as error:
        line = " ".join(str(error).split())[:300]
        raise SearchError(f"--ray {address}: the cluster cannot be joined: {line}") from error


def _reachable(address: str) -> str:
    """`host:port` of a head that answers."""
    found = address
    if address == "auto":
        noted = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"
        found = os.environ.get("RAY_ADDRESS", "") or (noted.read_text().strip() if noted.is_file() else "")
        if not found:
            raise SearchError(
                "--ray auto finds no Ray cluster on this machine; start one with `ray start --head`, or join one with "
                "`ray start --address=HOST:PORT`"
            )
    host, _, port = found.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise SearchError(f"--ray must be auto, local or the HOST:PORT of the head, but is {found}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise SearchError(
            f"--ray {address}: no Ray cluster answers at {found} ({error.strerror or error}); start its head there "
            "with `ray start --head`"
        ) from error
    return found
