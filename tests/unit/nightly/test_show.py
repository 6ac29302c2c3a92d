# SPDX-License-Identifier: GPL-2.0-only
"""What a terminal is told of a night."""

import io
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from lab.history.model import Change, News
from lab.nightly.morning import Morning
from lab.nightly.night import Night, Planned, State
from lab.nightly.show import show
from tests.unit.nightly.conftest import CONTRACT

ESCAPE = "\x1b]0;mine\x07"


def test_what_others_said_does_not_act_on_the_terminal() -> None:
    """A kernel's last words, a mail's subject, a compiler's message."""
    night = Night("20261128T210000Z", "", 60.0)
    night.cells = [Planned(CONTRACT, True, None, State.FAILED, f"panic\n{ESCAPE}", 1)]
    night.trouble = [f"no series: {ESCAPE}"]
    news = News(Change.BROKEN, CONTRACT, message="it broke")
    found = (news, replace(news, message=ESCAPE), replace(news, bisected=ESCAPE))
    console = Console(file=io.StringIO(), width=200)
    show(Morning(night, found, Path("index.html")), console)
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    assert "\x1b" not in said
    assert "\x07" not in said
    assert said.count("x1b]0;mine") == 4
