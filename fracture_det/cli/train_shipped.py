"""Train, export and evaluate the shipped detector again, step by step, as configs/shipped/recipe.yaml describes.

    .venv/bin/python tools/train_shipped.py --dry-run
    .venv/bin/python tools/train_shipped.py --folder fracatlas=../fracatlas --folder science2022=../science2022

Run it from the repository's root. A step that has succeeded is not run again, as OUT/steps records, unless its command
changes; a training that was killed continues from its last checkpoint. So the same command resumes after any failure.
--steps runs the named steps alone, whether they are done or not. --recipe takes another file of the same form: folders,
arguments and steps (`run` a tool, or `copy` files `to` a folder). Exit code 1 when a step fails, 2 for a wrong recipe.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec

from fracture_det.baselines.steps import is_done, mark_done
from fracture_det.resources import resource
from fracture_det.structures.strict_json import convert_json

RECIPE = resource("configs/shipped/recipe.yaml")


class RecipeError(ValueError):
    """A recipe cannot be read, or names what does not exist; the message says what."""


class Step(msgspec.Struct, forbid_unknown_fields=True):
    """One step: the command line of a tool to `run`, or files to `copy` to the folder `to`."""

    name: str
    run: str = ""
    copy: tuple[str, ...] = ()
    to: str = ""


class Recipe(msgspec.Struct, forbid_unknown_fields=True):
    """folders: paths by name, "out" among them. arguments: parts of command lines by name. steps: in order."""

    folders: dict[str, str]
    steps: tuple[Step, ...]
    arguments: dict[str, str] = {}

    def command(self, step: Step) -> list[str]:
        """Return the command of `step` as a list of arguments, with folders and arguments filled in."""
        line = f"cp {shlex.join(step.copy)} {step.to}" if step.copy else f"{shlex.quote(sys.executable)} {step.run}"
        for name, text in self.arguments.items():
            line = line.replace(f"{{{name}}}", text)
        try:
            # After the split, so that a folder may have spaces in its name.
            return [word.format_map(self.folders) for word in shlex.split(line)]
        except KeyError as error:
            raise RecipeError(f"step {step.name}: {error} is neither a folder nor an argument of the recipe") from error


def read_recipe(path: Path, folders: list[str]) -> Recipe:
    """Return the recipe in the file `path` with `folders` (NAME=PATH) instead of its own. Raises RecipeError."""
    try:
        recipe = convert_json(msgspec.yaml.decode(path.read_bytes()), Recipe)
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, msgspec.DecodeError) as error:
        raise RecipeError(f"{path}: {error}") from error
    for text in folders:
        name, _, folder = text.partition("=")
        if name not in recipe.folders or not folder:
            raise RecipeError(f"--folder: expected NAME=PATH with one of {', '.join(recipe.folders)}, got {text!r}")
        recipe.folders[name] = folder
    return recipe


def run_step(recipe: Recipe, step: Step, *, again: bool = False) -> None:
    """Run `step` unless it is done. Raises subprocess.CalledProcessError when its command fails."""
    command = recipe.command(step)
    record = Path(recipe.folders["out"]) / "steps" / f"{step.name}.txt"
    if not again and is_done(record, command):
        print(f"{step.name}: done", flush=True)
        return
    print(f"{step.name}: {shlex.join(command)}", flush=True)
    record.unlink(missing_ok=True)
    if step.copy:
        Path(command[-1]).mkdir(parents=True, exist_ok=True)
        for file in command[1:-1]:
            shutil.copy(file, command[-1])
    else:
        subprocess.run(command, check=True)
    mark_done(record, command)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this tool's arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="(default: configs/shipped/recipe.yaml)")
    parser.add_argument(
        "--folder", action="append", default=[], metavar="NAME=PATH", help="a folder of the recipe; may be repeated"
    )
    parser.add_argument("--steps", nargs="+", default=[], metavar="NAME", help="run these steps alone")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and run nothing")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return its exit code."""
    args = build_parser().parse_args(argv)
    try:
        recipe = read_recipe(args.recipe, args.folder)
        if unknown := set(args.steps) - {step.name for step in recipe.steps}:
            raise RecipeError(f"--steps: {args.recipe} has no {', '.join(sorted(unknown))}")
        steps = [step for step in recipe.steps if not args.steps or step.name in args.steps]
        commands = [recipe.command(step) for step in steps]
    except RecipeError as error:
        print(f"train_shipped: {error}", file=sys.stderr)
        return 2
    if args.dry_run:
        print("\n".join(shlex.join(command) for command in commands))
        return 0
    for step in steps:
        try:
            run_step(recipe, step, again=bool(args.steps))
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"train_shipped: {step.name}: {error}", file=sys.stderr)
            return 1
    return 0
