# The commands of this project; each makes or refreshes .venv by itself, only when the pinned requirements changed.
HOST ?= 127.0.0.1
PORT ?= 8000
DETECTOR ?= shipped
# mended: a wheel built here from the PyPI source archive. source: the official repository (needs GitHub and a compiler).
# What .venv holds is kept until the other one is asked for.
DETECTRON2 ?= $(or $(patsubst .venv/.detectron2-%,%,$(wildcard .venv/.detectron2-*)),mended)
DETECTRON2_SOURCE := git+https://github.com/facebookresearch/detectron2@02b5c4e2d7
PYTHON ?= $(shell for p in python3.12 python3.11 python3.10 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup serve test lint format clean

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: .venv/.dev  ## everything in .venv; DETECTRON2=source for the official repository

serve: .venv/.full  ## the upload page; HOST, PORT and DETECTOR say where and what
	$(BIN)/python -m webapp --host $(HOST) --port $(PORT) --detector $(DETECTOR)

test: .venv/.dev  ## the whole test suite; the radiographs are found through FRACATLAS_DIR and SCIENCE2022_DIR
	$(BIN)/python -m pytest $(ARGS)

lint: .venv/.dev  ## format, lint, types and import rules, changing nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.dev  ## format and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove .venv, caches and build folders; output/ and instance/ stay
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each set of requirements; a change of the pins installs anew.
.venv/.python:
	@test -n "$(PYTHON)" || { echo "No Python 3.10 to 3.12 found; name one with PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) --upgrade pip
	@touch $@

.venv/.full: requirements/full.txt tools/build_detectron2.py setup.py .venv/.python .venv/.detectron2-$(DETECTRON2)
	@echo "Installing the pinned requirements into .venv (about 5 GB with CUDA; once)"
	$(PIP) -r requirements/full.txt
ifeq ($(DETECTRON2),source)
	$(PIP) --no-build-isolation --no-deps "$(DETECTRON2_SOURCE)"
else
	$(BIN)/python tools/build_detectron2.py --out .venv/wheels
	$(PIP) --no-deps --force-reinstall .venv/wheels/detectron2-*.whl
endif
	$(PIP) --no-build-isolation --no-deps --editable .
	@touch $@

.venv/.dev: requirements/dev.txt requirements/judges.txt .venv/.full
	$(PIP) -r requirements/dev.txt
	$(PIP) --no-deps -r requirements/judges.txt
	@touch $@

# Asking for the other Detectron2 makes the other stamp missing, which installs anew.
.venv/.detectron2-$(DETECTRON2): .venv/.python
	@rm -f .venv/.detectron2-*
	@touch $@
