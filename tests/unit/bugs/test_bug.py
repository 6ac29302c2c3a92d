# SPDX-License-Identifier: GPL-2.0-only
"""bug.yaml, and which versions have a bug."""

from pathlib import Path

import pytest

from lab.bugs.bug import FILE, Bug
from lab.bugs.versions import has, parse
from lab.errors import ConfigurationError

WHOLE = """\
title: "vfio/pci: something is freed"
reference: CVE-2024-26812
affected: "3.6"
fixed: [6.1.85, "6.9"]
reproducer: repro.sh
mode: vfio_type1v2_iommu
signature: "KASAN: use-after-free in vfio_…"
rate: {shown: 3, of: 100}
"""


def loaded(folder: Path, text: str) -> Bug:
    (folder / FILE).write_text(text)
    (folder / "repro.sh").write_text("#!/bin/sh\n")
    return Bug.load(folder / FILE)


def test_a_whole_one(tmp_path: Path) -> None:
    bug = loaded(tmp_path, WHOLE)
    content = bug.content
    assert (content.affected, content.fixed) == ((3, 6, 0), ((6, 1, 85), (6, 9, 0)))
    assert content.reference == ("CVE-2024-26812",)
    assert bug.file == tmp_path / "repro.sh"
    assert content.rate.needed(0.95) == 363  # the rate is at least 0.83 %


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("affected:", "afected:", r":3: afected: no such key; expected one of title, "),
        ('affected: "3.6"', "affected: 3.6", r":3: affected: expected a version in quotation"),
        ("[6.1.85", "[soon", r":4: fixed\.0: expected a version, as"),
        ("repro.sh", "gone.c", r":5: reproducer: gone\.c is not beside it"),
        ("type1v2", "type3", r":6: mode: Input should be"),
        ("shown: 3", "shown: 300", r":8: rate: expected `shown` to be no more than `of`"),
        ("title:", "# title:", r": title: is missing"),
    ],
)
def test_an_error_says_where(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"bug\.yaml.*{words}"):
        loaded(tmp_path, WHOLE.replace(old, new))


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("6.12.117", (6, 12, 117)),
        ("6.13-rc2", (6, 13, 0)),
        ("6.1.76-1+deb12u1", (6, 1, 76)),
        ("v7.3.4~bpo13", (7, 3, 4)),
        ("next", None),
    ],
)
def test_a_version(text: str, version: tuple[int, int, int] | None) -> None:
    assert parse(text) == version


@pytest.mark.parametrize(
    ("version", "there"),
    [
        ("3.5.9", False),  # not yet
        ("3.6", True),
        ("6.1.84", True),
        ("6.1.85", False),
        ("6.7.12", True),  # a branch that never got the fix
        ("6.9", False),
        ("6.12.8", False),
        ("7.0", False),
    ],
)
def test_a_bug_that_was_fixed_in_two_branches(version: str, there: bool) -> None:
    numbers = parse(version)
    assert numbers
    assert has(numbers, (3, 6, 0), [(6, 1, 85), (6, 9, 0)]) is there


def test_a_bug_that_nobody_has_fixed() -> None:
    assert has((7, 3, 4), None, [])
