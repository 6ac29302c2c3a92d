# SPDX-License-Identifier: GPL-2.0-only
"""MAP-9: a container has so many mappings and no more, and what is unmapped counts no longer.

Source: drivers/vfio/vfio_iommu_type1.c, `dma_avail`, which dma_entry_limit sets. The limit of an
iommufd is the memory of a control group.
"""

from contextlib import ExitStack
from errno import EFAULT, ENOSPC

from lab.agent.process import Process
from lab.contract import Mode
from lab.testing import contract, raises_errno
from lab.vfio.device import Device
from lab.vfio.modes import CONTAINER_MODES, ContainerSpace, open_device
from lab.vfio.parameter import parameter, set_to

IOVA = 0x10_0000
PAGE = 4096
LIMIT = parameter("vfio_iommu_type1", "dma_entry_limit")


@contract("MAP-9", *CONTAINER_MODES)
def test_what_is_unmapped_or_failed_may_be_mapped_again(
    process: Process, edu: Device, mode: Mode
) -> None:
    """vfio_remove_dma() gives back what vfio_dma_do_map() took."""
    with open_device(process, edu, mode) as opened, process.mmap(PAGE) as page:
        assert isinstance(opened.space, ContainerSpace)
        container = opened.space.container
        before = container.dma_avail()
        opened.space.map(IOVA, page)
        assert container.dma_avail() == before - 1
        with process.mmap(PAGE) as gone:
            address = gone.address
        with raises_errno(EFAULT):
            container.map_dma(2 * IOVA, address, PAGE)
        assert container.dma_avail() == before - 1
        opened.space.unmap(IOVA, PAGE)
        assert container.dma_avail() == before


@contract("MAP-9", *CONTAINER_MODES)
def test_container_is_full_until_something_is_unmapped(
    process: Process, hands: Process, edu: Device, mode: Mode
) -> None:
    """ENOSPC. The limit is that of the time at which SET_IOMMU came."""
    places = IOVA, 2 * IOVA
    with ExitStack() as stack, process.mmap(PAGE) as page:
        with set_to(hands, LIMIT, str(len(places))):
            space = stack.enter_context(open_device(process, edu, mode)).space
        for place in places:
            space.map(place, page)
        with raises_errno(ENOSPC):
            space.map(3 * IOVA, page)
        assert space.unmap(IOVA, PAGE) == PAGE
        space.map(3 * IOVA, page)
