# SPDX-License-Identifier: GPL-2.0-only
"""vfio-lab: a QEMU-backed end-to-end lab for Linux VFIO and IOMMUFD."""
