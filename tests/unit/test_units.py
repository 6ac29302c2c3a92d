# SPDX-License-Identifier: GPL-2.0-only
"""Amounts as people write them."""

import pytest

from lab.errors import ConfigurationError
from lab.units import bytes_in, in_words, seconds_in

DAY = 86400


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("5m", 300), ("12h", 43200), ("30d", 30 * DAY), ("8w", 56 * DAY), ("1.5h", 5400)],
)
def test_an_age_has_a_unit(text: str, seconds: float) -> None:
    assert seconds_in(text) == seconds


@pytest.mark.parametrize("text", ["30", "d", "-1d", "30 days", "1y", ""])
def test_what_is_no_age_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"--older-than {text}: expected a number with s"):
        seconds_in(text, "--older-than")


@pytest.mark.parametrize(
    ("text", "size"),
    [("500M", 500 * 10**6), ("20G", 20 * 10**9), ("20g", 20 * 10**9), ("0K", 0), ("1.5T", 1.5e12)],
)
def test_a_size_has_a_unit(text: str, size: int) -> None:
    assert bytes_in(text) == size


@pytest.mark.parametrize("text", ["20", "G", "-1G", "20GB", ""])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"--max-size {text}: expected a number with K"):
        bytes_in(text, "--max-size")


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 kB"), (61440, "61 kB"), (2345678, "2.3 MB"), (115 * 10**6, "115 MB"),
     (1_690_000_000, "1.7 GB"), (71 * 10**9, "71 GB")],
)  # fmt: skip
def test_a_size_is_said_in_few_digits(size: int, text: str) -> None:
    assert in_words(size) == text
