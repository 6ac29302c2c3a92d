# SPDX-License-Identifier: GPL-2.0-only
"""From a word to a kernel: what is built, what is found again, and what goes wrong."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from lab.cache import Cache
from lab.config import Lab
from lab.errors import BuildError, ConfigurationError, InfrastructureError
from lab.kernel import Kernel, prepare
from lab.progress import Progress

Prepare = Callable[[str], Kernel]


class Make(Protocol):
    def calls(self) -> int: ...
    def breaks(self, text: str) -> None: ...
    def mends(self) -> None: ...


@pytest.fixture
def prepared(lab: Lab, cache: Cache, progress: Progress, make: Make) -> Prepare:
    assert make.calls() == 0
    return lambda spec: prepare(spec, lab, cache, progress)


def _git(tree: Path, *words: str) -> str:
    who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    argv = ["git", "-C", str(tree), *who, *words]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def commit(tree: Path) -> str:
    _git(tree, "init", "-q")
    _git(tree, "add", "Kconfig")
    _git(tree, "commit", "-q", "-m", "one")
    return _git(tree, "rev-parse", "HEAD")


def test_a_kernel_is_built_with_all_its_files(prepared: Prepare) -> None:
    kernel = prepared("ball")
    assert kernel.bzimage.read_text() == "image\n"
    assert kernel.release == "6.12.99"
    assert kernel.config
    assert kernel.config.read_text() == "CONFIG_VFIO=y\n"
    assert kernel.headers
    assert (kernel.headers / "linux" / "vfio.h").is_file()
    assert kernel.build_id
    assert kernel.provenance["toolchain"]["compiler_version"] == "gcc 12"
    assert kernel.provenance["commands"] == 2


def test_a_second_time_nothing_runs(prepared: Prepare, make: Make) -> None:
    first = prepared("ball")
    calls = make.calls()
    started = time.monotonic()
    assert prepared("ball") == first
    assert time.monotonic() - started < 0.1
    assert make.calls() == calls


def test_a_fragment_behind_the_name_makes_another_kernel(prepared: Prepare) -> None:
    base, variant = prepared("ball"), prepared("ball+less")
    assert base.key != variant.key
    assert variant.config
    assert variant.config.read_text() == "# CONFIG_VFIO is not set\n"


def test_modules_come_in_an_archive_that_only_their_kernel_has(prepared: Prepare) -> None:
    assert prepared("ball").modules is None
    kernel = prepared("ball+loose")
    assert kernel.modules
    assert b"usr/lib/modules/6.12.99/kernel/vfio.ko" in kernel.modules.read_bytes()
    assert kernel.symbols
    assert (kernel.symbols / "vfio.ko").read_text() == "vfio with symbols\n"
    folders = [file.name for file in kernel.modules.parent.iterdir() if file.is_dir()]
    assert sorted(folders) == ["headers", "symbols"]


def test_a_comment_in_a_fragment_moves_no_bit(prepared: Prepare, lab: Lab) -> None:
    first = prepared("ball")
    lab.fragment("base").write_text("# why\nCONFIG_VFIO=y\n")
    assert prepared("ball").key == first.key
    lab.fragment("base").write_text("# why\nCONFIG_VFIO=n\n")
    assert prepared("ball").key != first.key


def test_a_symbol_that_does_not_take_is_named_with_its_place(
    prepared: Prepare, cache: Cache
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        prepared("ball+lost")
    message = caught.value.message
    assert "lost.config:2: CONFIG_ORPHAN=y: the kernel has it not; depends on (MMU)" in message
    assert "VFIO" not in message
    assert [entry.kind for entry in cache.entries()] == ["source"]


def test_a_symbol_that_no_kconfig_knows_is_said_to_be_so(prepared: Prepare, lab: Lab) -> None:
    lab.fragment("lost").write_text("CONFIG_ORPHAN_TYPO=y\n")
    with pytest.raises(ConfigurationError, match="no Kconfig of this kernel knows the symbol"):
        prepared("ball+lost")


def test_a_compile_error_shows_the_compilers_lines_and_leaves_no_kernel(
    prepared: Prepare, make: Make, cache: Cache
) -> None:
    make.breaks("drivers/vfio/vfio_main.c:20:9: error: no\n")
    with pytest.raises(BuildError, match=r"vfio_main\.c:20:9: error: no") as caught:
        prepared("ball")
    assert caught.value.hint
    log = Path(caught.value.hint.removeprefix("the whole log: "))
    assert "CC      drivers/vfio/vfio_main.o" in log.read_text()
    assert "kernel" not in {entry.kind for entry in cache.entries()}
    make.mends()
    assert prepared("ball").release == "6.12.99"


def test_an_unknown_name_lists_what_there_is(prepared: Prepare) -> None:
    with pytest.raises(ConfigurationError, match="'bal' is not known; expected one of ball"):
        prepared("bal")


def test_an_unknown_fragment_lists_what_there_is(prepared: Prepare) -> None:
    with pytest.raises(ConfigurationError, match=r"ball\+kasan: .*base, less, loose, lost"):
        prepared("ball+kasan")


def test_a_path_that_does_not_exist_is_named(prepared: Prepare) -> None:
    with pytest.raises(ConfigurationError, match="/no/such/bzImage does not exist"):
        prepared("/no/such/bzImage")


def test_a_tree_is_built_at_its_commit_and_not_touched(
    prepared: Prepare, tree: Path, commit: str
) -> None:
    (tree / "Kconfig").write_text("not committed")
    kernel = prepared(f"{tree}+less")
    assert kernel.provenance["source"]["commit"] == commit
    assert (tree / "Kconfig").read_text() == "not committed"
    assert _git(tree, "status", "--porcelain") == "M Kconfig"


@pytest.mark.usefixtures("commit")
def test_a_new_commit_is_another_kernel(prepared: Prepare, tree: Path) -> None:
    first = prepared(str(tree))
    _git(tree, "commit", "-q", "--allow-empty", "-m", "two")
    assert prepared(str(tree)).key != first.key


def test_another_commit_of_a_tree_is_named_after_it(
    prepared: Prepare, tree: Path, commit: str
) -> None:
    _git(tree, "commit", "-q", "--allow-empty", "-m", "two")
    assert prepared(f"{tree}@HEAD~1").provenance["source"]["commit"] == commit
    assert prepared(f"{tree}@{commit[:12]}+less").provenance["source"]["commit"] == commit
    with pytest.raises(ConfigurationError, match="has no commit named topic"):
        prepared(f"{tree}@topic")


@pytest.mark.parametrize("suffix", ["@HEAD", "+less", "@HEAD+less"])
def test_a_folders_name_may_have_what_stands_behind_it(
    prepared: Prepare, commit: str, tree: Path, suffix: str
) -> None:
    place = tree.parent / "me@work+play" / "linux"
    place.parent.mkdir()
    tree.rename(place)
    assert prepared(f"{place}{suffix}").provenance["source"]["commit"] == commit


@pytest.mark.parametrize("ref", ["", "@HEAD", "@main"])
def test_a_bare_repository_is_a_tree(
    prepared: Prepare, commit: str, tree: Path, tmp_path: Path, ref: str
) -> None:
    _git(tree, "branch", "-M", "main")
    _git(tree, "clone", "-q", "--bare", ".", str(tmp_path / "bare"))
    assert prepared(f"{tmp_path / 'bare'}{ref}").provenance["source"]["commit"] == commit


def test_a_folder_without_git_is_no_kernel(prepared: Prepare, tree: Path) -> None:
    with pytest.raises(ConfigurationError, match="is no git tree"):
        prepared(str(tree))


def test_a_truncated_tarball_is_one_message_and_nothing_is_kept(
    prepared: Prepare, lab: Lab, cache: Cache
) -> None:
    tarball = lab.root / "linux.tar"
    tarball.write_bytes(tarball.read_bytes()[:1100])
    with pytest.raises(InfrastructureError, match=r"linux\.tar is truncated or damaged"):
        prepared("ball")
    assert cache.entries() == []
    assert list(cache.root.glob("unfinished/*")) == []


def test_a_tarball_of_something_else_is_no_kernel(
    prepared: Prepare, lab: Lab, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    tarball = lab.root / "linux.tar"
    subprocess.run(["tar", "-cf", tarball, "-C", tmp_path, "other"], check=True)
    with pytest.raises(ConfigurationError, match="holds no kernel"):
        prepared("ball")


def test_another_compiler_makes_another_kernel(prepared: Prepare, tmp_path: Path) -> None:
    first = prepared("ball")
    (tmp_path / "bin" / "gcc").write_text("#!/bin/sh\necho gcc 12.2.1\n")
    second = prepared("ball")
    assert second.key != first.key
    assert second.provenance["toolchain"]["compiler_version"] == "gcc 12.2.1"


def _bzimage(file: Path, magic: bytes = b"HdrS") -> Path:
    head = bytearray(0x400)
    head[0x202:0x206] = magic
    head[0x20E:0x210] = (0x100).to_bytes(2, "little")
    head[0x300:0x320] = b"6.12.99 (somebody@somewhere) #1\0"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(head)
    return file


def test_a_bzimage_is_taken_as_it_is(prepared: Prepare, tmp_path: Path) -> None:
    file = _bzimage(tmp_path / "tree" / "arch" / "x86" / "boot" / "bzImage")
    config = tmp_path / "tree" / ".config"
    config.touch()
    kernel = prepared(str(file))
    assert kernel.release == "6.12.99"
    assert kernel.config == config
    assert kernel.vmlinux is None
    assert kernel.headers is None


def test_a_bzimage_of_the_labs_own_is_known_by_what_made_it(
    prepared: Prepare, tmp_path: Path
) -> None:
    file = _bzimage(tmp_path / "bzImage")
    elsewhere = prepared(str(file))
    assert elsewhere.provenance["sha256"].startswith(elsewhere.key)
    known = {"name": "v6.12", "key": "abc", "release": "6.12.99"}
    (tmp_path / "provenance.json").write_text(json.dumps(known))
    (tmp_path / "symbols").mkdir()
    kernel = prepared(str(file))
    assert kernel.key == "abc"
    assert kernel.provenance == known
    assert kernel.symbols == tmp_path / "symbols"


def test_a_file_that_is_no_bzimage_is_refused(prepared: Prepare, tmp_path: Path) -> None:
    file = _bzimage(tmp_path / "bzImage", magic=b"none")
    with pytest.raises(ConfigurationError, match="is no bzImage"):
        prepared(str(file))


def test_a_bzimage_takes_no_fragment(prepared: Prepare, tmp_path: Path) -> None:
    file = _bzimage(tmp_path / "bzImage")
    with pytest.raises(ConfigurationError, match="takes no fragment"):
        prepared(f"{file}+less")
