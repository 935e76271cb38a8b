"""Trains the toy in forked processes that are killed; arguments: folder, mode, checkpoint_every, [checkpoint_steps].

Nothing computes in this process before it forks, so that the children's thread pools are their own.
"""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import sys
import time
from pathlib import Path

EPOCHS = 3
KILLS = 12


def load_toy():
    spec = importlib.util.spec_from_file_location("toy", Path(__file__).with_name("toy.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["toy"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


toy = load_toy()
STEPS = int(sys.argv[4]) if len(sys.argv) > 4 else 0


def start(folder, checkpoint_every, die_before=0, die_at=None):
    """Forks a process that trains, and that is killed before its so-manieth call that changes the disk."""
    pid = os.fork()
    if pid == 0:
        try:
            if die_before:
                count_down(die_before)
            batches = toy.ToyBatches(lambda *place: os.kill(os.getpid(), signal.SIGKILL) if place == die_at else None)
            toy.train(folder, EPOCHS, checkpoint_every=checkpoint_every, checkpoint_steps=STEPS, batches=batches)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return pid


def was_killed(pid):
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    assert os.waitstatus_to_exitcode(status) == 0, status
    return False


def count_down(count):
    left = [count]

    def counted(call):
        def wrapper(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return wrapper

    for name in ("write", "fsync", "replace", "unlink"):
        setattr(os, name, counted(getattr(os, name)))


def every_instant(place, checkpoint_every):
    """Dies before each call that changes the disk, in a folder each, and there again when it goes on."""
    count, killed = 0, True
    while killed:
        count += 1
        run = place / f"at{count}"
        killed = was_killed(start(run, checkpoint_every, die_before=count))
        was_killed(start(run, checkpoint_every, die_before=count))
        assert not was_killed(start(run, checkpoint_every))
        toy.same_run(run, place / "whole")
    return count - 1


def random_moments(place, checkpoint_every):
    """Dies at random moments, one folder until it is done, then the next."""
    rng = random.Random(0)
    kills, number = 0, 0
    while kills < KILLS:
        run = place / f"run{number}"
        pid = start(run, checkpoint_every)
        time.sleep(rng.uniform(0.0, 0.1))
        os.kill(pid, signal.SIGKILL)
        if was_killed(pid):
            kills += 1
        else:
            toy.same_run(run, place / "whole")
            number += 1
    assert not was_killed(start(run, checkpoint_every))
    toy.same_run(run, place / "whole")
    return kills


def mid_epochs(place, checkpoint_every):
    """Dies in the middle of each epoch, one folder, and goes on."""
    run = place / "run"
    kills = sum(was_killed(start(run, checkpoint_every, die_at=(epoch, 1))) for epoch in range(1, EPOCHS + 1))
    assert not was_killed(start(run, checkpoint_every))
    toy.same_run(run, place / "whole")
    return kills


if __name__ == "__main__":
    folder, mode, every = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    assert not was_killed(start(folder / "whole", every))
    print({"instants": every_instant, "moments": random_moments, "steps": mid_epochs}[mode](folder, every))
