"""Steps of a reproduction: each a process of its own, recorded when it is done, with the time that is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

from fracture_det.baselines.reproduction.study import ReproductionError
from fracture_det.baselines.steps import is_done, mark_done
from fracture_det.resources import PACKAGE
from fracture_det.training.hooks import METRICS_FILE

# Seconds between two lines of progress, and between two looks at the process.
SAY_EVERY_S, LOOK_EVERY_S = 60.0, 0.5
# Lines of a failed step's log that are quoted.
QUOTED_LINES = 3
Say = Callable[[str], None]


class Steps:
    """Runs commands one after the other and says how far it is.

    out: has records in steps/ and what each printed in logs/. total: how many steps there will be.
    lock: a file descriptor that every step keeps open, so that a lock on it lasts until the step ends, too, also where
        this process is killed before.
    """

    def __init__(self, out: Path, total: int, *, say: Say, lock: int | None = None) -> None:
        self.out, self.total, self.say = out, total, say
        self._kept_open = () if lock is None else (lock,)
        self.number = 0
        self._begun = time.monotonic()
        # Kind of the step that is running, and since when.
        self._current = ("", self._begun)
        # Kind of step -> seconds of those that ran, and how many are still to come.
        self._took: dict[str, list[float]] = {}
        self.remaining: dict[str, int] = {}

    def run(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        kind: str | None = None,
        training: Path | None = None,
        makes_stale: Sequence[str] = (),
    ) -> None:
        """Run `fracture-det ARGUMENTS` unless it is done.

        kind: of steps that take about as long; the first argument by default. training: the OUTPUT_DIR whose
        metrics.json tells of it; without that file it is not done. makes_stale: patterns of the names of steps that use
        what it makes, and are done again after it.
        Raises ReproductionError when it fails, with the end of its log.
        """
        self.number += 1
        kind = kind or arguments[0]
        self.remaining[kind] = max(0, self.remaining.get(kind, 1) - 1)
        record = self.out / "steps" / f"{name}.txt"
        command = [sys.executable, "-m", "fracture_det.cli", *arguments]
        if is_done(record, command) and (training is None or (training / METRICS_FILE).is_file()):
            self.say(f"[{self.number}/{self.total}] {name}: was done before")
            return
        self.say(f"[{self.number}/{self.total}] {name}")
        record.unlink(missing_ok=True)
        for stale in [path for pattern in makes_stale for path in record.parent.glob(f"{pattern}.txt")]:
            stale.unlink()
        log = self.out / "logs" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        begun = time.monotonic()
        self._current = (kind, begun)
        with log.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=_environment(), pass_fds=self._kept_open
            )
            code = self._wait(process, name, training)
        if code:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-QUOTED_LINES:]
            raise ReproductionError(f"{name}: failed with exit code {code}; the end of {log}: {' | '.join(lines)}")
        self._took.setdefault(kind, []).append(time.monotonic() - begun)
        mark_done(record, command)

    def _wait(self, process: subprocess.Popen[bytes], name: str, training: Path | None) -> int:
        """Return the exit code of a process, saying from time to time how far it is."""
        said = time.monotonic()
        try:
            while process.poll() is None:
                time.sleep(LOOK_EVERY_S)
                if time.monotonic() - said > SAY_EVERY_S:
                    said = time.monotonic()
                    self.say(f"[{self.number}/{self.total}] {name}: {self._state(training)}")
        finally:
            if process.poll() is None:  # this process is being stopped
                process.terminate()
                process.wait()
        return process.returncode

    def _state(self, training: Path | None) -> str:
        elapsed = f"{_duration(time.monotonic() - self._begun)} since the start"
        last = _last_line(training) if training else {}
        if "iteration" not in last:
            return elapsed
        text = f"iteration {int(last['iteration']) + 1}"
        if "eta_seconds" in last:
            left = float(last["eta_seconds"])
            text += f", {_duration(left)} left of this training, {self._left_of_all(left)}"
        return f"{text}; {elapsed}"

    def _left_of_all(self, left: float) -> str:
        """Return what is left of all in words. left: seconds of the step that is running."""
        kind, begun = self._current
        means = {of_kind: sum(took) / len(took) for of_kind, took in self._took.items()}
        means.setdefault(kind, time.monotonic() - begun + left)
        kinds = [of_kind for of_kind, count in self.remaining.items() if count]
        seconds = left + sum(self.remaining[of_kind] * means.get(of_kind, 0.0) for of_kind in kinds)
        return f"{'about' if all(of_kind in means for of_kind in kinds) else 'at least'} {_duration(seconds)} of all"


def _environment() -> dict[str, str]:
    """Return this process's environment, in which a new one finds this package from any folder."""
    path = os.pathsep.join(filter(None, (str(PACKAGE.parent), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


def _last_line(folder: Path) -> dict[str, float]:
    """Return the last line of a training's metrics, {} where there is none."""
    try:
        lines = (folder / METRICS_FILE).read_text(encoding="utf-8").splitlines()
        return json.loads(lines[-1]) if lines else {}
    except (OSError, ValueError):
        return {}


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
