# SPDX-License-Identifier: GPL-2.0-only
"""How often something shows, and how sure that is.

Intervals are Clopper's and Pearson's: exact, and never narrower than they say. Their lower end is
right also where attempts ended with the first that showed, since P(the first is the n-th or an
earlier one) is P(at least one of n).
"""

import math

CONFIDENCE = 0.95  # of an interval
_HALVINGS = 60


def interval(shown: int, attempts: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Between which rates the true one lies, 0 to 1; (0, 1) where nothing was attempted."""
    outside = (1 - confidence) / 2
    return lower(shown, attempts, 1 - outside), 1 - lower(attempts - shown, attempts, 1 - outside)


def lower(shown: int, attempts: int, confidence: float = CONFIDENCE) -> float:
    """The rate that the true one is at least, one-sided."""
    if shown == 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _at_least(shown, attempts, middle) < 1 - confidence:
            low = middle
        else:
            high = middle
    return low


def needed(rate: float, confidence: float) -> int:
    """How many quiet attempts say, with this confidence, that it is not there: of something that
    shows at this rate (0 < rate <= 1) so many in a row would be as unlikely as that."""
    if rate >= 1.0:
        return 1
    return math.ceil(math.log(1 - confidence) / math.log1p(-rate))


def _at_least(shown: int, attempts: int, rate: float) -> float:
    """P(X >= shown) where X is binomial."""
    fewer = (_exactly(number, attempts, rate) for number in range(shown))
    return 1 - math.fsum(fewer)


def _exactly(number: int, attempts: int, rate: float) -> float:
    if rate in (0.0, 1.0):
        return float(number == attempts * rate)
    ways = math.lgamma(attempts + 1) - math.lgamma(number + 1) - math.lgamma(attempts - number + 1)
    return math.exp(ways + number * math.log(rate) + (attempts - number) * math.log1p(-rate))
