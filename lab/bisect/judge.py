# SPDX-License-Identifier: GPL-2.0-only
"""Is a kernel bad? What shows only now and then is attempted as often as its rate asks for."""

from dataclasses import dataclass, replace
from pathlib import Path

from lab.bisect.memory import Judgement, Memory, Verdict
from lab.cell import Choice
from lab.config import Lab
from lab.errors import BuildError, ConfigurationError, GuestLost, InfrastructureError, LabError
from lab.progress import Progress
from lab.repro import rate as rates
from lab.repro.order import Limits, Order
from lab.repro.reproduction import Reproduction
from lab.repro.run import attempt_in
from lab.repro.show import percent
from lab.results.replay import REPRO
from lab.session import Session

_MEASURED = 5  # attempts that have to show it, until its rate is known well enough
_UNJUDGED = (BuildError, ConfigurationError, GuestLost)  # it does not apply, build, boot, or run


@dataclass(frozen=True)
class Candidate:
    """A kernel that may be judged. `name` is the same tomorrow, `title` is for people."""

    name: str
    title: str
    choice: Choice


@dataclass(frozen=True)
class Judge:
    """Judges kernels by `order`, whose limits it sets itself.

    `confidence` is that with which a kernel is called good; `rate` is how often a bad one shows
    it, 0 to 1, where somebody knows that: otherwise it is measured, for `seconds` at the most.
    """

    lab: Lab
    order: Order
    memory: Memory
    progress: Progress
    confidence: float
    seconds: float
    rate: float | None = None

    def bad_end(self, candidate: Candidate) -> None:
        """Measure on the kernel that is known as bad how often it shows.

        Raises ConfigurationError where it does not show there, and LabError.
        """
        if not self.memory.measured:
            shown = 1 if self.rate else _MEASURED
            found, run = self._attempted(candidate, Limits(seconds=self.seconds, shown=shown))
            if not found.shown:
                raise ConfigurationError(
                    f"{candidate.title} is not bad: it did not show in {len(found.attempts)} "
                    "attempts",
                    hint="`vfio-lab repro` finds out how often it does, and --measure says for "
                    "how long it is waited for",
                )
            self.memory.measured = _judgement(Verdict.BAD, found, run)
            self.memory.keep(candidate.name, self.memory.measured)
        self._say(candidate, self.memory.measured)
        self.progress.say(
            f"it shows in {percent(self.least)} of the attempts at least: {self.needed} quiet ones "
            f"are a good kernel, with {percent(self.confidence)} confidence"
        )

    @property
    def least(self) -> float:
        """The rate that is reckoned with: the one that was named, or what was measured at least."""
        measured = self.memory.measured
        assert measured
        return self.rate or rates.lower(measured.shown, measured.of)

    @property
    def needed(self) -> int:
        """How many quiet attempts are a good kernel."""
        return rates.needed(self.least, self.confidence)

    def good_end(self, candidate: Candidate) -> None:
        """Raises ConfigurationError where the kernel that is known as good is not, and LabError."""
        judged = self.memory.judged.get(candidate.name) or self._judged(candidate)
        self.memory.keep(candidate.name, judged)
        self._say(candidate, judged)
        if judged.verdict is Verdict.BAD:
            raise ConfigurationError(
                f"{candidate.title} is not good: it showed in attempt {judged.of}, see {judged.run}"
            )

    def judge(self, candidate: Candidate) -> Verdict:
        """What a kernel between them is. Raises LabError where the lab fails."""
        known = self.memory.judged.get(candidate.name)
        if not known:
            try:
                known = self._judged(candidate)
            except _UNJUDGED as error:
                known = Judgement(Verdict.SKIP, why=error.message.partition("\n")[0])
            self.memory.keep(candidate.name, known)
        self._say(candidate, known)
        return known.verdict

    def _judged(self, candidate: Candidate) -> Judgement:
        found, run = self._attempted(candidate, Limits(times=self.needed))
        if not found.shown and len(found.attempts) < self.needed:
            raise InfrastructureError("; ".join(found.failures) or "too few attempts were made")
        return _judgement(Verdict.BAD if found.shown else Verdict.GOOD, found, run)

    def _attempted(self, candidate: Candidate, limits: Limits) -> tuple[Reproduction, Path]:
        order = replace(self.order, limits=limits)
        session = Session(
            self.lab,
            candidate.choice,
            self.progress,
            out=self.memory.place(candidate.name),
            selection=[order.what, *order.arguments],
            words=order.words(),
            command=REPRO,
        )
        self.progress.say(f"— {candidate.title}")
        try:
            found = attempt_in(session, order)
        except LabError as error:
            session.add_trouble(error)
            session.close(finished=True)
            raise
        except KeyboardInterrupt:
            session.close(finished=False)
            raise
        if not found.finished and not found.failures:
            raise KeyboardInterrupt
        return found, session.folder.path

    def _say(self, candidate: Candidate, judged: Judgement) -> None:
        told = judged.why or f"it showed in {judged.shown} of {judged.of}"
        self.progress.say(f"{judged.verdict.value:4} {candidate.title}: {told}")


def _judgement(verdict: Verdict, found: Reproduction, run: Path) -> Judgement:
    return Judgement(verdict, len(found.shown), len(found.attempts), run=str(run))
