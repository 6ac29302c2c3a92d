# SPDX-License-Identifier: GPL-2.0-only
"""Series on a base: what applies, what is compiled anew, and what goes wrong."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from difflib import unified_diff
from pathlib import Path
from typing import Protocol

import pytest

from lab.cache import Cache
from lab.config import Lab
from lab.errors import BuildError, ConfigurationError
from lab.kernel import incremental
from lab.kernel.incremental import Base
from lab.kernel.series import Series
from lab.progress import Progress

# A kernel of two files, each compiled by itself when it is newer than its object. The image is
# what the objects hold; a file that says "error" does not compile, and of one that says "unused"
# is warned.
MAKE = """#!/bin/bash
for word; do
    case $word in
    O=*) objects=${word#O=} ;;
    -C) ;;
    esac
done
tree=${objects%/objects}
case "$*" in
*--version*) echo "GNU Make of a test" ;;
*allnoconfig*)
    for word; do [[ $word = KCONFIG_ALLCONFIG=* ]] && cp "${word#*=}" "$objects/.config"; done
    echo configured >>@LOG@
    ;;
*bzImage*)
    mkdir -p "$objects/arch/x86/boot" "$objects/include/config"
    grep -q asked "$objects/.config" || {
        echo "# the tools were asked" >>"$objects/.config"
        echo synchronized >>@LOG@
    }
    for file in one two; do
        if [ "$tree/$file.c" -nt "$objects/$file.o" ]; then
            echo "  CC      $file.o" | tee -a @LOG@
            if grep -q error "$tree/$file.c"; then
                echo "$file.c:1:1: error: it says so"
                exit 2
            fi
            if grep -q unused "$tree/$file.c"; then
                echo "../$file.c:1:1: warning: '$file' defined but not used [-Wunused]"
            fi
            cp "$tree/$file.c" "$objects/$file.o"
            [ -f @LOG@.slow ] && { : >"$objects/$file.o"; touch @LOG@.started; sleep 60; }
        fi
    done
    cat "$objects"/*.o >"$objects/arch/x86/boot/bzImage"
    cp /bin/true "$objects/vmlinux"
    echo 6.12.99 >"$objects/include/config/kernel.release"
    ;;
*headers*)
    mkdir -p "$objects/usr/include/linux"
    cp "$tree/include/uapi/linux/vfio.h" "$objects/usr/include/linux/"
    ;;
esac
"""


class Compiled(Protocol):
    def __call__(self) -> list[str]: ...


Write = Callable[..., Series]


@pytest.fixture
def files(tree: Path, lab: Lab) -> Path:
    """The source of `lab`'s tarball, which is packed anew with files to patch."""
    (tree / "include" / "uapi" / "linux").mkdir(parents=True)
    (tree / "include" / "uapi" / "linux" / "vfio.h").write_text("#define ONE 1\n")
    for name in ("one", "two"):
        lines = "".join(f"{name} {number}\n" for number in range(20))
        (tree / f"{name}.c").write_text(lines)
    os.utime(tree / "one.c", (1, 1))
    os.utime(tree / "two.c", (1, 1))
    tarball = lab.root / "linux.tar"
    subprocess.run(["tar", "-cf", tarball, "-C", tree.parent, tree.name], check=True)
    return tree


@pytest.fixture
def compiled(tmp_path: Path, make: object) -> Compiled:
    """What was compiled, or configured, since it was asked last."""
    assert make
    log = tmp_path / "bin" / "log"
    (tmp_path / "bin" / "make").write_text(MAKE.replace("@LOG@", str(log)))

    def since() -> list[str]:
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [line.split()[-1] for line in lines]

    return since


@pytest.fixture
def base(files: Path, compiled: Compiled, lab: Lab, cache: Cache, progress: Progress) -> Base:
    assert files.is_dir()
    found = Base.prepare("ball", lab, cache, progress)
    compiled()
    return found


MAIL = """\
From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: A <a@b.test>
Date: Sun, 22 Nov 2026 12:00:00 +0000
Subject: {subject}

---
{diff}-- \n2.39.5

"""


def diff(file: str, before: str, after: str) -> str:
    """As git writes it, with the blobs that a three-way merge looks for."""
    blobs = [
        hashlib.sha1(b"blob %d\0%s" % (len(text), text.encode())).hexdigest()
        for text in (before, after)
    ]
    head = f"diff --git a/{file} b/{file}\nindex {blobs[0]}..{blobs[1]} 100644\n"
    old, new = (text.splitlines(keepends=True) for text in (before, after))
    return head + "".join(unified_diff(old, new, f"a/{file}", f"b/{file}"))


@pytest.fixture
def series(files: Path, tmp_path: Path) -> Write:
    """Writes an mbox; each edit, of a line of a file, is a patch of it."""

    def write(name: str, *edits: tuple[str, str, str]) -> Series:
        place = tmp_path / "mails"
        place.mkdir(exist_ok=True)
        texts: dict[str, str] = {}
        mails = []
        for number, (file, old, new) in enumerate(edits, 1):
            before = texts.get(file) or (files / file).read_text()
            assert old in before
            texts[file] = before.replace(old, new)
            subject = f"[PATCH {number}/{len(edits)}] {file}: {new.strip()}"
            mails.append(MAIL.format(subject=subject, diff=diff(file, before, texts[file])))
        mbox = place / f"{name}.mbox"
        mbox.write_text("".join(mails))
        return Series.read(mbox)

    return write


ONE = ("one.c", "one 7\n", "one seven\n")
TWO = ("two.c", "two 7\n", "two seven\n")


def test_a_series_is_the_base_and_its_changes(base: Base, series: Write) -> None:
    kernel = base.build(series("a", ONE, TWO))
    image = kernel.bzimage.read_text()
    assert "one seven" in image
    assert "two seven" in image
    assert kernel.release == "6.12.99"
    assert kernel.key != base.kernel.key
    assert kernel.provenance["series"]["patches"] == ["one.c: one seven", "two.c: two seven"]
    assert kernel.config
    assert base.kernel.config
    assert kernel.config.read_text() == base.kernel.config.read_text()
    assert kernel.headers
    assert (kernel.headers / "linux" / "vfio.h").read_text() == "#define ONE 1\n"


def test_a_patch_that_has_nothing_left_to_do_counts(base: Base, series: Write) -> None:
    """git am makes no commit of it."""
    one, error = series("a", ONE), series("b", ("two.c", "two 3\n", "error\n"))
    again = Series("again", "again", one.patches * 2)
    assert base.build(again).provenance["series"]["patches"] == ["one.c: one seven"] * 2
    with pytest.raises(BuildError, match="patch 3 of 3, 'two"):
        base.build(Series("bad", "bad", again.patches + error.patches))


def test_a_series_that_the_base_has_already_is_the_base(base: Base, series: Write) -> None:
    there, back = ("one.c", "one 7\n", "one seven\n"), ("one.c", "one seven\n", "one 7\n")
    both = series("both", there, back).content
    base.build(Series("both", "both", (both,)))
    second = both[both.rindex(b"\nFrom ") + 1 :]
    kernel = base.build(Series("back", "back", (second,)))
    assert kernel.bzimage.read_bytes() == base.kernel.bzimage.read_bytes()


def test_only_what_differs_is_compiled(base: Base, series: Write, compiled: Compiled) -> None:
    base.build(series("a", ONE))
    assert compiled() == ["one.o", "two.o", "one.o"]  # the base first
    base.build(series("b", ("one.c", "one 9\n", "one nine\n")))
    assert compiled() == ["one.o"]
    kernel = base.build(series("c", TWO))
    assert compiled() == ["one.o", "two.o"]  # the one as the base has it
    assert "one nine" not in kernel.bzimage.read_text()


UNUSED = ("one.c", "one 9\n", "unused\n")


def test_what_the_compiler_warns_of_is_kept(base: Base, series: Write) -> None:
    (warning,) = base.build(series("a", TWO, UNUSED)).provenance["warnings"]
    assert warning == {
        "file": "one.c",
        "line": 1,
        "text": "'one' defined but not used",
        "option": "-Wunused",
        "lines": ["../one.c:1:1: warning: 'one' defined but not used [-Wunused]"],
    }
    assert base.build(series("b", ONE)).provenance["warnings"] == []


def test_what_was_compiled_for_another_series_is_warned_of_again(
    base: Base, series: Write, compiled: Compiled
) -> None:
    base.build(series("a", UNUSED))
    compiled()
    mails = series("b", UNUSED, TWO)
    assert [each["file"] for each in base.build(mails).provenance["warnings"]] == ["one.c"]
    assert compiled() == ["one.o", "two.o"]


def test_what_the_base_is_warned_of_is_not_new(
    files: Path, base: Base, series: Write, lab: Lab, progress: Progress
) -> None:
    (files / "one.c").write_text((files / "one.c").read_text() + "unused\n")
    subprocess.run(
        ["tar", "-cf", lab.root / "linux.tar", "-C", files.parent, files.name], check=True
    )
    warned = Base.prepare("ball", lab, base.cache, progress)
    assert warned.kernel.key != base.kernel.key
    assert warned.build(series("a", ONE, ("two.c", "two 7\n", "unused\n"))).provenance[
        "warnings"
    ] == [
        {
            "file": "two.c",
            "line": 1,
            "text": "'two' defined but not used",
            "option": "-Wunused",
            "lines": ["../two.c:1:1: warning: 'two' defined but not used [-Wunused]"],
        }
    ]


def test_without_the_bases_own_log_nothing_is_called_new(base: Base, series: Write) -> None:
    base.kernel.bzimage.with_name("build.log").unlink()
    assert base.build(series("a", UNUSED)).provenance["warnings"] is None


def test_what_was_kept_without_warnings_is_made_anew(
    base: Base, series: Write, compiled: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    mails = series("a", ONE)
    with monkeypatch.context() as patch:
        patch.setattr(incremental, "_RECIPE", 0)
        base.build(mails)
    compiled()
    base.build(mails)
    assert compiled() == ["one.o"]


def test_tools_that_came_after_the_base_was_built_are_asked_once(
    base: Base, series: Write, compiled: Compiled
) -> None:
    assert base.kernel.config
    base.kernel.config.write_text("CONFIG_VFIO=y\n")
    base.build(series("a", ONE))
    assert "synchronized" in compiled()
    base.build(series("b", ONE, TWO))
    assert compiled() == ["one.o", "two.o"]


def test_a_second_time_nothing_is_made(base: Base, series: Write, compiled: Compiled) -> None:
    mails = series("a", ONE)
    first = base.build(mails)
    compiled()
    assert base.build(mails) == first
    assert compiled() == []


def test_symbols_are_kept_unless_nobody_wants_them(base: Base, series: Write) -> None:
    mails = series("a", ONE)
    vmlinux = base.build(mails).vmlinux
    assert vmlinux is not None
    assert vmlinux.is_file()
    bare = base.build(mails, symbols=False)
    assert bare.vmlinux is None
    assert bare.bzimage.is_file()
    assert not (bare.bzimage.parent / "vmlinux").exists()


def test_when_a_mail_was_sent_makes_no_other_kernel(
    base: Base, series: Write, compiled: Compiled
) -> None:
    mails = series("a", ONE)
    first = base.build(mails)
    compiled()
    again = re.sub(r"(?m)^Date: .*$", "Date: Thu, 1 Jan 2026 00:00:00 +0000", mails.text)
    assert again != mails.text
    Path(mails.file).write_text(again)
    assert base.build(Series.read(Path(mails.file))).key == first.key
    assert compiled() == []


def test_the_source_in_the_cache_stays_as_it_was(base: Base, series: Write, cache: Cache) -> None:
    base.build(series("a", ONE))
    (source,) = cache.root.glob("source/*/linux/one.c")
    assert "one 7" in source.read_text()


