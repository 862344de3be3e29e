"""Decide whether a candidate may replace the served detector: on frozen tests, by the margins of configs/gate.yaml.

    fracture-det gate --test fracatlas data/test.json output/served output/candidate --out output/gate

A test is a name, its truth, and each detector's predictions of it: an output folder of `fracture-det eval`, with its
calibration and robustness, or a predictions.jsonl. Repeat --test. Leaks are looked for where --train and --images are
given, speed and size measured where --served and --candidate are. What could not be judged stops the promotion unless
--skip names it.

Writes verdict.json and verdict.html: the same bytes for the same inputs; what is timed goes to timing.json first, which
--timing gives again. Exit code 0: promote, 1: do not, 2: nothing was decided.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fracture_det.baselines.speed.turns import MeasuredTurns, measure_turns, read_turns
from fracture_det.data.coco import read_coco
from fracture_det.data.leaks import ImageSet, Overlap, find_leaks
from fracture_det.evaluation.gate import SKIPPABLE, Evidence, Turns, decide
from fracture_det.evaluation.gate_figures import GateError, GateTest, read_gate_run, read_gate_test
from fracture_det.evaluation.gate_rules import GateRules, read_rules
from fracture_det.evaluation.verdict import Verdict
from fracture_det.reporting.verdict_page import headline, summary, write_verdict
from fracture_det.structures.hashes import sha256_of
from fracture_det.structures.processors import available_cpus

TIMING_FILE = "timing.json"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this tool's arguments."""
    parser = argparse.ArgumentParser(
        prog="fracture-det gate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument_group("tests").add_argument
    add(
        "--test",
        nargs=4,
        action="append",
        required=True,
        metavar=("NAME", "TRUTH", "SERVED", "CANDIDATE"),
        help="a frozen test: its name, COCO JSON, and the runs of both detectors; repeat it",
    )
    add("--served-calibration", type=Path, metavar="FILE", help="calibration.json (default: that of each run folder)")
    add("--candidate-calibration", type=Path, metavar="FILE", help="likewise of the candidate")
    add = parser.add_argument_group("leaks").add_argument
    add(
        "--train",
        nargs=2,
        action="append",
        default=[],
        metavar=("TRUTH", "IMAGES"),
        help="what the candidate was trained on, as COCO JSON and its image folder; repeat it",
    )
    add(
        "--images",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "DIR"),
        help="image folder of a test, by its name; repeat it",
    )
    add = parser.add_argument_group("speed and size").add_argument
    add("--served", metavar="URI", help="the served detector, such as shipped; timed in turns on images of the tests")
    add("--candidate", metavar="URI", help="the candidate, such as ensemble:FOLDER")
    add("--timing", type=Path, metavar="FILE", help="timing.json of an earlier run, instead")
    add = parser.add_argument_group("rules").add_argument
    add("--config", type=Path, metavar="FILE", help="what differs from configs/gate.yaml")
    add("--skip", nargs="+", default=[], choices=SKIPPABLE, metavar="CHECK", help=f"may be missing: {_SKIPPABLE}")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the verdict")
    return parser


_SKIPPABLE = ", ".join(SKIPPABLE)


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return its exit code."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    names = [name for name, *_ in arguments.test]
    folders = [name for name, _ in arguments.images]
    for option, given in (("--test", names), ("--images", folders)):
        if len(set(given)) < len(given):
            parser.error(f"{option}: expected different names, got {' '.join(given)}")
    if unknown := sorted(set(folders) - set(names)):
        parser.error(f"--images: no test is named {unknown[0]}")
    timed = arguments.served is not None or arguments.candidate is not None
    if timed and (arguments.served is None or arguments.candidate is None):
        parser.error("--served and --candidate are timed in turns: give both")
    if timed and arguments.timing:
        parser.error("--timing is instead of --served and --candidate")
    if (arguments.train and set(folders) != set(names)) or (timed and not folders):
        parser.error("--train needs --images of every test; --served and --candidate need --images of one")
    try:
        verdict = run(arguments)
    except (ValueError, OSError) as error:
        print(f"gate: {error}", file=sys.stderr)
        return 2
    print(f"{headline(verdict)}\n{summary(verdict)}")
    return 0 if verdict.promote else 1


def run(arguments: argparse.Namespace) -> Verdict:
    """Read everything, decide, and write the verdict into the output folder."""
    rules = read_rules(arguments.config)
    tests = {
        name: read_gate_test(
            name,
            Path(truth),
            read_gate_run(Path(served), arguments.served_calibration),
            read_gate_run(Path(candidate), arguments.candidate_calibration),
        )
        for name, truth, served, candidate in arguments.test
    }
    folders = {name: Path(folder) for name, folder in arguments.images}
    files = {name: sha256_of(Path(truth)) for name, (truth, _) in _trainings(arguments).items()}
    turns = _turns(arguments, tests, folders, rules)
    if turns is not None:
        files["timing"] = turns.sha256
    overlaps = _overlaps(arguments, tests, folders) if arguments.train else None
    verdict = decide(tests, rules, Evidence(overlaps, turns, files), skip=arguments.skip)
    write_verdict(verdict, arguments.out)
    return verdict


def _trainings(arguments: argparse.Namespace) -> dict[str, tuple[str, str]]:
    """Return truth and image folder of each training set by a name of its own, without a path."""
    return {
        f"training data {number} ({Path(truth).name})": (truth, images)
        for number, (truth, images) in enumerate(arguments.train, 1)
    }


def _overlaps(
    arguments: argparse.Namespace, tests: dict[str, GateTest], folders: dict[str, Path]
) -> dict[str, list[Overlap]]:
    trainings = [
        ImageSet(name, read_coco(truth), Path(images)) for name, (truth, images) in _trainings(arguments).items()
    ]
    sets = [ImageSet(name, test.dataset, folders[name]) for name, test in tests.items()]
    return find_leaks(sets, trainings, workers=available_cpus())


def _turns(
    arguments: argparse.Namespace, tests: dict[str, GateTest], folders: dict[str, Path], rules: GateRules
) -> Turns | None:
    if arguments.timing:
        measured, digest = read_turns(arguments.timing)
    elif arguments.served:
        images = [folders[name] / record.file_name for name in folders for record in tests[name].dataset]
        step = max(1, len(images) // rules.timing.images)
        chosen = images[::step][: rules.timing.images]
        measured = measure_turns(arguments.served, arguments.candidate, chosen, rounds=rules.timing.rounds)
        _check_timed(measured, tests)
        digest = measured.save(arguments.out / TIMING_FILE)
    else:
        return None
    served, candidate = measured.served, measured.candidate
    return Turns(
        served.sha256, candidate.sha256, served.ms, candidate.ms, served.size_bytes, candidate.size_bytes, digest
    )


def _check_timed(measured: MeasuredTurns, tests: dict[str, GateTest]) -> None:
    """Raise GateError before anything is kept where another detector was timed than predicted."""
    test = next(iter(tests.values()))
    for option, timed, run in (
        ("--served", measured.served, test.served),
        ("--candidate", measured.candidate, test.candidate),
    ):
        if timed.sha256 != run.identity.sha256:
            raise GateError(
                f"{option}: {timed.name} has the SHA-256 {timed.sha256}, but the predictions of test {test.name} are "
                f"of {run.identity.name}, {run.identity.sha256}"
            )
