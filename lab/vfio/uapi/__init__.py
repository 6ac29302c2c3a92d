# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's user-space interface: numbers and structures, under the kernel's own names.

Source: include/uapi/linux/vfio.h and include/uapi/linux/iommufd.h, Linux 6.12. Only what the
lab's tests use is here; a new ioctl is a line in an enum and a structure. Every one of them is
compared with the headers of the kernel under test (`lab.vfio.drift`).
"""

from lab.vfio.uapi.container import *  # noqa: F403
from lab.vfio.uapi.iommufd import *  # noqa: F403
from lab.vfio.uapi.layout import Layout as Layout
from lab.vfio.uapi.layout import Structure as Structure
from lab.vfio.uapi.pci import *  # noqa: F403
from lab.vfio.uapi.vfio import *  # noqa: F403
