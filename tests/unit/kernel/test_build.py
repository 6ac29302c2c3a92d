# SPDX-License-Identifier: GPL-2.0-only
"""Of a log of thousands of lines, the compiler's own words."""

from lab.kernel.build import errors_in

COMPILER = """\
  CC      drivers/vfio/group.o
In file included from drivers/vfio/vfio_main.c:10:
drivers/vfio/vfio.h: In function 'f':
drivers/vfio/vfio.h:20:9: error: implicit declaration of function 'g'
   20 |         g();
      |         ^
  CC      net/core/dev.o
make[4]: *** [scripts/Makefile.build:229: drivers/vfio/vfio_main.o] Error 1
net/core/dev.c:1:1: warning: 'h' defined but not used
  CC      net/core/sock.o
make[1]: *** [Makefile:240: __sub-make] Error 2
"""

LINKER = """\
  LD      .tmp_vmlinux1
ld: vmlinux.o: in function `vfio_main':
vfio_main.c:(.text+0x1): undefined reference to `nothing'
make[2]: *** [scripts/Makefile.vmlinux:34: vmlinux] Error 1
"""


def test_the_error_and_what_belongs_to_it_is_shown() -> None:
    assert errors_in(COMPILER) == COMPILER.splitlines()[1:6]


def test_an_error_of_the_linker_is_shown() -> None:
    assert errors_in(LINKER) == LINKER.splitlines()[1:3]


def test_no_more_than_thirty_lines_are_shown() -> None:
    assert len(errors_in(COMPILER * 20)) == 30


def test_a_log_without_a_known_error_is_shown_by_its_end() -> None:
    log = "".join(f"line {number}\n" for number in range(100))
    assert errors_in(log)[-1] == "line 99"
