"""What all tests share: threads that fit the workers, one Chromium for each, and a PostgreSQL for a module."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.webapp import postgres

if "PYTEST_XDIST_WORKER" in os.environ:
    # Read when torch is imported. As many threads as processors in each of several workers get in each other's way.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _settings_stay_in_their_test() -> Iterator[None]:
    """A test that leaves a FRACTURE_* variable behind fails itself, not those after it in its process."""
    before = _settings()
    yield
    after = _settings()
    for name in after.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)
    assert after == before, "the test changed FRACTURE_* variables of the process for good"


def _settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("FRACTURE_")}


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """A running Chromium; skips where there is none."""
    from tests.webapp.browser import chromium, open_browser

    if chromium() is None:
        pytest.skip("no Chromium here; make test-deps installs it")
    with open_browser() as running:
        yield running


@pytest.fixture(scope="module")
def postgresql_url() -> Iterator[str]:
    """The URL of a running PostgreSQL; skips where there is none."""
    with postgres.temporary() as (url, _):
        yield url


@pytest.fixture
def forget_data_sets() -> Iterator[None]:
    """Detectron2 forgets, after the test, the data sets that it registered."""
    yield
    from detectron2.data import DatasetCatalog, MetadataCatalog

    for name in [name for name in DatasetCatalog.list() if "@" in name]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
