# SPDX-License-Identifier: GPL-2.0-only
"""What shows, and whether it is what a person expected."""

import pytest

from lab.repro.sign import Expectation, Kind, Sign, split

KASAN = Sign(
    Kind.REPORT,
    "KASAN: slab-use-after-free Read in vfio_pci_intx_mask",
    "BUG: KASAN: slab-use-after-free in vfio_pci_intx_mask+0x1c/0x60",
)
STATUS = Sign(Kind.STATUS, "it exited with status 1")
UNENDED = Sign(Kind.UNENDED, "it did not end in 30 s")


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("KASAN: use-after-free in …", True),
        ("KASAN: use-after-free in vfio_…", True),
        ("kasan: slab-use-after-free Read in vfio_pci_intx_mask", True),
        ("KASAN", True),
        ("KASAN: ... in vfio_pci_intx_mask", True),
        ("BUG: KASAN: use-after-free in vfio_pci_intx_mask+0x1c/0xff [vfio_pci_core]", True),
        ("use-after-free * mask", True),
        ("KASAN: use-after-free in vfio_pci_intx", False),
        ("KASAN: use-after-free in iommufd_…", False),
        ("out-of-bounds", False),
    ],
)
def test_an_expectation(text: str, fits: bool) -> None:
    assert Expectation(text).fits(KASAN) is fits


def test_what_is_expected_counts_alone() -> None:
    assert split([KASAN, STATUS], Expectation("exited with status")) == ((STATUS,), (KASAN,))


def test_a_program_that_does_not_end_counts_only_where_that_is_expected() -> None:
    assert split([UNENDED], None) == ((), (UNENDED,))
    assert split([UNENDED], Expectation("did not end")) == ((UNENDED,), ())


def test_a_hang_is_titled_by_where_the_kernel_is() -> None:
    text = (
        "guest hangs: CPU 1 runs spin < vfio_ioctl, its interrupts off, in a.out (pid 70)\nRIP: 0"
    )
    sign = Sign.of_lost(text)
    assert (sign.kind, sign.title, sign.text) == (Kind.HANG, "hang in spin", text)


def test_a_hang_amid_user_space() -> None:
    text = "guest hangs: CPU 0 runs user space, in a (pid 1); b (pid 2) is blocked in wait_for < f"
    assert Sign.of_lost(text).title == "hang in wait_for"


def test_a_panic_is_titled_by_its_report() -> None:
    text = (
        "[    2.0] Kernel panic - not syncing: sysrq triggered crash\n"
        "[    2.0] ---[ end Kernel panic - not syncing: sysrq triggered crash ]---\n"
    )
    sign = Sign.of_lost(text)
    assert sign.kind is Kind.REPORT
    assert "sysrq triggered crash" in sign.title
