# SPDX-License-Identifier: GPL-2.0-only
"""What came of a series as the mail that answers it: plain text for its author and its lists.

It is a draft, never sent from here. Its date and message id are the mailer's to give; `mutt -H` and
`git send-email` take it as it is. It answers the patch that is to blame, or else the cover letter.
"""

import shlex
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import EmailPolicy
from email.utils import getaddresses
from typing import Any

from lab.contract import Flow, Mode, rules
from lab.kernel.series import Letter
from lab.results.compare import Pair
from lab.results.record import TestRecord
from lab.results.verdict import Verdict
from lab.splats import find
from lab.text import printable
from lab.trial.finding import Finding

# Lines are not folded: a folded message id is none. Names in headers become encoded words.
POLICY = EmailPolicy(cte_type="8bit", max_line_length=None, linesep="\n")

_WIDTH = 72  # columns of prose; what a machine printed is not wrapped
_QUOTED = 6  # lines of the answered mail
_LISTED = 10  # tests by name
_SPLAT = 24  # lines
_CONSOLE = 10  # lines, where the kernel has no report of its own


@dataclass(frozen=True)
class Answer:
    """What there is to say of a series that was tried.

    `base` names the kernel below it in words, `kernel` as --kernel takes it. `whole` says that
    nothing narrowed its tests down. `console` is what the guest had printed when the first broken
    test failed, or the kernel did not come up; `calls` are the last ones that this test made.
    """

    finding: Finding
    base: str
    kernel: str
    whole: bool
    console: str = ""
    calls: Sequence[str] = ()

    @property
    def is_tested(self) -> bool:
        """Whether a person may put a Tested-by under it: every test of the suite ran, on both
        kernels, and none failed."""
        after = self.finding.after
        return (
            self.whole
            and self.finding.status == 0
            and after.status == 0
            and any(test.verdict.is_checked for test in after.tests)
        )

    @property
    def answered(self) -> Letter:
        """The mail that is answered."""
        series, culprit = self.finding.series, self.finding.culprit
        if culprit and culprit.is_known and culprit.last <= len(series.letters):
            return series.letters[culprit.last - 1]
        return series.letter or Letter(series.name, "", "")


def reply(answer: Answer, sender: str) -> EmailMessage:
    """The mail. `sender` is a name with an address, `Jane Doe <jane@kernel.test>`."""
    answered = answer.answered
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
    body = "\n\n".join(_paragraphs(answer, sender)) + "\n"
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


def _paragraphs(answer: Answer, sender: str) -> Iterator[str]:
    if quoted := _quoted(answer.answered):
        yield quoted
    yield from _verdict(answer)
    yield _setting(answer)
    if answer.finding.after.tests:
        yield _table(answer)
    for kind, pairs in (
        ("Broken", answer.finding.comparison.broken),
        ("Crashed", answer.finding.comparison.crashed),
        ("Undecided", answer.finding.comparison.undecided),
        ("Mended", answer.finding.comparison.mended),
    ):
        if pairs:
            yield _list(kind, pairs)
    if answer.finding.bad:
        yield from _evidence(answer, answer.finding.bad[0].test)
        yield _cut("To repeat it:", _command(answer, answer.finding.bad[0].test))
    elif answer.finding.crash:
        yield _console(answer)
        yield _cut("To repeat it:", [_run(answer)])
    if answer.is_tested:
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


def _verdict(answer: Answer) -> Iterator[str]:
    """What there is to say, in a sentence or two each."""
    finding, patches = answer.finding, len(answer.finding.series.patches)
    comparison = finding.comparison
    what = "this patch" if patches == 1 else "this series"
    yield _wrapped(
        f"vfio-lab ran {'its contract of' if answer.whole else 'a part of its contract of'} VFIO "
        f"and iommufd on {what} and on its base."
    )
    blamed = _blamed(finding)
    if finding.crash:
        yield _wrapped(f"The base boots, and with {what} the kernel does not.{blamed}")
    kept = [
        pair for pair in answer.finding.bad if pair.before and not pair.before.verdict.is_trouble
    ]
    if kept:
        count = _counted(len(kept), "test that passes", "tests that pass")
        failed = "fails" if len(kept) == 1 else "fail"
        yield _wrapped(f"{count} on the base {failed} with {what}.{blamed}")
    if owed := len(answer.finding.bad) - len(kept):  # what the series itself brings, for one
        count = _counted(
            owed,
            "test, which does not pass on the base either, fails",
            "tests, which do not pass on the base either, fail",
        )
        yield _wrapped(f"{count} with {what}.{blamed if not kept else ''}")
    if comparison.undecided:
        count = _counted(len(comparison.undecided), "test came", "tests came")
        yield _wrapped(
            f"{count} to no verdict, so there is none on the whole: a guest was lost without a "
            "word of the kernel's, the lab failed, the base fails now and then, too, or what was "
            "tested is not there any more."
        )
    yield from _besides(finding)
    if finding.status == 0:
        yield _wrapped(f"Nothing that the base keeps is broken by {what}.")
    if comparison.mended:
        count = _counted(len(comparison.mended), "test that fails", "tests that fail")
        passes = "passes" if len(comparison.mended) == 1 else "pass"
        yield _wrapped(f"{count} on the base {passes} with it.")


