# SPDX-License-Identifier: GPL-2.0-only
"""Of a build's log, what the compiler warned of; of two, what is new. The logs are real ones."""

import json

import pytest

from lab.kernel.warnings import CompilerWarning, new_warnings, warnings_in

GCC_12 = """\
  CC      drivers/vfio/group.o
In file included from ../drivers/vfio/x.c:1:
../drivers/vfio/x.c: In function 'open_it':
../include/linux/x.h:2:19: warning: unused variable '_v' [-Wunused-variable]
    2 |         do { long _v = (p); } while (0)
      |                   ^~
../drivers/vfio/x.c:9:9: note: in expansion of macro 'check'
    9 |         check(a);
      |         ^~~~~
../drivers/vfio/x.c:8:13: warning: unused variable 'unused' [-Wunused-variable]
    8 |         int unused;
      |             ^~~~~~
../drivers/vfio/x.c: At top level:
../drivers/vfio/x.c:2:12: warning: 'lonely' defined but not used [-Wunused-function]
    2 | static int lonely(int a)
      |            ^~~~~~
  CC      drivers/vfio/iova_bitmap.o
"""

CLANG_14 = """\
../drivers/vfio/x.c:9:2: warning: unused variable '_v' [-Wunused-variable]
        check(a);
        ^
../include/linux/x.h:2:12: note: expanded from macro 'check'
        do { long _v = (p); } while (0)
                  ^
In file included from ../drivers/vfio/x.c:1:
../include/linux/x.h:3:12: warning: unused function 'helper' [-Wunused-function]
static int helper(void)
           ^
2 warnings generated.
make[4]: warning: Clock skew detected.  Your build may be incomplete.
"""

CLANG_19 = """\
../drivers/vfio/x.c:8:6: warning: unused variable 'unused' [-Wunused-variable]
    8 |         int unused;
      |             ^~~~~~
../drivers/vfio/x.c:10:9: error: call to undeclared function 'f' [-Wimplicit-function-declaration]
   10 |         return f();
      |                ^
1 warning and 1 error generated.
"""

CHECKERS = """\
../drivers/vfio/Kconfig:3:warning: config symbol defined without type

WARNING: unmet direct dependencies detected for IOMMUFD
  Depends on [n]: IOMMU_SUPPORT [=n]
  Selected by [y]:
  - VFIO [=y]
#
# configuration written to .config
#
  LD      vmlinux.o
vmlinux.o: warning: objtool: vfio_df_open+0x1f: unreachable instruction
  MODPOST vmlinux.symvers
WARNING: modpost: vmlinux: section mismatch in reference: vfio_open+0x8 (section: .text) -> f
ld: warning: orphan section `.vfio' from `vfio_main.o' being placed in section `.vfio'
"""


def test_gcc_says_before_and_after_what_it_is_about() -> None:
    macro, variable, function = warnings_in(GCC_12)
    lines = GCC_12.splitlines()
    assert macro == CompilerWarning(
        "include/linux/x.h", 2, "unused variable '_v'", "-Wunused-variable", tuple(lines[1:9])
    )
    assert (variable.file, variable.line) == ("drivers/vfio/x.c", 8)
    assert variable.lines == tuple(lines[9:12])
    assert function.option == "-Wunused-function"
    assert function.lines == tuple(lines[12:16])


def test_clang_without_line_numbers() -> None:
    macro, function = warnings_in(CLANG_14)
    lines = CLANG_14.splitlines()
    assert macro.lines == tuple(lines[:6])
    assert (function.file, function.line) == ("include/linux/x.h", 3)
    assert function.lines == tuple(lines[6:10])


def test_an_error_is_no_part_of_the_warning_above_it() -> None:
    (warning,) = warnings_in(CLANG_19)
    assert warning.lines == tuple(CLANG_19.splitlines()[:3])


def test_what_checks_the_configuration_and_the_objects_warns_too() -> None:
    kconfig, unmet, objtool, modpost, linker = warnings_in(CHECKERS)
    assert (kconfig.file, kconfig.line) == ("drivers/vfio/Kconfig", 3)
    assert unmet.text == "unmet direct dependencies detected for IOMMUFD"
    assert unmet.lines == tuple(CHECKERS.splitlines()[2:6])
    assert (objtool.file, objtool.line, objtool.option) == ("vmlinux.o", None, "")
    assert modpost.text.startswith("modpost: vmlinux: section mismatch")
    assert linker.file == "ld"


def test_one_header_that_many_files_include_is_warned_of_once() -> None:
    assert warnings_in(GCC_12 * 3) == warnings_in(GCC_12)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (":8:13: warning", ":80:13: warning"),
        ("'unused'", "\u2018unused\u2019"),
    ],
)
def test_neither_its_line_nor_the_locale_makes_a_warning_new(old: str, new: str) -> None:
    assert not new_warnings(GCC_12.replace(old, new), GCC_12)


def test_an_offset_makes_no_warning_new() -> None:
    moved = CHECKERS.replace("+0x1f", "+0x2a").replace("+0x8", "+0x10")
    assert not new_warnings(moved, CHECKERS)


def test_what_the_base_has_not_is_new() -> None:
    base = GCC_12.replace("8:13: warning: unused variable 'unused'", "8:13: note: nothing")
    assert [each.line for each in new_warnings(GCC_12, base)] == [8]


def test_a_second_of_the_same_kind_is_new() -> None:
    lines = GCC_12.splitlines()[9:12]
    again = "\n".join(lines).replace(":8:", ":18:")
    assert [each.line for each in new_warnings(GCC_12 + again, GCC_12)] == [18]


def test_json_can_write_it() -> None:
    (plain,) = [each.to_json() for each in warnings_in(CLANG_19)]
    assert json.loads(json.dumps(plain)) == plain
    assert list(plain) == ["file", "line", "text", "option", "lines"]
