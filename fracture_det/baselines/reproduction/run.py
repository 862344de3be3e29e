"""One run of tools/reproduce.py: data, trainings, evaluations, speed, comparison, report."""

from __future__ import annotations

import fcntl
import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fracture_det.baselines.reproduction.inputs import PLAN_FILE, check_inputs, check_same_plan, is_prepared
from fracture_det.baselines.reproduction.progress import Steps
from fracture_det.baselines.reproduction.results import write_results
from fracture_det.baselines.reproduction.speed import measure_speed
from fracture_det.baselines.reproduction.study import (
    QUICK_EPOCHS,
    QUICK_FRACTURED,
    QUICK_HEALTHY,
    Budget,
    ReproductionError,
    ReproductionOptions,
    Run,
    Study,
    length_keys,
    plan,
    read_study,
)
from fracture_det.data.synthetic import build_dataset
from fracture_det.training.hooks import METRICS_FILE

# Iterations that hours are converted with; the median of the last twenty counts.
TIMED_ITERATIONS = 40
Say = Callable[[str], None]


def reproduce(options: ReproductionOptions, *, say: Say = print) -> dict[str, str]:
    """Do everything that is not yet done, write the results, and return the runs that failed, with why.

    Raises ReproductionError when there is nothing to compare, and for options that contradict what is in `out`.
    """
    study = read_study()
    runs = plan(study, options)
    check_inputs(options)
    with _alone(options.out) as lock:
        check_same_plan(options)
        return _do_all(study, runs, options, say, lock)


