# Two commands set everything up: `make demo` and `make test`. Each makes .venv, installs and does its job.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TEST_WORKERS ?= auto
# One thread of torch a worker, or the workers would fight over the cores (measured: four times the processor time).
ONE_THREAD := OMP_NUM_THREADS=1

.PHONY: demo test check lint types floors docs install slow faults browser clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints/cpu.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]' --constraint constraints/cpu.txt
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/postclick demo --out postclick-demo

test: $(STAMP)
	$(ONE_THREAD) $(BIN)/python -m pytest -m 'not slow and not gpu and not faults and not browser' --numprocesses $(TEST_WORKERS)

check: lint types floors docs

lint: $(STAMP)
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/deptry src

types: $(STAMP)
	$(BIN)/mypy

floors: $(STAMP)
	$(BIN)/lint-imports --no-cache

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

slow: $(STAMP)
	$(BIN)/python -m pytest -m 'slow and not gpu' --numprocesses 1

faults: $(STAMP)
	$(ONE_THREAD) $(BIN)/python -m pytest -m faults tests

# The report in a real Chromium, its network off; the browser is the system's own, or playwright's.
browser: $(STAMP)
	$(ONE_THREAD) $(BIN)/python -m pytest -m browser tests/report

clean:
	rm -rf $(VENV) postclick-demo site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
