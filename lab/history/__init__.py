# SPDX-License-Identifier: GPL-2.0-only
"""Every verdict of every night: kept, asked, and compared with what was before."""
