# SPDX-License-Identifier: GPL-2.0-only
"""Which programs a kernel gets and which cases they have, on trees of a few lines with real gcc."""

import io
import shutil
import subprocess
from difflib import unified_diff
from pathlib import Path

import pytest
from rich.console import Console

from lab import bootstrap
from lab.cache import Cache
from lab.config import Lab
from lab.contract import Mode
from lab.errors import InfrastructureError
from lab.kernel.series import Series
from lab.programs import selftests
from lab.programs.ktap import Outcome
from lab.programs.run import Ended
from lab.programs.selftests import Case, judge
from lab.progress import Progress

LAB = """
debian: {mirror: "http://mirror.test/debian", suites: [bookworm]}
kernels:
  old: {source: {tarball: old.tar}, fragments: [base]}
  latest: {source: {tarball: latest.tar}, fragments: [base]}
images: {minimal: {recipe: images/minimal}}
machines: {plain: {}}
suites: {none: {tests: tests}}
run: {kernel: old, machine: plain, suites: [none]}
"""
# of the kernel's: what exports the headers
TOP = """\
headers:
	mkdir -p $(O)/usr/include/linux
	echo '#define OURS "seen"' >$(O)/usr/include/linux/vfio.h
"""
FOLDER = """\
CFLAGS += -Wall -Werror $(KHDR_INCLUDES)
all: $(addprefix $(OUTPUT)/,{programs})
$(OUTPUT)/%: %.c
	gcc $(CFLAGS) $(LDFLAGS) $< -o $@
"""
# kselftest_harness.h, as far as the lister looks into it
HARNESS = """\
#include <stdio.h>
#define TEST_TIMEOUT_DEFAULT 30
struct __test_metadata { const char *name; struct __test_metadata *next; };
struct __fixture_variant_metadata { const char *name; struct __fixture_variant_metadata *next; };
struct __fixture_metadata {
	const char *name;
	struct __test_metadata *tests;
	struct __fixture_variant_metadata *variant;
	struct __fixture_metadata *next;
};
static struct __test_metadata second = { "unmap" }, first = { "map", &second }, alone = { "alone" };
static struct __fixture_variant_metadata b = { "iommufd_compat_type1_huge" }, a = { "iommufd", &b };
static struct __fixture_metadata plain = { "plain", &alone }, many = { "many", &first, &a, &plain };
static struct __fixture_metadata *__fixture_list = &many;
"""
PROGRAM = """\
#include "../kselftest_harness.h"
#include <linux/vfio.h>
int main(int argc, char **argv)
{
	printf("%s %d\\n", OURS, TEST_TIMEOUT_DEFAULT);
	return argc > 9 ? !__fixture_list : 0;
}
"""
NO_HARNESS = "int main(void) { return 0; }\n"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    (tmp_path / "kernels" / "fragments").mkdir(parents=True)
    (tmp_path / "kernels" / "fragments" / "base.config").write_text("CONFIG_64BIT=y\n")
    (tmp_path / "lab.yaml").write_text(LAB)
    tree(tmp_path / "old.tar", iommu={"iommufd": PROGRAM})
    tree(
        tmp_path / "latest.tar", iommu={"iommufd": PROGRAM}, vfio={"dma": PROGRAM, "x": NO_HARNESS}
    )
    return Lab.load(tmp_path)


def tree(tarball: Path, **folders: dict[str, str]) -> None:
    """A tarball of a kernel with these programs."""
    root = tarball.parent / tarball.stem / "linux"
    tests = root / "tools" / "testing" / "selftests"
    tests.mkdir(parents=True)
    (root / "Kconfig").touch()
    (root / "Makefile").write_text(TOP)
    (tests / "kselftest_harness.h").write_text(HARNESS)
    for name, programs in folders.items():
        (tests / name).mkdir()
        (tests / name / "Makefile").write_text(FOLDER.replace("{programs}", " ".join(programs)))
        for program, text in programs.items():
            (tests / name / f"{program}.c").write_text(text)
    subprocess.run(["tar", "-c", "-f", tarball, "-C", root.parent, "linux"], check=True)
    shutil.rmtree(root.parent)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def progress(said: io.StringIO) -> Progress:
    return Progress(Console(file=said, width=200))


def names(cases: list[Case]) -> list[str]:
    return [case.id for case in cases]


