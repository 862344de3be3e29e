"""Threads follow the affinity mask and the container's quota, not the machine."""

import os

import pytest

from fracture_det.inference import processors
from fracture_det.inference.processors import available_cpus


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of eight processors without control groups; returns the folder for their files."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(processors, "CGROUP_V2", tmp_path / "cpu.max")
    monkeypatch.setattr(processors, "CGROUP_V1", tmp_path / "cpu")
    return tmp_path


def test_without_a_quota_all_that_the_mask_allows(machine, monkeypatch):
    assert available_cpus() == 8
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    assert available_cpus() == 1


def test_who_sets_the_threads_of_others_sets_ours(machine, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert available_cpus() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert available_cpus() == 8


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("200000 100000", 2),
        ("250000 100000", 3),  # two and a half: a third thread has work half of the time
        ("50000 100000", 1),
        ("9900000 100000", 8),
        ("max 100000", 8),
        ("nonsense", 8),
    ],
)
def test_a_quota_of_the_second_kind(machine, content, expected):
    (machine / "cpu.max").write_text(content + "\n")
    assert available_cpus() == expected


@pytest.mark.parametrize(("quota", "expected"), [("400000", 4), ("-1", 8)])
def test_a_quota_of_the_first_kind(machine, quota, expected):
    (machine / "cpu").mkdir()
    (machine / "cpu" / "cpu.cfs_quota_us").write_text(quota + "\n")
    (machine / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert available_cpus() == expected
