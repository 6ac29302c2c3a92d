# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's contract: the rules that tests cite by their id.

The text of the rules is data, `contract.yaml` beside this file. A rule says what it expects for
a flow or for a single mode; where it applies follows from that, and is written nowhere else.

Every rule also means `ALWAYS`, which no rule repeats.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from importlib import resources
from pathlib import PurePath
from types import MappingProxyType
from typing import Any

import yaml

from lab.config import known

FILE = "contract.yaml"
ALWAYS = (
    "no splat on the console, and after the last close the guest is as it was before: pinned "
    "memory, groups, cdevs and driver bindings"
)


class Mode(StrEnum):
    """One of the five ways to a device, in the order of the report's columns.

    The values are the names that the kernel's own selftests use.
    """

    IOMMUFD = "iommufd"
    TYPE1V2 = "vfio_type1v2_iommu"
    TYPE1 = "vfio_type1_iommu"
    COMPAT_TYPE1V2 = "iommufd_compat_type1v2"
    COMPAT_TYPE1 = "iommufd_compat_type1"

    @property
    def short(self) -> str:
        """The name for a table's heading: at most nine characters."""
        return _SHORT[self]

    @property
    def meaning(self) -> str:
        """How user space gets the device, in a few words."""
        return _MEANING[self]


_SHORT = {
    Mode.IOMMUFD: "iommufd",
    Mode.TYPE1V2: "type1v2",
    Mode.TYPE1: "type1",
    Mode.COMPAT_TYPE1V2: "compat-v2",
    Mode.COMPAT_TYPE1: "compat-v1",
}

_MEANING = {
    Mode.IOMMUFD: "device cdev, bound to an iommufd",
    Mode.TYPE1V2: "group in a container, type1v2",
    Mode.TYPE1: "group in a container, type1 (v1 unmap rules)",
    Mode.COMPAT_TYPE1V2: "group, an iommufd as its container, type1v2",
    Mode.COMPAT_TYPE1: "group, an iommufd as its container, type1",
}

_EVERY = tuple(Mode)
_CONTAINER = (Mode.TYPE1V2, Mode.TYPE1)
_COMPAT = (Mode.COMPAT_TYPE1V2, Mode.COMPAT_TYPE1)


class Flow(StrEnum):
    """What several modes have in common; a rule's expectation is keyed by a flow or a mode."""

    ALL = "all"
    CDEV = "cdev"
    GROUP = "group"
    TYPE1 = "type1"
    COMPAT = "compat"
    NOIOMMU = "noiommu"

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes that take this flow; none for noiommu, which is no way to an IOMMU."""
        return _MODES_OF[self]


_MODES_OF = {
    Flow.ALL: _EVERY,
    Flow.CDEV: (Mode.IOMMUFD,),
    Flow.GROUP: (*_CONTAINER, *_COMPAT),
    Flow.TYPE1: _CONTAINER,
    Flow.COMPAT: _COMPAT,
    Flow.NOIOMMU: (),
}


@dataclass(frozen=True)
class Rule:
    """One thing that the kernel owes user space.

    `title` is the rule as a statement. `expected` maps a flow or a mode to what user space sees
    there, in the newest kernel. `source` names functions of Linux 6.12 as `path: function`.
    `since` is the first kernel that has the interface, where that is later than the oldest with a
    device cdev (6.6); `changed` maps a kernel version to what is different from it on.
    """

    id: str
    section: str
    title: str
    procedure: str
    expected: Mapping[str, str]
    source: tuple[str, ...]
    since: str | None = None
    changed: Mapping[str, str] = field(default_factory=dict)

    @property
    def modes(self) -> tuple[Mode, ...]:
        """Where the rule applies, in the order of Mode. Empty for a rule outside the modes."""
        found = {mode for key in self.expected for mode in _modes_of(key)}
        return tuple(mode for mode in Mode if mode in found)


@cache
def rules() -> Mapping[str, Rule]:
    """Every rule by its id, in the contract's order. Read on the first call.

    Raises ConfigurationError for a flow that is none.
    """
    text = resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8")
    content: dict[str, dict[str, dict[str, Any]]] = yaml.load(text, Loader=_LOADER)
    found = {
        id_: _rule(id_, section, fields)
        for section, entries in content.items()
        for id_, fields in entries.items()
    }
    return MappingProxyType(found)


def rule(id_: str) -> Rule:
    """The rule with this id. Raises ConfigurationError, with near ids, for one there is not."""
    return rules()[known("rule", id_, rules())]


def concerned(files: Iterable[str]) -> list[str]:
    """The rules that the kernel keeps in these files, in the contract's order.

    Of a file that no rule names: those that are kept beside it, or in the code of a header.
    """
    sources = {
        id_: {source.partition(":")[0] for source in rule.source} for id_, rule in rules().items()
    }
    cited = set().union(*sources.values())
    places = [
        _BEHIND.get(file, file if file in cited else f"{PurePath(file).parent}/") for file in files
    ]
    return [
        id_ for id_, found in sources.items() if any(_lies(f, p) for f in found for p in places)
    ]


def _lies(file: str, place: str) -> bool:
    """Whether it is the place, or lies below it, if that is a folder."""
    return file == place or (place.endswith("/") and file.startswith(place))


# The code that a header is for.
_BEHIND = {
    "include/uapi/linux/vfio.h": "drivers/vfio/",
    "include/linux/vfio.h": "drivers/vfio/",
    "include/linux/vfio_pci_core.h": "drivers/vfio/pci/",
    "include/uapi/linux/iommufd.h": "drivers/iommu/iommufd/",
    "include/linux/iommufd.h": "drivers/iommu/iommufd/",
    "include/linux/iommu.h": "drivers/iommu/",
}


# The C loader is ten times as fast, and every run reads the contract; PyYAML may be without it.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _rule(id_: str, section: str, fields: Mapping[str, Any]) -> Rule:
    built = Rule(
        id=id_,
        section=section,
        title=fields["title"],
        procedure=fields["procedure"],
        expected=MappingProxyType(fields["expected"]),
        source=tuple(fields["source"]),
        since=fields.get("since"),
        changed=MappingProxyType(fields.get("changed", {})),
    )
    for key in built.expected:
        _modes_of(key)
    return built


def _modes_of(key: str) -> tuple[Mode, ...]:
    if key in list(Mode):
        return (Mode(key),)
    return Flow(known("flow", key, (*Flow, *Mode))).modes
