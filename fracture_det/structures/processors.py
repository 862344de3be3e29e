"""How many processors this process may use."""

from __future__ import annotations

import os

from loky import cpu_count


def available_cpus() -> int:
    """Return the processors that this process may use: of its affinity mask, a container's quota, and OMP_NUM_THREADS.

    Runtimes count the machine's processors, and in a container that may use two of 64 they would start 64 threads.
    """
    allowed = int(cpu_count(only_physical_cores=False))
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(allowed, int(wanted))) if wanted.isdigit() else allowed
