# SPDX-License-Identifier: GPL-2.0-only
"""The page that one looks at in the morning: what a night broke, as HTML that needs no server."""

from lab.page.write import INDEX, write_pages

__all__ = ["INDEX", "write_pages"]
