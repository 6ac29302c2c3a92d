# SPDX-License-Identifier: GPL-2.0-only
"""Where a plot has its points and its words."""

import pytest

from lab.page.plot import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Curve, Plot, shown

NIGHTS = [f"202611{day:02}T210000Z" for day in range(1, 6)]


def plot(*values: float | None) -> Plot:
    return Plot("trouble", "tests", NIGHTS[: len(values)], [Curve("trouble", values)])


def test_curve_goes_from_edge_to_edge() -> None:
    it = plot(0, 4)
    assert it.lines(it.curves[0]) == [f"{LEFT}.0,{HEIGHT - BOTTOM}.0 {WIDTH - RIGHT}.0,{TOP}.0"]


def test_curve_is_torn_where_a_night_has_no_value() -> None:
    it = plot(1, None, 2, 2, None)
    lines = it.lines(it.curves[0])
    assert [len(line.split()) for line in lines] == [1, 2]
    assert len(it.dots(it.curves[0])) == 3


def test_nothing_but_zero_is_a_line_at_the_bottom() -> None:
    it = plot(0, 0)
    assert [point.split(",")[1] for point in it.lines(it.curves[0])[0].split()] == ["112.0"] * 2


@pytest.mark.parametrize(
    ("most", "ticks"),
    [
        (4, "0 1 2 3 4"),
        (7, "0 2 4 6 8"),
        (1980, "0 500 1,000 1,500 2,000"),
        (0.9, "0 0.25 0.5 0.75 1"),
    ],
)
def test_axis_has_round_numbers_and_room_for_the_largest(most: float, ticks: str) -> None:
    assert " ".join(tick.text for tick in plot(0, most).rows) == ticks


def test_axis_names_the_first_night_and_the_last() -> None:
    assert [tick.text for tick in plot(1, 2, 3, 4, 5).columns] == ["01 Nov", "03 Nov", "05 Nov"]
    assert [tick.text for tick in plot(1, 2).columns] == ["01 Nov", "02 Nov"]


def test_plot_is_told_in_words() -> None:
    words = plot(3, None, 12, 5).words
    assert words == "01 Nov 2026 to 04 Nov 2026, tests. trouble: 5 at the end, from 3 to 12."
    assert Curve("boot", [None, None]).said == "boot: never measured"


@pytest.mark.parametrize(("value", "text"), [(5.0, "5"), (3.14159, "3.14"), (1234.5, "1,234")])
def test_number_has_few_digits(value: float, text: str) -> None:
    assert shown(value) == text
