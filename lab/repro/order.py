# SPDX-License-Identifier: GPL-2.0-only
"""What is to be attempted, how often, and under what."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lab.cell import SEED
from lab.config import Lab, known
from lab.contract import Mode
from lab.errors import ConfigurationError
from lab.repro.sign import Expectation

DEFAULT_SECONDS = 600.0  # for which it is attempted where nobody says how often or how long
DEFAULT_TIMEOUT = 30.0  # seconds; many a reproducer never ends


class Stress(StrEnum):
    """What makes a guest's life hard; see `lab.repro.stress`."""

    PIN = "pin"
    """The guest's CPUs share one of the host's: they stop each other wherever they are."""
    MEMORY = "memory"
    """Next to no memory is free in the guest; who asks for more gets it late, or not at all."""
    NOISE = "noise"
    """Real-time threads take each of the guest's CPUs for random moments, nice ones the rest."""


@dataclass(frozen=True)
class Faults:
    """Allocations that fail in the program; see `lab.repro.faults`. One of them is set.

    `nth`: in the program's first thread the n-th, counted from its execve; 0: the first in the
    first attempt, the second in the second. `percent`: so many of all that it and its children
    make.
    """

    nth: int | None = None
    percent: int | None = None

    @classmethod
    def read(cls, text: str) -> "Faults":
        """`nth`, `nth=12`, `5%`. Raises ConfigurationError."""
        if found := re.fullmatch(r"nth(?:=([1-9]\d*))?", text):
            return cls(nth=int(found[1] or 0))
        if (found := re.fullmatch(r"(\d+)%", text)) and 0 < int(found[1]) <= 100:
            return cls(percent=int(found[1]))
        raise ConfigurationError(f"fault injection: '{text}': expected nth, nth=12 or 5%")

    def of_attempt(self, number: int) -> "Faults":
        """What an attempt has, the first being 1."""
        return Faults(nth=number) if self.nth == 0 else self

    def __str__(self) -> str:
        if self.percent is not None:
            return f"{self.percent}%"
        return f"nth={self.nth}" if self.nth else "nth"


@dataclass(frozen=True)
class Limits:
    """When to stop: after so many `times`, after so many `seconds`, or when so many have `shown`
    it, whichever comes first; None is no limit."""

    times: int | None = None
    seconds: float | None = None
    shown: int | None = 1

    @property
    def most_seconds(self) -> float | None:
        """After how many no attempt is begun; DEFAULT_SECONDS where nothing was said."""
        return DEFAULT_SECONDS if self.times is None and self.seconds is None else self.seconds


@dataclass(frozen=True)
class Order:
    """What one attempt does, and how often it is made.

    `what` is a C file, a static program, a script, or a test's id as pytest has it. `timeout` is in
    seconds, before the kernel's variant stretches it. `status` is that of a program with which
    nothing is wrong. `jobs` guests at once; None: as many as there is room for. With `reuse` a
    guest in which nothing showed, and that is as it was, serves again. With `keep` what quiet
    attempts leave stays, too.
    """

    what: str
    arguments: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()  # roles of the machine
    mode: Mode | None = None
    timeout: float = DEFAULT_TIMEOUT
    status: int = 0
    expected: Expectation | None = None
    limits: Limits = Limits()
    jobs: int | None = None
    stress: tuple[Stress, ...] = ()
    faults: Faults | None = None
    reuse: bool = False
    keep: bool = False
    seed: int = SEED  # of what is random in --stress

    @property
    def is_test(self) -> bool:
        """Whether it is a test's id."""
        return "::" in self.what

    @property
    def name(self) -> str:
        """What to call it in a table."""
        return self.what.rpartition("::")[2] if self.is_test else Path(self.what).name

    def words(self) -> list[str]:
        """The same for the command line."""
        found = [word for role in self.devices for word in ("--device", role)]
        found += ["--mode", self.mode.value] if self.mode else []
        found += ["--timeout", f"{self.timeout:g}", "--seed", str(self.seed)]
        found += ["--status", str(self.status)] if self.status else []
        found += ["--expect", self.expected.text] if self.expected else []
        found += [word for each in self.stress for word in ("--stress", each.value)]
        found += ["--fault-injection", str(self.faults)] if self.faults else []
        limits = self.limits
        found += ["--times", str(limits.times)] if limits.times else []
        found += ["--for", f"{limits.seconds:g}s"] if limits.seconds else []
        flags = {"keep-going": limits.shown is None, "reuse": self.reuse, "keep": self.keep}
        found += [f"--{name}" for name, given in flags.items() if given]
        found += ["-j", str(self.jobs)] if self.jobs else []
        what = self.what if self.is_test else str(Path(self.what).absolute())
        return [*found, "--", what, *self.arguments]

    def check(self) -> None:
        """Raises ConfigurationError for what cannot go together."""
        if self.is_test and (told := _only_of_programs(self)):
            raise ConfigurationError(
                f"{' and '.join(told)}: {self.what} is a test, and that is for programs"
            )
        if not self.is_test and not Path(self.what).is_file():
            raise ConfigurationError(
                f"{self.what} is no file; expected C (.c), a static program, a script, or the id "
                "of a test: tests/contract/test_x.py::test_y"
            )

    def check_names(self, lab: Lab, machine: str) -> None:
        """Raises ConfigurationError where the lab has no such test's file, or that machine no such
        device."""
        file = lab.path(Path(self.what.partition("::")[0]))
        if self.is_test and not file.exists():
            raise ConfigurationError(f"{self.what}: there is no {file}")
        for role in self.devices:
            known("device", role, lab.machine(machine).devices)


def _only_of_programs(order: Order) -> Sequence[str]:
    given = {
        "--stress": order.stress,
        "--fault-injection": order.faults,
        "--device": order.devices,
        "--mode": order.mode,
        "--status": order.status,
        "--reuse": order.reuse,
        "arguments": order.arguments,
    }
    return [name for name, value in given.items() if value]


def stress_of(names: Iterable[str]) -> tuple[Stress, ...]:
    """The kinds of these names; `all` are all of them. Raises ConfigurationError."""
    wanted = {known("stress", name, [*Stress, "all"]) for name in names}
    return tuple(kind for kind in Stress if wanted & {kind.value, "all"})
