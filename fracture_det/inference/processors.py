"""How many processors this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP_V2 = Path("/sys/fs/cgroup/cpu.max")
CGROUP_V1 = Path("/sys/fs/cgroup/cpu")


def available_cpus() -> int:
    """Return the processors that this process may use: of its affinity mask, a container's quota, and OMP_NUM_THREADS.

    Runtimes count the machine's processors, and in a container that may use two of 64 they would start 64 threads.
    """
    mask = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    limits = [len(mask)]
    if (quota := _quota()) is not None:
        limits.append(math.ceil(quota))
    if (wanted := os.environ.get("OMP_NUM_THREADS", "")).isdigit():
        limits.append(int(wanted))
    return max(1, min(limits))


def _quota() -> float | None:
    """Return the processors that the control group may use (cgroups(7), cpu.max or cpu.cfs_quota_us), or None."""
    try:
        if CGROUP_V2.is_file():
            quota, period = CGROUP_V2.read_text().split()
        else:
            quota, period = (
                (CGROUP_V1 / name).read_text().strip() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            )
        return None if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError):
        return None
