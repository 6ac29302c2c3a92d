# SPDX-License-Identifier: GPL-2.0-only
"""What the contract's tests share, beside the devices of `lab.plugin.devices`."""

import pytest


@pytest.fixture(autouse=True)
def _applicable(applicable: None) -> None:
    """Every rule is about a device, and in the columns of a mode about that mode."""