IOMMU = [
    "iommufd-many.iommufd.map",
    "iommufd-many.iommufd.unmap",
    "iommufd-many.iommufd_compat_type1_huge.map",
    "iommufd-many.iommufd_compat_type1_huge.unmap",
    "iommufd-plain.alone",
]


def test_a_tree_has_its_own_and_the_newest_lends_what_it_lacks(
    lab: Lab, cache: Cache, progress: Progress
) -> None:
    cases = selftests.prepare("old", lab, cache, progress)
    vfio = [name.replace("iommufd-", "dma-", 1) for name in IOMMU]
    assert names(cases) == [*IOMMU, *vfio, "x"]
    assert [case.needs_device for case in cases] == [False] * 5 + [True] * 6
    assert [case.mode for case in cases[:5]] == [
        Mode.IOMMUFD,
        Mode.IOMMUFD,
        Mode.COMPAT_TYPE1,
        Mode.COMPAT_TYPE1,
        None,
    ]
    # the programs that run are the tree's own, not the ones that listed their cases
    said = subprocess.run([cases[0].program], capture_output=True, text=True, check=True).stdout
    assert said == f"seen {selftests.TIMEOUT}\n"
    headers = subprocess.run(
        ["readelf", "-l", cases[0].program], capture_output=True, text=True, check=True
    ).stdout
    assert "INTERP" not in headers
    assert not list(cache.root.rglob("*.program.c"))
    assert {file.read_text() for file in cache.root.rglob("kselftest_harness.h")} == {HARNESS}


def test_they_are_built_once_and_a_look_builds_nothing(
    lab: Lab, cache: Cache, progress: Progress, said: io.StringIO
) -> None:
    assert selftests.look("old", lab, cache) == []
    cases = selftests.prepare("old", lab, cache, progress)
    said.truncate(0)
    assert selftests.prepare("old", lab, cache, progress) == cases
    assert "build selftests" not in said.getvalue()
    assert selftests.look("old", lab, cache) == cases


