# SPDX-License-Identifier: GPL-2.0-only
"""What of VFIO a kernel has, as far as anybody knows without booting it."""

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

from lab.kernel import versions
from lab.kernel.fragment import Wish, values_of


class Known(StrEnum):
    """An answer; nobody guesses."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class Feature(StrEnum):
    """The value is its symbol in a kernel's configuration."""

    IOMMUFD = "IOMMUFD"
    CDEV = "VFIO_DEVICE_CDEV"

    @property
    def since(self) -> str:
        """The release that brought it."""
        return {Feature.IOMMUFD: "6.2", Feature.CDEV: "6.6"}[self]

    def in_config(self, config: Path | None) -> Known:
        """By the .config that a kernel was built with."""
        if config is None or not config.is_file():
            return Known.UNKNOWN
        return _known(values_of(config.read_text()).get(self, "n") != "n")

    def in_wishes(self, wishes: Iterable[Wish]) -> Known:
        """By what a kernel that is not built yet will be built with: each wish comes true."""
        return _known(any(wish.symbol == self and wish.value != "n" for wish in wishes))

    def in_version(self, version: str) -> Known:
        """By the age of a kernel that somebody else has configured."""
        old = versions.order(version) < versions.order(self.since)
        return Known.NO if old else Known.UNKNOWN


def _known(there: bool) -> Known:
    return Known.YES if there else Known.NO
