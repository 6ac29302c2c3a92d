# SPDX-License-Identifier: GPL-2.0-only
"""The function that a title names."""

import pytest

from lab.splats import find

LOCKDEP = """\
WARNING: held lock freed!
agent/71 is freeing memory, with a lock still held there!
-> #0 (&dev_set->lock){+.+.}-{3:3}:
       vfio_group_ioctl+0x2b/0x90
stack backtrace:
Call Trace:
 dump_stack_lvl+0x1/0x2
 vfio_device_free+0x1/0x2
"""
STALL = """\
watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [agent:71]
Call Trace:
 <IRQ>
 vfio_intx_handler+0x1/0x2
 </IRQ>
 iommu_unmap+0x1/0x2
 vfio_iommu_type1_ioctl+0x1/0x2
 __x64_sys_ioctl+0x1/0x2
"""


def titled(log: str) -> str:
    (splat,) = find(log)
    return splat.title


def test_a_detectors_function_is_not_to_blame() -> None:
    log = "BUG: KASAN: use-after-free in memcpy+0x1/0x2\nCall Trace:\n vfio_df_open+0x1/0x2\n"
    assert titled(log) == "KASAN: use-after-free in vfio_df_open"


def test_a_guess_of_the_unwinder_is_not_to_blame() -> None:
    log = "BUG: scheduling while atomic: a/7/0x2\nCall Trace:\n ? printk+0x1/0x2\n f+0x1/0x2\n"
    assert titled(log.replace("printk", "edu_read")) == "BUG: scheduling while atomic in f"


@pytest.mark.parametrize("suffix", ["", ".isra.0", ".constprop.0.cold", ".llvm.123"])
def test_what_the_compiler_made_of_a_name_is_left_out(suffix: str) -> None:
    log = f"kernel BUG at a.c:1!\nRIP: 0010:vfio_df_open{suffix}+0x1/0x2\n"
    assert titled(log) == "kernel BUG in vfio_df_open"


def test_of_lockdeps_call_traces_the_last_is_its_own() -> None:
    assert titled(LOCKDEP) == "WARNING: held lock freed in vfio_device_free"


def test_who_stalls_is_the_outermost_and_not_in_an_interrupt() -> None:
    assert titled(STALL) == "BUG: soft lockup in vfio_iommu_type1_ioctl"
    alone = STALL.replace(" iommu_unmap+0x1/0x2\n vfio_iommu_type1_ioctl+0x1/0x2\n", "")
    assert titled(alone) == "BUG: soft lockup in vfio_intx_handler"
