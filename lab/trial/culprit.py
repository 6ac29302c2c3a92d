# SPDX-License-Identifier: GPL-2.0-only
"""The first bad patch of a series, by halving."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Culprit:
    """The first patch that is bad: one of `first` to `last`, from 1; they are the same unless those
    between cannot be judged. `subject` is that of `last`."""

    first: int
    last: int
    subject: str

    @property
    def is_known(self) -> bool:
        """Whether it is just one."""
        return self.first == self.last

    def __str__(self) -> str:
        which = f"patch {self.last}" if self.is_known else f"one of {self.which}"
        return f"{which}, {self.subject}"

    @property
    def which(self) -> str:
        """The number, or the numbers."""
        return str(self.last) if self.is_known else f"{self.first} to {self.last}"


def first_bad(total: int, is_bad: Callable[[int], bool | None]) -> tuple[int, int]:
    """The first patch after which a series of `total` is bad, as the first and the last that it may
    be; none is applied in good order, all of them in bad.

    `is_bad(count)` judges the first `count` patches; None is what it cannot judge, and the nearest
    others are asked in its place, as `git bisect skip` does.
    """
    good, bad = 0, total
    while between := range(good + 1, bad):
        middle = (good + bad) // 2
        for count in sorted(between, key=lambda each: abs(each - middle)):
            judged = is_bad(count)
            if judged is not None:
                good, bad = (good, count) if judged else (count, bad)
                break
        else:
            break
    return good + 1, bad
