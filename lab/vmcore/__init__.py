# SPDX-License-Identifier: GPL-2.0-only
"""A guest's memory after its end: QEMU's dump read, and made what debuggers open."""
