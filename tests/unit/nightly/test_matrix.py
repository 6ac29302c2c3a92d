# SPDX-License-Identifier: GPL-2.0-only
"""What `nightly` in lab.yaml means, and what is refused there."""

from pathlib import Path

import pytest

from lab.config import Lab
from lab.config.nightly import Nightly
from lab.errors import ConfigurationError
from lab.history.model import CellKey
from lab.nightly import matrix
from lab.nightly.drops import Dropped
from tests.unit.nightly.conftest import LAB, NIGHTLY


def cells(lab: Lab, *dropped: Dropped) -> list[str]:
    assert lab.nightly
    return [str(cell) for cell in matrix.cells(lab, lab.nightly, dropped)]


def with_nightly(root: Path, text: str) -> Lab:
    (root / "lab.yaml").write_text(LAB + text)
    return Lab.load(root)


def test_every_kernel_on_every_machine_with_every_suite(lab: Lab) -> None:
    assert cells(lab) == [
        "v6.12 on vtd: contract",
        "v6.12 on narrow: contract",
        "v6.12 on large: selftests",
        "next on vtd: contract",
        "next on narrow: contract",
        "next on large: selftests",
    ]


def test_a_series_is_put_on_its_kernels_alone(lab: Lab) -> None:
    found = cells(lab, Dropped("topic", (), ("next",)))
    assert found[6:] == [
        "next with topic on vtd: contract",
        "next with topic on narrow: contract",
        "next with topic on large: selftests",
    ]


def test_what_fits_an_exclusion_is_left_out(root: Path) -> None:
    text = NIGHTLY + "  exclude: [{kernel: next, machine: 'n*'}, {suite: selftests}]\n"
    assert cells(with_nightly(root, text)) == [
        "v6.12 on vtd: contract",
        "v6.12 on narrow: contract",
        "next on vtd: contract",
    ]


def test_without_machines_it_is_that_of_run(root: Path) -> None:
    lab = with_nightly(root, "nightly: {kernels: [next], suites: [contract]}\n")
    assert cells(lab) == ["next on vtd: contract"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nightly: {kernels: [v6.12]}", "nightly.suites: is missing"),
        ("nightly: {suites: [contrct]}", "did you mean 'contract'?"),
        ("nightly: {suites: [contract], machines: [vdt]}", "did you mean 'vtd'?"),
        ("nightly: {suites: [contract], budget: long}", "budget: long: expected a number with s"),
        ("nightly: {suites: [contract], exclude: [{}]}", "this leaves out every cell"),
        (
            "nightly: {suites: [contract], mail: {to: [a@b], via: pigeon}}",
            "expected file, sendmail, or smtp:",
        ),
        (
            "nightly: {kernels: [v6.12], suites: [contract], series: [{drop: d, kernels: [next]}]}",
            "'next' is not among `kernels`",
        ),
    ],
)
def test_a_slip_is_told_with_its_place(root: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        with_nightly(root, f"{text}\n")
    assert said in caught.value.message
    assert caught.value.message.startswith(f"{root / 'lab.yaml'}:{len(LAB.splitlines()) + 1}: ")


def test_a_budget_is_in_seconds() -> None:
    assert Nightly(suites=("contract",), budget="90m").seconds == 5400.0


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        (CellKey("v6.12+kasan", "vtd", "contract"), "v6.12+kasan--vtd--contract"),
        (CellKey("v6.12", "vtd", "contract", "topic"), "topic--v6.12--vtd--contract"),
    ],
)
def test_a_cells_folder_can_be_read(cell: CellKey, name: str) -> None:
    assert matrix.folder_of(cell) == name


def test_no_two_cells_have_one_folder() -> None:
    alike = [
        CellKey("~/linux@next", "vtd", "contract"),
        CellKey("/linux@next", "vtd", "contract"),
        CellKey("-linux@next", "vtd", "contract"),
        CellKey("a" * 200, "vtd", "contract"),
        CellKey("b" + "a" * 199, "vtd", "contract"),
        CellKey("../..", "vtd", "contract"),
    ]
    names = [matrix.folder_of(cell) for cell in alike]
    assert len(set(names)) == len(alike)
    assert all("/" not in name and not name.startswith(".") for name in names)
