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
    """

    def __init__(self, out: Path, total: int, *, say: Say) -> None:
        self.out, self.total, self.say = out, total, say
        self.number = 0
        self._begun = time.monotonic()
        # Kind of step -> seconds of those that ran, and how many are still to come.
        self._took: dict[str, list[float]] = {}
        self.remaining: dict[str, int] = {}

    def run(self, name: str, arguments: Sequence[str], *, training: Path | None = None) -> None:
        """Run `fracture-det ARGUMENTS` unless it is done. training: the OUTPUT_DIR whose metrics.json tells of it.

        Raises ReproductionError when it fails, with the end of its log.
        """
        self.number += 1
        kind = arguments[0]
        self.remaining[kind] = max(0, self.remaining.get(kind, 1) - 1)
        record = self.out / "steps" / f"{name}.txt"
        command = [sys.executable, "-m", "fracture_det.cli", *arguments]
        if is_done(record, command):
            self.say(f"[{self.number}/{self.total}] {name}: was done before")
            return
        self.say(f"[{self.number}/{self.total}] {name}")
        record.unlink(missing_ok=True)
        log = self.out / "logs" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        begun = time.monotonic()
        with log.open("w", encoding="utf-8") as file:
            code = self._wait(
                subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=_environment()), name, training
            )
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
        left = float(last.get("eta_seconds", 0.0))
        text = f"iteration {int(last['iteration']) + 1}"
        if "eta_seconds" in last:
            text += f", {_duration(left)} left of this training"
        others = sum(
            count * sum(self._took[kind]) / len(self._took[kind])
            for kind, count in self.remaining.items()
            if self._took.get(kind)
        )
        if others:
            text += f", about {_duration(left + others)} of all"
        return f"{text}; {elapsed}"


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
