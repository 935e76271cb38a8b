"""Several processes that train one network together, each with its device and its part of every batch.

This process starts them, hears of each epoch, and ends them all when one fails or the caller stops. Fabric, in each of
them, joins the group and averages gradients. (Fabric's own launchers either start the whole program anew, once a
device, or do not come back before training has ended.)
"""

from __future__ import annotations

import dataclasses
import importlib
import io
import logging
import multiprocessing
import os
import pickle
import signal
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import torch
from lightning_fabric.plugins.environments.lightning import find_free_network_port

from trainer.checkpoint import RunFolder
from trainer.config import ConfigError
from trainer.failures import Stopped, TrainingFailed, WorkerDied
from trainer.loop import FitResult, RunPlan, run
from trainer.metrics import EpochResult
from trainer.processes import Team, end_with_parent

_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_TO_END = 10.0
_SECONDS_TO_SPEAK = 2.0


def run_together(
    plan: RunPlan,
    size: int,
    *,
    on_epoch: Callable[[EpochResult], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> FitResult:
    """Does what `trainer.loop.run` does, with several processes.

    Args:
        plan: What to do; its device says the kind, process r takes device r of it.
        size: Number of processes, at least 2.
        on_epoch: Called here after each epoch.
        should_stop: Asked here, a few times a second.

    Raises:
        ConfigError, TrainingFailed, Stopped: As `fit`. WorkerDied where a process is killed or crashes.
    """
    content = _packed(dataclasses.replace(plan, model=plan.model.cpu()))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # the server imports torch once, and never touches a GPU
    port = find_free_network_port()
    threads = max(1, torch.get_num_threads() // size)
    processes: list[BaseProcess] = []
    pipes: dict[Any, int] = {}
    try:
        for rank in range(size):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(
                target=_member, args=(content, Team(rank=rank, size=size), port, threads, theirs), daemon=False
            )
            process.start()
            theirs.close()
            processes.append(process)
            pipes[ours] = rank
        result: FitResult | None = None
        while pipes:
            if should_stop is not None and should_stop():
                _kill(processes)
                raise Stopped(_kept(plan.folder))
            for pipe in wait(list(pipes), timeout=_SECONDS_BETWEEN_LOOKS):
                assert isinstance(pipe, Connection)
                rank = pipes[pipe]
                try:
                    kind, value = pickle.loads(pipe.recv_bytes())
                except EOFError:
                    raise _ended(processes[rank], rank) from None
                if kind == "epoch":
                    if on_epoch is not None:
                        on_epoch(value)
                elif kind == "error":
                    del pipes[pipe]
                    raise _cause(_rebuilt(value), pipes, processes)
                else:
                    ended, met = value
                    plan.data.met.join(met)
                    result = ended if rank == 0 else result
                    del pipes[pipe]
        assert result is not None
        return result
    except BaseException:
        _kill(processes)
        raise
    finally:
        _end(processes)


def _member(content: bytes, team: Team, port: int, threads: int, pipe: Connection) -> None:
    """What a process of the team does."""
    end_with_parent()
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it greets from every process
    # Gradients of 1x1x1 kernels may lie in memory in another order than DDP's buckets; it copies them, and says so.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    torch.set_num_threads(threads)
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(team.rank),
        "LOCAL_RANK": str(team.rank),
        "WORLD_SIZE": str(team.size),
    }
    try:
        plan: RunPlan = pickle.loads(content)
        if plan.device.type == "cuda":
            plan = dataclasses.replace(plan, device=torch.device("cuda", team.rank))
            torch.cuda.set_device(plan.device)
        plan.data.met.reset()  # what was met before this call is told already
        result = run(plan, team=team, on_epoch=lambda epoch: pipe.send_bytes(pickle.dumps(("epoch", epoch))))
        pipe.send_bytes(pickle.dumps(("done", (result, plan.data.met))))
        torch.distributed.barrier()  # the first process serves the group's store, and leaves last
        torch.distributed.destroy_process_group()
    except BaseException as error:
        pipe.send_bytes(pickle.dumps(("error", _portable(error))))
        os._exit(1)  # not through the group's destructors, which may wait for the others


def _portable(error: BaseException) -> tuple[type[BaseException], tuple[Any, ...], dict[str, Any]]:
    """What `_rebuilt` makes the error of again: pickle's own way fails for those whose arguments have names."""
    found = type(error), error.args, dict(vars(error))
    try:
        pickle.loads(pickle.dumps(found))
    except Exception:
        return RuntimeError, (f"{type(error).__name__}: {error}",), {}
    return found


def _rebuilt(found: tuple[type[BaseException], tuple[Any, ...], dict[str, Any]]) -> BaseException:
    kind, args, state = found
    error: BaseException = kind.__new__(kind, *args)
    vars(error).update(state)
    return error


def _cause(error: BaseException, pipes: dict[Any, int], processes: list[BaseProcess]) -> BaseException:
    """The failure behind one: a process whose partner has died fails as well, and may be heard of first."""
    if isinstance(error, ConfigError | TrainingFailed):
        return error
    for pipe in wait(list(pipes), timeout=_SECONDS_TO_SPEAK):
        assert isinstance(pipe, Connection)
        try:
            kind, value = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return _ended(processes[pipes[pipe]], pipes[pipe])
        if kind == "error":
            other = _rebuilt(value)
            if isinstance(other, ConfigError | TrainingFailed):
                return other
    return error


def _ended(process: BaseProcess, rank: int) -> TrainingFailed:
    process.join(_SECONDS_TO_END)
    return WorkerDied(
        f"process {rank} of those that train together ended with code {process.exitcode}"
        f"{'; as a rule, the machine had no memory left' if process.exitcode == -signal.SIGKILL else ''}"
    )


def _kill(processes: list[BaseProcess]) -> None:
    """Ends the processes at once: at every instant, a complete checkpoint is on the disk."""
    for process in processes:
        process.kill()
    for process in processes:
        process.join()


def _kept(folder: Path) -> int:
    """The epoch that the next call would go on from; of what the processes last did, they may not have told all."""
    files = RunFolder(folder)
    with files.locked():
        checkpoint, _ = files.restore()
    return 0 if checkpoint is None else checkpoint.epoch


def _end(processes: list[BaseProcess]) -> None:
    """Ends the processes that still run; each has a moment to do so itself."""
    for process in processes:
        if process.exitcode is None:
            process.join(_SECONDS_TO_END if all(p.exitcode in (None, 0) for p in processes) else 0.0)
    for process in processes:
        if process.is_alive():
            process.kill()
            process.join()


class _Pickler(pickle.Pickler):
    """Knows what plans hold and pickle does not: sources of batches that are modules, and read-only mappings."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, ModuleType):
            return importlib.import_module, (value.__name__,)
        if isinstance(value, MappingProxyType):
            return _read_only, (dict(value),)
        return NotImplemented


def _read_only(values: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(values)  # pickle does not find the class by its name


def _packed(plan: RunPlan) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(plan)
    return buffer.getvalue()
