# SPDX-License-Identifier: GPL-2.0-only
"""From what a test raised to whose fault it is."""

from dataclasses import dataclass, replace

from _pytest.outcomes import Failed, Skipped

from lab.agent.errors import AgentTimeout, RemoteError, RemoteFault
from lab.deadline import Overrun
from lab.errors import GuestLost, LabError
from lab.results.verdict import Verdict
from lab.testing import NotApplicable


@dataclass(frozen=True)
class Judgement:
    """A verdict, what happened in words, and the kernel's own report where there is one."""

    verdict: Verdict
    message: str = ""
    splats: tuple[str, ...] = ()


def excused(judgement: Judgement, known: str) -> Judgement:
    """The same, or `known` where a rule is broken as recorded. A splat is never excused."""
    if not known or judgement.verdict is not Verdict.BROKEN or judgement.splats:
        return judgement
    return replace(judgement, verdict=Verdict.KNOWN, message=f"{known}\n{judgement.message}")


def judge(error: BaseException | None, lost: GuestLost | None) -> Judgement:
    """What a test that raised `error` (None: it returned) says.

    `lost` is given when the guest is gone: whatever the test says then, it says of that.

    | what it raised, in a guest that lives         | verdict   | at fault          |
    |-----------------------------------------------|-----------|-------------------|
    | an assertion, an errno, a fault, pytest.fail  | broken    | the kernel        |
    | AgentTimeout: a call that does not return     | broken    | the kernel        |
    | AgentDied                                     | lab-error | the lab           |
    | Overrun: no single call, but the test is late | lab-error | the test          |
    | what no test can mean to raise                | lab-error | the test, the lab |

    Who is at fault where the guest is gone stands in `lab.guest.lost`.
    """
    if isinstance(error, GuestLost):
        lost = lost or error
    if lost and isinstance(error, LabError | Overrun):
        return Judgement(Verdict.GUEST_LOST, str(lost), (lost.splat,) if lost.splat else ())
    match error:
        case None:
            return Judgement(Verdict.KEPT)
        case NotApplicable():
            verdict = Verdict.NOT_APPLICABLE
        case Skipped():
            verdict = Verdict.SKIPPED
        case AssertionError() | RemoteError() | RemoteFault() | AgentTimeout() | Failed():
            verdict = Verdict.BROKEN
        case LabError() | Overrun():
            verdict = Verdict.LAB_ERROR
        case _:
            return Judgement(Verdict.LAB_ERROR, f"{type(error).__name__}: {error}")
    notes = getattr(error, "__notes__", ())
    return Judgement(verdict, "\n".join([str(error) or type(error).__name__, *notes]))
