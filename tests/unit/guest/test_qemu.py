# SPDX-License-Identifier: GPL-2.0-only
"""Asking a QEMU what it is; here it is a shell script."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.cache import Cache
from lab.errors import InfrastructureError
from lab.guest import find_qemu

ANSWERS = """\
echo "$*" >>@LOG@
case "$*" in
-version) echo "@VERSION@"; echo "Copyright (c) 2003-2025 Fabrice Bellard" ;;
"-device help")
    echo 'Network devices:'
    echo 'name "e1000", bus PCI, alias "e1000-82540em", desc "Intel Gigabit Ethernet"'
    echo 'name "igb", bus PCI'
    echo ''
    echo 'Misc devices:'
    echo 'name "edu", bus PCI'
    ;;
"-device intel-iommu,help")
    echo 'intel-iommu options:'
    echo '  intremap=<OnOffAuto>   - on/off/auto (default: "auto")'
    echo '  x-scalable-mode=<bool> -  (default: false)'
    ;;
esac
"""
DEBIAN = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)"
Script = Callable[[str], Path]


@pytest.fixture
def program(tmp_path: Path) -> Script:
    """Make a QEMU out of a shell script's body."""

    def make(body: str) -> Path:
        path = tmp_path / "qemu"
        path.write_text(f"#!/bin/sh\n{body}")
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def qemu(program: Script, log: Path) -> Callable[[str], Path]:
    """A QEMU that says it is this version."""
    return lambda version: program(ANSWERS.replace("@LOG@", str(log)).replace("@VERSION@", version))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """One line a question that QEMU was asked."""
    return tmp_path / "asked"


def test_a_qemu_says_what_it_can_do(qemu: Script, cache: Cache) -> None:
    path = qemu(DEBIAN)
    found = find_qemu(path, cache)
    assert found.path == path
    assert found.version == (10, 0, 2)
    assert found.description == DEBIAN
    assert found.devices == {"e1000", "igb", "edu"}
    assert found.iommu_properties == {"intremap", "x-scalable-mode"}
    assert found.unconfined == ""


def test_one_without_seccomp_says_so_and_is_tried_again_by_another_host(
    qemu: Script, cache: Cache, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = qemu(DEBIAN)
    refused = "echo \"qemu: There is no option group 'sandbox'\" >&2; exit 1"
    path.write_text(path.read_text() + f"case $1 in -sandbox) {refused} ;; esac\n")
    for _ in range(2):
        assert find_qemu(path, cache).unconfined == "qemu: There is no option group 'sandbox'"
    assert log.read_text().count("-sandbox") == 1
    monkeypatch.setattr("platform.release", lambda: "another")
    find_qemu(path, cache)
    assert log.read_text().count("-sandbox") == 2


def test_one_that_does_not_answer_in_time_is_not_taken_for_one_without_seccomp(
    qemu: Script, cache: Cache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path, busy = qemu(DEBIAN), tmp_path / "busy"
    slow = f"[ ! -e {busy} ] || exec sleep 60"
    path.write_text(path.read_text() + f"case $1 in -sandbox) {slow} ;; esac\n")
    run = subprocess.run

    def impatient(argv: list[str], **given: Any) -> Any:
        given["timeout"] = 0.1 if "-sandbox" in argv and busy.exists() else 30
        return run(argv, **given)

    monkeypatch.setattr(subprocess, "run", impatient)
    busy.touch()
    with pytest.raises(InfrastructureError, match="timed out after"):
        find_qemu(path, cache)
    busy.unlink()
    assert find_qemu(path, cache).unconfined == ""


def test_the_first_property_that_it_has_is_taken(qemu: Script, cache: Cache) -> None:
    found = find_qemu(qemu(DEBIAN), cache)
    assert found.iommu_property("scalable-mode", "x-scalable-mode") == "x-scalable-mode"
    assert found.iommu_property("fsts", "x-flts") is None


def test_it_is_asked_once(qemu: Script, cache: Cache, log: Path) -> None:
    path = qemu(DEBIAN)
    first = find_qemu(path, cache)
    asked = log.read_text()
    assert find_qemu(path, cache) == first
    assert log.read_text() == asked


def test_another_binary_is_asked_anew(qemu: Script, cache: Cache) -> None:
    for version in ("10.0.2", "10.0.3"):  # files of one size
        path = qemu(f"QEMU emulator version {version}")
        assert find_qemu(path, cache).description.endswith(version)


def test_a_link_is_the_qemu_behind_it(qemu: Script, cache: Cache, tmp_path: Path) -> None:
    path = qemu(DEBIAN)
    (tmp_path / "link").symlink_to(path)
    assert find_qemu(tmp_path / "link", cache).path == path


def test_the_one_on_path_is_the_default(
    qemu: Script, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = qemu(DEBIAN)
    path.rename(tmp_path / "qemu-system-x86_64")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert find_qemu(None, cache).path == tmp_path / "qemu-system-x86_64"


def test_a_missing_qemu_says_how_to_get_one(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        InfrastructureError, match=r"QEMU is missing: .*\n.*install qemu-system-x86"
    ):
        find_qemu(None, cache)


def test_a_file_that_is_no_program_is_no_qemu(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "qemu").write_text("text")
    with pytest.raises(InfrastructureError, match=f"{tmp_path}/qemu is no program"):
        find_qemu(tmp_path / "qemu", cache)


@pytest.mark.parametrize("version", ["7.1.0", "6.2.0", "2.11"])
def test_an_old_qemu_says_what_is_expected(qemu: Script, cache: Cache, version: str) -> None:
    path = qemu(f"QEMU emulator version {version}")
    with pytest.raises(InfrastructureError, match=r"too old: QEMU .*\n.*QEMU 7\.2 or later"):
        find_qemu(path, cache)


@pytest.mark.parametrize("version", ["7.2.19", "8.0.0", "9.2.50 (v9.2.0-1234-gabcdef)"])
def test_a_newer_qemu_will_do(qemu: Script, cache: Cache, version: str) -> None:
    assert find_qemu(qemu(f"QEMU emulator version {version}"), cache).version >= (7, 2)


@pytest.mark.parametrize("body", ["echo GNU bash, release 5.2", "exit 0"], ids=["words", "silence"])
def test_another_program_is_no_qemu(program: Script, cache: Cache, body: str) -> None:
    path = program(body)
    for _ in range(2):  # it is not remembered either
        with pytest.raises(InfrastructureError, match="this is no QEMU: it says '"):
            find_qemu(path, cache)


@pytest.mark.parametrize("body", ["exit 3", "kill -SEGV $$"])
def test_a_qemu_that_fails_is_one_message(program: Script, cache: Cache, body: str) -> None:
    with pytest.raises(InfrastructureError, match="-version` does not run: "):
        find_qemu(program(body), cache)


def test_a_qemu_without_its_libraries_says_so(program: Script, cache: Cache) -> None:
    body = "echo 'error while loading shared libraries: libslirp.so.0' >&2; exit 127"
    with pytest.raises(InfrastructureError, match=r"libslirp\.so\.0"):
        find_qemu(program(body), cache)
