PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export ORT_DISABLE_TELEMETRY := 1
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: setup demo test lint test-slow test-gpu faults clean

setup: $(VENV)/.ready

# CONSTRAINTS is emptied by a GPU user who wants another torch build.
CONSTRAINTS ?= -c constraints.txt
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) -e '.[test,lint]'
	$(BIN)/cleanplate weights fetch text-det text-rec text-det-v4 centerface blazeface
	touch $@

demo: setup
	$(BIN)/cleanplate demo

test: setup
	$(BIN)/python -m pytest

test-slow: setup
	$(BIN)/python -m pytest -m slow

test-gpu: setup
	$(BIN)/python -m pytest -m gpu

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

clean:
	rm -rf $(VENV) demo-out build *.egg-info

# Every fault of the matrix, done to real runs: FAULTS="--only node-killed --images 400"
faults: setup
	PYTHONPATH=.:tests $(BIN)/python -m faults $(FAULTS)
