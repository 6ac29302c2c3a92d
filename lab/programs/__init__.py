# SPDX-License-Identifier: GPL-2.0-only
"""C programs for the guest: compiled against a kernel's headers, run there, and read (KTAP)."""
