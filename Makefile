# Everything runs from .venv, built once from the exact pins in constraints.txt.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := all,test

.PHONY: setup test lint demo bench clean

setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]"
	touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2  # more threads than cores wait for one another: several times slower

demo: setup
	$(BIN)/diptych biosignals demo

bench: setup
	$(BIN)/python tests/benchmarks/run.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
