# SPDX-License-Identifier: GPL-2.0-only
"""ioctls of VFIO's and iommufd's files: their names, their structures, what stands behind those."""

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import Any

from lab.vfio.trace.process import Kind, ProcessState
from lab.vfio.trace.values import flags, number, one_of, path, quoted
from lab.vfio.uapi import (
    BindFlag,
    ContainerRequest,
    DeviceFlag,
    DeviceRequest,
    DirtyFlag,
    Extension,
    Feature,
    FeatureFlag,
    GroupFlag,
    GroupRequest,
    HotResetFlag,
    HwptFlag,
    IoasMapFlag,
    IommuDestroy,
    IommufdRequest,
    IommuHwptAlloc,
    IommuInfoFlag,
    IommuIoasAlloc,
    IommuIoasAllowIovas,
    IommuIoasCopy,
    IommuIoasIovaRanges,
    IommuIoasMap,
    IommuIoasUnmap,
    IommuOption,
    IommuType,
    IommuVfioIoas,
    IrqSetFlag,
    Layout,
    MapFlag,
    OptionOp,
    PciIrq,
    RegionFlag,
    UnmapFlag,
    VfioDeviceAttachIommufdPt,
    VfioDeviceBindIommufdToken,
    VfioDeviceDetachIommufdPt,
    VfioDeviceFeature,
    VfioDeviceInfo,
    VfioDeviceIoeventfd,
    VfioGroupStatus,
    VfioIoasOp,
    VfioIommuType1DirtyBitmap,
    VfioIommuType1DirtyBitmapGet,
    VfioIommuType1DmaMap,
    VfioIommuType1DmaUnmap,
    VfioIommuType1Info,
    VfioIrqInfo,
    VfioIrqSet,
    VfioPciDependentDevice,
    VfioPciHotReset,
    VfioPciHotResetInfo,
    VfioRegionInfo,
)

Show = Callable[[int, ProcessState], str]
"""A field, or an argument that is no pointer."""
Behind = Callable[[Any, bytes, ProcessState], dict[str, str]]
"""What stands behind a structure: that, its bytes, and whose they are."""

_REQUESTS: Mapping[Kind, tuple[type[IntEnum], ...]] = {
    Kind.IOMMUFD: (IommufdRequest, ContainerRequest),
    Kind.CONTAINER: (ContainerRequest, IommufdRequest),
    Kind.GROUP: (GroupRequest,),
    Kind.DEVICE: (DeviceRequest,),
}
_FEATURE_INDEX = 0xFFFF
_NOT_SHOWN = ("reserved", "pad", "out_")  # while they are 0


def request_of(value: int, kind: Kind) -> IntEnum | None:
    """What a request means to a file of this kind; to any other, where it means one thing only."""
    enums = _REQUESTS.get(kind) or {each for some in _REQUESTS.values() for each in some}
    found = [enum(value) for enum in enums if value in set(enum)]
    return found[0] if len(found) == 1 and found[0].name != "UNKNOWN" else None


def name_of_request(value: int, kind: Kind) -> str:
    """As C has it."""
    if request := request_of(value, kind):
        return request.name
    return f"_IO(';', {value & 0xFF})" if value >> 8 == ord(";") else hex(value)


# Fields


def _fd(value: int, process: ProcessState) -> str:
    return process.fd(value)


def _address(value: int, process: ProcessState) -> str:
    return process.address(value)


def _bits(kind: type[IntFlag]) -> Show:
    return lambda value, _: flags(value, kind)


def _choice(*kinds: type[IntEnum]) -> Show:
    return lambda value, _: one_of(value, *kinds)


def _feature(value: int, process: ProcessState) -> str:
    del process
    what, how = one_of(value & _FEATURE_INDEX, Feature), value & ~_FEATURE_INDEX
    return f"{flags(how, FeatureFlag)}|{what}" if how else what


# Behind structures


def _any(head: Layout, data: bytes, process: ProcessState) -> dict[str, str]:
    del head, process
    return {f"({len(data)} bytes)": quoted(data)} if any(data) else {}


