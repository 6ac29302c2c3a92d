# SPDX-License-Identifier: GPL-2.0-only
"""Cases of programs that end in every way, each with its own verdict, on guests of their own."""

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

if TYPE_CHECKING:
    from tests.lab.conftest import SmallLab

ROOT = Path(__file__).parents[2]

_TOP = "headers:\n\tmkdir -p $(O)/usr/include/linux\n"
_FOLDER = """\
all: $(OUTPUT)/ends
$(OUTPUT)/ends: ends.c
	gcc $(KHDR_INCLUDES) $(LDFLAGS) $< -o $@
"""
# What the lister and the program need of kselftest_harness.h.
_ENDS = """\
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct __test_metadata { const char *name; struct __test_metadata *next; };
struct __fixture_variant_metadata { const char *name; struct __fixture_variant_metadata *next; };
struct __fixture_metadata {
	const char *name;
	struct __test_metadata *tests;
	struct __fixture_variant_metadata *variant;
	struct __fixture_metadata *next;
};

static struct __test_metadata tests[] = {
	{ "passes", &tests[1] }, { "aborts", &tests[2] }, { "skips", &tests[3] },
	{ "says_nothing", &tests[4] }, { "crashes_the_kernel", &tests[5] }, { "passes_again" },
};
static struct __fixture_metadata ends = { "ends", tests };
static struct __fixture_metadata *__fixture_list = &ends;

int main(int argc, char **argv)
{
	const char *name = strchr(argv[2], '.') + 1;
	int fd;

	if (argc != 4 || strcmp(argv[1], "-r") || __fixture_list != &ends || argv[3][4] != ':')
		return 1;
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!strcmp(name, "says_nothing"))
		return 0;
	printf("TAP version 13\\n1..1\\n");
	if (!strcmp(name, "aborts"))
		abort();
	if (!strcmp(name, "crashes_the_kernel")) {
		fd = open("/proc/sysrq-trigger", O_WRONLY);
		if (write(fd, "c", 1) < 0)
			return 1;
	}
	printf("ok 1 %s%s\\n", argv[2], strcmp(name, "skips") ? "" : " # SKIP no such page");
	return 0;
}
"""


@pytest.fixture
def with_programs(small_lab: "SmallLab") -> "SmallLab":
    """A lab whose first suite is the project's tests/selftests, and whose newest tree is tiny."""
    tree = small_lab.root / "tree" / "linux"
    folder = tree / "tools" / "testing" / "selftests" / "vfio"
    folder.mkdir(parents=True)
    (tree / "Kconfig").touch()
    (tree / "Makefile").write_text(_TOP)
    (folder / "Makefile").write_text(_FOLDER)
    (folder / "ends.c").write_text(_ENDS)
    (folder.parent / "kselftest_harness.h").touch()
    # the same bytes each time: what is made of it is in the cache from then on
    same = ["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--mode=u+rwX,go=rX"]
    tarball = small_lab.root / "linux.tar"
    subprocess.run(["tar", "-c", *same, "-f", tarball, "-C", tree.parent, "linux"], check=True)
    content = yaml.safe_load((small_lab.root / "lab.yaml").read_text())
    content["kernels"]["latest"]["source"] = {"tarball": "linux.tar"}
    content["suites"]["first"]["tests"] = str(ROOT / "tests" / "selftests")
    (small_lab.root / "lab.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return small_lab


def test_one_that_dies_loses_its_own_verdict_only(with_programs: "SmallLab") -> None:
    outcome = with_programs.start().outcome(timeout=240.0)  # four guests, one after the other
    assert outcome.verdicts == {
        "test_case[iommu]": "skipped",
        "test_case[ends-ends.passes]": "kept",
        "test_case[ends-ends.aborts]": "broken",
        "test_case[ends-ends.skips]": "skipped",
        "test_case[ends-ends.says_nothing]": "broken",
        "test_case[ends-ends.crashes_the_kernel]": "guest-lost",
        "test_case[ends-ends.passes_again]": "kept",
    }
    tests = {name.partition(".")[2].rstrip("]"): test for name, test in outcome.tests.items()}
    assert "SIGABRT ended it" in tests["aborts"]["message"]
    assert tests["skips"]["message"] == "no such page"
    assert tests["says_nothing"]["message"].startswith("it reported no result")
    assert "sysrq triggered crash" in tests["crashes_the_kernel"]["splats"][0]
    assert tests["passes"]["program"] == "ends"
    guests = [path for path in tests["passes_again"]["evidence"] if path.endswith("output.log")]
    assert guests == ["guests/004/output.log"]
    assert outcome.status == 1
    (row,) = [line.split() for line in outcome.stdout.splitlines() if line.startswith("ends ")]
    assert row[:5] == ["ends", "2", "1", "2", "1"]