def series(file: str, before: str, after: str) -> Series:
    """One patch that makes `after` of `before`."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    diff = "".join(unified_diff(old, new, f"a/{file}" if before else "/dev/null", f"b/{file}"))
    kind = "" if before else "new file mode 100644\n"
    head = "From 0123 Mon Sep 17 00:00:00 2001\nFrom: A <a@b.test>\nSubject: [PATCH] x\n\n---\n"
    mail = f"{head}diff --git a/{file} b/{file}\n{kind}{diff}--\n"
    return Series("topic", "topic.mbox", (mail.encode(),))


def test_a_series_brings_cases_of_its_own(lab: Lab, cache: Cache, progress: Progress) -> None:
    brought = series(
        "tools/testing/selftests/kselftest_harness.h",
        HARNESS,
        HARNESS.replace(
            'second = { "unmap" }', 'third = { "third" }, second = { "unmap", &third }'
        ),
    )
    base = selftests.prepare("old", lab, cache, progress)
    cases = selftests.prepare("old", lab, cache, progress, brought)
    assert set(names(cases)) - set(names(base)) == {
        "iommufd-many.iommufd.third",
        "iommufd-many.iommufd_compat_type1_huge.third",
    }
    assert selftests.look("old", lab, cache, brought) == cases
    assert selftests.prepare("old", lab, cache, progress) == base
    assert (
        len([entry for entry in cache.entries() if entry.kind == "headers"]) == 2
    )  # of the sources
    (tree_,) = [entry for entry in cache.entries() if entry.kind == "tree"]
    assert sorted(path.name for path in tree_.path.iterdir()) == ["linux", "provenance.json"]
    assert (tree_.path / "linux" / "Kconfig").stat().st_nlink == 2
    assert tree_.size() < sum(entry.size() for entry in cache.entries() if entry.kind == "source")


def test_a_series_that_leaves_them_alone_builds_none(
    lab: Lab, cache: Cache, progress: Progress
) -> None:
    cases = selftests.prepare("old", lab, cache, progress)
    driver = series("drivers/vfio/group.c", "before\n", "after\n")
    assert selftests.prepare("old", lab, cache, progress, driver) == cases


def test_a_header_that_they_share_with_the_kernel_builds_them_anew(
    lab: Lab, cache: Cache, progress: Progress
) -> None:
    header = series("drivers/iommu/iommufd/iommufd_test.h", "", "enum { MOCK = 1 };\n")
    cases = selftests.prepare("old", lab, cache, progress, header)
    assert names(cases)[:5] == IOMMU
    assert cases[0].program != selftests.prepare("old", lab, cache, progress)[0].program


def test_what_does_not_compile_is_told_and_the_rest_goes_on(
    lab: Lab, cache: Cache, progress: Progress, said: io.StringIO
) -> None:
    tree(lab.root / "old.tar", iommu={"iommufd": "int main(void) { return nothing; }\n"})
    for _ in range(2):  # a second time it is known
        cases = selftests.prepare("old", lab, cache, progress)
        assert "iommufd.c:1:25: error: " in said.getvalue()
        assert cases[0].id == "iommu"
        assert cases[0].missing == (
            "programs of selftests/iommu that compile, which old.tar has not"
        )
        assert len(cases) == 1 + 6
        said.truncate(0)


def test_a_kernel_without_a_tree_gets_what_knows_the_uapi_alone(
    lab: Lab, cache: Cache, progress: Progress, tmp_path: Path
) -> None:
    (tmp_path / "bzImage").touch()
    cases = selftests.prepare(str(tmp_path / "bzImage"), lab, cache, progress)
    assert "built elsewhere" in cases[0].missing
    assert {case.program.name for case in cases[1:]} == {"dma", "x"}


def test_a_host_that_cannot_build_them_is_not_taken_for_a_tree_that_does_not_compile(
    lab: Lab, cache: Cache, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    need = bootstrap.Need("libcap-dev", bootstrap.SELFTESTS, file="/nowhere.h")
    monkeypatch.setattr(bootstrap, "NEEDS", (need,))
    with pytest.raises(InfrastructureError, match="libcap-dev is not installed"):
        selftests.prepare("old", lab, cache, progress)
    assert cache.entries() == []


# What a run of one case says

CASE = Case(Path("dma"), "f.v.map", "v", needs_device=True)
HEAD = "TAP version 13\n1..1\n# Starting 1 tests from 1 test cases.\n#  RUN           f.v.map ...\n"


@pytest.mark.parametrize(
    ("status", "output", "expected"),
    [
        (0, HEAD + "ok 1 f.v.map\n", (Outcome.PASSED, "")),
        (0, HEAD + "ok 1 f.v.map # XFAIL known\n", (Outcome.PASSED, "")),
        (0, HEAD + "ok 1 f.v.map # SKIP no 1 GiB page\n", (Outcome.SKIPPED, "no 1 GiB page")),
        (4, "1..0 # SKIP no SR-IOV\n", (Outcome.SKIPPED, "no SR-IOV")),
        (4, "No driver found for device\n", (Outcome.SKIPPED, "No driver found for device")),
        (1, HEAD + "# dma.c:9:map:Expected 0 (0) == -1 (-1)\nnot ok 1 f.v.map\n",
         (Outcome.FAILED, "dma.c:9:map:Expected 0 (0) == -1 (-1)\nit exited with status 1")),
        # what is not said is not passed
        (0, "", (Outcome.FAILED, "it reported no result; it exited with status 0\n"
                                 "it said nothing else")),
        (0, HEAD, (Outcome.FAILED, "it announced 1 tests and reported 0; it exited with status 0\n"
                                   "it said nothing else")),
        (0, "TAP version 13\n1..0\n", (Outcome.FAILED, "it reported no result; it exited with "
                                       "status 0\nit said nothing else")),
        (134, HEAD + "dma.c: Assertion Failure\n",
         (Outcome.FAILED, "it announced 1 tests and reported 0; SIGABRT ended it\n"
                          "dma.c: Assertion Failure")),
        # nor what contradicts itself
        (1, HEAD + "ok 1 f.v.map\n", (Outcome.FAILED, "it said nothing else\n"
                                      "it exited with status 1")),
        (0, HEAD + "ok 1 f.v.unmap\n",
         (Outcome.FAILED, "it was to report on f.v.map, and did on f.v.unmap")),
    ],
)  # fmt: skip
def test_one_case(status: int, output: str, expected: tuple[Outcome, str]) -> None:
    assert judge(CASE, Ended(status, output)) == expected


def test_a_program_without_the_harness_is_judged_as_a_whole() -> None:
    whole = Case(Path("x"), "", "", needs_device=False)
    output = "TAP version 13\n1..2\nok 1 a\nok 2 b # SKIP why\n"
    assert judge(whole, Ended(0, output)) == (Outcome.PASSED, "")
    failed = "TAP version 13\n1..2\nok 1 a\nnot ok 2 b\n"
    assert judge(whole, Ended(0, failed))[0] is Outcome.FAILED
