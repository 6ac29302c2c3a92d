# SPDX-License-Identifier: GPL-2.0-only
"""What is asked of a night in place of what lab.yaml says."""

import pytest

from lab.commands.nightly import Wish, wanted
from lab.config import Lab
from lab.errors import ConfigurationError


def test_a_kernel_that_there_is_not_costs_no_night(lab: Lab) -> None:
    with pytest.raises(ConfigurationError, match=r"unknown kernel: 'v6\.21'"):
        wanted(lab, Wish(kernels=("v6.21",)))
