# make demo | lab | test | check | bench | extension | clean       (GNU make; Linux and macOS)
#
# PYTHON       the Python that makes the environment, 3.10 to 3.13       make demo PYTHON=python3.12
# VENV         where the environment is                                  make test VENV=/tmp/venv
# PEERS        where the environment of test-peers is
# PIP_ARGS     for pip, such as the index of torch's CPU-only builds
#              make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
# DEMO_ARGS, PYTEST_ARGS, BENCH_ARGS   for the command that the target runs

PYTHON ?= python3
VENV ?= .venv
PEERS ?= .venv-interop
PIP_ARGS ?=
DEMO_ARGS ?= --study runs/demo --html runs/demo.html
PYTEST_ARGS ?=
BENCH_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS)
# Tests start several processes that compute: threads that spin while they wait would starve them.
export OMP_WAIT_POLICY ?= PASSIVE
SOURCES := $(shell find workbench -type f ! -path '*/__pycache__/*' ! -name '.*' 2>/dev/null)
NOTEBOOKS := notebooks/01-quickstart.ipynb
LONG_NOTEBOOKS := notebooks/02-distil-and-specialise.ipynb

.PHONY: demo install lab extension test test-install unit notebooks long-notebooks browser slow slow-training slow-browser peers test-peers check format bench clean
.DEFAULT_GOAL := demo

# What people run ---------------------------------------------------------------------------------

demo: install ## install if needed, then compress the bundled model and plot what came of it
	$(BIN)/workbench demo $(DEMO_ARGS)

lab: $(VENV)/.lab ## open the quickstart notebook in JupyterLab
	$(BIN)/jupyter lab $(NOTEBOOKS)

test: unit notebooks browser ## everything but the slow tests

check: test-install ## style, types, the direction of imports and no circle among them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --quiet tests/test_import.py

bench: test-install ## the sweep against llm-compressor, which gets an environment of its own
	$(BIN)/python benchmarks/sweep_vs_peers.py --pip-args="$(PIP_ARGS)" $(BENCH_ARGS)

clean: ## remove the environments and everything that was built
	rm -rf $(VENV) $(PEERS) .venv-llmcompressor .venv-gptqmodel build dist *.egg-info
	rm -rf .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Needs Node 20 and npm; what it makes is committed, so that nothing else needs them.
extension: test-install ## build JupyterLab's launcher tile and command again
	cd extension && npm ci --no-audit --no-fund
	rm -rf workbench/app/labextension
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/jupyter-builder build extension

# The parts of a test run -------------------------------------------------------------------------

# Two at a time, each on one thread: as fast on two cores as they go, and no slower on more.
unit: test-install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not browser and not peers" $(PYTEST_ARGS)

notebooks: test-install
	$(BIN)/python -m pytest --nbval-lax --nbval-current-env $(PYTEST_ARGS) $(NOTEBOOKS)

# From the first cell to the last: what an earlier run left is not gone on from.
long-notebooks: test-install
	rm -rf notebooks/runs/specialise
	$(BIN)/python -m pytest --nbval-lax --nbval-current-env $(PYTEST_ARGS) $(LONG_NOTEBOOKS)

browser: test-install
	$(BIN)/python -m pytest -m "browser and not slow" $(PYTEST_ARGS)

slow: test-install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "slow and not browser" --ignore=tests/training $(PYTEST_ARGS)

# Trainings are few and long: one after the other, on all cores.
slow-training: test-install
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS) tests/training

# Again in the kernel mode of ipykernel 6: one thread for cells and messages.
slow-browser: test-install
	$(BIN)/python -m pytest -m "slow and browser" $(PYTEST_ARGS)

# Exports, loaded by the programs that they are for; these get an environment of their own.
peers: test-install
	PYTHONPATH=. $(BIN)/python tests/interop/install.py $(PEERS) --pip-args="$(PIP_ARGS)"

test-peers: peers
	WORKBENCH_INTEROP_PYTHON=$(abspath $(PEERS))/bin/python \
	$(BIN)/python -m pytest -m peers $(PYTEST_ARGS) tests/interop

format: test-install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Environments: each stamp file is as new as what was installed ------------------------------------

install: $(VENV)/.installed
test-install: $(VENV)/.test

$(VENV)/.python:
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v <= (3, 13) else \
	"Python 3.10 to 3.13 is needed, this is %d.%d; choose one: make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv $(VENV)
	touch $@

# An editable installation (make test) follows the sources by itself.
$(VENV)/.installed: $(VENV)/.python pyproject.toml $(SOURCES)
	test -e $(VENV)/.test || $(PIP) .
	touch $@

$(VENV)/.lab: $(VENV)/.installed
	test -e $(VENV)/.test || $(PIP) ".[lab]"
	touch $@

$(VENV)/.test: $(VENV)/.python pyproject.toml
	$(PIP) --editable ".[test]"
	touch $@
