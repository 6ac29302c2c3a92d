# SPDX-License-Identifier: GPL-2.0-only
import io
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from lab.contract import rule, rules
from lab.results.explain import explain, listing

TEST = "tests/contract/test_ownership.py::test_a_name_that_is_too_long_to_fit[vfio_type1v2_iommu]"


@contextmanager
def console() -> Iterator[tuple[Console, io.StringIO]]:
    file = io.StringIO()
    yield Console(file=file, width=80), file


def test_a_rule_is_explained_in_full() -> None:
    with console() as (out, file):
        explain(rule("OWN-13"), [TEST], out)
    text = file.getvalue()
    words = " ".join(text.split())
    found = rule("OWN-13")
    assert text.startswith("OWN-13  bad arguments of BIND are refused\nOwnership\n")
    for part in (found.procedure, *found.expected.values(), *found.source, *found.changed.values()):
        assert part in words
    assert f"\n  {TEST}\n" in text
    assert all(len(line) <= 80 for line in text.splitlines() if TEST not in line)


def test_a_rule_without_tests_says_so() -> None:
    with console() as (out, file):
        explain(rule("IOAS-7"), [], out)
    assert "none cites this rule" in file.getvalue()
    assert "  6.18  the kernel has it from here on\n" in file.getvalue()


def test_the_listing_has_every_rule_and_counts_tests() -> None:
    with console() as (out, file):
        listing(rules().values(), {"OWN-3": [TEST, TEST]}, out)
    rows = {line.split()[0]: line.split() for line in file.getvalue().splitlines()}
    assert set(rules()) <= set(rows)
    assert rows["OWN-3"][-2:] == ["all", "2"]
    assert rows["OWN-4"][-1] == "cdev"
    assert rows["OWN-6"][-1] == "group"
