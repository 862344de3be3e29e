"""A promotion that is killed: all of it holds, or nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.registry.toys import add_toy, make_registry, score_of, serve

ROOT = Path(__file__).parents[2]
KILLED_AT = """
import os, signal, sys
from fracture_det.registry import states
from fracture_det.registry.registry import Grounds, Registry
folder, name, at = sys.argv[1:]
real = os.fsync if at != "replace" else states.Path.replace
def die(*arguments):
    if at == "fsync" or str(arguments[-1]).endswith("state.json"):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)
if at == "after":
    states.sync_folder = lambda folder: os.kill(os.getpid(), signal.SIGKILL)
elif at == "replace":
    states.Path.replace = die
else:
    states.os.fsync = die
Registry.at(folder).promote(name, lambda *_: Grounds(without_gate="x"))
"""


@pytest.mark.parametrize(("at", "is_done"), [("fsync", False), ("replace", False), ("after", True)])
def test_killed_in_the_middle_of_a_promotion_all_of_it_holds_or_nothing(tmp_path, at, is_done):
    registry = make_registry(tmp_path)
    first, second = add_toy(registry, 0.9), add_toy(registry, 0.6)
    serve(registry, first)
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AT, str(registry.folder), second, at], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    states = registry.states
    assert (states.served, len(states.history)) == ((second, 2) if is_done else (first, 1))
    if not is_done:  # nothing stands in the way of the next one
        serve(registry, second)
    assert registry.served_name() == second
    assert score_of(f"registry:{registry.folder}") == pytest.approx(0.6 * 200 / 255, abs=1e-6)