def test_a_patch_that_does_not_apply_names_patch_file_and_hunk(
    base: Base, series: Write, files: Path
) -> None:
    (files / "two.c").write_text("something else\n" * 20 + "two 7\n")
    mails = series("a", ONE, TWO)
    with pytest.raises(ConfigurationError) as caught:
        base.build(mails)
    message = caught.value.message
    assert "a: patch 2, 'two.c: two seven', does not apply" in message
    assert "two.c, the hunk at line 18" in message
    assert "| -two 7" in message


def test_the_conflict_of_a_merge_is_shown(base: Base, series: Write) -> None:
    """Both patches are made for the base; git knows it and can say what each did to it."""
    one, other = series("one", ONE), series("other", ("one.c", "one 7\n", "one VII\n"))
    with pytest.raises(ConfigurationError) as caught:
        base.build(Series("both", "both.mbox", one.patches + other.patches))
    words = [line.strip() for line in caught.value.message.splitlines()]
    assert "both: patch 2, 'one.c: one VII', does not apply:" in words
    conflict = words[words.index("a three-way merge ends in this conflict:") :]
    assert conflict[1] == "diff --cc one.c"
    assert {"+one seven", "+ one VII"} <= set(conflict)
    assert "one seven" in base.build(one).bzimage.read_text()


