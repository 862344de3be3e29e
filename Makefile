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
BONEBREAK ?= $(or $(BONEBREAK_DIR),datasets/bonebreak)
# How many tests run at a time, and the programs that they use: what is called (or the file of a plugin), and the Debian package
# that has it.
WORKERS ?= 2
TEST_PROGRAMS := chromium:chromium initdb:postgresql nginx:nginx node:nodejs npm:npm \
	storescu:dcmtk dciodvfy:dicom3tools Orthanc:orthanc-dicomweb \
	/usr/share/orthanc/plugins/libOrthancWebViewer.so:orthanc-webviewer dicomscope:dicomscope Xvfb:xvfb xdotool:xdotool
# Of the node beside a PACS.
PACS_CONFIG ?= pacs.toml
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup serve pacs train-fracatlas test test-slow coverage test-deps lint format clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 17

setup: .venv/.dev  ## everything in .venv; DETECTRON2=source for the official repository

# Exported detectors need neither torch nor Detectron2.
serve: $(if $(filter shipped openvino:%,$(DETECTOR)),.venv/.serve,.venv/.full) $(if $(DICOM),.venv/.dicom)  ## the upload page; HOST, PORT, DETECTOR and CALIBRATION say where and what, DICOM=1 reads DICOM too
	$(BIN)/python -m webapp --host $(HOST) --port $(PORT) --detector $(DETECTOR) \
		$(if $(CALIBRATION),--calibration $(CALIBRATION))

# docs/pacs.md has the configuration; the detector and the store are set by the FRACTURE_* variables of docs/api.md.
pacs: .venv/.dicom  ## the node beside a PACS; PACS_CONFIG names its configuration
	$(BIN)/python -m fracture_det.cli pacs --config $(PACS_CONFIG)

# The steps and their commands are in configs/shipped/recipe.yaml; ARGS=--dry-run prints them. Steps that are done are skipped.
train-fracatlas: .venv/.full  ## train, export and evaluate the shipped detector again; FRACATLAS, SCIENCE2022 and BONEBREAK name the data
	$(BIN)/python tools/train_shipped.py --folder fracatlas="$(FRACATLAS)" --folder science2022="$(SCIENCE2022)" \
		--folder bonebreak="$(BONEBREAK)" $(ARGS)

# Files stay together, so that what a file prepares for its tests is prepared once; the slowest are listed at the end.
PYTEST = $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 25
test: .venv/.dev  ## the tests but the slow ones; the radiographs are found through FRACATLAS_DIR and SCIENCE2022_DIR
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: .venv/.dev  ## the slow tests: the whole way, simulated studies, Ray, the installed wheel
	$(PYTEST) -m slow $(ARGS)

coverage: .venv/.dev  ## lines that all tests run, in processes that they start too; htmlcov/ shows which are left
	$(PYTEST) --cov --cov-report term:skip-covered --cov-report html $(ARGS)

# Without one of them, the tests that need it skip and say so.
test-deps:  ## Chromium, PostgreSQL, nginx, Node, dcmtk, dicom3tools, Orthanc and DICOMscope for the tests: installed where apt-get can, else named
	@PATH="$$PATH:/usr/sbin:$$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -n 1)"; wanted=""; \
	for pair in $(TEST_PROGRAMS); do \
		command -v $${pair%%:*} >/dev/null || [ -f "$${pair%%:*}" ] || wanted="$$wanted $${pair##*:}"; done; \
	if [ -z "$$wanted" ]; then echo "The tests have every program that they use"; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then echo "Installing$$wanted"; \
		{ apt-get update && apt-get install --yes --no-install-recommends $$wanted; } >/dev/null; \
	else echo "The tests also use$$wanted (Debian's names): sudo apt-get install$$wanted" >&2; exit 1; fi

lint: .venv/.dev  ## format, lint, types, import rules and known dangers, changing nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --recursive --severity-level medium fracture_det webapp tools
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory lint-page; \
	else echo "The page's JavaScript was not linted: there is no npm (make test-deps)"; fi

.PHONY: lint-page
lint-page: node_modules/.package-lock.json
	npm run --silent lint

node_modules/.package-lock.json: package.json package-lock.json
	npm ci --silent --no-audit --no-fund
	@touch $@

format: .venv/.dev  ## format, and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove .venv, caches and build folders; output/ and instance/ stay
	rm -rf .venv build dist htmlcov .coverage* *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each set of requirements; a change of the pins installs again.
.venv/.python:
	@test -n "$(PYTHON)" || { echo "No Python 3.10 to 3.12 found; name one with PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) --upgrade pip
	@touch $@

.venv/.serve: requirements/serve.txt .venv/.python
	@echo "Installing what the page needs into .venv (about 600 MB; once)"
	$(PIP) -r requirements/serve.txt
	@touch $@

.venv/.full: requirements/full.txt fracture_det/cli/build_detectron2.py pyproject.toml setup.py .venv/.python .venv/.detectron2-$(DETECTRON2)
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

.venv/.dicom: requirements/dicom.txt .venv/.serve
	$(PIP) -r requirements/dicom.txt
	@touch $@

.venv/.dev: requirements/dev.txt requirements/reference.txt .venv/.full
	$(PIP) -r requirements/dev.txt
	$(PIP) --no-deps -r requirements/reference.txt
	@touch .venv/.dicom $@

# Asking for the other Detectron2 makes the other stamp missing, so that it is installed again.
.venv/.detectron2-$(DETECTRON2): .venv/.python
	@rm -f .venv/.detectron2-*
	@touch $@
