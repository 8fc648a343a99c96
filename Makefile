# Every target makes the environment that it needs: a clean clone, Python >= 3.10 and a package
# index are enough for any of them to be the first command.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
REPORT := demo-report

# A stamp says which extras the environment holds; it is out of date when a dependency may have
# changed. Later stamps hold all that the earlier ones do.
DEMO := $(VENV)/.installed-demo
TESTS := $(VENV)/.installed-tests
DEV := $(VENV)/.installed-dev
REQUIREMENTS := setup.cfg pyproject.toml

# Keeps TensorFlow's notes on the processor and on missing GPUs out of the output.
export TF_CPP_MIN_LOG_LEVEL ?= 2

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test test-models lint format types docs serve-docs tutorials bench evidence evidence-full

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(DEV)  ## make .venv with everything that a developer needs

demo: $(DEMO)  ## flip labels of real digits, train a network, find the flipped labels
	$(BIN)/deel-influence demo --out $(REPORT)

test: $(TESTS)  ## run all tests: code, documentation, documentation site
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

test-models: $(TESTS)  ## run the slow tests too: every model of the table with every strategy
	$(BIN)/python -m pytest tests/models -m 'slow or not slow' \
		--numprocesses auto --maxprocesses 4 --dist loadgroup

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
	@$(PIP) --editable '.[all,tests,docs]'
	@touch $(DEMO) $@

$(DEV): $(REQUIREMENTS) | $(BIN)/python
	@echo "Installing the developers' tools into $(VENV) (some minutes the first time)"
	@$(PIP) --editable '.[dev]'
	@touch $(DEMO) $(TESTS) $@
