# SPDX-License-Identifier: GPL-2.0-only
"""Which files go into an image, and what a recipe may say."""

import json
from pathlib import Path

import pytest

from lab.cache import Cache
from lab.config import Lab
from lab.errors import ConfigurationError
from lab.image import check, files, prepare, recipe
from lab.progress import Progress

LAB = """
debian: {suites: [bookworm]}
kernels: {k: {source: {tarball: linux.tar}, fragments: [base]}}
images: {minimal: {recipe: images/minimal}}
machines: {plain: {}}
suites: {none: {tests: tests}}
run: {kernel: k, machine: plain, suites: [none]}
"""
RECIPE = """suites: [bookworm]
packages: [shell]
drop: [usr/share, usr/bin/more]
limit: 2M
"""


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    (tmp_path / "kernels" / "fragments").mkdir(parents=True)
    (tmp_path / "kernels" / "fragments" / "base.config").touch()
    (tmp_path / "lab.yaml").write_text(LAB)
    folder = tmp_path / "images" / "minimal"
    (folder / "root" / "etc").mkdir(parents=True)
    (folder / "init").write_text("#!/bin/sh\n")
    (folder / "root" / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (folder / "recipe.yaml").write_text(RECIPE)
    return Lab.load(tmp_path)


@pytest.fixture
def folder(lab: Lab) -> Path:
    return lab.root / "images" / "minimal"


def _tree(folder: Path, *names: str) -> files.Tree:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return {files.merged(name): folder / name for name in names}


def test_old_places_are_those_in_usr() -> None:
    assert files.merged("./bin/sh") == "usr/bin/sh"
    assert files.merged("lib64/ld.so") == "usr/lib64/ld.so"
    assert files.merged("usr/lib/libc.so") == "usr/lib/libc.so"
    assert files.merged("etc/passwd") == "etc/passwd"


def test_a_recipe_has_its_files_and_its_limit(lab: Lab, folder: Path) -> None:
    read = recipe.read(folder, lab)
    assert sorted(read.files()) == ["etc/passwd", "init"]
    assert read.limit == 2 << 20


def test_a_changed_init_is_another_image(lab: Lab, folder: Path) -> None:
    before = recipe.read(folder, lab).inputs()
    (folder / "init").write_text("#!/bin/sh\nexit\n")
    assert recipe.read(folder, lab).inputs() != before


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [
        ("limit: 2M", "limit: 2", r"recipe\.yaml:4: limit: "),
        ("suites: [bookworm]", "suites: [bookwurm]", r"recipe\.yaml:1: suites\.0: .*bookworm"),
        ("drop:", "drip:", r"recipe\.yaml:3: drip: no such key"),
        ("packages: [shell]", "packages: []", r"recipe\.yaml:2: packages: "),
    ],
)
def test_an_error_in_a_recipe_has_its_line(
    lab: Lab, folder: Path, good: str, bad: str, message: str
) -> None:
    (folder / "recipe.yaml").write_text(RECIPE.replace(good, bad))
    with pytest.raises(ConfigurationError, match=message):
        recipe.read(folder, lab)


def test_an_image_without_an_init_is_refused(lab: Lab, folder: Path) -> None:
    (folder / "init").unlink()
    with pytest.raises(ConfigurationError, match="init is missing"):
        recipe.read(folder, lab)


def test_what_is_dropped_is_not_there(lab: Lab, folder: Path, tmp_path: Path) -> None:
    tree = _tree(tmp_path / "deb", "bin/sh", "usr/bin/more", "usr/bin/moreover", "usr/share/a")
    chosen = files.choose(recipe.read(folder, lab), {"shell": tree})
    assert sorted(chosen) == ["usr/bin/moreover", "usr/bin/sh"]


def test_of_a_dependency_only_needed_libraries_are_there(
    lab: Lab, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = _tree(tmp_path / "shell", "bin/sh")
    libc = _tree(tmp_path / "libc", "lib/libc.so.6.1", "lib/libm.so", "sbin/ldconfig", "etc/ld")
    (tmp_path / "libc" / "lib" / "libc.so.6").symlink_to("libc.so.6.1")
    libc = {**libc, "usr/lib/libc.so.6": tmp_path / "libc" / "lib" / "libc.so.6"}
    monkeypatch.setattr(
        files, "_needs", lambda found: {"libc.so.6"} if shell["usr/bin/sh"] in found else set()
    )
    chosen = files.choose(recipe.read(folder, lab), {"shell": shell, "libc": libc})
    assert sorted(chosen) == ["usr/bin/sh", "usr/lib/libc.so.6", "usr/lib/libc.so.6.1"]


def test_a_library_that_nobody_has_is_named(
    lab: Lab, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_needs", lambda _found: {"libz.so.1"})
    shell = _tree(tmp_path / "shell", "bin/sh")
    with pytest.raises(ConfigurationError, match=r"needs libz\.so\.1"):
        files.choose(recipe.read(folder, lab), {"shell": shell})


def test_an_initramfs_is_taken_as_it_is(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "initramfs"
    file.write_bytes(b"bits")
    cache, progress = Cache(tmp_path / "cache"), Progress(quiet=True)
    elsewhere = prepare(str(file), lab, cache, progress)
    assert elsewhere.initramfs == file
    assert elsewhere.provenance["sha256"].startswith(elsewhere.key)
    (tmp_path / "provenance.json").write_text(json.dumps({"key": "abc", "name": "minimal"}))
    image = prepare(str(file), lab, cache, progress)
    assert (image.key, image.name) == ("abc", "minimal")
    with pytest.raises(ConfigurationError, match="is no file; expected an initramfs"):
        prepare(str(tmp_path / "none"), lab, cache, progress)


def test_an_image_that_there_is_not_is_told_with_what_was_expected(lab: Lab) -> None:
    initramfs = lab.root / "initramfs"
    with pytest.raises(ConfigurationError, match=r"expected an initramfs.*: minimal"):
        check(str(initramfs), lab)
    initramfs.touch()
    check(str(initramfs), lab)
    with pytest.raises(ConfigurationError, match=r"'minmal' is not known.*did you mean 'minimal'"):
        check("minmal", lab)
