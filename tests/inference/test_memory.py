"""The budget of memory, and what is given back to the system."""

import subprocess
import sys
import threading
import time

import pytest

from fracture_det.inference.memory import MemoryBudget
from tests.inference.test_service import wait_for


def test_what_is_taken_is_taken_until_it_is_given_back():
    budget = MemoryBudget(10)
    assert budget.take(6, 0)
    assert budget.take(4, 0)
    assert not budget.take(1, 0)
    budget.give_back(6)
    assert not budget.take(7, 0.01)
    assert budget.take(6, 0)
    assert budget.taken == 10


def test_more_than_there_is_can_be_taken_by_whoever_is_alone():
    budget = MemoryBudget(10)
    assert budget.take(25, 0)
    assert not budget.take(1, 0)
    budget.give_back(25)
    assert budget.take(1, 0)
    assert not budget.take(25, 0)


def test_a_large_request_is_not_overtaken_by_small_ones():
    budget = MemoryBudget(10)
    assert budget.take(5, 0)
    order = []

    def ask(count: int) -> None:
        assert budget.take(count, 5)
        order.append(count)
        budget.give_back(count)

    large = threading.Thread(target=ask, args=(8,))
    large.start()
    wait_for(lambda: len(budget._waiting) == 1)
    small = threading.Thread(target=ask, args=(1,))
    small.start()  # there would be room for it
    wait_for(lambda: len(budget._waiting) == 2)
    budget.give_back(5)
    large.join(5)
    small.join(5)
    assert order == [8, 1]


def test_whoever_gives_up_lets_the_next_one_in():
    budget = MemoryBudget(10)
    assert budget.take(5, 0)
    large = threading.Thread(target=budget.take, args=(8, 0.2))
    large.start()
    wait_for(lambda: len(budget._waiting) == 1)
    begun = time.monotonic()
    assert budget.take(1, 5)
    assert time.monotonic() - begun < 4
    large.join(5)


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"MemoryBudget\.total: expected at least 1, got 0"):
        MemoryBudget(0)


# Blocks of growing size, of which every second is freed before the next: glibc then keeps what was freed.
GROW_AND_FREE = """
import sys, threading
if sys.argv[1] == "return":
    from fracture_det.inference.memory import return_freed_memory
    return_freed_memory()
def work():
    kept = []
    for size in range(1 << 20, 24 << 20, 1 << 20):
        block = bytearray(size)
        block[::4096] = b"x" * len(block[::4096])
        small = bytearray(100_000)
        kept.append(small)
        del block
    blocks = [bytearray(8 << 20) for _ in range(8)]
    for block in blocks:
        block[::4096] = b"x" * len(block[::4096])
    kept.append(bytearray(100_000))
    del blocks, block
    held.append(kept)
held = []
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone is told to")
def test_freed_memory_goes_back_to_the_system():
    def held_kb(choice: str) -> int:
        command = [sys.executable, "-c", GROW_AND_FREE, choice]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert held_kb("return") < 0.7 * held_kb("keep")
