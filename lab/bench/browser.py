# SPDX-License-Identifier: GPL-2.0-only
"""A real browser without a window, which asks nobody for anything but the pages it is shown."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lab.errors import InfrastructureError

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = (
    "--no-sandbox",  # it shows the lab's own pages alone, and may run as root
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@contextmanager
def browser() -> Iterator["Browser"]:
    """Chromium, driven by Playwright. Raises InfrastructureError where either is missing."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if not found:
        raise InfrastructureError("there is no Chromium", hint="apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415 (it is an extra)
    except ImportError:
        raise InfrastructureError(
            "there is no Playwright", hint="pip install 'vfio-lab[dev]'"
        ) from None
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=list(_ARGUMENTS))
        try:
            yield launched
        finally:
            launched.close()
