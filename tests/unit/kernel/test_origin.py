# SPDX-License-Identifier: GPL-2.0-only
from collections.abc import Mapping
from typing import Any

import pytest

from lab.kernel.origin import origin_of

PACKAGE = {"name": "linux-source-6.12", "version": "6.12.57-1", "suite": "bookworm"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (PACKAGE, "linux-source-6.12 6.12.57-1"),
        ({"package": "linux-source-6.12", "version": "6.12.57-1"}, "linux-source-6.12 6.12.57-1"),
        ({"git": "~/linux", "ref": "next", "commit": COMMIT}, "~/linux at 0123456789ab"),
        ({"commit": COMMIT}, "at 0123456789ab"),
        ({"tarball": "/tmp/linux-6.12.tar.xz", "sha256": "ab"}, "linux-6.12.tar.xz"),
        ({"base": PACKAGE, "series": "a.mbox"}, "linux-source-6.12 6.12.57-1 with a series"),
        ({"packages": [PACKAGE, PACKAGE]}, "linux-source-6.12 6.12.57-1 and 1 more"),
    ],
)
def test_a_source_is_told_in_a_few_words(source: Mapping[str, Any], words: str) -> None:
    assert origin_of(source) == words


def test_a_source_that_is_not_known_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        origin_of({"sha256": "ab"})
