"""Threads follow the affinity mask, the container's quota and OMP_NUM_THREADS, not the machine."""

import io
import os

import pytest
from loky.backend import context

from fracture_det.structures.processors import available_cpus


# processors of the machine, of the mask, the control group's quota, OMP_NUM_THREADS, processors to use
@pytest.mark.parametrize(
    ("machine", "mask", "quota", "threads", "expected"),
    [
        (8, 8, "max 100000", None, 8),
        (8, 1, "max 100000", None, 1),
        (8, 8, "200000 100000", None, 2),
        (8, 8, "250000 100000", None, 3),  # two and a half: a third thread has work half of the time
        (8, 8, "50000 100000", None, 1),
        (8, 4, "9900000 100000", None, 4),
        (8, 8, "max 100000", "3", 3),
        (8, 8, "max 100000", "64", 8),
        (8, 8, "max 100000", "0", 1),
        (8, 8, "max 100000", "all", 8),
    ],
)
def test_the_lowest_limit_counts(monkeypatch, machine, mask, quota, threads, expected):
    monkeypatch.setattr(os, "cpu_count", lambda: machine)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(mask)), raising=False)
    monkeypatch.setattr(os.path, "exists", lambda path: str(path) == "/sys/fs/cgroup/cpu.max")
    monkeypatch.setattr(context, "open", lambda path: io.StringIO(quota + "\n"), raising=False)
    monkeypatch.delenv("LOKY_MAX_CPU_COUNT", raising=False)
    if threads is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert available_cpus() == expected
