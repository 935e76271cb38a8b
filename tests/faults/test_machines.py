"""A search on a real Ray cluster of two nodes, of which one, a worker, or the driver is lost in mid-training."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_agent_register_timeout_ms"] = "300000"  # noqa: SIM112 - Ray spells it so
pytest.importorskip("ray", reason="Ray is not installed (pip install 'video-nas[ray]')")
from ray.cluster_utils import Cluster

from nas.cli.main import main
from nas.errors import SearchError
from nas.search.driver import run_search
from nas.store.database import Store
from nas.study.study import Study
from nas.train import crew
from nas.train.machines import Machines, places_of
from nas.train.ray import RayPool
from nas.train.session import News
from tests.nas.cli.world import ROOT, SEARCH, TRAINED
from tests.nas.read.conftest import free_port
from tests.nas.read.made import made
from tests.nas.search.test_search import results_of, study_at
from tests.nas.train.test_machines import lines
from trainer.data.motion_clips import make_motion

STORE = 80 * 2**20  # bytes, the least that Ray takes
OVER = {"search": {"trials": 4, "initial": 4, "rungs": [24]}}  # what is tried depends on no result
# A shell that puts jobs into the background makes them ignore interrupts; Python takes that over.
HEARS = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
COMMAND = [sys.executable, "-c", f"{HEARS}; from nas.cli.main import run; run()", "search"]


def node(name: str, num_cpus: int = 1, first: Path = ROOT) -> dict[str, Any]:
    """A small node whose processes look for modules in a folder first.

    Of helpers whose ports it knows it does not wait for, which takes too long on a busy machine.
    """
    ports = {
        key: free_port() for key in ("metrics_agent_port", "runtime_env_agent_port", "dashboard_agent_listen_port")
    }
    paths = {"env_vars": {**os.environ, "PYTHONPATH": f"{first}{os.pathsep}{ROOT}"}}
    size = {"num_cpus": num_cpus, "object_store_memory": STORE}
    return {"node_name": name, "include_log_monitor": False, **size, **ports, **paths}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head `a`; tests add what they lose."""
    cluster = Cluster(initialize_head=True, head_node_args={**node("a"), "include_dashboard": False})
    yield cluster
    cluster.shutdown()


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """These trainings take less than the second between two looks of the driver."""
    monkeypatch.setattr(crew, "POLL_SECONDS", 0.02)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, motion: Path) -> Study:
    return study_at(tmp_path_factory.mktemp("machines"), motion, OVER)