def test_after_one_that_does_not_apply_the_next_one_does(
    base: Base, series: Write, files: Path
) -> None:
    good = series("good", ONE)
    (files / "two.c").write_text("something else\n" * 20 + "two 7\n")
    with pytest.raises(ConfigurationError):
        base.build(series("bad", TWO))
    assert "one seven" in base.build(good).bzimage.read_text()


def test_a_file_without_a_patch_is_none(base: Base, tmp_path: Path) -> None:
    mbox = tmp_path / "empty.mbox"
    mbox.write_text("Hello.\n")
    with pytest.raises(ConfigurationError, match=r"empty\.mbox holds no patch"):
        base.build(Series.read(mbox))


def test_the_first_patch_that_does_not_compile_is_blamed(base: Base, series: Write) -> None:
    mails = series("a", ONE, ("two.c", "two 7\n", "error\n"), ("one.c", "one 9\n", "one nine\n"))
    with pytest.raises(BuildError, match=r"patch 2 of 3, 'two\.c: error', .*does not compile") as e:
        base.build(mails)
    assert "two.c:1:1: error: it says so" in e.value.message


def test_after_one_that_does_not_compile_the_next_one_does(base: Base, series: Write) -> None:
    with pytest.raises(BuildError, match="does not compile"):
        base.build(series("bad", ("two.c", "two 7\n", "error\n")))
    assert "two 7" in base.build(series("good", ONE)).bzimage.read_text()


