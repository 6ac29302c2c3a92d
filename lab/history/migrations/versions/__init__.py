# SPDX-License-Identifier: GPL-2.0-only
"""The steps, in the order of their numbers."""
