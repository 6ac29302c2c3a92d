# SPDX-License-Identifier: GPL-2.0-only
"""Intervals, and how many quiet attempts prove something."""

import pytest

from lab.repro.rate import interval, lower, needed


@pytest.mark.parametrize(
    ("shown", "attempts", "low", "high"),
    [  # R's binom.test()
        (3, 100, 0.006230, 0.085176),
        (0, 10, 0.0, 0.308497),
        (10, 10, 0.691503, 1.0),
        (1, 2, 0.012579, 0.987421),
        (0, 0, 0.0, 1.0),
        (500, 1000, 0.468543, 0.531457),
    ],
)
def test_clopper_and_pearson(shown: int, attempts: int, low: float, high: float) -> None:
    assert interval(shown, attempts) == pytest.approx((low, high), abs=1e-5)


def test_one_sided() -> None:
    assert lower(10, 10) == pytest.approx(0.05 ** (1 / 10))
    assert lower(0, 10) == 0.0


def test_the_first_that_shows_is_as_good_as_a_fixed_number() -> None:
    """At the lower end, as many attempts or fewer show it with just the probability left over."""
    rate = lower(1, 20)
    assert 1 - (1 - rate) ** 20 == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("rate", "confidence", "runs"), [(1.0, 0.99, 1), (0.5, 0.99, 7), (0.03, 0.95, 99)]
)
def test_quiet_attempts_that_are_needed(rate: float, confidence: float, runs: int) -> None:
    assert needed(rate, confidence) == runs
    assert rate == 1.0 or (1 - rate) ** runs <= 1 - confidence < (1 - rate) ** (runs - 1)
