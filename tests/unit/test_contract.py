# SPDX-License-Identifier: GPL-2.0-only
import os
import re
from pathlib import Path

import pytest

from lab.contract import Flow, Mode, concerned, rule, rules
from lab.errors import ConfigurationError


def test_every_section_has_its_rules_in_order() -> None:
    families: dict[str, list[int]] = {}
    for id_ in rules():
        family, number = id_.split("-")
        families.setdefault(family, []).append(int(number))
    sizes = {family: len(numbers) for family, numbers in families.items()}
    assert sizes == {
        "OWN": 13, "IOAS": 7, "MAP": 12, "CON": 5, "DMA": 8, "IRQ": 4, "REG": 3, "RST": 3,
        "LIFE": 4, "NOIO": 1, "SRV": 1,
    }  # fmt: skip
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in families.values())


def test_a_rule_is_complete() -> None:
    for found in rules().values():
        assert found.title, found.id
        assert found.procedure, found.id
        assert found.expected, found.id
        assert found.source, found.id
        assert len(found.title) <= 72, f"{found.id}: too long for a row of the report"
        assert not found.title.endswith("."), found.id


@pytest.mark.parametrize(
    ("id_", "modes"),
    [
        ("OWN-4", (Mode.IOMMUFD,)),
        ("OWN-6", (Mode.TYPE1V2, Mode.TYPE1, Mode.COMPAT_TYPE1V2, Mode.COMPAT_TYPE1)),
        ("OWN-8", (Mode.IOMMUFD, Mode.COMPAT_TYPE1V2, Mode.COMPAT_TYPE1)),
        ("MAP-7", tuple(Mode)),
        ("DMA-1", tuple(Mode)),
        ("NOIO-1", ()),
    ],
)
def test_a_rule_applies_where_it_expects_something(id_: str, modes: tuple[Mode, ...]) -> None:
    assert rule(id_).modes == modes


def test_flows_cover_the_modes_without_overlap() -> None:
    assert Flow.CDEV.modes + Flow.TYPE1.modes + Flow.COMPAT.modes == Flow.ALL.modes
    assert Flow.GROUP.modes == Flow.TYPE1.modes + Flow.COMPAT.modes


def test_headings_of_modes_differ_and_are_short() -> None:
    assert len({mode.short for mode in Mode}) == len(Mode)
    assert all(len(mode.short) <= 9 for mode in Mode)


def test_an_unknown_rule_names_a_near_one() -> None:
    with pytest.raises(ConfigurationError, match=r"'OWN-33' is not known.*did you mean 'OWN-"):
        rule("OWN-33")


def test_a_source_is_a_file_and_a_function() -> None:
    form = re.compile(r"[a-z0-9_/-]+\.c: \w+( \(6\.\d+\))?")
    for found in rules().values():
        for source in found.source:
            assert form.fullmatch(source), f"{found.id}: {source}"


@pytest.mark.skipif(
    "VFIO_LAB_LINUX" not in os.environ, reason="VFIO_LAB_LINUX names no tree of Linux 6.12"
)
def test_sources_are_in_linux_6_12() -> None:
    tree = Path(os.environ["VFIO_LAB_LINUX"])
    for found in rules().values():
        for source in found.source:
            file, function = source.split(": ")
            if "(" not in function:  # else it is of a later version
                text = (tree / file).read_text()
                assert re.search(rf"\b{function}\(", text), f"{found.id}: {source}"


def test_which_rules_a_file_concerns() -> None:
    assert "OWN-2" in concerned(["drivers/vfio/group.c"])
    assert "MAP-1" not in concerned(["drivers/vfio/group.c"])
    order = list(rules())
    several = concerned(["drivers/vfio/vfio_iommu_type1.c", "drivers/vfio/group.c"])
    assert several == sorted(several, key=order.index)
    assert concerned(["drivers/net/tun.c", "Makefile"]) == []


@pytest.mark.parametrize(
    ("file", "near"),
    [
        ("drivers/vfio/pci/vfio_pci_priv.h", "drivers/vfio/pci/vfio_pci_core.c"),
        ("include/uapi/linux/vfio.h", "drivers/vfio/group.c"),
        ("include/uapi/linux/iommufd.h", "drivers/iommu/iommufd/ioas.c"),
    ],
)
def test_a_file_that_no_rule_names_concerns_those_beside_it(file: str, near: str) -> None:
    assert concerned([near])
    assert set(concerned([near])) <= set(concerned([file])) < set(rules())
