# SPDX-License-Identifier: GPL-2.0-only
"""What a bisection has found out so far, on disk: the same question, asked again, goes on there."""

import itertools
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from lab.cache import key_of
from lab.results.folder import runs
from lab.results.record import Written

FILE = "bisect.json"
_UNSAFE = re.compile(r"[^A-Za-z0-9_.]+")
_LONGEST = 60  # characters of a folder's name


class Verdict(StrEnum):
    """What a kernel is; the value is git's word."""

    GOOD = "good"
    BAD = "bad"
    SKIP = "skip"


@dataclass(frozen=True)
class Judgement(Written):
    """It showed in so many `of` so many attempts; `why` a kernel cannot be judged. `run` is the
    folder of the attempts."""

    verdict: Verdict
    shown: int = 0
    of: int = 0
    why: str = ""
    run: str = ""


@dataclass
class Memory(Written):
    """The content of bisect.json.

    `question` is all that decides the answer; `measured` is how often it showed on the bad end;
    `judged` are kernels by their names; `found` is the answer in words, empty until there is one.
    """

    question: Mapping[str, Any]
    folder: Path
    measured: Judgement | None = None
    judged: dict[str, Judgement] = field(default_factory=dict)
    found: str = ""

    @classmethod
    def of(cls, question: Mapping[str, Any], *, anew: bool = False) -> "Memory":
        """What is known of a question; with `anew` that is forgotten."""
        folder = runs().parent / "bisect" / key_of(question)
        if anew:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / FILE).exists():
            return cls.from_json(json.loads((folder / FILE).read_text()))
        return cls(question, folder)

    def keep(self, name: str, judgement: Judgement) -> None:
        """A kernel has been judged."""
        self.judged[name] = judgement
        self.write()

    def write(self) -> None:
        """Put it on disk."""
        self.save(self.folder / FILE)

    def place(self, name: str) -> Path:
        """A new folder's path for attempts on a kernel; an earlier one may have been cut short."""
        readable = _UNSAFE.sub("-", name).strip("-.")[-_LONGEST:]
        for number in itertools.count(1):
            path = self.folder / "steps" / (readable if number == 1 else f"{readable}-{number}")
            if not path.exists():
                return path
        raise AssertionError("numbers do not end")
