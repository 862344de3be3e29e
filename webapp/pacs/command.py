"""The node beside a PACS: radiographs come in, structured reports, pictures and messages go back.

    fracture-det pacs --config pacs.toml                     runs until it is stopped
    fracture-det pacs status                                 what waits, what was given up
    fracture-det pacs retry                                  tries again what was given up
    fracture-det pacs correct --object UID --author anna --no-fracture

The store is that of the page: FRACTURE_DATA_DIR, FRACTURE_DATABASE_URL and the other FRACTURE_* variables of
docs/api.md. docs/pacs.md has the configuration.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from pathlib import Path

from fracture_det.inference.base import DetectorError
from fracture_det.inference.service import DetectorFailed, return_freed_memory
from fracture_det.structures.readings import Reading

from ..app import open_store
from ..presentation import NOTICE
from ..settings import Settings, SettingsError
from ..store import Store, StoreError, StoreUnavailable
from ..store.pacs import FAILED, SENT, WAITING
from .config import PacsConfigError, read_config

ACTOR = "command line"


class CorrectionError(ValueError):
    """A correction cannot be made; the message says why."""


def main(argv: list[str] | None = None, *, prog: str = "fracture-det pacs") -> int:
    """Run one action; return the exit code: 1 for a failure, 2 for settings that cannot be used."""
    args = build_parser(prog).parse_args(argv)
    try:
        settings = Settings.from_environ()
        if args.action == "run":
            return _run(args.config, settings)
        store = open_store(settings)
    except (SettingsError, StoreError, PacsConfigError) as error:
        print(f"fracture_det: {error}", file=sys.stderr)
        return 2
    try:
        return ACTIONS[args.action](store, args)
    except (StoreUnavailable, CorrectionError) as error:
        print(f"fracture_det: {error}", file=sys.stderr)
        return 1
    finally:
        store.close()


def build_parser(prog: str = "fracture-det pacs") -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", nargs="?", choices=("run", *ACTIONS), default="run", help="default: run")
    parser.add_argument("--config", type=Path, default=Path("pacs.toml"), help="of run (default: pacs.toml)")
    parser.add_argument("--id", help="of retry: what to try again, as status lists it; without one, everything")
    correct = parser.add_argument_group("correct", "the verdict of a reader, as the page takes it")
    correct.add_argument("--object", help="SOP instance UID of the image, or its identifier in the queue")
    correct.add_argument("--author", help="who says so")
    correct.add_argument("--right", type=int, action="append", default=[], metavar="N", help="box N is a fracture")
    correct.add_argument("--wrong", type=int, action="append", default=[], metavar="N", help="box N is none")
    correct.add_argument("--missed", action="append", default=[], metavar="X0,Y0,X1,Y1", help="a missed fracture, px")
    correct.add_argument("--no-fracture", action="store_true", help="the image shows none")
    correct.add_argument("--comment", default="")
    return parser


def _run(config_path: Path, settings: Settings) -> int:
    warnings.simplefilter("ignore")  # those of pydicom and highdicom quote what is not valid, such as names
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from .node import Node, stopped_by_signals

    return_freed_memory()
    config = read_config(config_path)
    try:
        with stopped_by_signals() as stopped:
            node = Node(config, settings)
            node.start()
            print(
                f"fracture_det: {config.ae_title} on {config.host} port {node.port}, health and metrics on"
                f" http://{config.http_host}:{node.http_port} ({NOTICE})",
                flush=True,
            )
            stopped.wait()
            node.stop()
    except (DetectorError, DetectorFailed, OSError) as error:
        print(f"fracture_det: {error}", file=sys.stderr)
        return 1
    return 0


def _status(store: Store, _args: argparse.Namespace) -> int:
    """Print the queue; return 1 where something was given up."""
    status, letters = store.pacs_status.status(), store.pacs_status.dead_letters()
    objects = status.objects
    print(f"objects: {objects[WAITING]} waiting, {objects['done']} done, {objects[FAILED]} given up")
    print(f"studies: {status.studies_answered} answered, {status.studies_due} to be answered")
    for destination in sorted({name for name, _ in status.deliveries}):
        counts = [status.deliveries.get((destination, state), 0) for state in (WAITING, SENT, FAILED)]
        print(f"to {destination}: {counts[0]} waiting, {counts[1]} sent, {counts[2]} given up")
    ages = f"{status.oldest_object_s:.0f} s (object), {status.oldest_delivery_s:.0f} s (output)"
    print(f"the oldest that waits: {ages}")
    for letter in letters:
        print(f"given up: {letter.id}  {letter.what}, {letter.attempts} attempts: {letter.problem}")
    return 1 if letters else 0


def _retry(store: Store, args: argparse.Namespace) -> int:
    count = store.pacs_status.retry(args.id, by=ACTOR)
    print(f"{count} put into the queue again")
    return 0 if count or args.id is None else 1


def _correct(store: Store, args: argparse.Namespace) -> int:
    if not args.object or not args.author:
        raise CorrectionError("correct: expected --object and --author")
    prediction_id = store.pacs_status.prediction_of(args.object)
    stored = None if prediction_id is None else store.results.get(prediction_id)
    if stored is None:
        raise CorrectionError("correct: --object names no analysed image whose result is still stored")
    numbers = {**dict.fromkeys(args.right, "right"), **dict.fromkeys(args.wrong, "wrong")}
    unknown = sorted(number for number in numbers if not 1 <= number <= len(stored.detections))
    if unknown or set(args.right) & set(args.wrong):
        raise CorrectionError(f"correct: expected each box once, 1 to {len(stored.detections)}, got {sorted(numbers)}")
    missed = tuple(_corners(text, stored.width, stored.height) for text in args.missed)
    if args.no_fracture and (missed or args.right):
        raise CorrectionError("correct: --no-fracture contradicts --right and --missed")
    said = Reading(numbers, missed, args.no_fracture, args.comment)
    store.results.save_reading(stored.id, said, author=args.author)
    print("the node sends a corrected version of the answer on its study")
    return 0


def _corners(text: str, width: int, height: int) -> tuple[float, float, float, float]:
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
    except ValueError:
        raise CorrectionError(f"--missed: expected X0,Y0,X1,Y1 in pixels, got {text!r}") from None
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise CorrectionError(f"--missed: expected a box within {width} x {height} pixels, got {text!r}")
    return x0, y0, x1, y1


ACTIONS = {"status": _status, "retry": _retry, "correct": _correct}
