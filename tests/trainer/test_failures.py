from __future__ import annotations

import errno
import math
import os
import sqlite3
from pathlib import Path

import pytest
import torch
from torch import nn

from trainer import failures
from trainer.data.layouts import DataError, DataGoneError
from trainer.failures import (
    BrokenClip,
    DataAway,
    DiskFailed,
    DiskFull,
    EnvironmentFailed,
    FolderBusy,
    NonFiniteLoss,
    OutOfMemory,
    TrainingFailed,
    WorkerDied,
    disk_space,
    environment_failure,
    named,
)


def fails_at(epoch, step, error):
    def hook(*place):
        if place == (epoch, step):
            raise error

    return hook


def goes_on(toy, folder, whole):
    """The folder still goes on to what an undisturbed run gives."""
    toy.train(folder, 3)
    toy.train(whole, 3)
    toy.same_run(folder, whole)


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried\nto allocate"), OutOfMemory, "out_of_memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate"), OutOfMemory, "out_of_memory"),
        (MemoryError(), OutOfMemory, "out_of_memory"),
        (DataError("videos must decode, but train/a/1.mp4 does not"), BrokenClip, "broken_clip"),
    ],
)
def test_errors_of_libraries_become_failures_of_ours(toy, tmp_path, error, kind, reason):
    with pytest.raises(TrainingFailed) as caught:
        toy.train(tmp_path / "a", 3, batches=toy.ToyBatches(fails_at(2, 1, error)))
    assert type(caught.value) is kind
    assert caught.value.reason == reason
    assert "epoch 2" in str(caught.value)
    assert "\n" not in str(caught.value)
    goes_on(toy, tmp_path / "a", tmp_path / "whole")


def test_memory_that_the_machine_lacks_is_named_by_its_allocator():
    with pytest.raises(OutOfMemory, match="in a test"), named("a test"):
        torch.empty(10**15)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("other"), KeyboardInterrupt()])
def test_other_errors_stay_what_they_are(toy, tmp_path, error):
    with pytest.raises(type(error)) as caught:
        toy.train(tmp_path, 3, batches=toy.ToyBatches(fails_at(2, 1, error)))
    assert caught.value is error


def test_errors_in_evaluation_are_named_too(toy, tmp_path):
    class Broken(toy.ToyBatches):
        def eval_batches(self, *args, **options):
            yield from super().eval_batches(*args, **options)
            raise DataError("videos must decode, but val/a/1.mp4 does not")

    with pytest.raises(BrokenClip, match=r"val/a/1.mp4 does not \(in evaluation on val\)"):
        toy.train(tmp_path, 1, batches=Broken())


@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize(("epoch", "step"), [(1, 0), (2, 17), (2, 38)])
def test_the_first_loss_that_is_not_finite_is_named(toy, tmp_path, epoch, step, bad):
    class Poisoned(nn.Module):
        calls = 0

        def forward(self, clips):
            if self.training:
                self.calls += 1
                if self.calls == (epoch - 1) * 40 + step + 1:
                    return clips * bad
            return clips

    model = nn.Sequential(Poisoned(), *toy.network())
    with pytest.raises(NonFiniteLoss) as caught:
        toy.train(tmp_path, 3, model=model, data=toy.Toy(num_train=320))
    assert (caught.value.epoch, caught.value.step) == (epoch, step + 1)
    assert not math.isfinite(caught.value.value)
    assert caught.value.reason == "non_finite_loss"
    assert len(toy.lines(tmp_path)) == epoch - 1


def test_weights_that_the_last_step_spoilt_are_found_by_the_evaluation(toy, tmp_path):
    class Spoils(toy.ToyBatches):
        def eval_batches(self, *args, **options):
            for clips, labels, videos in super().eval_batches(*args, **options):
                yield clips * math.nan, labels, videos

    with pytest.raises(NonFiniteLoss, match="the evaluation after epoch 1"):
        toy.train(tmp_path, 1, batches=Spoils())
    assert not (tmp_path / "last.pt").exists()
    assert toy.lines(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("name", ["last.pt.tmp", "progress.jsonl"])
def test_a_full_disk_leaves_the_checkpoint_before(toy, tmp_path, name):
    def fill(result):
        if result.epoch == 2:
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to("/dev/full")

    folder = tmp_path / "a"
    with pytest.raises(DiskFull) as caught:
        toy.train(folder, 3, on_epoch=fill)
    assert caught.value.reason == "disk_full"
    assert name in str(caught.value)
    assert torch.load(folder / "last.pt", weights_only=True)["epoch"] == 2
    (folder / name).unlink(missing_ok=True)
    goes_on(toy, folder, tmp_path / "whole")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", range(1, 6))
def test_a_full_disk_at_any_sync_is_told_and_harms_nothing(toy, tmp_path, monkeypatch, code, call):
    real, calls = os.fsync, []

    def fsync(handle):
        calls.append(handle)
        if len(calls) == call:
            raise OSError(code, "no space")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DiskFull):
        toy.train(tmp_path / "a", 3)
    monkeypatch.undo()
    assert not list((tmp_path / "a").glob("*.tmp"))
    goes_on(toy, tmp_path / "a", tmp_path / "whole")


