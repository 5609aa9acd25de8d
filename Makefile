# make demo, make test, make check, make bench: each does its own set-up in .venv; a second call installs nothing.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# One process more than cores: some tests wait for clocks and queues. A file's tests share what they set up.
PROCESSES = $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 1)')
PARALLEL = --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder
export PYTHONDONTWRITEBYTECODE :=  # else each of the many processes that tests start compiles everything anew

.PHONY: help setup demo test test-slow check format docs bench bench-gpu versions clean

help:  ## List what can be made
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(INSTALLED)  ## Make .venv with everything in it

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python >= 3.11 is needed, this is $$($(PYTHON) --version). Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "making .venv failed; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/pip install --disable-pip-version-check --quiet --upgrade pip
	$(BIN)/pip install --disable-pip-version-check --progress-bar off --editable '.[dev,docs,torchcodec]'
	@touch $@

demo: $(INSTALLED)  ## Run the whole chain on made-up procedure videos (about 5 minutes, then nothing to do)
	@$(BIN)/reelwright demo --folder demo

test: check  ## Format, lint, types, import arrows, then the default tests (3 to 4 minutes)
	$(BIN)/python -m pytest $(PARALLEL)

test-slow: $(INSTALLED)  ## The tests that take longer
	$(BIN)/python -m pytest -m slow $(PARALLEL) --durations 20

check: $(INSTALLED)  ## Format, lint, types, import arrows
	$(BIN)/ruff format --check --diff --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy $(addprefix typings/reelwright/,cli pipeline stages models storage)
	PYTHONPATH=typings $(BIN)/lint-imports  # there `reelwright` is nothing but the five folders

format: $(INSTALLED)  ## Format the code and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(INSTALLED)  ## Build the documentation into build/site; fails on a link that leads nowhere
	$(BIN)/python docs/build.py

bench: $(INSTALLED)  ## Measure speed against bare loops and peers, in one run
	$(BIN)/python -m tests.benchmarks

versions: $(INSTALLED)  ## Try the chain on Python 3.11 to 3.13 and on the lowest dependencies (minutes, some GB of wheels)
	$(BIN)/python -m tests.versions

bench-gpu: $(INSTALLED)  ## Check against the CPU, and measure, what a GPU does (8 minutes); says so where there is none
	$(BIN)/python -m tests.benchmarks.gpu

clean:  ## Remove what make made, the demo too
	rm -rf .venv demo build *.egg-info
