"""What all tests share: threads that fit the workers, and one Chromium for each."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Read when torch is imported. As many threads as processors in each of several workers get in each other's way.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """A running Chromium; skips where there is none."""
    from tests.webapp.browser import chromium, open_browser

    if chromium() is None:
        pytest.skip("no Chromium here; make test-deps installs it")
    with open_browser() as running:
        yield running
