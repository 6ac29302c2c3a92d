# SPDX-License-Identifier: GPL-2.0-only
"""PCI functions: which there are, their drivers, their IOMMU groups."""

import posixpath
from collections import defaultdict

from lab.condition.asking import Question, links, names, texts, together
from lab.condition.detector import Detector, Seen

_FUNCTIONS = "/sys/bus/pci/devices"
_NOTHING = "none"


def _paths() -> Question[dict[str, str]]:
    """Where each function is."""
    return {name: f"{_FUNCTIONS}/{name}" for name in (yield from names(_FUNCTIONS)) or ()}


def _drivers(known: Seen | None) -> Question[Seen | None]:
    del known
    paths = yield from _paths()
    found, wanted = yield from together(
        links(f"{path}/driver" for path in paths.values()),
        texts(f"{path}/driver_override" for path in paths.values()),
    )
    return {
        function: f"{posixpath.basename(found[f'{path}/driver'] or _NOTHING)}"
        f" (driver_override {(wanted[f'{path}/driver_override'] or _NOTHING).strip()})"
        for function, path in paths.items()
    }


def _tell_driver(function: str, before: str | None, now: str | None) -> str:
    if before is None:
        return f"{function} was not there"
    if now is None:
        return f"{function} is gone"
    return f"{function} has the driver {now}, not {before}"


def _groups(known: Seen | None) -> Question[Seen | None]:
    """The numbers do not count: a device that went and came may have another."""
    del known
    paths = yield from _paths()
    found, types = yield from together(
        links(f"{path}/iommu_group" for path in paths.values()),
        texts(f"{path}/iommu_group/type" for path in paths.values()),
    )
    members = defaultdict(list)
    for function, path in paths.items():
        members[found[f"{path}/iommu_group"]].append(function)
    return {
        function: f"{', '.join(members[group])} of type {(type_ or _NOTHING).strip()}"
        for function, path in paths.items()
        if (group := found[f"{path}/iommu_group"])
        and (type_ := types[f"{path}/iommu_group/type"]) is not None
    }


def _tell_group(function: str, before: str | None, now: str | None) -> str:
    return f"{function} is in a group of {now or _NOTHING}, not of {before or _NOTHING}"


DRIVERS = Detector("PCI functions and their drivers", _drivers, _tell_driver)
GROUPS = Detector("IOMMU groups", _groups, _tell_group, needs="CONFIG_IOMMU_SUPPORT")
