"""Memory of a server: a budget that large radiographs wait for, and memory that is given back to the system."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections import deque
from contextlib import suppress

# <malloc.h> of glibc.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
BLOCK_BYTES, MAX_ARENAS = 1 << 20, 2


class MemoryBudget:
    """Bytes that the threads of a process share; who asks first is served first.

    total: how many bytes may be taken at once. A larger request is granted while nothing else is taken, so that a
    budget bounds how much is done at once and not what can be done at all.
    """

    def __init__(self, total: int) -> None:
        if total < 1:
            raise ValueError(f"MemoryBudget.total: expected at least 1, got {total}")
        self.total = total
        self.taken = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    def take(self, count: int, timeout_s: float) -> bool:
        """Wait until `count` bytes are free and take them; False if they were not within `timeout_s`."""
        ticket, deadline = object(), time.monotonic() + timeout_s
        with self._changed:
            self._waiting.append(ticket)
            try:
                while not (self._waiting[0] is ticket and self._has_room(count)):
                    if not self._changed.wait(max(0.0, deadline - time.monotonic())) and time.monotonic() >= deadline:
                        return False
                self.taken += count
                return True
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()  # the next one may be first now

    def give_back(self, count: int) -> None:
        """Give `count` bytes back that were taken."""
        with self._changed:
            self.taken -= count
            self._changed.notify_all()

    def _has_room(self, count: int) -> bool:
        return not self.taken or self.taken + count <= self.total


def return_freed_memory() -> None:
    """Make glibc return freed memory to the system; call it before threads start. Nothing happens elsewhere.

    By default, glibc raises the size from which it maps blocks on their own each time that such a block is freed, up to
    32 MiB, and has eight arenas for each processor. What is freed inside of these stays with the process: many
    radiographs at once would leave gigabytes behind. A fixed size and two arenas cost no time that can be measured.
    """
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        for option, value in (
            (M_MMAP_THRESHOLD, BLOCK_BYTES),
            (M_TRIM_THRESHOLD, BLOCK_BYTES),
            (M_ARENA_MAX, MAX_ARENAS),
        ):
            libc.mallopt(option, value)
