# Every target makes the environment that it needs: a clean clone, Python >= 3.10 and a package
# index are enough for any of them to be the first command.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := python -m pip install --quiet --disable-pip-version-check
PIP := $(BIN)/$(PIP_INSTALL)
PYTEST := python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
REPORT := demo-report

# A stamp says which extras the environment holds; it is out of date when a dependency may have
# changed. Later stamps hold all that the earlier ones do.
DEMO := $(VENV)/.installed-demo
TESTS := $(VENV)/.installed-tests
DEV := $(VENV)/.installed-dev
REQUIREMENTS := setup.cfg pyproject.toml

# The oldest versions that setup.cfg admits, in an environment of their own.
FLOOR_VENV := .venv-floor
FLOOR := $(FLOOR_VENV)/.installed
FLOOR_VERSIONS := tests/packaging/floor.txt
# Python 3.10 where it is found, by its name or among pyenv's; else the one that is there.
FLOOR_PYTHON ?= $(shell for python in python3.10 $(HOME)/.pyenv/versions/3.10.*/bin/python $(PYTHON); \
    do $$python -c '' 2>/dev/null && echo $$python && break; done)
# The gradient engine, a dense and a Kronecker-factored inverse, triage, what loads when, and files.
FLOOR_TESTS := tests/model/test_keras_internals.py tests/gradients/test_engine.py \
    tests/ihvp/test_exact.py tests/ihvp/test_ekfac.py tests/report/test_triage_table.py \
    tests/cli/test_triage.py tests/cli/test_demo.py tests/test_extras.py \
    tests/test_tfds_on_demand.py tests/utils/test_files.py tests/utils/test_records.py \
    tests/utils/test_digests.py tests/utils/test_lazy.py tests/store/test_index.py tests/calculators/test_portable.py \
    tests/unrolled/test_recorded_run.py tests/trac_in/test_source.py tests/training_dynamics/test_in_run.py

# Apache Beam, which needs older protobuf and pyarrow, in an environment of its own.
BEAM_VENV := .venv-beam
BEAM := $(BEAM_VENV)/.installed

# The other libraries that ours is measured beside, in an environment of their own.
PEERS_VENV := .venv-peers
PEERS := $(PEERS_VENV)/.installed

# Keeps TensorFlow's notes on the processor and on missing GPUs out of the output.
export TF_CPP_MIN_LOG_LEVEL ?= 2

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test test-wheel test-floor test-beam test-slow lint format types docs serve-docs \
	tutorials bench bench-peers evidence evidence-full

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(DEV)  ## make .venv with everything that a developer needs

demo: $(DEMO)  ## flip labels of real digits, train a network, find the flipped labels
	$(BIN)/deel-influence demo --out $(REPORT)

test: $(TESTS) test-wheel  ## run all tests: the wheel, code, documentation, documentation site
	$(BIN)/$(PYTEST)

test-wheel: $(TESTS)  ## build sdist and wheel, install the wheel afresh, and run it there
	$(BIN)/python -m pytest tests/packaging/check_wheel.py

test-floor: $(FLOOR)  ## run a short suite on the oldest TensorFlow and Keras
	$(FLOOR_VENV)/bin/$(PYTEST) $(FLOOR_TESTS)

test-beam: $(BEAM)  ## run the pipelines of Apache Beam on its local runner
	$(BEAM_VENV)/bin/python -m pytest tests/shards/check_beam.py

test-slow: $(TESTS)  ## run the slow tests: every model with every strategy, padding of all of them
	$(BIN)/$(PYTEST) -m slow

lint: $(DEV)  ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(DEV)  ## mend what can be mended automatically
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(DEV)  ## check types
	$(BIN)/mypy

docs: $(TESTS)  ## build the documentation site into site/
	$(BIN)/mkdocs build --strict

serve-docs: $(TESTS)  ## serve the documentation site and follow changes
	$(BIN)/mkdocs serve

tutorials: $(TESTS)  ## run the tutorials and write their pages
	$(BIN)/python docs/build_tutorials.py

bench: $(TESTS)  ## measure gradients, curvature products, solvers, strategies and methods
	$(BIN)/python benchmarks/gradients.py
	$(BIN)/python benchmarks/curvature.py
	$(BIN)/python benchmarks/strategies.py
	$(BIN)/python benchmarks/detection.py
	$(BIN)/python benchmarks/methods.py

bench-peers: $(TESTS) $(PEERS)  ## measure beside captum, dattri, kronfluence, pyDVL and traker
	$(BIN)/python benchmarks/peers/run.py --peers $(PEERS_VENV)/bin/python
	$(BIN)/python benchmarks/peers/run.py --peers $(PEERS_VENV)/bin/python --faster --threads 1 \
	    --only captum dattri kronfluence pydvl traker

evidence: $(TESTS)  ## repeat published experiments in a short form, under an hour on two cores
	$(BIN)/python benchmarks/reproduce.py --form short

evidence-full: $(TESTS)  ## repeat published experiments in full, and make the results page
	$(BIN)/python benchmarks/reproduce.py --form full

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(DEMO): $(REQUIREMENTS) | $(BIN)/python
	@echo "Installing the demo into $(VENV) (some minutes the first time)"
	@$(PIP) --editable '.[demo,cli]'
	@touch $@

$(TESTS): $(REQUIREMENTS) | $(BIN)/python
	@echo "Installing the test tools into $(VENV) (some minutes the first time)"
	@$(PIP) --editable '.[all,tests,models,docs]'
	@touch $(DEMO) $@

$(DEV): $(REQUIREMENTS) | $(BIN)/python
	@echo "Installing the developers' tools into $(VENV) (some minutes the first time)"
	@$(PIP) --editable '.[dev]'
	@touch $(DEMO) $(TESTS) $@

# The pip that Python 3.10 brings does not find versions that agree in a quarter of an hour.
$(FLOOR): $(REQUIREMENTS) $(FLOOR_VERSIONS)
	@echo "Installing the oldest versions into $(FLOOR_VENV) (some minutes the first time)"
	@$(FLOOR_PYTHON) -m venv --clear $(FLOOR_VENV)
	@$(FLOOR_VENV)/bin/$(PIP_INSTALL) --upgrade pip
	@$(FLOOR_VENV)/bin/$(PIP_INSTALL) --constraint $(FLOOR_VERSIONS) --editable '.[all,tests]'
	@touch $@

$(BEAM): $(REQUIREMENTS) | $(BIN)/python
	@echo "Installing Apache Beam into $(BEAM_VENV) (some minutes the first time)"
	@$(PYTHON) -m venv --clear $(BEAM_VENV)
	@$(BEAM_VENV)/bin/$(PIP_INSTALL) --editable '.[beam]' pytest
	@touch $@

$(PEERS): benchmarks/peers/requirements.txt | $(BIN)/python
	@echo "Installing the other libraries into $(PEERS_VENV) (some minutes the first time)"
	@$(BIN)/python benchmarks/peers/make_environment.py $(PEERS_VENV)
	@touch $@
