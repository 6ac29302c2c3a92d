# SPDX-License-Identifier: GPL-2.0-only
"""A bug against a kernel, and a run that becomes a bug."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.bugs import check
from lab.bugs.bug import FILE, Bug
from lab.bugs.keep import keep
from lab.cell import series_of
from lab.errors import ConfigurationError
from lab.kernel import Kernel
from lab.repro import reproduction
from lab.repro.attempt import Attempt
from lab.repro.order import Faults, Order, Stress
from lab.repro.reproduction import Reproduction
from lab.repro.run import REPRODUCER
from lab.repro.sign import Kind, Sign
from lab.results.folder import RunFolder
from lab.results.record import RunRecord
from tests.unit.bugs.test_bug import WHOLE, loaded

SIGN = Sign(Kind.REPORT, "WARNING in f", "WARNING: CPU: 0", "WARNING: CPU: 0 at f")


def kernel(release: str, provenance: dict[str, Any] | None = None) -> Kernel:
    return Kernel(
        "v6.12", Path("bzImage"), None, None, None, release, None, "key", provenance or {}
    )


@pytest.mark.parametrize(
    ("release", "has", "why"),
    [
        ("6.1.84", True, "is 6.1.84, where it is not fixed"),
        ("6.1.85", False, "is 6.1.85, where it is fixed"),
        ("3.2.1", False, "is 3.2.1, where it had not come yet"),
    ],
)
def test_a_claim(tmp_path: Path, release: str, has: bool, why: str) -> None:
    bug = loaded(tmp_path, WHOLE)
    assert check.claim_of(bug, kernel(release), None) == check.Claim(has, why)


def test_of_debians_kernels_the_packages_version_counts(tmp_path: Path) -> None:
    packages = {"source": {"packages": [{"name": "linux-image", "version": "6.1.76-1"}]}}
    claim = check.claim_of(loaded(tmp_path, WHOLE), kernel("6.1.0-18-amd64", packages), None)
    assert claim
    assert claim.has


def test_a_version_that_nobody_knows(tmp_path: Path) -> None:
    assert check.claim_of(loaded(tmp_path, WHOLE), kernel("next"), None) is None


def test_as_often_as_its_rate_asks_for(tmp_path: Path) -> None:
    bug = loaded(tmp_path, WHOLE)
    order = check.order_of(bug)
    assert order.limits.times == 363
    found = Reproduction(order, "v6.12", "vtd", (Attempt(1, 0.5),), (), 1.0, 1)
    assert check.told(bug, found) == ("it showed in 0 of 1 attempts, where its rate asks for 363")


def test_the_fragments_that_it_wants(tmp_path: Path) -> None:
    bug = loaded(tmp_path, f"{WHOLE}variant: [kasan, lockdep]\n")
    own = kernel("6.1", {"fragments": {"boot": "", "lockdep": ""}})
    assert check.lacks_variant(bug, own) == "+kasan"


def run_of(folder: Path, order: Order, *attempts: Attempt) -> RunFolder:
    run = RunFolder(folder)
    (folder / REPRODUCER).mkdir(parents=True)
    (folder / REPRODUCER / "repro.sh").write_text("#!/bin/sh\n")
    seen = {"release": "6.12.117", "provenance": {"fragments": {"boot": "", "kasan": ""}}}
    run.write(RunRecord("0.1", "now", 1.0, kernel=seen))
    found = Reproduction(order, "v6.12+kasan (6.12.117)", "vtd", attempts, (), 1.0, 1)
    (folder / reproduction.FILE).write_text(json.dumps(found.to_json()))
    return run


def test_a_run_becomes_a_bug(tmp_path: Path) -> None:
    order = Order(
        "/gone/repro.sh",
        arguments=("-v",),
        devices=("edu0",),
        status=2,
        timeout=5.0,
        stress=(Stress.PIN,),
        faults=Faults(nth=12),
    )
    run = run_of(tmp_path / "run", order, Attempt(1, 0.5, (SIGN,)), Attempt(2, 0.5))
    made = keep(run, tmp_path / "bugs" / "f", "A: title", ["https://lore"], ["kasan"])
    again = Bug.load(tmp_path / "bugs" / "f" / FILE)
    assert again == made
    content = again.content
    assert (content.title, content.signature) == ("A: title", "WARNING in f")
    assert (content.variant, content.rate.shown, content.rate.of) == (("kasan",), 1, 2)
    limits = check.order_of(again).limits
    assert check.order_of(again) == replace(
        order, what=str(made.file), expected=check.order_of(again).expected, limits=limits
    )


def test_a_run_in_which_nothing_showed(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", Order("repro.sh"), Attempt(1, 0.5))
    with pytest.raises(ConfigurationError, match="it did not show in 1 attempts"):
        keep(run, tmp_path / "bugs" / "f", None, ["mail"], [])
    assert not (tmp_path / "bugs" / "f").exists()


def test_a_bug_is_not_written_over(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", Order("repro.sh"), Attempt(1, 0.5, (SIGN,)))
    (tmp_path / "bugs").mkdir()
    with pytest.raises(ConfigurationError, match="is there already"):
        keep(run, tmp_path / "bugs", None, ["mail"], [])


def test_a_kernel_with_the_revert_on_it_has_it(tmp_path: Path) -> None:
    """However the patches came: the mail itself counts."""
    mutants = Path(__file__).parents[3] / "kernels" / "mutants"
    mail = (mutants / "own5-unlocked.mbox").read_bytes()
    (tmp_path / "revert.mbox").write_bytes(mail)
    (tmp_path / "elsewhere.mbox").write_bytes(mail)
    bug = loaded(tmp_path, f"{WHOLE}revert: revert.mbox\n")
    series = series_of(str(tmp_path / "elsewhere.mbox"))
    assert check.claim_of(bug, kernel("6.12.117"), series) == check.Claim(
        True, "has revert.mbox on it"
    )
    other = series_of(str(mutants / "own3-access.mbox"))
    claim = check.claim_of(bug, kernel("6.12.117"), other)
    assert claim
    assert not claim.has
