# SPDX-License-Identifier: GPL-2.0-only
"""Amounts as people write and read them: `90s`, `8h`, `30d`; `500M`, `20G`."""

import re
from collections.abc import Mapping

from lab.errors import ConfigurationError

TIMES = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SIZES = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def seconds_in(text: str, option: str = "") -> float:
    """Seconds in `90s`, `12h`, `30d`, `8w`. Raises ConfigurationError, which names the option."""
    return _number(text, option, TIMES, "a number with s, m, h, d or w behind it, such as 30d")


def bytes_in(text: str, option: str = "") -> int:
    """Bytes in `500M`, `20G` (powers of ten). Raises ConfigurationError, which names the option."""
    return int(
        _number(text.upper(), option, _SIZES, "a number with K, M, G or T behind it, such as 20G")
    )


def in_words(size: int) -> str:
    """Bytes as 1.7 GB, 220 MB, 4 kB."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6)):
        if size >= factor:
            return f"{size / factor:.{1 if size < 10 * factor else 0}f} {unit}"
    return f"{size // 1000} kB"


def _number(text: str, option: str, units: Mapping[str, int], expected: str) -> float:
    found = re.fullmatch(rf"(\d+(?:\.\d+)?)([{''.join(units)}])", text.strip())
    if not found:
        raise ConfigurationError(f"{option} {text}: expected {expected}".lstrip())
    return float(found[1]) * units[found[2]]
