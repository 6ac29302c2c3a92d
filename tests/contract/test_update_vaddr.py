# SPDX-License-Identifier: GPL-2.0-only
"""MAP-11 and MAP-10 of a mapping whose memory gets another address, or another process.

Source: drivers/vfio/vfio_iommu_type1.c, vfio_dma_do_unmap() with VFIO_DMA_UNMAP_FLAG_VADDR,
vfio_dma_do_map() with VFIO_DMA_MAP_FLAG_VADDR, and vfio_change_dma_owner(). An iommufd has none of
it: vfio_compat.c, iommufd_vfio_check_extension().
"""

import re
from collections.abc import Callable
from errno import EINVAL, ENOENT

from lab.agent.process import Process
from lab.contract import Mode
from lab.testing import contract, raises_errno
from lab.vfio.device import Device
from lab.vfio.edu import edu_of
from lab.vfio.files import READ_WRITE
from lab.vfio.modes import CONTAINER_MODES, ContainerSpace, open_device
from lab.vfio.uapi import Extension, MapFlag, UnmapFlag

IOVA = 0x10_0000
PAGE = 4096
INVALID = UnmapFlag.VFIO_DMA_UNMAP_FLAG_VADDR
ANEW = MapFlag.VFIO_DMA_MAP_FLAG_VADDR


def _locked_pages(hands: Process, process: Process) -> int:
    """For how many the kernel charges a process."""
    status = hands.read_text(f"/proc/{process.pid}/status")
    (kilobytes,) = re.findall(r"^VmLck:\s+(\d+) kB$", status, re.MULTILINE)
    return int(kilobytes) * 1024 // PAGE


@contract("MAP-11", *CONTAINER_MODES)
def test_mapping_is_handed_to_another_process(
    process: Process, new_process: Callable[[], Process], hands: Process, edu: Device, mode: Mode
) -> None:
    """The device reads on while the mapping's memory has no address. It gets one from whoever has
    the container, who is charged for its pages from then on. EINVAL: to take away an address that
    is gone, and to give one to what has one, or to part of a mapping; ENOENT: to what is none."""
    heir = new_process()
    with (
        open_device(process, edu, mode) as opened,
        edu_of(opened.device) as registers,
        process.mmap(2 * PAGE) as memory,
    ):
        assert isinstance(opened.space, ContainerSpace)
        container = opened.space.container
        assert container.check_extension(Extension.VFIO_UPDATE_VADDR) == 1
        before = _locked_pages(hands, process), _locked_pages(hands, heir)
        opened.space.map(IOVA, memory)
        assert _locked_pages(hands, process) == before[0] + 2
        with raises_errno(EINVAL):
            opened.space.map(IOVA, memory, ANEW)
        assert container.unmap_dma(IOVA, 2 * PAGE, INVALID) == 2 * PAGE
        with raises_errno(EINVAL):
            container.unmap_dma(IOVA, 2 * PAGE, INVALID)
        memory.write(0, b"still read")
        opened.device.enable_dma()
        registers.copy_in(IOVA, 10)
        registers.copy_out(IOVA + PAGE, 10)
        assert memory.read(PAGE, 10) == b"still read"
        with opened.space.taken_by(heir) as space, heir.mmap(2 * PAGE) as heirs:
            for iova, length, flags, errno in (
                (IOVA, 2 * PAGE, ANEW | READ_WRITE, EINVAL),
                (IOVA, PAGE, ANEW, EINVAL),
                (2 * IOVA, 2 * PAGE, ANEW, ENOENT),
            ):
                with raises_errno(errno):
                    space.map_range(iova, heirs.address, length, flags)
            space.map(IOVA, heirs, ANEW)
            assert _locked_pages(hands, process) == before[0]
            assert _locked_pages(hands, heir) == before[1] + 2
            assert space.unmap(IOVA, 2 * PAGE) == 2 * PAGE
            assert _locked_pages(hands, heir) == before[1]
