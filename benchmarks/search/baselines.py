"""Methods that need no package: random, regularised evolution, successive halving and i-Epoch of random networks."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from benchmarks.search.purse import Purse
from nas.search.ledger import Entry, Ledger
from nas.search.scheduler import Promote, Rules, Start, asha
from nas.study.front import front_ranks

POPULATION, TOURNAMENT = 20, 5  # of regularised evolution
ETA = 3
STRATA = 10  # of the even start


def random_search(purse: Purse) -> None:
    """Full trainings of different random networks."""
    for network in _shuffled(purse):
        purse.train(network)


def random_strata(purse: Purse) -> None:
    """Random networks after an even start: one in each of ten equal parts of the range of log MACs, in random order."""
    table, rng = purse.table, random.Random(f"strata {purse.seed}")
    start = []
    for part in rng.sample(range(STRATA), STRATA):
        inside = [i for i in range(len(table)) if part <= table.place[i] * STRATA <= part + 1 and i not in start]
        if inside:
            start.append(rng.choice(inside))
    for network in (*start, *(i for i in _shuffled(purse) if i not in start)):
        purse.train(network)


def evolution(purse: Purse) -> None:
    """Regularised evolution (Real et al. 2019) over fronts: parents by non-dominated rank, the oldest is dropped.

    The best rank of a tournament, ties at random, gets a child that differs in one setting. A child that was tried
    before is trained, and paid, again.
    """
    table, rng = purse.table, random.Random(f"evolution {purse.seed}")
    alive: deque[tuple[int, float]] = deque(maxlen=POPULATION)
    for network in _shuffled(purse)[:POPULATION]:
        alive.append((network, purse.train(network)))
    while True:
        ranks = front_ranks([(error, float(table.place[network])) for network, error in alive])
        drawn = rng.sample(range(len(alive)), min(TOURNAMENT, len(alive)))
        parent = alive[min(drawn, key=lambda i: (ranks[i], rng.random()))][0]
        sites = [others for others in table.neighbours(parent) if len(others)]
        child = int(rng.choice(rng.choice(sites)))
        alive.append((child, purse.train(child)))


def pareto_asha(purse: Purse) -> None:
    """This project's promotion-type Pareto ASHA over random networks."""
    order = iter(_shuffled(purse))
    halve(purse, lambda ledger, networks: next(order, None))


def i_epoch(purse: Purse) -> None:
    """i-Epoch (Egele et al. 2024): everything for the first fidelity, the best in full, half of the epochs for each.

    The best are those that add most to the hypervolume of the results so far, asynchronously.
    """
    table = purse.table
    order = iter(_shuffled(purse))
    first, full = table.fidelities[0], table.full
    share = max(2, 1 + math.ceil((full - first) / first))  # one in so many goes on
    rules = Rules(num_rungs=2, eta=share, num_trials=len(table))
    _halve(purse, lambda ledger, networks: next(order, None), rules, (0, table.top))


Choose = Callable[[Ledger, list[int]], int | None]


def halve(purse: Purse, choose: Choose) -> None:
    """Pareto ASHA with all fidelities of the table as rungs, one worker, and checkpoints.

    Args:
        purse: Pays.
        choose: The next network to start, given all results and the networks of the trials; None for no further one.
    """
    rungs = tuple(range(len(purse.table.fidelities)))
    rules = Rules(num_rungs=len(rungs), eta=ETA, num_trials=10 * len(purse.table))
    _halve(purse, choose, rules, rungs)


def _halve(purse: Purse, choose: Choose, rules: Rules, rungs: tuple[int, ...]) -> None:
    table, ledger, networks = purse.table, Ledger(), list[int]()
    while True:
        match asha(ledger, rules):
            case Start():
                network = choose(ledger, networks)
                if network is None:
                    rules = replace(rules, num_trials=len(ledger))
                    continue
                networks.append(network)
                entry, rung, after = Entry(number=len(ledger)), 0, None
            case Promote(number, rung):
                entry, network, after = ledger.entries[number], networks[number], rungs[rung - 1]
            case _:
                return
        result = (purse.train(network, rungs[rung], after=after) / 100, math.log10(table.macs[network]))
        ledger = ledger.replace(replace(entry, results=(*entry.results, result)))


def _shuffled(purse: Purse) -> list[int]:
    """All networks in the order of a seed, which is the same for every method that draws them."""
    return random.Random(purse.seed).sample(range(len(purse.table)), len(purse.table))
