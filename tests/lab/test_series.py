# SPDX-License-Identifier: GPL-2.0-only
"""Patched kernels: built beside each other, built after one was killed, and booted.

Each test's patch is one that no cache has seen: its kernel says a word of its own at boot.
"""

import difflib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from lab.cache import Cache
from lab.config import Lab
from lab.kernel.prepare import source_of
from lab.progress import Progress

if TYPE_CHECKING:
    from tests.lab.conftest import SmallLab, Started

# The first of them builds all objects of the base once more, as a place to work on.
pytestmark = pytest.mark.timeout(1500)

KERNEL = "v6.12"
_FILE = "drivers/vfio/vfio_main.c"
_WHERE = '\tpr_info(DRIVER_DESC " version: " DRIVER_VERSION "\\n");\n'
_MAIL = """\
From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: A Developer <dev@kernel.test>
Date: Sun, 22 Nov 2026 12:00:00 +0000
Subject: [PATCH] vfio: say {word}

So that one kernel can be told from another.
---
diff --git a/{file} b/{file}
{diff}"""
_SUITE = """\
import re

from lab.testing import contract

@contract("OWN-1")
def test_says_nothing(guest):
    said = re.findall("the patch says ([a-z]+-[0-9]+)", guest.console.text())
    assert said == [], f"it says {said}"
"""


class Write(Protocol):
    def __call__(self, word: str) -> Path: ...


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a mail whose kernel says a word, and a number that was never there."""
    tree = source_of(KERNEL, Lab.find(Path(__file__).parents[2]), Cache.of_user(), Progress())
    assert tree
    text = (tree.tree() / _FILE).read_text()

    def mail(word: str) -> Path:
        said = f"{word}-{time.time_ns()}"
        patched = text.replace(_WHERE, f'{_WHERE}\tpr_info("the patch says {said}\\n");\n')
        before, after = text.splitlines(keepends=True), patched.splitlines(keepends=True)
        diff = difflib.unified_diff(before, after, f"a/{_FILE}", f"b/{_FILE}")
        file = tmp_path / f"{word}.mbox"
        file.write_text(_MAIL.format(word=said, file=_FILE, diff="".join(diff)))
        return file

    return mail


def _try(lab: "SmallLab", mail: Path) -> "Started":
    return lab.series(mail, "--kernel", KERNEL, "--suite", "first", "--boot-timeout", "60")


def _broken(started: "Started") -> str:
    """What the one test has to say of the patched kernel."""
    outcome = started.outcome(timeout=1200)
    assert outcome.status == 1, outcome.stderr
    (pair,) = outcome.series["broken"]
    assert pair["before"] == "kept"
    return str(pair["message"])


def test_two_at_once_on_one_base(small_lab: "SmallLab", write: Write) -> None:
    """Each gets its own kernel, and its own verdict."""
    small_lab.suite(_SUITE)
    one, two = [_try(small_lab, write(word)) for word in ("one", "two")]
    assert "it says ['one-" in _broken(one)
    assert "it says ['two-" in _broken(two)


@pytest.mark.parametrize("stage", ["apply", "build", "test"])
def test_killed_at_any_point_the_next_one_works(
    small_lab: "SmallLab",
    write: Write,
    stage: str,
) -> None:
    """SIGKILL, so that nothing can be tidied up."""
    small_lab.suite(_SUITE)
    mail = write(stage)
    killed = _try(small_lab, mail)
    assert killed.process.stderr
    for line in killed.process.stderr:
        if line.startswith(f"… {stage} {stage}"):
            break
    else:
        pytest.fail(f"it never came to {stage}")
    time.sleep(1 if stage != "apply" else 0.2)  # amid the work, not before it
    os.kill(killed.process.pid, signal.SIGKILL)
    killed.process.wait()
    assert f"it says ['{stage}-" in _broken(_try(small_lab, mail))


def test_plain_pytest_takes_a_series(small_lab: "SmallLab", write: Write) -> None:
    small_lab.suite(_SUITE)
    words = ("--kernel", KERNEL, "--series", str(write("plain")))
    outcome = small_lab.start_pytest(*words).outcome(timeout=1200)
    assert outcome.status == 1
    assert "it says ['plain-" in outcome.tests["test_says_nothing"]["message"]
    assert outcome.results["kernel"]["name"] == f"{KERNEL} with plain"
