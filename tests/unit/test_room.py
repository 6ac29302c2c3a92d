# SPDX-License-Identifier: GPL-2.0-only
"""Memory and processors, counted."""

import os
from pathlib import Path

import pytest

from lab import room
from lab.config import Machine

_GIB = 1 << 30


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(room, "_CGROUP", tmp_path)
    return tmp_path


def test_a_guest_takes_its_memory_and_qemus() -> None:
    assert room.memory_of(Machine(memory="2G")) == 2 * _GIB + room.OVERHEAD
    assert room.memory_of(Machine(memory="512M")) == (512 << 20) + room.OVERHEAD


def test_a_container_has_what_its_limit_leaves(cgroup: Path) -> None:
    whole = room.available()
    assert whole > 64 << 20
    (cgroup / "memory.max").write_text(f"{48 << 20}\n")
    (cgroup / "memory.stat").write_text("anon 1\nactive_file 0\ninactive_file 0\n")
    (cgroup / "memory.current").write_text(f"{16 << 20}\n")
    assert room.available() == 32 << 20
    (cgroup / "memory.current").write_text(f"{64 << 20}\n")
    assert room.available() == 0
    (cgroup / "memory.max").write_text("max\n")
    assert room.available() > 64 << 20


def test_a_containers_cached_files_can_be_had_back(cgroup: Path) -> None:
    (cgroup / "memory.max").write_text(f"{48 << 20}\n")
    (cgroup / "memory.current").write_text(f"{47 << 20}\n")
    stat = f"anon {15 << 20}\nactive_file {2 << 20}\ninactive_file {30 << 20}\n"
    (cgroup / "memory.stat").write_text(stat)
    assert room.available() == 33 << 20


@pytest.mark.parametrize(("limit", "left"), [(48 << 20, 33 << 20), (0x7FFFFFFFFFFFF000, None)])
def test_a_container_of_version_1_has_the_same(cgroup: Path, limit: int, left: int | None) -> None:
    """mm/memcontrol-v1.c: memcg1_stat_format(); no limit is PAGE_COUNTER_MAX pages."""
    place = cgroup / "memory"
    place.mkdir()
    (place / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (place / "memory.usage_in_bytes").write_text(f"{47 << 20}\n")
    stat = f"active_file 1\ntotal_active_file {2 << 20}\ntotal_inactive_file {30 << 20}\n"
    (place / "memory.stat").write_text(stat)
    assert room.available() == left if left else room.available() > 64 << 20


@pytest.mark.parametrize(("quota", "expected"), [(-1, 64), (250000, 2), (50000, 1)])
def test_a_container_of_version_1_has_the_processors_of_its_time(
    cgroup: Path, monkeypatch: pytest.MonkeyPatch, quota: int, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    (cgroup / "cpu").mkdir()
    (cgroup / "cpu/cpu.cfs_quota_us").write_text(f"{quota}\n")
    (cgroup / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert room.processors() == expected


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max 100000", 64), ("250000 100000", 2), ("50000 100000", 1), ("6500000 100000", 64)],
)
def test_a_container_has_the_processors_of_its_time(
    cgroup: Path, monkeypatch: pytest.MonkeyPatch, limit: str, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert room.processors() == 64
    (cgroup / "cpu.max").write_text(f"{limit}\n")
    assert room.processors() == expected


@pytest.mark.parametrize(
    ("cpus", "gib", "expected"), [(64, 1000, 65), (2, 1000, 3), (64, 8, 3), (8, 1, 1), (1, 100, 2)]
)
@pytest.mark.usefixtures("cgroup")
def test_workers(monkeypatch: pytest.MonkeyPatch, cpus: int, gib: int, expected: int) -> None:
    """A worker needs two guests' memory, here 2 x 1.3 GiB."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cpus)))
    monkeypatch.setattr(room, "available", lambda: gib * _GIB)
    assert room.workers(Machine(memory="1G")) == expected
