# SPDX-License-Identifier: GPL-2.0-only
"""The lab's structures and numbers against the headers of the kernel under test. No guest."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lab import kernel
from lab.cache import Cache
from lab.cell import Choice
from lab.config import Lab
from lab.errors import DriftError
from lab.kernel import Kernel
from lab.progress import Progress
from lab.testing import lacking, not_applicable
from lab.vfio import drift

ROOT = Path(__file__).parents[2]
VFIO, IOMMUFD = "linux/vfio.h", "linux/iommufd.h"
BIND = "#define VFIO_DEVICE_BIND_IOMMUFD	_IO(VFIO_TYPE, VFIO_BASE + "
LAST = "	__u32 out_ioas_id;\n"  # of struct iommu_ioas_alloc
# What the tests know of kernels after 6.12, and what has gone since.
NEWER = {"VFIO_DEVICE_BIND_FLAG_TOKEN", "vfio_device_bind_iommufd.token_uuid_ptr"}
GONE = {"VFIO_TYPE1_NESTING_IOMMU"}


class Heard(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.words: list[str] = []

    def say(self, text: str) -> None:
        self.words.append(text)


@pytest.fixture
def prepared(choice: Choice) -> Kernel:
    found = kernel.prepare(
        str(choice.kernel), Lab.load(ROOT), Cache.of_user(), Progress(quiet=True)
    )
    if not found.headers:
        raise lacking("a kernel with its headers")
    return replace(found, name="v0")


Changed = Callable[[str, str, str], Kernel]


@pytest.fixture
def changed(prepared: Kernel, tmp_path: Path) -> Changed:
    """The kernel with a word of one header replaced; its base is in the cache `tmp_path`."""
    assert prepared.headers is not None
    base, headers = tmp_path / "kernel" / "base", tmp_path / "headers"
    for folder in (base / "headers", headers):
        shutil.copytree(prepared.headers, folder)
    (base / "provenance.json").touch()

    def change(header: str, before: str, after: str) -> Kernel:
        text = (headers / header).read_text()
        assert text.count(before) == 1
        (headers / header).write_text(text.replace(before, after))
        provenance = {"base": {"name": "v0", "key": "base"}}
        return replace(prepared, name="v0 with x", headers=headers, provenance=provenance)

    return change


def test_nothing_is_misspelt(prepared: Kernel) -> None:
    """What a kernel lacks is taken for newer: so of one that is new, it must be known."""
    assert prepared.headers is not None
    wanted = drift.items()
    values = drift.read(prepared.headers, "it", wanted)
    assert drift.compare(wanted, values, "it") == []
    absent = {item.name for item in wanted if item.expression not in values}
    assert absent <= NEWER or absent <= GONE


def test_a_kernel_without_headers_is_told(prepared: Kernel, tmp_path: Path) -> None:
    heard = Heard()
    drift.check(replace(prepared, headers=None), Cache(tmp_path), heard)
    assert heard.words == [
        "v0 comes without headers: whether the lab's structures are this kernel's is not checked"
    ]


def test_a_host_without_compiler_is_told(
    prepared: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    heard = Heard()
    drift.check(prepared, Cache(tmp_path), heard)
    assert heard.words == ["gcc is not installed: the lab's structures are not checked"]


def test_it_is_compared_once(
    prepared: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drift.check(prepared, Cache(tmp_path), Heard())
    monkeypatch.setattr(drift, "read", lambda *_: pytest.fail("it compiles again"))
    drift.check(prepared, Cache(tmp_path), Heard())


def test_a_field_that_moves(changed: Changed, tmp_path: Path) -> None:
    fields = ("	__s32		iommufd;\n", "	__u32		out_devid;\n")
    kernel = changed(VFIO, "".join(fields), "".join(reversed(fields)))
    for _ in range(2):  # it is not forgotten
        with pytest.raises(DriftError) as error:
            drift.check(kernel, Cache(tmp_path), Heard())
        assert error.value.message.splitlines() == [
            "vfio_device_bind_iommufd.iommufd is at 8 in the lab and at 12 in the headers of "
            "v0 with x",
            "vfio_device_bind_iommufd.out_devid is at 12 in the lab and at 8 in the headers of "
            "v0 with x",
        ]


@pytest.mark.parametrize(
    ("header", "before", "after", "expected"),
    [
        (VFIO, f"{BIND}18)", f"{BIND}98)", "VFIO_DEVICE_BIND_IOMMUFD is 0x3b76 in the lab"),
        (IOMMUFD, LAST, LAST.replace("32", "64"), "out_ioas_id has 4 bytes in the lab"),
        (IOMMUFD, LAST, "	__u32 id;\n", "out_ioas_id is at 8 in the lab and is no longer in"),
        (IOMMUFD, LAST, "", "out_ioas_id is at 8 in the lab and is no longer in"),
        (IOMMUFD, "IOAS_MAP = 0x85", "IOAS_MAP = 0xa5", "IOMMU_IOAS_MAP is 0x3b85 in the lab"),
    ],
    ids=["ioctl", "resized", "renamed", "taken away", "enum"],
)
def test_drift(
    changed: Changed, tmp_path: Path, header: str, before: str, after: str, expected: str
) -> None:
    with pytest.raises(DriftError, match=expected):
        drift.check(changed(header, before, after), Cache(tmp_path), Heard())


def test_a_field_at_the_end_is_how_it_grows(changed: Changed, tmp_path: Path) -> None:
    drift.check(changed(IOMMUFD, LAST, f"{LAST}	__u32 more;\n"), Cache(tmp_path), Heard())


def test_a_field_of_a_later_kernels_may_come_otherwise(changed: Changed, tmp_path: Path) -> None:
    """The lab knows a field behind out_devid that 6.12 has not."""
    kernel = changed(VFIO, "define VFIO_API_VERSION", "define VFIO_API_VERSION")
    if "token_uuid_ptr" in (kernel.headers or tmp_path).joinpath(VFIO).read_text():
        raise not_applicable("this kernel has that field")
    last = "	__u32		out_devid;\n"
    kernel = changed(VFIO, last, f"{last}	__u64		more;\n")
    drift.check(kernel, Cache(tmp_path), Heard())


def test_a_constant_that_goes_is_told(changed: Changed, tmp_path: Path) -> None:
    heard = Heard()
    drift.check(changed(VFIO, "#define VFIO_UNMAP_ALL", "#define VFIO_X"), Cache(tmp_path), heard)
    assert heard.words == ["VFIO_UNMAP_ALL: no longer in the headers of v0 with x"]
