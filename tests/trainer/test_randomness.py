"""What layers draw: once a clip where they compute, once a batch on the CPU, alike in all processes beside GPUs."""

from __future__ import annotations

import torch

from trainer.loop import seed_generators


def drawn(seed, epoch, device, **place):
    with torch.random.fork_rng([]):
        seed_generators(seed, epoch, torch.device(device), **place)
        return torch.rand(4).tolist()


def test_one_process_draws_what_it_always_drew():
    with torch.random.fork_rng([]):
        seed_generators(3, 2, torch.device("cpu"))
        assert torch.initial_seed() == 3932738740628772775
    assert drawn(3, 2, "cpu") == drawn(3, 2, "cuda")


def test_beside_gpus_all_processes_draw_alike_on_the_cpu_and_as_one():
    one = drawn(3, 2, "cpu")
    assert all(drawn(3, 2, f"cuda:{rank}", rank=rank) == one for rank in range(4))
    assert drawn(3, 2, "cuda:1", rank=1, step=5) == drawn(3, 2, "cuda:0", step=5) != one


def test_on_cpus_all_processes_epochs_steps_and_seeds_draw_other_numbers():
    places = [(3, 2, 0, 0), (3, 2, 1, 0), (3, 2, 2, 0), (3, 2, 1, 5), (3, 3, 0, 0), (4, 2, 0, 0)]
    found = {tuple(drawn(seed, epoch, "cpu", rank=rank, step=step)) for seed, epoch, rank, step in places}
    assert len(found) == len(places)
