# SPDX-License-Identifier: GPL-2.0-only
"""lab.yaml as frozen, validated objects."""

from lab.config.lab import FILE, Lab, known
from lab.config.models import (
    Debian,
    DebSource,
    Device,
    DeviceModel,
    GitSource,
    Iommu,
    Kernel,
    Machine,
    Model,
    PackageSource,
    TarballSource,
    Variant,
    VersionSource,
    bytes_of,
)

__all__ = [
    "FILE",
    "DebSource",
    "Debian",
    "Device",
    "DeviceModel",
    "GitSource",
    "Iommu",
    "Kernel",
    "Lab",
    "Machine",
    "Model",
    "PackageSource",
    "TarballSource",
    "Variant",
    "VersionSource",
    "bytes_of",
    "known",
]