def test_a_series_that_changes_the_user_api_brings_its_headers(base: Base, series: Write) -> None:
    header = "include/uapi/linux/vfio.h"
    kernel = base.build(series("a", (header, "#define ONE 1", "#define TWO 2")))
    assert kernel.headers
    assert (kernel.headers / "linux" / "vfio.h").read_text() == "#define TWO 2\n"
    assert base.kernel.headers
    assert (base.kernel.headers / "linux" / "vfio.h").read_text() == "#define ONE 1\n"


def test_a_series_that_changes_kconfig_is_configured_anew_and_the_next_one_is_not(
    base: Base, series: Write, compiled: Compiled
) -> None:
    base.build(series("a", ("Kconfig", "config ORPHAN", "config LOST")))
    assert "configured" in compiled()
    base.build(series("b", ONE))
    assert compiled() == ["one.o"]


def test_a_built_kernel_takes_no_series(lab: Lab, cache: Cache, progress: Progress) -> None:
    with pytest.raises(ConfigurationError, match="a series needs a source"):
        Base.prepare("/bin/true", lab, cache, progress)


def test_what_a_killed_make_left_half_written_is_made_again(
    base: Base, series: Write, tmp_path: Path
) -> None:
    mails = series("a", ONE)
    base.build(series("b", TWO))
    (tmp_path / "bin" / "log.slow").touch()
    words = [sys.executable, "-c", _BUILD, str(base.cache.root), str(mails.file)]
    with subprocess.Popen(words, cwd=tmp_path / "lab") as builder:
        deadline = time.monotonic() + 30
        while not (tmp_path / "bin" / "log.started").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        builder.send_signal(signal.SIGKILL)
    (tmp_path / "bin" / "log.slow").unlink()
    image = base.build(mails).bzimage.read_text()
    assert "one seven" in image
    assert "two 7" in image


_BUILD = """
import io, sys
from pathlib import Path
from rich.console import Console
from lab.cache import Cache
from lab.config import Lab
from lab.kernel.incremental import Base
from lab.kernel.series import Series
from lab.progress import Progress
progress = Progress(Console(file=io.StringIO()))
base = Base.prepare("ball", Lab.load(Path.cwd()), Cache(Path(sys.argv[1])), progress)
base.build(Series.read(Path(sys.argv[2])))
"""
