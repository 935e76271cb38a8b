"""No file imports another in a circle, imports inside functions and for types alone included."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

import grimp
import pytest


@pytest.mark.parametrize("package", ["nas", "search_spaces", "trainer"])
def test_no_circle_of_imports(package: str) -> None:
    graph = grimp.build_graph("nas", "search_spaces", "trainer", exclude_type_checking_imports=False)
    modules = {name for name in graph.modules if name.split(".")[0] == package}
    sorter = TopologicalSorter({name: graph.find_modules_directly_imported_by(name) & modules for name in modules})
    try:
        sorter.prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")
