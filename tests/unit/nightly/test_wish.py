# SPDX-License-Identifier: GPL-2.0-only
"""What is asked of a night in place of what lab.yaml says."""

import pytest
from typer.testing import CliRunner

from lab.cli import app
from lab.commands.nightly import Wish, wanted
from lab.config import Lab
from lab.errors import ConfigurationError


def test_a_kernel_that_there_is_not_costs_no_night(lab: Lab) -> None:
    with pytest.raises(ConfigurationError, match=r"unknown kernel: 'v6\.21'"):
        wanted(lab, Wish(kernels=("v6.21",)))


@pytest.mark.parametrize("other", [("--budget", "2h"), ("--kernel", "v6.12")])
def test_what_was_planned_is_not_asked_for_again(lab: Lab, other: tuple[str, str]) -> None:
    """The night would go on as it was begun, whatever was asked for now."""
    words = ["nightly", "--lab", str(lab.root), "--resume", *other]
    refused = CliRunner().invoke(app, words).exception
    assert isinstance(refused, ConfigurationError)
    assert "goes on with a night" in refused.message