@contextmanager
def _alone(out: Path) -> Iterator[int]:
    """Hold the folder `out` by a lock, and give its file descriptor; raise ReproductionError while another has it."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / PLAN_FILE).open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ReproductionError(f"{out}: another process is at work there") from error
        yield file.fileno()


def _do_all(study: Study, runs: Sequence[Run], options: ReproductionOptions, say: Say, lock: int) -> dict[str, str]:
    budget = Budget(epochs=QUICK_EPOCHS) if options.quick and options.budget == Budget() else options.budget
    tests = 1 + len(options.other_tests)
    timed = [run for run in runs if budget.hours and run.seed == 1]
    steps = Steps(options.out, total=1 + len(timed) + len(runs) * (1 + tests), say=say, lock=lock)
    steps.remaining = {"timing": len(timed), "train": len(runs), "eval": len(runs) * tests}
    data, images = _prepare(options, steps)
    failures: dict[str, str] = {}
    for run in runs:
        try:
            iterations = _iterations(run, budget, options, study, steps, (data, images))
            _train(run, budget, iterations, options, study, steps, (data, images))
            _evaluate(run, options, steps, (data, images))
        except ReproductionError as error:
            failures[run.name] = str(error)
            say(f"{error}; the others go on, and the same command tries it again")
    done = [run for run in runs if run.name not in failures]
    if not any(run.model == study.models[0] for run in done):
        raise ReproductionError(f"nothing to compare with: {failures[runs[0].name]}")
    say("measuring the speed of each detector")
    speed = measure_speed([run for run in done if run.seed == 1], options.out, images, data, quick=options.quick)
    write_results(study, done, options, budget=budget, speed=speed, data=data, failures=failures)
    return failures


def _prepare(options: ReproductionOptions, steps: Steps) -> tuple[Path, Path]:
    """Return the folder of the splits and that of the images, which are prepared or drawn if need be."""
    prepared = options.out / "data"
    if options.quick:
        drawn = options.out / "synthetic"
        if not (drawn / "metadata.csv").is_file():  # written last
            build_dataset(drawn, n_fractured=QUICK_FRACTURED, n_healthy=QUICK_HEALTHY, seed=1)
        more = ["--metadata", str(drawn / "metadata.csv"), "--anatomy-columns", "anatomy", "--group-column", "patient"]
        more += ["--fractions", ".6", ".2", ".2"]
        _run_prepare(steps, drawn, prepared, [*more, "--neighbours", "0"])
        return prepared, drawn / "images"
    source = Path(str(options.data))
    if is_prepared(source):
        steps.number += 1
        return source, Path(str(options.images))
    _run_prepare(steps, source, prepared, shlex.split(options.prepare))
    return prepared, source / "images"


def _run_prepare(steps: Steps, source: Path, out: Path, more: list[str]) -> None:
    folders = ["--images", str(source / "images"), "--annotations", str(source / "annotations")]
    steps.run("prepare", ["prepare", *folders, *more, "--out", str(out)])


def _command(
    run: Run, out: Path, keys: list[str], options: ReproductionOptions, study: Study, places: tuple[Path, Path]
) -> list[str]:
    """Return the arguments of `fracture-det` that train `run` into the folder `out`."""
    data, images = places
    where = ["--data", str(data), "--images", str(images), "--num-gpus", str(options.num_gpus)]
    quick = study.quick.split() if options.quick else []
    own = ["OUTPUT_DIR", str(out), "SEED", str(run.seed), *quick, *keys, *options.overrides]
    return ["train", "--resume", "--config-file", run.config, *where, *own]


def _iterations(
    run: Run,
    budget: Budget,
    options: ReproductionOptions,
    study: Study,
    steps: Steps,
    places: tuple[Path, Path],
) -> int | None:
    """Return how many iterations the hours of the budget come to for the model, by a short training; None without."""
    if not budget.hours:
        return None
    out = options.out / "timing" / run.model.name
    if run.seed == 1:
        keys = ["SOLVER.EPOCHS", "0", "SOLVER.MAX_ITER", str(TIMED_ITERATIONS), "DATASETS.TEST", "()"]
        command = _command(run, out, keys, options, study, places)
        steps.run(f"timing_{run.model.name}", command, kind="timing", training=out)
    elif not (out / METRICS_FILE).is_file():
        raise ReproductionError(f"{run.name}: its iterations are unknown, since the timing of seed 1 failed")
    lines = [json.loads(line) for line in (out / METRICS_FILE).read_text(encoding="utf-8").splitlines()]
    if not (seconds := lines[-1].get("time") if lines else None):
        raise ReproductionError(f"{out / METRICS_FILE}: its last line has no time of an iteration")
    return max(1, round(3600 * budget.hours / seconds))


def _train(
    run: Run,
    budget: Budget,
    iterations: int | None,
    options: ReproductionOptions,
    study: Study,
    steps: Steps,
    places: tuple[Path, Path],
) -> None:
    out = options.out / "runs" / run.name
    keys = list(length_keys(budget, iterations))
    stale = (f"eval_{run.name}", f"eval_{run.name}_other*")
    steps.run(f"train_{run.name}", _command(run, out, keys, options, study, places), training=out, makes_stale=stale)


def _evaluate(run: Run, options: ReproductionOptions, steps: Steps, places: tuple[Path, Path]) -> None:
    """Evaluate a run on the test images, with thresholds from validation, and on every other test set with the same."""
    data, images = places
    report = options.out / "reports" / run.name
    detector = ["--detector", f"{run.model.scheme}:{options.out / 'runs' / run.name}"]
    common = ["--bootstrap", str(options.bootstrap)]
    own = ["--data", str(data / "test.json"), "--val", str(data / "val.json"), "--images", str(images)]
    steps.run(f"eval_{run.name}", ["eval", *detector, *own, *common, "--out", str(report)])
    for number, text in enumerate(options.other_tests, start=1):
        file, _, folder = text.rpartition("@")
        other = ["--data", file, "--images", folder, "--calibration", str(report / "calibration.json")]
        out = options.out / "reports" / f"{run.name}_other{number}"
        steps.run(f"eval_{run.name}_other{number}", ["eval", *detector, *other, *common, "--out", str(out)])