def _fds(data: bytes, count: int, process: ProcessState) -> str:
    whole = data[: 4 * min(count, len(data) // 4)]
    found = [whole[at : at + 4] for at in range(0, len(whole), 4)]
    return ", ".join(process.fd(int.from_bytes(fd, "little", signed=True)) for fd in found)


def _irq_data(head: VfioIrqSet, data: bytes, process: ProcessState) -> dict[str, str]:
    if head.flags & IrqSetFlag.VFIO_IRQ_SET_DATA_EVENTFD:
        return {"eventfds": f"[{_fds(data, head.count, process)}]"}
    if head.flags & IrqSetFlag.VFIO_IRQ_SET_DATA_BOOL:
        return {"bools": f"[{', '.join(map(str, data))}]"}
    return _any(head, data, process)


def _groups(head: VfioPciHotReset, data: bytes, process: ProcessState) -> dict[str, str]:
    return {"group_fds": f"[{_fds(data, head.count, process)}]"}


def _dependent(head: VfioPciHotResetInfo, data: bytes, process: ProcessState) -> dict[str, str]:
    del process
    size = ctypes.sizeof(VfioPciDependentDevice)
    what = "devid" if head.flags & HotResetFlag.VFIO_PCI_HOT_RESET_FLAG_DEV_ID else "group_id"
    shown = []
    for at in range(0, min(head.count, len(data) // size) * size, size):
        each = VfioPciDependentDevice.from_buffer_copy(data, at)
        place = f"{each.segment:04x}:{each.bus:02x}:{each.devfn >> 3:02x}.{each.devfn & 7}"
        shown.append(f"{{{place}, {what}={ctypes.c_int32(each.id).value}}}")
    return {"devices": f"[{', '.join(shown)}]"} if shown else {}


def _dirty(head: Layout, data: bytes, process: ProcessState) -> dict[str, str]:
    if len(data) < ctypes.sizeof(VfioIommuType1DirtyBitmapGet):
        return _any(head, data, process)
    wanted = VfioIommuType1DirtyBitmapGet.from_buffer_copy(data)
    bitmap = wanted.bitmap
    place = f"pgsize={bitmap.pgsize:#x}, size={bitmap.size:#x}, data={process.address(bitmap.data)}"
    return {
        "iova": hex(wanted.iova),
        "size": hex(wanted.size),
        "bitmap": f"{{{place}}}",
    }


@dataclass(frozen=True)
class Form:
    """How a structure is shown.

    `out` are the fields that the kernel alone fills. `fields` say how one is shown where its type
    does not: what has 8 bytes is an address or a length, in hexadecimal; what has fewer is a
    number.
    """

    layout: type[Layout]
    out: frozenset[str] = frozenset()
    behind: Behind = _any
    fields: Mapping[str, Show] = field(default_factory=dict)

    def show(self, before: bytes, after: bytes | None, process: ProcessState) -> str:
        """What went in, and behind an arrow what came out that is different."""
        text = _braced(self._fields(before, process, self.out))
        if after is None or after == before:
            return text
        was, now = (self._fields(data, process, frozenset()) for data in (before, after))
        return f"{text} => {_braced({k: v for k, v in now.items() if was.get(k) != v})}"

    def read(self, data: bytes) -> Any:
        """The structure; what the caller's had no room for is 0."""
        return self.layout.from_buffer_copy(data.ljust(ctypes.sizeof(self.layout), b"\0"))

    def _fields(self, data: bytes, process: ProcessState, out: frozenset[str]) -> dict[str, str]:
        head, found = self.read(data), {}
        for at, (name, *_) in enumerate(self.layout._fields_):
            place, value = getattr(self.layout, name), getattr(head, name)
            if place.offset + place.size > len(data):
                break
            quiet = name in out or name.lstrip("_").startswith(_NOT_SHOWN)
            if at == 0 or value or not quiet:
                plain = hex(value) if place.size == 8 else number(value)
                show = self.fields.get(name)
                found[name] = show(value, process) if show else plain
        behind = data[ctypes.sizeof(self.layout) :]
        return found | self.behind(head, behind, process) if behind else found


def _braced(fields: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{name}={words}" for name, words in fields.items()) + "}"


def _form(layout: type[Layout], out: str = "", behind: Behind = _any, **fields: Show) -> Form:
    return Form(layout, frozenset(out.split()), behind, fields)


# By name: a number has several meanings.
_FORMS: Mapping[str, Form] = {
    "IOMMU_DESTROY": _form(IommuDestroy),
    "IOMMU_IOAS_ALLOC": _form(IommuIoasAlloc),
    "IOMMU_IOAS_ALLOW_IOVAS": _form(IommuIoasAllowIovas, allowed_iovas=_address),
    "IOMMU_IOAS_COPY": _form(IommuIoasCopy, flags=_bits(IoasMapFlag)),
    "IOMMU_IOAS_IOVA_RANGES": _form(IommuIoasIovaRanges, allowed_iovas=_address),
    "IOMMU_IOAS_MAP": _form(IommuIoasMap, flags=_bits(IoasMapFlag), user_va=_address),
    "IOMMU_IOAS_UNMAP": _form(IommuIoasUnmap),
    "IOMMU_OPTION": _form(IommuOption, op=_choice(OptionOp)),
    "IOMMU_VFIO_IOAS": _form(IommuVfioIoas, op=_choice(VfioIoasOp)),
    "IOMMU_HWPT_ALLOC": _form(IommuHwptAlloc, flags=_bits(HwptFlag), data_uptr=_address),
    "VFIO_IOMMU_GET_INFO": _form(
        VfioIommuType1Info, "flags iova_pgsizes cap_offset", flags=_bits(IommuInfoFlag)
    ),
    "VFIO_IOMMU_MAP_DMA": _form(VfioIommuType1DmaMap, flags=_bits(MapFlag), vaddr=_address),
    "VFIO_IOMMU_UNMAP_DMA": _form(VfioIommuType1DmaUnmap, flags=_bits(UnmapFlag)),
    "VFIO_IOMMU_DIRTY_PAGES": _form(
        VfioIommuType1DirtyBitmap, behind=_dirty, flags=_bits(DirtyFlag)
    ),
    "VFIO_GROUP_GET_STATUS": _form(VfioGroupStatus, "flags", flags=_bits(GroupFlag)),
    "VFIO_DEVICE_GET_INFO": _form(
        VfioDeviceInfo, "flags num_regions num_irqs cap_offset", flags=_bits(DeviceFlag)
    ),
    "VFIO_DEVICE_GET_REGION_INFO": _form(
        VfioRegionInfo, "flags cap_offset size offset", flags=_bits(RegionFlag)
    ),
    "VFIO_DEVICE_GET_IRQ_INFO": _form(VfioIrqInfo, "flags count", index=_choice(PciIrq)),
    "VFIO_DEVICE_SET_IRQS": _form(
        VfioIrqSet, behind=_irq_data, flags=_bits(IrqSetFlag), index=_choice(PciIrq)
    ),
    "VFIO_DEVICE_GET_PCI_HOT_RESET_INFO": _form(
        VfioPciHotResetInfo, "flags count", _dependent, flags=_bits(HotResetFlag)
    ),
    "VFIO_DEVICE_PCI_HOT_RESET": _form(VfioPciHotReset, behind=_groups),
    "VFIO_DEVICE_IOEVENTFD": _form(VfioDeviceIoeventfd, fd=_fd),
    "VFIO_DEVICE_FEATURE": _form(VfioDeviceFeature, flags=_feature),
    "VFIO_DEVICE_BIND_IOMMUFD": _form(
        VfioDeviceBindIommufdToken, flags=_bits(BindFlag), iommufd=_fd, token_uuid_ptr=_address
    ),
    "VFIO_DEVICE_ATTACH_IOMMUFD_PT": _form(VfioDeviceAttachIommufdPt),
    "VFIO_DEVICE_DETACH_IOMMUFD_PT": _form(VfioDeviceDetachIommufdPt),
}
_NUMBERS: Mapping[str, Show] = {
    "VFIO_SET_IOMMU": _choice(IommuType, Extension),
    "VFIO_CHECK_EXTENSION": _choice(IommuType, Extension),
}


def argument(
    request: IntEnum | None, before: bytes, after: bytes | None, process: ProcessState
) -> str:
    """What the third argument of an ioctl points to; `after` None: nobody looked again."""
    if request and (form := _FORMS.get(request.name)):
        return form.show(before, after, process)
    if request is GroupRequest.VFIO_GROUP_SET_CONTAINER and len(before) == 4:
        return f"[{process.fd(int.from_bytes(before, 'little', signed=True))}]"
    if request is GroupRequest.VFIO_GROUP_GET_DEVICE_FD:
        return path(before)
    changed = f" => {quoted(after)}" if after not in (None, before) else ""
    return quoted(before) + changed


def plain_argument(request: IntEnum | None, value: int, process: ProcessState) -> str:
    """The third argument of an ioctl where it is a number, or an address."""
    name = request.name if request else ""
    if show := _NUMBERS.get(name):
        return show(value, process)
    return process.address(value) if name in _FORMS else number(value)


def region_info(after: bytes) -> VfioRegionInfo:
    """What VFIO_DEVICE_GET_REGION_INFO answered."""
    found: VfioRegionInfo = _FORMS["VFIO_DEVICE_GET_REGION_INFO"].read(after)
    return found
