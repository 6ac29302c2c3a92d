# SPDX-License-Identifier: GPL-2.0-only
"""A series on trial: its kernel and its base run the same tests, and are compared."""
