"""NNI 3.0's RegularizedEvolution as its users run it: the metric is accuracy, for NNI knows one metric only.

The population is NNI's default of 100 (`nni_evolution`), of which a search of a hundred trainings never sees the end,
and 20 (`--population 20`, `nni_evolution_small`). Its own deduplication is on, as by default. A sample that is no
network of the table fails validation, as a constraint in a model space would, and NNI draws another.
"""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

warnings.simplefilter("ignore")

from exported import Exported, run  # noqa: E402
from nni.mutable import Categorical, SampleValidationError  # noqa: E402
from nni.nas.execution import SequentialExecutionEngine  # noqa: E402
from nni.nas.space import ExecutableModelSpace, ModelStatus  # noqa: E402
from nni.nas.strategy import RegularizedEvolution  # noqa: E402

logging.disable(logging.ERROR)


class Space(ExecutableModelSpace):
    """All settings of a table, each a choice of its own."""

    def __init__(self, table: Exported) -> None:
        """The purse of `table` pays."""
        super().__init__(status=ModelStatus.Initialized)
        self.table = table
        self.choices = {name: Categorical(of, label=name) for name, of in zip(table.names, table.values, strict=True)}

    def leaf_mutables(self, is_leaf: Any) -> Any:
        """Yields the choices."""
        for choice in self.choices.values():
            yield from choice.leaf_mutables(is_leaf)

    def check_contains(self, sample: Any) -> Any:
        """Returns an error for a sample that is no network."""
        for choice in self.choices.values():
            error = choice.check_contains(sample)
            if error is not None:
                return error
        return None if self.table.find(sample) is not None else SampleValidationError("not a network of the table")

    def freeze(self, sample: Any) -> Space:
        """A copy that can be trained."""
        self.validate(sample)
        model = Space.__new__(Space)
        model.__dict__.update(self.__dict__)
        model.status, model.sample = ModelStatus.Frozen, dict(sample)
        model.metrics = type(self.metrics)()
        return model

    def execute(self) -> None:
        """Trains; the accuracy is the metric."""
        network = self.table.find(self.sample)
        self.metrics.final = 100.0 - self.table.train(network)

    def executable_model(self) -> Any:
        """Nothing else is executed."""
        return self


def searcher(population: int) -> Any:
    """A search with a population of that size, and a quarter of it in a tournament."""

    def search(table: Exported, seed: int) -> None:
        strategy = RegularizedEvolution(population_size=population, sample_size=population // 4, seed=seed)
        engine = SequentialExecutionEngine(max_model_count=table.budget // table.fidelities[-1])
        strategy(Space(table), engine)

    return search


if __name__ == "__main__":
    small = "--population" in sys.argv
    if small:
        at = sys.argv.index("--population")
        size = int(sys.argv[at + 1])
        del sys.argv[at : at + 2]
    run("nni_evolution_small" if small else "nni_evolution", searcher(size if small else 100), description=__doc__)
