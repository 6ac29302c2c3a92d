# SPDX-License-Identifier: GPL-2.0-only
"""What came of a series as the mail that answers it: plain text for its author and its lists.

It is a draft, never sent from here. Its date and message id are the mailer's to give; `mutt -H` and
`git send-email` take it as it is. It answers the patch that is to blame, or else the cover letter.
"""

import shlex
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import EmailPolicy
from email.utils import getaddresses

from lab.contract import Flow, Mode, rules
from lab.kernel.series import Letter, Series
from lab.results.compare import Comparison, Pair
from lab.results.record import RunRecord, TestRecord
from lab.results.text import printable
from lab.results.verdict import Verdict

# Lines are not folded: a folded message id is none. Names in headers become encoded words.
POLICY = EmailPolicy(cte_type="8bit", max_line_length=None, linesep="\n")

_WIDTH = 72  # columns of prose; what a machine printed is not wrapped
_QUOTED = 6  # lines of the answered mail
_LISTED = 10  # tests by name
_SPLAT = 24  # lines
_CONSOLE = 10  # lines, where the kernel has no report of its own


@dataclass(frozen=True)
class Trial:
    """A series that was tried.

    `base` names the kernel below it in words, `kernel` as --kernel takes it. `after` is the run of
    the whole series. `whole` says that nothing narrowed its tests down. `culprit` is the number of
    the patch to blame, from 1. `console` is what the guest had printed when the first broken test
    failed.
    """

    series: Series
    base: str
    kernel: str
    after: RunRecord
    comparison: Comparison
    whole: bool
    culprit: int | None = None
    console: str = ""

    @property
    def bad(self) -> tuple[Pair, ...]:
        """What the series breaks, the first first."""
        return self.comparison.broken + self.comparison.crashed

    @property
    def is_tested(self) -> bool:
        """Whether a person may put a Tested-by under it: every test of the suite ran, on both
        kernels, and none failed."""
        return (
            self.whole
            and self.comparison.status == 0
            and self.after.status == 0
            and any(test.verdict.is_checked for test in self.after.tests)
        )

    @property
    def answered(self) -> Letter:
        """The mail that is answered."""
        if self.bad and self.culprit and self.culprit <= len(self.series.letters):
            return self.series.letters[self.culprit - 1]
        return self.series.letter or Letter(self.series.name, "", "")


def reply(trial: Trial, sender: str) -> EmailMessage:
    """The mail. `sender` is a name with an address, `Jane Doe <jane@kernel.test>`."""
    answered = trial.answered
    mail = EmailMessage(policy=POLICY)
    mail["From"] = _addresses([sender])
    to = _addresses(answered.reply_to, besides=[sender])
    cc = _addresses(answered.others, besides=[sender, *answered.reply_to])
    subject = printable(answered.subject).replace("\n", " ")
    mail["To"] = to or mail["From"].addresses  # of a series of one's own
    if cc:
        mail["Cc"] = cc
    mail["Subject"] = subject if subject.lower().startswith("re:") else f"Re: {subject}"
    if answered.message_id:
        mail["In-Reply-To"] = f"<{answered.message_id}>"
        earlier = [id_ for id_ in answered.references if id_ != answered.message_id]
        mail["References"] = " ".join(f"<{id_}>" for id_ in [*earlier, answered.message_id])
    body = "\n\n".join(_paragraphs(trial, sender)) + "\n"
    mail.set_content(body, cte="7bit" if body.isascii() else "8bit")
    return mail


def _addresses(texts: Iterable[str], *, besides: Iterable[str] = ()) -> list[Address]:
    """Each address once, but those of `besides`."""
    seen = {address.lower() for _, address in getaddresses(list(besides))}
    found = []
    for name, address in getaddresses(list(texts)):
        if address and address.lower() not in seen:
            seen.add(address.lower())
            found.append(Address(name, addr_spec=address))
    return found


def _paragraphs(trial: Trial, sender: str) -> Iterator[str]:
    if quoted := _quoted(trial.answered):
        yield quoted
    yield from _verdict(trial)
    yield _setting(trial)
    yield _table(trial)
    for kind, pairs in (
        ("Broken", trial.comparison.broken),
        ("Crashed", trial.comparison.crashed),
        ("Undecided", trial.comparison.undecided),
        ("Mended", trial.comparison.mended),
    ):
        if pairs:
            yield _list(kind, pairs)
    if trial.bad:
        yield from _evidence(trial, trial.bad[0].test)
        yield _cut("To repeat it:", _command(trial, trial.bad[0].test))
    if trial.is_tested:
        yield f"Tested-by: {sender}"


def _quoted(answered: Letter) -> str:
    lines = printable(answered.text).strip().splitlines()
    if not lines:
        return ""
    shown = lines[:_QUOTED]
    while not shown[-1].strip():
        shown.pop()
    when = f"On {answered.date}, " if answered.date else ""
    name = getaddresses([answered.author])[0][0] or answered.author
    quoted = [f"> {line}".rstrip() for line in shown]
    return "\n".join([f"{when}{name} wrote:", *quoted, *(["> [...]"] if shown != lines else [])])


