# SPDX-License-Identifier: GPL-2.0-only
"""The command line as a whole: its name, its exit status, its help."""

import sys
from collections.abc import Iterator

import pytest
import typer

from lab.cli import app, main
from lab.errors import ConfigurationError


def _commands() -> Iterator[tuple[str, ...]]:
    group = typer.main.get_command(app)
    for name, command in getattr(group, "commands", {}).items():
        below = getattr(command, "commands", {})
        yield from ((name, each) for each in below) if below else ((name,),)


def _status(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["/somewhere/lab/__main__.py", *words])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(sys.stdout, "reconfigure", lambda **_: None, raising=False)
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConfigurationError("no such rule", hint="look"), "vfio-lab: no such rule\n  look\n"),
        (KeyboardInterrupt(), "vfio-lab: interrupted\n"),
        (ZeroDivisionError(), "ZeroDivisionError\nvfio-lab: this is an error of the lab's own\n"),
    ],
)
def test_no_error_of_the_lab_ends_with_the_status_of_a_broken_rule(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    said: str,
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr("lab.commands.living.show_living", fail)
    assert _status(monkeypatch, "guests") == 2
    out, err = capsys.readouterr()
    assert said in err
    assert not out


def test_it_is_called_by_the_name_that_people_type(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _status(monkeypatch, "guests", "--jsn") == 2
    assert "Usage: vfio-lab guests" in capsys.readouterr().err


@pytest.mark.parametrize("command", list(_commands()), ids=" ".join)
def test_each_option_has_words_and_each_value_a_name(command: tuple[str, ...]) -> None:
    asked = typer.main.get_command(app)
    for name in command:
        asked = getattr(asked, "commands")[name]  # noqa: B009 (typer's own types do not tell)
    if asked.hidden:
        return
    for parameter in asked.params:
        assert getattr(parameter, "help", None), parameter.name
        named = parameter.metavar or getattr(parameter, "is_flag", False)
        assert named, f"{parameter.name} would be told by Python's type"
        assert not (parameter.metavar or "").startswith("["), "typer has brackets of its own"
