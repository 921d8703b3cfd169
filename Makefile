PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export ORT_DISABLE_TELEMETRY := 1
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: setup demo test test-fast lint test-slow test-gpu gpu-check faults clean

# torch's build: `make setup TORCH=gpu` where an NVIDIA GPU is. The CPU build comes from PyTorch's own index where pip
# is not set up for another place that has it.
TORCH ?= $(if $(shell command -v nvidia-smi),gpu,cpu)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
CONSTRAINTS := constraints-$(TORCH).txt
PIP := $(BIN)/python -m pip install --quiet -c $(CONSTRAINTS)

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	@echo "installing torch ($(TORCH)) into $(VENV) ..."
	$(PIP) torch $(if $(filter cpu,$(TORCH)),2>$(VENV)/pip.log || $(PIP) --extra-index-url $(TORCH_INDEX) torch)
	@echo "installing cleanplate and its tools into $(VENV); this takes minutes ..."
	$(PIP) -e '.[test,lint]'
	@echo "fetching the default models, about 40 MB ..."
	$(BIN)/cleanplate weights fetch --for default
	touch $@

demo: setup
	$(BIN)/cleanplate demo

# Two processes side by side: what starts a Ray, and the rest (tests/side_by_side.py).
test: setup
	$(BIN)/python tests/side_by_side.py

# The inner loop: no Ray, no S3 server, no browser, no real detector.
test-fast: setup
	$(BIN)/python -m pytest -m 'not slow and not gpu and not servers and not models and not on_ray'

test-slow: setup
	$(BIN)/python -m pytest -m slow

test-gpu: setup
	$(BIN)/python -m pytest -m gpu

# What one GPU does: finds equal to the CPU's, LaMa, transfers, stages, workers that share it. GPU_CHECK="--seconds 300"
gpu-check: setup
	$(BIN)/python -m cleanplate.jobs.benchmark.gpu_check $(GPU_CHECK)

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

clean:
	rm -rf $(VENV) demo-out build *.egg-info

# Every fault of the matrix, done to real runs: FAULTS="--only node-killed --images 400"
faults: setup
	PYTHONPATH=.:tests $(BIN)/python -m faults $(FAULTS)