def _verdict(trial: Trial) -> Iterator[str]:
    """What there is to say, in a sentence or two."""
    comparison, patches = trial.comparison, len(trial.series.patches)
    what = "this patch" if patches == 1 else "this series"
    yield _wrapped(
        f"vfio-lab ran {'its contract of' if trial.whole else 'a part of its contract of'} VFIO "
        f"and iommufd on {what} and on its base."
    )
    if trial.bad:
        count = _counted(len(trial.bad), "test that passes", "tests that pass")
        failed = "fails" if len(trial.bad) == 1 else "fail"
        words = f"{count} on the base {failed} with {what}."
        if trial.culprit and patches > 1:
            words += f" Patch {trial.culprit} of {patches} is the first after which this is so."
        yield _wrapped(words)
    if comparison.undecided:
        count = _counted(len(comparison.undecided), "test came", "tests came")
        yield _wrapped(
            f"{count} to no verdict, so there is none on the whole: a guest was lost without a "
            "word of the kernel's, or the lab failed."
        )
    if comparison.status == 0:
        yield _wrapped(f"Nothing that the base keeps is broken by {what}.")
    if comparison.mended:
        count = _counted(len(comparison.mended), "test that fails", "tests that fail")
        passes = "passes" if len(comparison.mended) == 1 else "pass"
        yield _wrapped(f"{count} on the base {passes} with it.")


def _setting(trial: Trial) -> str:
    after = trial.after
    tests = _counted(len(after.tests), "test", "tests")
    modes = {test.mode for test in after.tests if test.mode}
    if modes:
        tests += f" in {_counted(len(modes), 'mode', 'modes')}"
    machine = str(after.machine.get("name", "unknown"))
    if others := [name for name in after.machines if name != machine]:
        machine += f"; a few tests on {', '.join(others)}"
    qemu = ", ".join(filter(None, (str(after.qemu.get("version", "")), after.accel)))
    lines = {
        "Base": trial.base,
        "Machine": machine,
        "QEMU": qemu,
        "Tests": f"{tests}, of vfio-lab {after.version}",
    }
    return "\n".join(
        textwrap.fill(f"{name:9}{printable(value)}", _WIDTH, subsequent_indent=" " * 9)
        for name, value in lines.items()
        if value
    )


def _table(trial: Trial) -> str:
    """Of each group of rules in each mode, how many tests passed of those that ran."""
    tests = trial.after.tests
    ran = [test for test in tests if test.verdict not in (Verdict.NOT_APPLICABLE, Verdict.SKIPPED)]
    modes: list[Mode | None] = [mode for mode in Mode if any(test.mode is mode for test in ran)]
    modes += [None] if any(test.mode is None for test in ran) else []
    head = ["passed/run", *(mode.short if mode else "other" for mode in modes)]
    rows = [head]
    for group in dict.fromkeys(map(_group, ran)):
        own = [test for test in ran if _group(test) == group]
        cells = [_share([test for test in own if test.mode is mode]) for mode in modes]
        rows.append([group, *cells])
    lines = [
        (row[0][:15].ljust(16) + "".join(cell.rjust(10) for cell in row[1:])).rstrip()
        for row in rows
    ]
    before = [pair for pair in trial.comparison.unchanged if _fails(pair.test)]
    if before:
        lines.append(f"{_counted(len(before), 'test', 'tests')} of these failed on the base, too.")
    if omitted := len(tests) - len(ran):
        words = "did not apply here, or lacked something."
        lines.append(f"{_counted(omitted, 'other', 'others')} {words}")
    return "\n".join(lines)


def _fails(test: TestRecord) -> bool:
    return test.verdict is Verdict.KNOWN or test.verdict.is_trouble


def _group(test: TestRecord) -> str:
    """OWN of OWN-3; a program's name, or a suite's."""
    return printable(test.rule.partition("-")[0] if test.rule else test.subject)


def _share(tests: Sequence[TestRecord]) -> str:
    passed = sum(test.verdict is Verdict.KEPT for test in tests)
    return f"{passed}/{len(tests)}" if tests else "-"


def _list(kind: str, pairs: Sequence[Pair]) -> str:
    lines = [f"{kind}:"]
    for pair in pairs[:_LISTED]:
        name = printable(pair.test.id.rpartition("::")[2])
        lines.append(f"  {printable(pair.test.subject):8} {name}")
        if kind == "Undecided" and (said := _first_line(pair.test.message)):
            lines.append(f"           {said}")
    if len(pairs) > _LISTED:
        lines.append(f"  and {len(pairs) - _LISTED} more")
    return "\n".join(lines)


def _evidence(trial: Trial, test: TestRecord) -> Iterator[str]:
    """The first rule that is broken, and how it shows."""
    rule = rules().get(test.rule or "")
    if rule:
        yield _wrapped(f"{rule.id} says: {rule.title}.")
        yield "\n".join(
            textwrap.fill(f"{key}: {words}", _WIDTH, initial_indent="  ", subsequent_indent="    ")
            for key, words in rule.expected.items()
            if test.mode is None or _concerns(key, test.mode)
        )
    message = printable(test.message).strip()
    yield "\n".join([f"{printable(test.id)}:", *(f"  {line}" for line in message.splitlines())])
    if test.splats:
        yield _cut("The kernel printed:", printable(test.splats[0]).strip().splitlines()[:_SPLAT])
    elif lines := printable(trial.console).strip().splitlines()[-_CONSOLE:]:
        yield _cut("The last lines on the console were:", lines)


def _concerns(key: str, mode: Mode) -> bool:
    return key == mode.value or (key in list(Flow) and mode in Flow(key).modes)


def _cut(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, "", *(f"    {line}".rstrip() for line in lines)])


def _command(trial: Trial, test: TestRecord) -> list[str]:
    """For the reader, who has the series by a name of their own."""
    words = ["--rule", test.rule] if test.rule else []
    words += ["--mode", test.mode.value] if test.mode else []
    words += ["-k", test.id.rpartition("::")[2].partition("[")[0]]
    return [
        f"vfio-lab run --kernel {shlex.quote(trial.kernel)} --series SERIES \\",
        f"    {shlex.join(words)}",
    ]


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _WIDTH)


def _first_line(text: str) -> str:
    return next(iter(printable(text).strip().splitlines()), "")
