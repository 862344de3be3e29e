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
# What weights/shipped is trained on, laid out as datasets/README.md says, and where the new one goes.
FRACATLAS ?= $(or $(FRACATLAS_DIR),datasets/fracatlas)
SCIENCE2022 ?= $(or $(SCIENCE2022_DIR),datasets/science2022)
SHIPPED := output/shipped
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

# Each stage starts from the best of the one before; a stage that was killed goes on where it was.
PREPARE = $(BIN)/python tools/prepare_dataset.py --neighbours 0
TRAIN = $(BIN)/python tools/train_net.py --resume
LIMBS := --data $(SHIPPED)/fracatlas --images $(FRACATLAS)/images
ARMS := --data $(SHIPPED)/science2022 --images $(SCIENCE2022)/images
train-fracatlas: .venv/.full  ## train, export and evaluate what weights/shipped is, anew; FRACATLAS and SCIENCE2022
	$(PREPARE) --images $(FRACATLAS)/images --annotations $(FRACATLAS)/annotations --class-map fractured=fracture \
		--metadata $(FRACATLAS)/dataset.csv --site-columns hand leg hip shoulder mixed \
		--split-from weights/shipped/split.json --out $(SHIPPED)/fracatlas
	$(PREPARE) --images $(SCIENCE2022)/images --annotations $(SCIENCE2022)/labels --format yolo \
		--yolo-names angle fracture line messed_up_angle \
		--class-map angle=fracture line=fracture messed_up_angle=fracture --fractions 1 0 0 --out $(SHIPPED)/science2022
	$(TRAIN) --config-file configs/shipped/resnet_1.yaml $(LIMBS) $(LIMBS) $(ARMS) OUTPUT_DIR $(SHIPPED)/resnet_1
	$(TRAIN) --config-file configs/shipped/resnet_2.yaml $(LIMBS) OUTPUT_DIR $(SHIPPED)/resnet_2
	$(TRAIN) --config-file configs/shipped/resnet_3.yaml $(LIMBS) OUTPUT_DIR $(SHIPPED)/resnet_3
	$(TRAIN) --config-file configs/shipped/resnet_4.yaml $(LIMBS) OUTPUT_DIR $(SHIPPED)/resnet_4
	$(TRAIN) --config-file configs/shipped/efficientnet_1.yaml $(LIMBS) $(LIMBS) $(LIMBS) $(ARMS) \
		OUTPUT_DIR $(SHIPPED)/efficientnet_1
	$(TRAIN) --config-file configs/shipped/efficientnet_2.yaml $(LIMBS) OUTPUT_DIR $(SHIPPED)/efficientnet_2
	$(TRAIN) --config-file configs/shipped/efficientnet_3.yaml $(LIMBS) OUTPUT_DIR $(SHIPPED)/efficientnet_3
	for member in resnet_4 efficientnet_3; do $(BIN)/python tools/export_model.py --detector d2:$(SHIPPED)/$$member \
		--check-images $(FRACATLAS)/images/Fractured --out $(SHIPPED)/detector/$${member%_*} || exit 1; done
	cp weights/shipped/fusion.json weights/shipped/float.json $(SHIPPED)/detector
	$(BIN)/python tools/export_model.py --detector fused:$(SHIPPED)/detector/float.json --to openvino --int8 \
		--check-images $(FRACATLAS)/images/Fractured --calibration-images $(SHIPPED)/fracatlas/train.json \
		--data $(SHIPPED)/fracatlas/val.json --images $(FRACATLAS)/images --out $(SHIPPED)/detector/int8
	$(BIN)/python tools/eval.py --detector fused:$(SHIPPED)/detector --data $(SHIPPED)/fracatlas/test.json \
		--val $(SHIPPED)/fracatlas/val.json --images $(FRACATLAS)/images --batch-size 2 --out $(SHIPPED)/report

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
