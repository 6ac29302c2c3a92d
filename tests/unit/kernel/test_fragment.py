# SPDX-License-Identifier: GPL-2.0-only
"""What a fragment asks for, and whether a .config has it."""

from pathlib import Path

import pytest

from lab.errors import ConfigurationError
from lab.kernel.fragment import Wish, meaning, merge, read, text_of, values_of


def wish(value: str) -> Wish:
    return Wish("X", value, Path("a.config"), 1)


def test_a_fragment_asks_for_values_and_for_absence(tmp_path: Path) -> None:
    file = tmp_path / "a.config"
    file.write_text('# why\nCONFIG_A=y\n\n# CONFIG_B is not set\nCONFIG_C="a b"\nCONFIG_D=0x10\n')
    found = [(wish.symbol, wish.value, wish.line) for wish in read(file)]
    assert found == [("A", "y", 2), ("B", "n", 4), ("C", '"a b"', 5), ("D", "0x10", 6)]


def test_its_first_comment_says_what_it_is_for(tmp_path: Path) -> None:
    file = tmp_path / "a.config"
    file.write_text("# SPDX-License-Identifier: GPL-2.0-only\n# Why.\n# And how.\nCONFIG_A=y\n")
    assert meaning(file) == "Why."
    file.write_text("CONFIG_A=y\n")
    assert meaning(file) == ""


@pytest.mark.parametrize("line", ["CONFIG_A", "CONFIG_A y", "A=y", "# CONFIG_A is unset"])
def test_a_line_that_asks_for_nothing_is_an_error_with_its_place(tmp_path: Path, line: str) -> None:
    file = tmp_path / "a.config"
    file.write_text(f"# why\n{line}\n")
    with pytest.raises(ConfigurationError, match=r"a\.config:2: .* expected CONFIG_NAME=VALUE"):
        read(file)


def test_the_last_wish_for_a_symbol_counts() -> None:
    merged = merge([[wish("y"), wish("0x1")], [wish("n")]])
    assert text_of(merged) == "# CONFIG_X is not set\n"


@pytest.mark.parametrize(
    ("asked", "config"),
    [
        ("y", "CONFIG_X=y"),
        ("n", "# CONFIG_X is not set"),
        ("n", ""),
        ("m", "CONFIG_X=m"),
        ("16", "CONFIG_X=0x10"),
        ('"a"', 'CONFIG_X="a"'),
    ],
)
def test_a_wish_is_met(asked: str, config: str) -> None:
    assert wish(asked).is_met_by(values_of(config))


@pytest.mark.parametrize(
    ("asked", "config"),
    [
        ("y", ""),
        ("y", "# CONFIG_X is not set"),
        ("y", "CONFIG_X=m"),
        ("n", "CONFIG_X=y"),
        ("m", "CONFIG_X=y"),
        ("m", ""),
        ("16", "CONFIG_X=16384"),
        ('"a"', 'CONFIG_X="ab"'),
        ("y", "CONFIG_XY=y"),
    ],
)
def test_a_wish_is_not_met(asked: str, config: str) -> None:
    assert not wish(asked).is_met_by(values_of(config))