def _blamed(finding: Finding) -> str:
    culprit, patches = finding.culprit, len(finding.series.patches)
    if not culprit or patches == 1:
        return ""
    who = "Patch" if culprit.is_known else "One of the patches"
    return f" {who} {culprit.which} of {patches} is the first after which this is so."


def _besides(finding: Finding) -> Iterator[str]:
    """What no test stands for."""
    if finding.splats:
        told = "; ".join(printable(splat) for splat in finding.splats)
        yield _wrapped(f"The kernel reports what it does not report on the base: {told}")
    for step in finding.steps:
        if step.status:
            yield _wrapped(f"With the patches up to {step.number}: {_first_line(str(step))}")
    if changed := [each for each in finding.speed or () if each.verdict != "same"]:
        yield "\n".join(["Slower or faster:", *(f"    {each}" for each in changed)])
    if finding.warnings:
        yield "\n".join(["The compiler's new warnings:", *map(_warning, finding.warnings)])


def _warning(warning: Mapping[str, Any]) -> str:
    return printable(f"    {warning['file']}:{warning['line']}: {warning['text']}")


def _setting(answer: Answer) -> str:
    after = answer.finding.after
    tests = _counted(len(after.tests), "test", "tests")
    modes = {test.mode for test in after.tests if test.mode}
    if modes:
        tests += f" in {_counted(len(modes), 'mode', 'modes')}"
    machine = str(after.machine.get("name", "unknown"))
    if others := [name for name in after.machines if name != machine]:
        machine += f"; a few tests on {', '.join(others)}"
    qemu = ", ".join(filter(None, (str(after.qemu.get("version", "")), after.accel)))
    lines = {
        "Base": answer.base,
        "Machine": machine,
        "QEMU": qemu,
        "Tests": f"{tests}, of vfio-lab {after.version}",
    }
    return "\n".join(
        textwrap.fill(f"{name:9}{printable(value)}", _WIDTH, subsequent_indent=" " * 9)
        for name, value in lines.items()
        if value
    )


def _table(answer: Answer) -> str:
    """Of each group of rules in each mode, how many tests passed of those that ran."""
    tests = answer.finding.after.tests
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
    before = [pair for pair in answer.finding.comparison.unchanged if _fails(pair.test)]
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


def _evidence(answer: Answer, test: TestRecord) -> Iterator[str]:
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
    if answer.calls:
        yield "\n".join(["Its last calls:", "", *map(_call, answer.calls)])
    if test.splats:
        yield _cut("The kernel printed:", printable(test.splats[0]).strip().splitlines()[:_SPLAT])
    elif answer.console.strip():
        yield _console(answer)


def _call(call: str) -> str:
    return textwrap.fill(
        printable(call),
        _WIDTH,
        initial_indent=" " * 4,
        subsequent_indent=" " * 12,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _console(answer: Answer) -> str:
    lines = printable(answer.console).strip().splitlines()
    shown = next((splat.text.splitlines()[:_SPLAT] for splat in find("\n".join(lines))), None)
    if shown:
        return _cut("The kernel printed:", shown)
    return _cut("The last lines on the console were:", lines[-_CONSOLE:])


def _concerns(key: str, mode: Mode) -> bool:
    return key == mode.value or (key in list(Flow) and mode in Flow(key).modes)


def _cut(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, "", *(f"    {line}".rstrip() for line in lines)])


def _command(answer: Answer, test: TestRecord) -> list[str]:
    """For the reader, who has the series by a name of their own."""
    words = ["--rule", test.rule] if test.rule else []
    words += ["--mode", test.mode.value] if test.mode else []
    words += ["-k", test.id.rpartition("::")[2].partition("[")[0]]
    return [f"{_run(answer)} \\", f"    {shlex.join(words)}"]


def _run(answer: Answer) -> str:
    return f"vfio-lab run --kernel {shlex.quote(answer.kernel)} --series SERIES"


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _WIDTH)


def _first_line(text: str) -> str:
    return next(iter(printable(text).strip().splitlines()), "")
