# SPDX-License-Identifier: GPL-2.0-only
"""What all modes promise alike: one procedure in every mode, the answers held against each other.

No expectation stands here: a deviation that nobody wrote down shows because one mode answers
otherwise than the others. Both flows end in the same functions (vfio_main.c:
vfio_device_fops_unl_ioctl(), vfio_pci_core.c), so nothing may depend on the way to the device.
"""

from collections.abc import Callable, Mapping
from errno import errorcode
from functools import partial

import pytest

from lab.agent.errors import RemoteError
from lab.agent.process import Process
from lab.contract import Mode
from lab.expected import Announced
from lab.testing import contract, not_applicable
from lab.vfio.device import Device
from lab.vfio.edu import edu_of
from lab.vfio.files import Capability, DeviceFile
from lab.vfio.modes import Opened, open_device
from lab.vfio.uapi import PciIrq, PciRegion, Structure

Answers = Mapping[str, object]
"""What a mode answered, by the name of the field."""

IOVA = 0x10_0000
WORD = b"sixteen bytes..."
CONFIG = PciRegion.VFIO_PCI_CONFIG_REGION_INDEX
ROLES = ["edu0", "edu1", "igb0"]


@pytest.fixture(autouse=True)
def _there_is_something_to_compare(modes: tuple[Mode, ...]) -> None:
    if len(modes) < 2:
        raise not_applicable("this kernel has a single mode on this machine")


def _agree(
    process: Process,
    device: Device,
    modes: tuple[Mode, ...],
    ask: Callable[[Opened], Answers],
) -> None:
    """Open the device in each mode, one after the other, and compare what `ask` finds."""
    answers = {}
    for mode in modes:
        with open_device(process, device, mode) as opened:
            answers[mode] = ask(opened)
    if deviations := _deviations(answers):
        pytest.fail("the modes differ:\n" + "\n".join(deviations))


def _deviations(answers: Mapping[Mode, Answers]) -> list[str]:
    """Each field in which not all modes agree: its values, and which modes gave each."""
    found = []
    for field in dict.fromkeys(field for given in answers.values() for field in given):
        modes_of: dict[str, list[str]] = {}
        for mode, given in answers.items():
            modes_of.setdefault(repr(given.get(field, "(none)")), []).append(mode.value)
        if len(modes_of) > 1:
            values = [f"{value} in {', '.join(modes)}" for value, modes in modes_of.items()]
            found.append(f"{field}: {'; '.join(values)}")
    return found


def _fields(name: str, ask: Callable[[], Structure]) -> Answers:
    """Every member of what a request gave back; its errno where it failed."""
    try:
        answer = ask()
    except RemoteError as error:
        return {name: errorcode.get(error.errno or 0, str(error.errno))}
    return {f"{name}.{member[0]}": getattr(answer, member[0]) for member in answer._fields_}


def _chain(name: str, ask: Callable[[], list[Capability]]) -> Answers:
    try:
        found = ask()
    except RemoteError:
        return {}  # told by the region itself
    return {f"{name} capability {each.id}": (each.version, each.data.hex(" ", 4)) for each in found}


def _regions(file: DeviceFile, number: int) -> Answers:
    found: dict[str, object] = {}
    for index in range(number + 1):  # one too many: the refusal, too, is the same
        found |= _fields(f"region {index}", partial(file.region, index))
        found |= _chain(f"region {index}", partial(file.region_capabilities, index))
    return found


@contract("REG-1")
@pytest.mark.parametrize("role", ROLES)
def test_modes_agree_on_a_device(process: Process, device: Device, modes: tuple[Mode, ...]) -> None:
    """GET_INFO, GET_REGION_INFO with its chains, GET_IRQ_INFO, and all of config space."""

    def ask(opened: Opened) -> Answers:
        file = opened.device
        info = file.info()
        found = dict(_fields("device", lambda: info))
        found |= _regions(file, info.num_regions)
        for index in PciIrq:
            found |= _fields(f"interrupt {index.name}", partial(file.irq, index))
        config = file.region(CONFIG)
        content = file.pread(config.size, config.offset)
        found["bytes of config space"] = len(content)
        for place in range(0, len(content), 4):
            word = int.from_bytes(content[place : place + 4], "little")
            found[f"config space at {place:#05x}"] = f"{word:#010x}"
        return found

    _agree(process, device, modes, ask)


@contract("IOAS-4")
def test_modes_agree_on_the_iova_ranges(
    process: Process, edu: Device, modes: tuple[Mode, ...]
) -> None:
    """IOMMU_IOAS_IOVA_RANGES, and the chain behind VFIO_IOMMU_GET_INFO: vfio_iommu_type1.c:
    vfio_iommu_iova_build_caps(), vfio_compat.c: iommufd_fill_cap_iova()."""

    def ask(opened: Opened) -> Answers:
        return {"ranges": [f"{first:#x}-{last:#x}" for first, last in opened.space.iova_ranges()]}

    _agree(process, edu, modes, ask)


@contract("DMA-1")
def test_modes_agree_on_what_dma_does(
    expected: Announced, process: Process, edu: Device, modes: tuple[Mode, ...]
) -> None:
    """Bytes in and out of a mapping, a page that ends it, and what is left after an unmap."""

    def ask(opened: Opened) -> Answers:
        size = process.page_size
        with (
            edu_of(opened.device) as registers,
            process.mmap(2 * size) as memory,
            expected.dma_faults(edu) as faults,
        ):
            opened.space.map_range(IOVA, memory.address, size)
            opened.device.enable_dma()
            memory.write(0, WORD)
            registers.copy_in(IOVA, len(WORD))
            registers.copy_out(IOVA + size - 8, len(WORD))  # half of it beyond the mapping
            unmapped = opened.space.unmap(IOVA, size)
            registers.copy_out(IOVA + 64, len(WORD))
            written = memory.read(0, memory.length)
        return {
            "bytes unmapped": unmapped,
            "bytes that are not zero": {
                place: value for place, value in enumerate(written) if value
            },
            "faults": [(hex(fault.address), fault.write) for fault in faults],
        }

    _agree(process, edu, modes, ask)
