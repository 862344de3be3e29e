# The commands of this project; each makes or refreshes .venv by itself, only when the pinned requirements changed.
HOST ?= 127.0.0.1
PORT ?= 8000
DETECTOR ?= shipped
# What makes the detector's scores probabilities; other detectors than the shipped one have none of their own.
CALIBRATION ?= $(if $(filter shipped,$(DETECTOR)),weights/shipped/calibration.json)
# mended: a wheel built here from the PyPI source archive. source: the official repository (needs GitHub and a compiler).
# What .venv holds is kept until the other one is asked for.
DETECTRON2 ?= $(or $(patsubst .venv/.detectron2-%,%,$(wildcard .venv/.detectron2-*)),mended)
DETECTRON2_SOURCE := git+https://github.com/facebookresearch/detectron2@02b5c4e2d7
PYTHON ?= $(shell for p in python3.12 python3.11 python3.10 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
# What weights/shipped is trained on, laid out as datasets/README.md says.
FRACATLAS ?= $(or $(FRACATLAS_DIR),datasets/fracatlas)
SCIENCE2022 ?= $(or $(SCIENCE2022_DIR),datasets/science2022)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup serve train-fracatlas test lint format clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 17

setup: .venv/.dev  ## everything in .venv; DETECTRON2=source for the official repository

# Exported detectors need neither torch nor Detectron2.
serve: $(if $(filter shipped openvino:%,$(DETECTOR)),.venv/.serve,.venv/.full)  ## the upload page; HOST, PORT, DETECTOR and CALIBRATION say where and what
	$(BIN)/python -m webapp --host $(HOST) --port $(PORT) --detector $(DETECTOR) \
		$(if $(CALIBRATION),--calibration $(CALIBRATION))

# The steps and their commands are in configs/shipped/recipe.yaml; ARGS=--dry-run prints them. Steps that are done are skipped.
train-fracatlas: .venv/.full  ## train, export and evaluate what weights/shipped is, anew; FRACATLAS and SCIENCE2022
	$(BIN)/python tools/train_shipped.py --folder fracatlas="$(FRACATLAS)" --folder science2022="$(SCIENCE2022)" $(ARGS)

test: .venv/.dev  ## the whole test suite; the radiographs are found through FRACATLAS_DIR and SCIENCE2022_DIR
	$(BIN)/python -m pytest $(ARGS)

lint: .venv/.dev  ## format, lint, types, import rules and known dangers, changing nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --recursive --severity-level medium fracture_det webapp tools

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

.venv/.serve: requirements/serve.txt .venv/.python
	@echo "Installing what the page needs into .venv (about 600 MB; once)"
	$(PIP) -r requirements/serve.txt
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
	@touch .venv/.serve $@

.venv/.dev: requirements/dev.txt requirements/reference.txt requirements/baselines.txt .venv/.full
	$(PIP) -r requirements/dev.txt
	$(PIP) --no-deps -r requirements/reference.txt -r requirements/baselines.txt
	@touch $@

# Asking for the other Detectron2 makes the other stamp missing, which installs anew.
.venv/.detectron2-$(DETECTRON2): .venv/.python
	@rm -f .venv/.detectron2-*
	@touch $@
