"""How long each stage of a prediction takes: detectors mark their stages, whoever predicts holds the clock."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, Token
from pathlib import Path
from time import perf_counter

import numpy as np

from fracture_det.structures.timing import Stage, Timing

# In the order in which an image passes them. `draw` is draw_overlay alone, without writing the file.
STAGES = ("read", "preprocess", "model", "postprocess", "draw")
# From the file to the boxes: what images per second counts.
PREDICTION_STAGES = STAGES[:-1]
_running: ContextVar[StageTimer | None] = ContextVar("running stage clock", default=None)


class StageTimer:
    """Adds up the seconds of each stage while it runs; a context manager.

    seconds: stage -> seconds. A stage within another interrupts it, so that no second counts twice.
    """

    def __init__(self, now: Callable[[], float] | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self._now = now or perf_counter
        self._stage: str | None = None
        self._since = 0.0
        self._outer: Token[StageTimer | None] | None = None

    def __enter__(self) -> StageTimer:
        self._outer = _running.set(self)
        return self

    def __exit__(self, *error: object) -> None:
        if self._outer is not None:
            _running.reset(self._outer)

    def switch(self, stage: str | None) -> str | None:
        """Count from now on for `stage`, or for none; return what was counted for until now."""
        now, before = self._now(), self._stage
        if before is not None:
            self.seconds[before] = self.seconds.get(before, 0.0) + now - self._since
        self._stage, self._since = stage, now
        return before


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Count the block for a stage of the clock that runs in this thread; without one, nothing is measured."""
    clock = _running.get()
    if clock is None:
        yield
        return
    before = clock.switch(name)
    try:
        yield
    finally:
        clock.switch(before)


def timing_of(seconds: Sequence[Mapping[str, float]], *, batch_size: int, device: str | None = None) -> Timing:
    """Return the Timing of predicted images from each one's seconds by stage.

    images_per_second: images / seconds from file to boxes (reading and detector, not drawing), all images together.
    A stage that no image passed is left out. device: what the model ran on, where the detector says so.
    """
    columns = {name: [of_image[name] for of_image in seconds if name in of_image] for name in STAGES}
    total = sum(sum(columns[name]) for name in PREDICTION_STAGES)
    memory = peak_memory_mb()
    return Timing(
        machine=machine_name() + (f", model on {device}" if device else ""),
        images=len(seconds),
        batch_size=batch_size,
        images_per_second=round(len(seconds) / total, 3) if total > 0 else None,
        peak_memory_mb=None if memory is None else round(memory, 1),
        stages={name: _stage(values) for name, values in columns.items() if values},
    )


def _stage(seconds: Sequence[float]) -> Stage:
    median, p95 = 1000 * np.percentile(seconds, (50, 95))
    return Stage(round(float(median), 3), round(float(p95), 3))


def peak_memory_mb() -> float | None:
    """Return the most main memory (1 MB = 10^6 bytes) that this process held since it began, or None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes on macOS, kilobytes elsewhere
    return peak * unit / 1e6


def machine_name() -> str:
    """Return this machine's name, processor, number of cores and main memory."""
    memory = _memory_gb()
    known = "" if memory is None else f", {memory:.0f} GB memory"
    return f"{platform.node()}, {_processor()}, {os.cpu_count()} cores{known}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")  # platform.processor() says only "x86_64" on Linux
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_gb() -> float | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):  # Windows, or a system that does not say
        return None
