"""What is trained, and with how much: the study of configs/baselines/reproduction.yaml and the options of one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import torch

from fracture_det.resources import resource
from fracture_det.structures.strict_json import convert_json
from fracture_det.structures.wording import counted

STUDY = "configs/baselines/reproduction.yaml"
Form = Literal["full", "small"]
# Passes over the radiographs of --quick, and how many those are.
QUICK_EPOCHS = 1
QUICK_FRACTURED, QUICK_HEALTHY = 60, 60
# Share of a training after which its learning rate drops, where it drops in steps: epochs 8 and 11 of the paper's 12.
STEP_SHARES = (8 / 12, 11 / 12)


class ReproductionError(ValueError):
    """The paper's comparison cannot be made again; the message names the option, file or step and says why."""


class Model(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One detector. scheme: of its URI. full, small: its configurations. paper: the paper's figures, 0..1, fps."""

    name: str
    title: str
    scheme: str
    full: str
    small: str
    paper: dict[str, float] = {}


class Study(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """models: those of the paper's Table I, the first the reference. ablations: changes of the first.

    paper_body_parts: the paper's Table II. quick: configuration keys of --quick.
    """

    models: tuple[Model, ...]
    ablations: tuple[Model, ...]
    paper_body_parts: dict[str, dict[str, float]]
    quick: str

    @property
    def all(self) -> tuple[Model, ...]:
        """Models and ablations."""
        return self.models + self.ablations


@dataclass(frozen=True)
class Budget:
    """How long each model is trained: for `epochs`, or for `hours` of training steps; neither: as its file says."""

    epochs: int | None = None
    hours: float | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Return the budget that `text` says: "12ep", or a number of hours such as "3" or ".5"."""
        try:
            budget = cls(epochs=int(text[:-2])) if text.endswith("ep") else cls(hours=float(text.removesuffix("h")))
        except ValueError:
            budget = cls(epochs=0)
        if not 0 < (budget.epochs or budget.hours or 0) < float("inf"):
            raise ReproductionError(f"--budget: expected epochs such as 12ep, or hours such as 3, got {text!r}")
        return budget

    def __str__(self) -> str:
        if self.epochs:
            return counted(self.epochs, "epoch")
        return f"{self.hours:g} hours of training steps" if self.hours else "the length in each configuration"


@dataclass(frozen=True)
class Run:
    """One training: a model with a seed."""

    model: Model
    seed: int
    form: Form

    @property
    def name(self) -> str:
        """Its folder's name."""
        return f"{self.model.name}_seed{self.seed}"

    @property
    def config(self) -> str:
        """Its configuration."""
        return self.model.full if self.form == "full" else self.model.small


@dataclass(frozen=True)
class ReproductionOptions:
    """The options of tools/reproduce.py, which explains them."""

    out: Path
    data: Path | None = None
    images: Path | None = None
    prepare: str = ""
    budget: Budget = Budget()
    models: tuple[str, ...] = ()
    seeds: int = 1
    form: Form | None = None
    quick: bool = False
    bootstrap: int = 2000
    num_gpus: int = 1
    other_tests: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.quick and (self.data or self.form == "full"):
            raise ReproductionError(
                "--quick draws its own radiographs and takes the small form: give no --data, --form"
            )
        if not self.quick and self.data is None:
            raise ReproductionError("--data: name the radiographs, or try everything out with --quick")
        for name in ("seeds", "num_gpus"):
            if getattr(self, name) < 1:
                raise ReproductionError(f"--{name.replace('_', '-')}: expected at least 1, got {getattr(self, name)}")
        for text in self.other_tests:
            if not all(text.rpartition("@")):
                raise ReproductionError(f"--other-test: expected TEST.json@IMAGES, got {text!r}")

    @property
    def chosen_form(self) -> Form:
        """The form that is trained: full where there is a GPU, unless another was asked for."""
        return self.form or ("full" if torch.cuda.is_available() and not self.quick else "small")


def read_study(path: Path | None = None) -> Study:
    """Return the study in `path`, by default the one that comes with the package. Raises ReproductionError."""
    path = path or resource(STUDY)
    try:
        return convert_json(msgspec.yaml.decode(path.read_bytes()), Study)
    except (OSError, ValueError, msgspec.DecodeError) as error:
        raise ReproductionError(f"{path}: {error}") from error


def plan(study: Study, options: ReproductionOptions) -> list[Run]:
    """Return the trainings in order: every model with the first seed before any with the second.

    Raises ReproductionError for a model that the study does not have, and when its reference is not among them.
    """
    names = [model.name for model in study.all]
    if unknown := [name for name in options.models if name not in names]:
        raise ReproductionError(f"--models: expected some of {', '.join(names)}, got {', '.join(unknown)}")
    chosen = [model for model in study.all if not options.models or model.name in options.models]
    reference = study.models[0]
    if reference not in chosen:
        raise ReproductionError(f"--models: {reference.name} must be one, all others are compared with it")
    return [Run(model, seed, options.chosen_form) for seed in range(1, options.seeds + 1) for model in chosen]


def length_keys(budget: Budget, iterations: int | None) -> Sequence[str]:
    """Return the configuration keys that make a training as long as `budget`; iterations: what its hours come to."""
    if budget.epochs:
        steps = ",".join(str(round(share * budget.epochs, 3)) for share in STEP_SHARES)
        return ["SOLVER.EPOCHS", str(budget.epochs), "SOLVER.STEP_EPOCHS", f"({steps})"]
    if iterations:
        steps = ",".join(str(round(share * iterations)) for share in STEP_SHARES)
        return ["SOLVER.EPOCHS", "0", "SOLVER.MAX_ITER", str(iterations), "SOLVER.STEPS", f"({steps})"]
    return []