def test_other_trouble_with_the_disk_stays_what_it_is(toy, tmp_path, monkeypatch):
    def fsync(handle):
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="input/output"):
        toy.train(tmp_path, 1)


def test_a_folder_is_of_one_run_at_a_time(toy, tmp_path):
    def intrude(result):
        with pytest.raises(FolderBusy, match="another run has"):
            toy.train(tmp_path, 2)

    assert toy.train(tmp_path, 1, on_epoch=intrude).epochs[0].epoch == 1
    assert toy.train(tmp_path, 2).resumed_from == 1


def caused(outer, inner):
    """An error that another one is the cause of, as `raise ... from` leaves it."""
    outer.__cause__ = inner
    return outer


def while_handling(outer, inner):
    outer.__context__ = inner
    return outer


def numbered(code, name=None):
    return OSError(code, os.strerror(code), name)


def sqlite_full(path):
    connection = sqlite3.connect(path)
    try:
        connection.execute("CREATE TABLE a (b)")
        connection.execute("PRAGMA max_page_count = 4")
        with pytest.raises(sqlite3.OperationalError) as caught:
            connection.execute("INSERT INTO a VALUES (?)", ("x" * 100_000,))
        return caught.value
    finally:
        connection.close()


TORCH = "[enforce fail at inline_container.cc:671] . unexpected pos 768 vs 662"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (numbered(errno.ENOSPC, "last.pt"), DiskFull),
        (numbered(errno.EDQUOT), DiskFull),
        (while_handling(RuntimeError(TORCH), numbered(errno.ENOSPC)), DiskFull),
        (caused(ValueError("cannot be stored"), while_handling(RuntimeError("x"), numbered(errno.ENOSPC))), DiskFull),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), DiskFull),
        (caused(RuntimeError("the storage failed"), sqlite3.OperationalError("database or disk is full")), DiskFull),
        (DataGoneError("data.cache must stay in place"), DataAway),
        (caused(RuntimeError("x"), DataGoneError("data.cache must stay in place")), DataAway),
        (numbered(errno.EIO, "/data/1.mp4"), DiskFailed),
        (numbered(errno.ESTALE), DiskFailed),
        (caused(RuntimeError("x"), numbered(errno.EROFS)), DiskFailed),
        (numbered(errno.ECONNRESET), WorkerDied),  # of the pipe of a process that was killed
        (numbered(errno.EPIPE), WorkerDied),
        (caused(RuntimeError("x"), numbered(errno.ECONNRESET)), WorkerDied),
        (FolderBusy("another run has it"), FolderBusy),
        (WorkerDied("killed"), WorkerDied),
        (caused(RuntimeError("x"), WorkerDied("killed")), WorkerDied),
        (NonFiniteLoss(epoch=1, step=1, value=math.nan), None),
        (OutOfMemory("the network is large"), None),
        (while_handling(OutOfMemory("the network is large"), numbered(errno.ENOENT)), None),
        (while_handling(ValueError("shapes differ"), numbered(errno.ENOENT)), None),
        (RuntimeError("shapes differ"), None),
        (OSError("weights of that name are not known"), None),
        (KeyboardInterrupt(), None),
    ],
)
def test_one_place_tells_the_environment_from_the_network(error, kind):
    found = environment_failure(error)
    assert (found if kind is None else type(found)) is kind
    if found is not None:
        assert "\n" not in str(found)
        assert isinstance(found, EnvironmentFailed)
        assert found.reason == kind.reason


def test_a_full_database_is_a_full_disk(tmp_path):
    assert isinstance(environment_failure(caused(ValueError("x"), sqlite_full(tmp_path / "a.db"))), DiskFull)


@pytest.mark.parametrize(("free", "kind"), [(100, DiskFull), (2**40, RuntimeError)])
def test_a_short_write_of_torch_is_a_full_disk_where_there_is_little_room(tmp_path, monkeypatch, free, kind):
    """Torch's own file writer gives no number, and says only that the file is shorter than what it wrote."""
    monkeypatch.setattr(failures, "_free", lambda path: free)
    with pytest.raises(kind), disk_space(tmp_path / "new" / "last.pt"):
        raise RuntimeError(TORCH)


def test_what_is_free_is_asked_of_the_nearest_folder_that_is_there(tmp_path):
    assert failures._free(tmp_path / "not" / "yet" / "last.pt") == pytest.approx(
        failures._free(tmp_path / "a"), rel=0.5
    )