@pytest.fixture(scope="module")
def expected(study: Study, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    """What comes of the study in one process."""
    path = tmp_path_factory.mktemp("alone") / "study.db"
    run_search(study, path, workers=0)
    return sorted_results(path)


def sorted_results(path: Path) -> list[tuple[Any, ...]]:
    store = Store(path)
    try:
        return sorted(results_of(store))
    finally:
        store.close()


def preempted(path: Path) -> list[str]:
    store = Store(path)
    try:
        return [row["reason"] for row in store.jobs(1, "preempted")]
    finally:
        store.close()


def lines_in(folder: Path) -> dict[str, list[str]]:
    """Lines of progress by trial; each holds the seconds of its epoch, so that no two trainings write the same."""
    return {path.parent.name: path.read_text().splitlines() for path in folder.glob("trials/*/progress.jsonl")}


def training() -> list[int]:
    """Processes that train for a driver on Ray."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cmdline").read_bytes().startswith(b"ray::_train"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def wait_for(what: Callable[[], Any], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class When:
    """A listener that does something once, as soon as two trainings are under way at epoch 3 or later."""

    def __init__(self, folder: Path, act: Callable[[], None]) -> None:
        self.folder, self.act = folder, act
        self.news: list[News] = []
        self.before: dict[str, list[str]] = {}

    def __call__(self, news: News) -> None:
        self.news.append(news)
        if news.kind == "tick" and not self.before:
            lines = lines_in(self.folder)
            if len([name for name in lines if 3 <= len(lines[name]) < 20]) >= 2:
                self.before = lines
                self.act()

    def check_nothing_repeated(self) -> None:
        """Epochs that were over when it happened are those of the end; the last may not have had its checkpoint."""
        after = lines_in(self.folder)
        assert self.before
        for name, epochs in self.before.items():
            assert after[name][: len(epochs) - 1] == epochs[:-1]
            assert len(after[name]) == 24


def test_a_lost_node_costs_no_epoch_that_was_over(
    cluster: Cluster, study: Study, expected: list[tuple[Any, ...]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lost = cluster.add_node(**node("b"))
    watch = When(tmp_path, lambda: cluster.remove_node(lost, allow_graceful=False))
    path = tmp_path / "study.db"
    summary = run_search(study, path, workers=0, machines=Machines(address=cluster.address), listener=watch)
    watch.check_nothing_repeated()
    assert summary.counts == (4,)
    assert sorted_results(path) == expected
    assert preempted(path) == ["worker_died"]
    said = [news.text for news in watch.news if news.kind == "machines"]
    assert said == ["Ray: 2 nodes, 2 jobs at once, 1 CPU each", "node b is gone; 1 left"]
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""  # of Ray's own words, nothing
    assert not (tmp_path / "study.db.machines").exists()


@pytest.mark.slow
def test_a_killed_worker_is_replaced(
    cluster: Cluster, study: Study, expected: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    second = cluster.add_node(**node("c"))
    watch = When(tmp_path, lambda: os.kill(training()[0], signal.SIGKILL))
    path = tmp_path / "study.db"
    try:
        run_search(study, path, workers=0, machines=Machines(address=cluster.address), listener=watch)
    finally:
        cluster.remove_node(second)
    watch.check_nothing_repeated()
    assert preempted(path) == ["worker_died"]
    assert sorted_results(path) == expected


def start(study: Study, folder: Path, path: Path, address: str) -> subprocess.Popen[bytes]:
    settings = [f"data.root='{study.data.root}'", f"data.cache='{study.data.cache}'"]
    command = [*COMMAND, str(folder / "tiny.yaml"), *settings, "--db", str(path), "--ray", address]
    with (path.parent / "driver.log").open("ab") as log:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "interrupt"])
def test_tasks_end_with_their_driver_and_it_goes_on_from_where_it_was(
    cluster: Cluster, study: Study, motion: Path, expected: list[tuple[Any, ...]], tmp_path: Path, how: str
) -> None:
    study_at(tmp_path, motion, OVER)
    path = tmp_path / "study.db"
    driver = start(study, tmp_path, path, cluster.address)
    wait_for(lambda: any(len(lines) >= 3 for lines in lines_in(tmp_path).values()) or driver.poll() is not None)
    assert training()
    driver.send_signal(signal.SIGKILL if how == "kill" else signal.SIGINT)
    code = driver.wait()
    before = lines_in(tmp_path)
    wait_for(lambda: not training(), 30)
    assert code == (-signal.SIGKILL if how == "kill" else 130)
    again = start(study, tmp_path, path, cluster.address)
    assert again.wait() == 0, (tmp_path / "driver.log").read_text()
    after = lines_in(tmp_path)
    for name, epochs in before.items():
        assert after[name][: len(epochs) - 1] == epochs[:-1]
    assert sorted_results(path) == expected
    assert preempted(path) == ["driver_died" if how == "kill" else "interrupted"]


@pytest.fixture
def pool(cluster: Cluster, study: Study, tmp_path: Path) -> Iterator[tuple[RayPool, list[str]]]:
    """An executor on the head alone, and what it says."""
    said: list[str] = []
    places = places_of(study.data)
    machines = Machines(address=cluster.address)
    pool = RayPool(machines, tmp_path / "study.db", places, precision=False, say=said.append)
    yield pool, said
    pool.shutdown()


def other_version(folder: Path) -> Path:
    """A folder with another torch, as far as its package says."""
    (folder / "torch-1.0.0.dist-info").mkdir(parents=True)
    (folder / "torch-1.0.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 1.0.0\n")
    return folder


@pytest.mark.slow
def test_slots_grow_and_shrink_with_the_cluster(
    cluster: Cluster, pool: tuple[RayPool, list[str]], tmp_path: Path
) -> None:
    executor, said = pool
    assert (executor.slots, executor.device) == (1, "cpu")
    two = cluster.add_node(**node("two", 2))
    wait_for(lambda: executor.slots == 3)
    old = cluster.add_node(**node("old", first=other_version(tmp_path / "old")))
    wait_for(lambda: (executor.slots, len(said))[1] == 3)
    assert executor.slots == 3
    for lost in (two, old):
        cluster.remove_node(lost, allow_graceful=False)
    wait_for(lambda: executor.slots == 1)
    assert said[:2] == ["Ray: 1 node, 1 job at once, 1 CPU each", "node two has joined"]
    assert said[2].startswith("left out: every node must have the same python, torch and video-nas, but node old has")
    assert said[3:] == ["node two is gone; 1 left"]


@pytest.mark.slow
def test_a_node_with_another_version_is_refused_at_the_start(cluster: Cluster, study: Study, tmp_path: Path) -> None:
    old = cluster.add_node(**node("old", first=other_version(tmp_path / "old")))
    try:
        with pytest.raises(SearchError, match=r"node old has torch 1\.0\.0, and this machine has \d"):
            run_search(study, tmp_path / "study.db", workers=0, machines=Machines(address=cluster.address))
        assert list(tmp_path.glob("study.db.machines*")) == []
    finally:
        cluster.remove_node(old)


def test_jobs_that_fit_no_node_are_refused(cluster: Cluster, study: Study, tmp_path: Path) -> None:
    with pytest.raises(
        SearchError, match=r"a job needs 9 CPUs, but no node has as much \(CPUs: .*a 1.*\); lower --cpus"
    ):
        run_search(study, tmp_path / "study.db", workers=0, machines=Machines(address=cluster.address, cpus=9))


@pytest.mark.slow
def test_a_node_that_does_not_see_the_folder_is_refused(cluster: Cluster, study: Study, tmp_path: Path) -> None:
    """The node has an empty file system of its own where the study lies."""
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("no mount namespaces here")
    ray = f"{sys.executable} -m ray.scripts.scripts start --address={cluster.address} --num-cpus=1 --node-name=apart"
    options = f"--object-store-memory={STORE} --block"
    inside = tmp_path / "study"
    inside.mkdir()
    command = ["unshare", "--mount", "sh", "-c", f"mount -t tmpfs none {inside} && exec {ray} {options}"]
    with (tmp_path / "node.log").open("wb") as log:
        apart = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        alive = lambda: [n for n in cluster.global_state.node_table() if n["Alive"] and n["NodeName"] == "apart"]  # noqa: E731
        wait_for(lambda: alive() or apart.poll() is not None)
        with pytest.raises(
            SearchError, match=r"node apart does not see .*study\.db\.machines, which this machine wrote"
        ):
            run_search(study, inside / "study.db", workers=0, machines=Machines(address=cluster.address))
    finally:
        apart.terminate()
        apart.wait()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a user has it: the studies, small motion data, and two databases to compare."""
    folder = tmp_path_factory.mktemp("guide")
    (folder / "studies").symlink_to(ROOT / "studies")
    make_motion(folder / "data" / "motion", train_per_class=2, val_per_class=1, test_per_class=1, frames=8, size=40)
    for seed, name in enumerate(("a", "b")):
        made(folder / "runs" / name / "study.db", seed=seed, optuna=False)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("line", lines("nas"))
def test_a_command_of_the_guide_runs(
    line: str, cluster: Cluster, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    two = cluster.add_node(**node("two", 2))
    small = {
        "search": SEARCH,
        "ablate": [*TRAINED, "recipe.batch_size=8"],
        "versus": [*SEARCH, "--seeds", "2", "--epochs", "1"],
    }
    try:
        words = shlex.split(line)[1:]
        assert main([*words, *small.get(words[0], [])]) == 0, capfd.readouterr().err
        assert ("Ray: 2 nodes" in capfd.readouterr().err) == ("--ray" in words)
    finally:
        cluster.remove_node(two)
