# SPDX-License-Identifier: GPL-2.0-only
"""A variant is measured beside the same kernel without it."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from lab.bench import runs, variants
from lab.bench.figures import figures
from lab.cell import Choice
from lab.config import Lab
from lab.errors import ConfigurationError
from lab.results.record import RunRecord

LAB = Lab.load(Path(__file__).parents[3])


@pytest.mark.parametrize(
    ("spec", "plain"),
    [
        ("v6.12+kasan+lockdep+ubsan", "v6.12"),
        ("v6.12+modules+kcsan", "v6.12+modules"),
        ("src:6.12.8+kmemleak+trace", "src:6.12.8+trace"),
    ],
)
def test_only_what_lab_yaml_calls_a_variant_is_left_out(spec: str, plain: str) -> None:
    assert variants.without_variants(spec, LAB) == plain


@pytest.mark.parametrize("spec", ["v6.12", "v6.12+modules"])
def test_a_kernel_that_is_no_variant(spec: str) -> None:
    with pytest.raises(ConfigurationError, match="no variant of a kernel") as refused:
        variants.measure(LAB, Choice(kernel=spec), 1)
    assert f"{spec}+kasan" in str(refused.value.hint)


def test_both_run_by_turns_and_only_their_tests_count(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str | None] = []

    def run(lab: Lab, choice: Choice, words: Sequence[str]) -> RunRecord:
        del lab, words
        ran.append(choice.kernel)
        slower = 3.0 if choice.kernel == "v6.12+kasan" else 1.0
        waits = {"first_call_seconds": 5.0 * slower, "waited_seconds": 1.0}
        seconds = 20.0 * slower + sum(waits.values())
        return RunRecord("0", "now", seconds, figures={"login_seconds": 2.0 * slower, **waits})

    monkeypatch.setattr(runs, "of", run)
    found = figures(variants.measure(LAB, Choice(kernel="v6.12+kasan"), 2))
    assert ran == ["v6.12", "v6.12+kasan"] * 2
    assert found["tests on v6.12"]["median"] == 20.0
    assert found["tests on v6.12+kasan"]["ratio"] == found["boot on v6.12+kasan"]["ratio"] == 3.0
