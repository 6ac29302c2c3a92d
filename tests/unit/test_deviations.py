# SPDX-License-Identifier: GPL-2.0-only
"""What kernels/known.yaml records, and which test of which kernel it is about."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest

from lab.config import Lab
from lab.contract import Mode
from lab.deviations import FILE, read
from lab.errors import ConfigurationError

ENTRY = """\
# a comment
- rule: OWN-3
  mode: iommufd
  test: test_second_bind
  machine: vtd
  since: "6.6"
  before: "6.12.9"
  why: the second bind is let through
  reference: commit 0123456789ab
"""


class LabOf:
    """As much of a lab as is asked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.machines = ("vtd", "vtd-scalable")


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    (tmp_path / "kernels").mkdir()
    return cast("Lab", LabOf(tmp_path))


def record(lab: Lab, text: str) -> None:
    (lab.root / FILE).write_text(text)


def covered(lab: Lab, changes: Mapping[str, object], text: str = ENTRY) -> bool:
    """Whether the one entry covers the test that it is written for, with these changes."""
    record(lab, text)
    (deviation,) = read(lab)
    about: dict[str, object] = {
        "rule": "OWN-3",
        "mode": Mode.IOMMUFD,
        "test": "test_second_bind",
        "machine": "vtd",
        "release": "6.12.8-lab",
    }
    return deviation.covers(**{**about, **changes})  # type: ignore[arg-type]


def test_without_a_file_nothing_is_known(lab: Lab) -> None:
    assert read(lab) == ()


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "[]\n"])
def test_an_empty_file_records_nothing(lab: Lab, text: str) -> None:
    record(lab, text)
    assert read(lab) == ()


def test_the_labs_own_file_can_be_read() -> None:
    read(Lab.load(Path(__file__).parents[2]))


def test_an_entry_covers_what_it_is_written_for(lab: Lab) -> None:
    assert covered(lab, {})


@pytest.mark.parametrize(
    "other",
    [
        {"rule": "OWN-4"},
        {"mode": Mode.TYPE1},
        {"mode": None},
        {"test": "test_other"},
        {"machine": "vtd-scalable"},
        {"release": "6.5.13"},
        {"release": "6.12.9"},
        {"release": "6.13.0-rc1"},
        {"release": None},
    ],
    ids=str,
)
def test_an_entry_covers_nothing_else(lab: Lab, other: dict[str, object]) -> None:
    assert not covered(lab, other)


@pytest.mark.parametrize("release", ["6.6", "6.6.0-rc1", "6.11.99", "6.12", "6.12.8"])
def test_a_range_has_its_first_and_not_its_end(lab: Lab, release: str) -> None:
    assert covered(lab, {"release": release})


@pytest.mark.parametrize(
    "other",
    [{"mode": Mode.TYPE1}, {"test": "test_other"}, {"machine": None}, {"release": "7.3.4"},
     {"release": None}],
    ids=str,
)  # fmt: skip
def test_what_an_entry_does_not_say_does_not_matter(lab: Lab, other: dict[str, object]) -> None:
    short = "- {rule: OWN-3, why: it does, reference: a commit}\n"
    assert covered(lab, other, short)


def test_it_says_why_and_where_it_stands(lab: Lab) -> None:
    record(lab, ENTRY)
    (deviation,) = read(lab)
    assert str(deviation) == (
        "the second bind is let through (commit 0123456789ab; kernels/known.yaml:2)"
    )


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("rule: OWN-3", "rule: OWN-33",
         "known.yaml:2: 0.rule: unknown rule: 'OWN-33' is not known; expected one of OWN-1"),
        ("mode: iommufd", "mode: cdev", "known.yaml:3: 0.mode: Input should be 'iommufd'"),
        ("machine: vtd", "machine: vtt",
         "known.yaml:5: 0.machine: unknown machine: 'vtt' is not known; expected one of vtd"),
        ('since: "6.6"', "since: 6.6", "known.yaml:6: 0.since: expected text"),
        ('since: "6.6"', 'since: "v6.6"', "known.yaml:6: 0.since: String should match pattern"),
        ('before: "6.12.9"', 'before: "6.6"', "known.yaml:7: 0.before: expected a release after"),
        ("  why: the second bind is let through\n", "", "known.yaml:2: 0.why: is missing"),
        ("  reference: ", "  referense: ", "known.yaml:9: 0.referense: no such key"),
        ("  machine: vtd", "  machines: vtd", "known.yaml:5: 0.machines: no such key"),
        ("- rule", "rule", "known.yaml:3: not YAML"),
    ],
)  # fmt: skip
def test_a_slip_is_named_with_its_line(lab: Lab, old: str, new: str, expected: str) -> None:
    assert ENTRY.count(old) == 1
    record(lab, ENTRY.replace(old, new))
    with pytest.raises(ConfigurationError) as caught:
        read(lab)
    assert caught.value.message.startswith(f"{lab.root}/kernels/{expected}")
