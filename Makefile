# make demo   makes .venv from the lock, runs both recipes on the embedded model, prints the results
# make demo MODEL=...   the same on a model of yours: a folder or a name on the hub
# make test   the same environment, the tests that a change must pass, without a GPU
# make test-all   those and the slow ones: more than half an hour
PYTHON ?= python3
BIN := .venv/bin
# Where plain pip does not find PyTorch's CPU build, it comes from PyTorch's own index.
TORCH_INDEX := https://download.pytorch.org/whl/cpu

.PHONY: demo test test-all lint clean

demo: .venv/installed
	@$(BIN)/instructmill demo $(if $(MODEL),--model '$(MODEL)')
	@$(if $(MODEL),true,$(BIN)/instructmill demo --recipe backtranslation)

# What needs no Ray and no vLLM runs in three processes, which wait now and then; each of the others would take the
# cores from the next.
test: .venv/installed
	$(BIN)/python -m pytest -m "not slow" -n 3 --dist loadfile tests/*.py
	$(BIN)/python -m pytest -m "not slow" tests/faults tests/cluster tests/vllm tests/gpu

test-all: .venv/installed
	$(BIN)/python -m pytest

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/installed: requirements/cpu.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "InstructMill needs Python 3.11 or newer: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	@echo "making .venv from requirements/cpu.txt (once; about 3.5 GB)"
	$(PYTHON) -m venv .venv
	@# --no-deps: vLLM's CPU build asks for builds of torchvision and torchaudio that break it (requirements/README.md).
	$(BIN)/python -m pip install --quiet --no-deps -r requirements/cpu.txt || \
		$(BIN)/python -m pip install --quiet --no-deps -r requirements/cpu.txt --extra-index-url $(TORCH_INDEX)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

clean:
	rm -rf .venv build *.egg-info
