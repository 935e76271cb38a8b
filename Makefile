# `make search` and `make test` need Python 3.11+ and make, nothing else: they make the environment themselves.
PYTHON ?= python3
VENV ?= .venv
# Processes that test, a file each at a time; torch has one thread in each.
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: search test test-slow test-all test-python lint types imports setup bench clean

search: $(STAMP)
	$(BIN)/nas data make motion
	$(BIN)/nas search studies/kinetics_small.yaml data=motion

test: $(STAMP) lint types imports
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not slow" -n $(JOBS) --dist loadfile

test-slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow -n $(JOBS) --dist loadfile

test-all: test test-slow

# What differs most between versions of Python: processes, connections, the command line. For another PYTHON in a VENV of its own.
test-python: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile -m "not slow" tests/faults tests/nas/cli/test_cli.py \
		tests/nas/train/test_local_pool.py tests/nas/store/test_migrations.py tests/nas/search/test_search.py tests/nas/store/test_store.py tests/nas/read

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

imports: $(STAMP)
	$(BIN)/lint-imports

bench: $(STAMP)
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, but $(PYTHON) is `$(PYTHON) --version 2>&1`; set PYTHON=…" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .venv-newest build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
