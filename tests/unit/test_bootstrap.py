# SPDX-License-Identifier: GPL-2.0-only
"""The launcher and the first start, without network and without root."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import bootstrap
from lab.bootstrap import Need
from lab.errors import InfrastructureError

TREE = Path(bootstrap.__file__).parent.parent
ABSENT = Need("no-such-package", "is never there", command="no-such-command")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make this host one that lacks ABSENT, with these commands and this user."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(bootstrap, "NEEDS", (ABSENT,))
    monkeypatch.setattr(bootstrap, "qemu_version", lambda: None)

    def make(*commands: str, uid: int = 1000) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: uid)
        monkeypatch.setattr(shutil, "which", lambda name: name if name in commands else None)

    return make


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A clone whose .venv is current and whose Python prints what it is called with."""
    root = tmp_path / "clone"
    for name in ("vfio-lab", "pyproject.toml", "lab/__init__.py", "lab/bootstrap.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TREE / name, root / name)
    python = root / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s|" "$@"\nexit 7\n')
    python.chmod(0o755)
    code = "import runpy; print(end=runpy.run_path('vfio-lab')['recipe']('.').decode())"
    stamp = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, check=True
    ).stdout
    (root / ".venv/stamp").write_bytes(stamp)
    return root


def is_current(root: Path) -> bool:
    code = "import runpy; print(runpy.run_path('vfio-lab')['is_current']('.'))"
    argv = [sys.executable, "-c", code]
    return subprocess.check_output(argv, cwd=root, text=True) == "True\n"


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("QEMU emulator version 7.2.19 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright", (7, 2)),
        ("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)", (10, 0)),
        ("QEMU emulator version 9.2.50 (v9.2.0-1234-gabcdef)", (9, 2)),
        ("", None),
    ],
)
def test_qemu_tells_its_version(text: str, version: tuple[int, int] | None) -> None:
    assert bootstrap.version_in(text) == version


def test_mirror_is_debians_own_not_a_vendors_with_the_same_codename() -> None:
    targets = (
        "Docker\tbookworm\thttps://vendor.example/linux/debian/\n"
        "Debian\tbookworm-security\thttp://mirror.example/debian-security/\n"
        "Debian\tbookworm\thttp://mirror.example/debian/\n"
    )
    assert bootstrap.mirror_in(targets, "bookworm") == "http://mirror.example/debian/"


def test_no_mirror_is_an_error_with_a_hint() -> None:
    unread = "$(ORIGIN)\t$(CODENAME)\thttp://mirror.example/debian/\n"  # as before any update
    with pytest.raises(InfrastructureError, match=r"no Debian archive for bookworm\n .*sources"):
        bootstrap.mirror_in(unread, "bookworm")


def test_root_needs_no_sudo(host: Callable[..., None]) -> None:
    host("sudo", uid=0)
    assert bootstrap.privilege() == []


def test_user_asks_sudo(host: Callable[..., None]) -> None:
    host("sudo")
    assert bootstrap.privilege() == ["sudo"]


def test_user_without_sudo_has_no_privilege(host: Callable[..., None]) -> None:
    host()
    assert bootstrap.privilege() is None


def test_install_asks_no_question_even_behind_sudo() -> None:
    argv = bootstrap.install_command(["sudo"], ["bc"], ["-t", "bookworm-backports"])
    assert argv[:4] == ["sudo", "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    assert argv[-3:] == ["-t", "bookworm-backports", "bc"]
    assert "--yes" in argv


def test_need_is_recognised_by_command_file_or_module(tmp_path: Path) -> None:
    assert Need("python3", "", command="python3").present
    assert Need("here", "", file=str(tmp_path)).present
    assert Need("python3", "", module="os").present
    assert not ABSENT.present
    assert not Need("gone", "", file=str(tmp_path / "gone")).present
    assert not Need("gone", "", module="no_such_module").present


def test_every_need_can_be_recognised_and_mended() -> None:
    assert all(
        bool(need.command) + bool(need.file) + bool(need.module) == 1 for need in bootstrap.NEEDS
    )
    assert bootstrap.QEMU.mend == "apt-get install qemu-system-x86"


def test_what_the_tests_lack_is_told_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Need("another-package", "is missed, too", command="no-such-command-either")
    monkeypatch.setattr(bootstrap, "NEEDS_OF_TESTS", (ABSENT, other))
    monkeypatch.setenv("PATH", "")  # where there is no apt
    bootstrap.provide_for_tests()
    said = capsys.readouterr().err
    assert "no-such-package" in said
    assert "another-package" in said
    assert said.count("going on without: this is neither Debian nor Ubuntu") == 2


def test_missing_names_what_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "NEEDS", (Need("python3", "", command="python3"), ABSENT))
    assert bootstrap.missing() == [ABSENT]


def test_other_distribution_names_the_packages_and_stops(
    host: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    host("sudo")
    assert bootstrap.main() == 2
    said = capfd.readouterr().err
    assert "no-such-package" in said
    assert "neither Debian nor Ubuntu" in said


def test_user_without_sudo_is_told_the_command_for_root(
    host: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    host("apt-get")
    assert bootstrap.main() == 2
    said = capfd.readouterr().err
    assert "no-such-package" in said
    assert f"cd {TREE} && " in said
    assert "-m lab.bootstrap" in said


def test_start_that_waited_for_another_makes_nothing(
    tree: Path, host: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    host()
    assert bootstrap.prepare(str(tree), bytes, lambda: True) == 0
    assert capfd.readouterr().err == ""


def test_current_venv_gets_the_arguments_untouched_and_gives_the_status(tree: Path) -> None:
    argv = [sys.executable, str(tree / "vfio-lab"), "run", "a b", "--", ""]
    done = subprocess.run(argv, cwd="/", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (7, "-P|-m|lab|run|a b|--||")


@pytest.mark.parametrize("name", ["pyproject.toml", "lab/bootstrap.py"])
def test_changed_recipe_makes_venv_stale(tree: Path, name: str) -> None:
    assert is_current(tree)
    with (tree / name).open("a") as file:
        file.write("\n")
    assert not is_current(tree)


def test_half_written_stamp_is_stale(tree: Path) -> None:
    stamp = (tree / ".venv/stamp").read_bytes()
    (tree / ".venv/stamp").write_bytes(stamp[: len(stamp) // 2])
    assert not is_current(tree)


def test_moved_tree_is_stale(tree: Path) -> None:
    assert not is_current(tree.rename(tree.parent / "moved"))


def test_other_or_vanished_python_is_stale(tree: Path) -> None:
    python = tree / ".venv/bin/python"
    python.unlink()
    assert not is_current(tree)
    python.symlink_to(sys.executable)
    assert not is_current(tree)


def test_launcher_loads_nothing_that_costs(tree: Path) -> None:
    code = (
        "import sys; old = set(sys.modules); text = open('vfio-lab').read();"
        "exec(text, {'__name__': 'launcher'}); print(*set(sys.modules) - old)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], cwd=tree, text=True) == "\n"
