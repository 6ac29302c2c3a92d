# SPDX-License-Identifier: GPL-2.0-only
"""What a compiler says of headers, and which differences count; the headers are pretended."""

from ctypes import c_uint8, c_uint32, c_uint64
from enum import EnumType, IntEnum, IntFlag
from itertools import chain
from pathlib import Path
from types import ModuleType

import pytest

from lab.errors import BuildError
from lab.vfio import drift, uapi
from lab.vfio.uapi import container, iommufd, vfio
from lab.vfio.uapi.layout import Layout, Structure, io

WHAT = "the headers of v0"
STRUCT = """\
struct vfio_thing {
	unsigned int argsz;
	unsigned int flags;
	int fd;
	unsigned int out_id;
	unsigned char reserved[8];
};
struct vfio_link { unsigned char kind; };
"""
NUMBERS = """\
#define _IO(type, number) (((type) << 8) | (number))
#define VFIO_DO _IO(';', 100)
#define VFIO_NOBODY -1
enum { IOMMU_FLAG = 1 << 2 };
"""


class VfioThing(Structure):
    _fields_ = (
        ("argsz", c_uint32),
        ("flags", c_uint32),
        ("fd", c_uint32),
        ("out_id", c_uint32),
        ("__reserved", c_uint64),
    )


class AnyName(Layout):
    struct = "vfio_link"
    _fields_ = (("kind", c_uint8),)


class Number(IntEnum):
    VFIO_DO = io(100)
    VFIO_NOBODY = 0xFFFF_FFFF
    IOMMU_FLAG = 4
    OURS = 7


def definitions() -> list[drift.Item]:
    module = ModuleType(__name__)
    vars(module).update(VfioThing=VfioThing, AnyName=AnyName, Number=Number, Layout=Layout)
    return drift.items([module])


def differences(folder: Path, header: str) -> tuple[list[str], set[str]]:
    """What differs, and what the headers do not know."""
    (folder / "linux").mkdir()
    (folder / "linux" / "vfio.h").write_text(header)
    wanted = definitions()
    values = drift.read(folder, WHAT, wanted)
    absent = {item.name for item in wanted if item.expression not in values}
    return drift.compare(wanted, values, WHAT), absent


def test_what_is_compared() -> None:
    names = {item.name for item in definitions()}
    fields = {f"vfio_thing.{name}" for name in ("argsz", "flags", "fd", "out_id")}
    assert names == fields | {"vfio_link.kind", "VFIO_DO", "VFIO_NOBODY", "IOMMU_FLAG"}


def test_only_room_that_is_kept_free_is_not_compared() -> None:
    class VfioRoom(Layout):
        _fields_ = tuple((name, c_uint8) for name in ("paddr", "pad", "__reserved2", "reserved_id"))

    module = ModuleType(__name__)
    VfioRoom.__module__ = __name__
    vars(module).update(VfioRoom=VfioRoom)
    names = {item.name for item in drift.items([module])}
    assert names == {"vfio_room.paddr", "vfio_room.reserved_id"}


def test_a_number_that_has_two_names_or_no_bit_of_its_own_is_compared() -> None:
    class Flag(IntFlag):
        VFIO_NONE = 0
        VFIO_READ = 1
        VFIO_WRITE = 2
        VFIO_BOTH = 3
        VFIO_GET = 1

    module = ModuleType(__name__)
    Flag.__module__ = __name__
    vars(module).update(Flag=Flag)
    assert {item.name for item in drift.items([module])} == set(Flag.__members__)


def test_the_same(tmp_path: Path) -> None:
    assert differences(tmp_path, STRUCT + NUMBERS) == ([], set())


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (
            "	int fd;\n	unsigned int out_id;\n",
            "	unsigned int out_id;\n	int fd;\n",
            [
                f"vfio_thing.fd is at 8 in the lab and at 12 in {WHAT}",
                f"vfio_thing.out_id is at 12 in the lab and at 8 in {WHAT}",
            ],
        ),
        (
            "unsigned int out_id;",
            "unsigned short out_id;",
            [f"vfio_thing.out_id has 4 bytes in the lab and 2 bytes in {WHAT}"],
        ),
        (
            "unsigned int out_id;",
            "unsigned int out_name;",
            [f"vfio_thing.out_id is at 12 in the lab, and there is no such field in {WHAT}"],
        ),
        ("';', 100", "';', 101", [f"VFIO_DO is 0x3b64 in the lab and 0x3b65 in {WHAT}"]),
        ("1 << 2", "1L << 33", [f"IOMMU_FLAG is 0x4 in the lab and 0x200000000 in {WHAT}"]),
        (
            "NOBODY -1",
            "NOBODY -2",
            ["VFIO_NOBODY is 0xffffffff in the lab and 0xfffffffe in " + WHAT],
        ),
    ],
    ids=["moved", "resized", "renamed", "ioctl", "large", "negative"],
)
def test_drift(tmp_path: Path, before: str, after: str, expected: list[str]) -> None:
    assert before in STRUCT + NUMBERS
    found, _ = differences(tmp_path, (STRUCT + NUMBERS).replace(before, after))
    assert found == expected


@pytest.mark.parametrize(
    ("before", "after", "absent"),
    [
        ("reserved[8];\n", "reserved[8];\n	unsigned long long more;\n", set()),
        ("unsigned char reserved[8];", "unsigned int flags2;\n	unsigned int fault;", set()),
        ("	unsigned int out_id;\n	unsigned char reserved[8];\n", "", {"vfio_thing.out_id"}),
        ("#define VFIO_DO", "#define VFIO_OTHER", {"VFIO_DO"}),
        ("struct vfio_link", "struct vfio_other", {"vfio_link.kind"}),
        ("_IO(';', 100)", "_IO(';', VFIO_BASE)", {"VFIO_DO"}),
    ],
    ids=["extended", "reserved used", "ends before", "no number", "no structure", "of no number"],
)
def test_no_drift(tmp_path: Path, before: str, after: str, absent: set[str]) -> None:
    assert before in STRUCT + NUMBERS
    header = (STRUCT + NUMBERS).replace(before, after)
    assert differences(tmp_path, header) == ([], absent)


def test_headers_without_any_of_it(tmp_path: Path) -> None:
    found, absent = differences(tmp_path, "")
    assert found == []
    assert absent == {item.name for item in definitions()}


def test_headers_that_do_not_compile(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"(?s)headers of v0 do not compile.*unknown type name"):
        differences(tmp_path, "struct vfio_thing { __u32 argsz; };")


def test_every_number_of_the_lab_is_the_kernels() -> None:
    """A name without the kernel's prefix is compared with nothing."""
    found = [vars(module).values() for module in (vfio, container, iommufd)]
    enums = [each for each in chain(*found) if isinstance(each, EnumType) and each.__members__]
    names = {name for each in enums for name in each.__members__}
    others = {name for name in names if not name.startswith(("VFIO_", "IOMMU_"))}
    assert others == {"UNKNOWN"}
    assert {"VFIO_DEVICE_BIND_IOMMUFD", "IOMMU_IOAS_MAP"} <= {item.name for item in drift.items()}
    assert uapi.VfioIrqSet.name_in_c() == "vfio_irq_set"
    assert uapi.VfioIommuType1DmaMap.name_in_c() == "vfio_iommu_type1_dma_map"
