# SPDX-License-Identifier: GPL-2.0-only
"""A bug against a kernel: should it have it, and does it show?"""

from dataclasses import dataclass

from lab.bugs import versions
from lab.bugs.bug import Bug
from lab.cell import series_of
from lab.errors import ConfigurationError
from lab.kernel import Kernel
from lab.kernel.series import Series
from lab.repro.order import Faults, Limits, Order, stress_of
from lab.repro.reproduction import Reproduction
from lab.repro.sign import Expectation

CONFIDENCE = 0.95  # with which a kernel has it not, or an attempt of the affected ones would fail
SECONDS = 300.0  # that one bug may take; what shows too seldom for that is attempted less often


@dataclass(frozen=True)
class Claim:
    """Whether a kernel should have a bug, and why: in words that follow "it"."""

    has: bool
    why: str


def claim_of(bug: Bug, kernel: Kernel, series: Series | None) -> Claim | None:
    """What bug.yaml says of a kernel with this series on it; None where it cannot, as the version
    is not known. Raises ConfigurationError for a `revert` that cannot be read."""
    if bug.revert and series:
        own = series_of(str(bug.revert))
        if own and own.inputs == series.inputs:
            return Claim(True, f"has {bug.revert.name} on it")
    version = versions.of_kernel(kernel)
    if not version:
        return None
    content, name = bug.content, ".".join(map(str, version))
    if versions.has(version, content.affected, content.fixed):
        return Claim(True, f"is {name}, where it is not fixed")
    early = content.affected and version < content.affected
    return Claim(
        False, f"is {name}, {'where it had not come yet' if early else 'where it is fixed'}"
    )


def order_of(bug: Bug) -> Order:
    """The attempts that say with `CONFIDENCE` whether it is there, in `SECONDS` at the most."""
    content = bug.content
    return Order(
        what=content.reproducer if bug.is_test else str(bug.file),
        arguments=content.arguments,
        devices=content.devices,
        mode=content.mode,
        timeout=content.timeout,
        status=content.status,
        expected=Expectation(content.signature) if content.signature else None,
        limits=Limits(times=content.rate.needed(CONFIDENCE), seconds=SECONDS),
        stress=stress_of(content.stress),
        faults=Faults.read(content.fault_injection) if content.fault_injection else None,
    )


def told(bug: Bug, found: Reproduction) -> str:
    """How often it showed, and how often it should have been attempted."""
    needed = bug.content.rate.needed(CONFIDENCE)
    words = f"it showed in {len(found.shown)} of {len(found.attempts)} attempts"
    if found.shown or len(found.attempts) >= needed:
        return words
    return f"{words}, where its rate asks for {needed}"


def broken(bug: Bug, found: Reproduction) -> str:
    """Why a kernel that should not have it has it, with the report."""
    first = found.shown[0]
    sign = first.shown[0]
    lines = [f"{bug.content.title}: {told(bug, found)}: {sign.title}"]
    lines += [f"see {path}" for path in first.evidence[:1]]
    lines += [f"reported in {', '.join(bug.content.reference)}", sign.text or sign.headline]
    return "\n".join(filter(None, lines))


def lacks_variant(bug: Bug, kernel: Kernel) -> str:
    """The fragments that a kernel lacks for it to show, as --kernel has them; empty where none."""
    missing = [name for name in bug.content.variant if name not in kernel.fragments]
    return "".join(f"+{name}" for name in missing)


def complete(found: Reproduction) -> Reproduction:
    """The same. Raises KeyboardInterrupt where it was cut short, and ConfigurationError where not
    one attempt could be made."""
    if not found.finished and not found.failures:
        raise KeyboardInterrupt
    if not found.attempts:
        raise ConfigurationError("no attempt was made")
    return found
