# SPDX-License-Identifier: GPL-2.0-only
"""The mail that answers a series: what it says, to whom, and what b4 makes of it."""

import email
import email.policy
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import b4
import pytest

from lab.contract import Mode
from lab.kernel import Kernel
from lab.kernel.series import Letter, Series
from lab.results.compare import compare
from lab.results.record import RunRecord, TestRecord
from lab.results.verdict import Verdict
from lab.trial.culprit import Culprit
from lab.trial.finding import Finding, Step
from lab.trial.reply import POLICY, Answer, reply

ME = "Jörg Tester <joerg@lab.test>"
TRAILER = f"Tested-by: {ME}"
COVER = Letter(
    subject="[PATCH v2 0/2] vfio: cdev: Check the headers of all ioctls that have one in one place",
    author="Ada Author <ada@kernel.test>",
    message_id="cover." + "0" * 70 + "@kernel.test",
    date="Sun, 22 Nov 2026 12:00:00 +0000",
    reply_to=("Ada Author <ada@kernel.test>",),
    others=(
        "kvm@vger.test",
        "Åsa <asa@kernel.test>",
        "ADA@kernel.test",
        '"Doe, Jane" <jane@kernel.test>',
        ME,
    ),
    references=("v1@kernel.test",),
    text="The ioctls begin alike.\n\nSo check them alike.\n\n1\n2\n3\n4\n",
)
SECOND = replace(
    COVER,
    subject="[PATCH v2 2/2] vfio: cdev: Drop a check",
    message_id="two@kernel.test",
    references=(COVER.message_id,),
    text="It is not needed.\n",
)
SERIES = Series(
    "topic",
    "topic.mbox",
    (b"one", b"two"),
    letter=COVER,
    letters=(replace(COVER, message_id="one@kernel.test"), SECOND),
)
BASE = Kernel("v6.12", Path("bzImage"), None, None, None, "6.12.117", None, "abc", {})
FILE = "tests/contract/test_iommufd.py"


def run(**verdicts: Verdict) -> RunRecord:
    """A run of these tests of IOAS-1 in the mode iommufd, and of a few others."""
    named = [
        TestRecord(f"{FILE}::test_{name}[iommufd]", "contract", verdict, 0.1, "IOAS-1",
                   Mode.IOMMUFD, "" if verdict is Verdict.KEPT else "ATTACH gave 0, not EINVAL")
        for name, verdict in verdicts.items()
    ]  # fmt: skip
    others = [
        TestRecord(f"{FILE}::test_map[{mode}]", "contract", Verdict.KEPT, 0.1, "MAP-1", mode)
        for mode in Mode
    ]
    bare = TestRecord(f"{FILE}::test_bare", "contract", Verdict.NOT_APPLICABLE, 0.1, "NOIO-1")
    return RunRecord(
        version="0.1.0",
        started="2026-11-22T12:59:00Z",
        seconds=83.2,
        accel="tcg",
        machine={"name": "vtd"},
        machines={"vtd": {}, "no-iommu": {}},
        qemu={"version": "10.0.2"},
        tests=(*named, *others, bare),
    )


def answer(before: RunRecord, after: RunRecord, **changes: Any) -> Answer:
    finding = Finding(SERIES, BASE, BASE, compare(before, after), after)
    for name in changes.keys() & {"culprit", "crash", "splats", "steps", "warnings"}:
        finding = replace(finding, **{name: changes.pop(name)})
    made = Answer(finding, "v6.12 (6.12.117, 6.12.117-1)", "v6.12", whole=True)
    return replace(made, **changes)


def of(said: Answer, **changes: Any) -> Answer:
    """The same of a series with other letters."""
    return replace(said, finding=replace(said.finding, series=replace(SERIES, **changes)))


def sent(answer: Answer) -> EmailMessage:
    """As a mailer reads it."""
    mail = reply(answer, ME).as_bytes(policy=POLICY)
    return email.message_from_bytes(mail, _class=EmailMessage, policy=email.policy.default)


def body(answer: Answer) -> str:
    text: str = sent(answer).get_content()
    assert max(map(len, text.splitlines())) <= 76
    return text


def as_b4_reads_it(answer: Answer) -> b4.LoreMessage:
    mail = reply(answer, ME)
    mail["Message-Id"] = "<draft@lab.test>"
    data = mail.as_bytes(policy=POLICY)
    return b4.LoreMessage(email.message_from_bytes(data, _class=EmailMessage, policy=b4.emlpolicy))


KEPT, BROKEN, LOST = Verdict.KEPT, Verdict.BROKEN, Verdict.GUEST_LOST
GOOD = answer(run(flags=KEPT, size=KEPT), run(flags=KEPT, size=KEPT))
BAD = answer(
    run(flags=KEPT, size=KEPT),
    run(flags=BROKEN, size=KEPT),
    culprit=Culprit(2, 2, "[PATCH v2 2/2] vfio: cdev: Drop a check"),
    console="[    1.0] before\r\n" * 20 + "[    2.0] last\r\n",
    calls=[
        'openat(AT_FDCWD, "/dev/iommu", O_RDWR) = 3</dev/iommu>',
        "ioctl(4</dev/vfio/devices/vfio0>, VFIO_DEVICE_ATTACH_IOMMUFD_PT, "
        "{argsz=12, flags=1, pt_id=2}) = 0",
    ],
)
UNDECIDED = answer(run(flags=KEPT, size=BROKEN), run(flags=LOST, size=BROKEN))

GOOD_BODY = f"""\
On Sun, 22 Nov 2026 12:00:00 +0000, Ada Author wrote:
> The ioctls begin alike.
>
> So check them alike.
>
> 1
> 2
> [...]

vfio-lab ran its contract of VFIO and iommufd on this series and on its
base.

Nothing that the base keeps is broken by this series.

Base     v6.12 (6.12.117, 6.12.117-1)
Machine  vtd; a few tests on no-iommu
QEMU     10.0.2, tcg
Tests    8 tests in 5 modes, of vfio-lab 0.1.0

passed/run         iommufd   type1v2     type1 compat-v2 compat-v1
IOAS                   2/2         -         -         -         -
MAP                    1/1       1/1       1/1       1/1       1/1
1 other did not apply here, or lacked something.

{TRAILER}
"""
BAD_BODY = """\
On Sun, 22 Nov 2026 12:00:00 +0000, Ada Author wrote:
> It is not needed.

vfio-lab ran its contract of VFIO and iommufd on this series and on its
base.

1 test that passes on the base fails with this series. Patch 2 of 2 is
the first after which this is so.

Base     v6.12 (6.12.117, 6.12.117-1)
Machine  vtd; a few tests on no-iommu
QEMU     10.0.2, tcg
Tests    8 tests in 5 modes, of vfio-lab 0.1.0

passed/run         iommufd   type1v2     type1 compat-v2 compat-v1
IOAS                   1/2         -         -         -         -
MAP                    1/1       1/1       1/1       1/1       1/1
1 other did not apply here, or lacked something.

Broken:
  IOAS-1   test_flags[iommufd]

IOAS-1 says: ATTACH takes an IOAS or a page table, and no flag.

  cdev: unknown id ENOENT, a device's id EINVAL, unknown flag EINVAL

tests/contract/test_iommufd.py::test_flags[iommufd]:
  ATTACH gave 0, not EINVAL

Its last calls:

    openat(AT_FDCWD, "/dev/iommu", O_RDWR) = 3</dev/iommu>
    ioctl(4</dev/vfio/devices/vfio0>, VFIO_DEVICE_ATTACH_IOMMUFD_PT,
            {argsz=12, flags=1, pt_id=2}) = 0

The last lines on the console were:

    [    1.0] before
    [    1.0] before
    [    1.0] before
    [    1.0] before
    [    1.0] before
    [    1.0] before
    [    1.0] before
    [    1.0] before
    [    1.0] before
    [    2.0] last

To repeat it:

    vfio-lab run --kernel v6.12 --series SERIES \\
        --rule IOAS-1 --mode iommufd -k test_flags
"""
UNDECIDED_BODY = """\
On Sun, 22 Nov 2026 12:00:00 +0000, Ada Author wrote:
> The ioctls begin alike.
>
> So check them alike.
>
> 1
> 2
> [...]

vfio-lab ran its contract of VFIO and iommufd on this series and on its
base.

1 test came to no verdict, so there is none on the whole: a guest was
lost without a word of the kernel's, the lab failed, the base fails now
and then, too, or what was tested is not there any more.

Base     v6.12 (6.12.117, 6.12.117-1)
Machine  vtd; a few tests on no-iommu
QEMU     10.0.2, tcg
Tests    8 tests in 5 modes, of vfio-lab 0.1.0

passed/run         iommufd   type1v2     type1 compat-v2 compat-v1
IOAS                   0/2         -         -         -         -
MAP                    1/1       1/1       1/1       1/1       1/1
1 test of these failed on the base, too.
1 other did not apply here, or lacked something.

Undecided:
  IOAS-1   test_flags[iommufd]
           ATTACH gave 0, not EINVAL
"""


@pytest.mark.parametrize(
    ("said", "expected"),
    [(GOOD, GOOD_BODY), (BAD, BAD_BODY), (UNDECIDED, UNDECIDED_BODY)],
    ids=["good", "broken", "undecided"],
)
def test_what_it_says(said: Answer, expected: str) -> None:
    assert body(said) == expected


def test_it_answers_the_cover_letter_and_everybody_once() -> None:
    mail = sent(GOOD)
    assert mail["From"] == ME
    assert mail["To"] == "Ada Author <ada@kernel.test>"
    assert mail["Cc"] == ('kvm@vger.test, Åsa <asa@kernel.test>, "Doe, Jane" <jane@kernel.test>')
    assert mail["Subject"] == f"Re: {COVER.subject}"
    assert mail["In-Reply-To"] == f"<{COVER.message_id}>"
    assert mail["References"] == f"<v1@kernel.test> <{COVER.message_id}>"
    assert mail.get_content_type() == "text/plain"
    assert not {"Date", "Message-Id", "Sender"} & set(mail.keys())


def test_headers_are_ascii_and_no_id_is_folded() -> None:
    head = reply(GOOD, ME).as_bytes(policy=POLICY).partition(b"\n\n")[0]
    assert head.isascii()
    assert f"In-Reply-To: <{COVER.message_id}>".encode() in head.splitlines()


def test_it_answers_the_patch_that_is_to_blame() -> None:
    assert sent(BAD)["In-Reply-To"] == "<two@kernel.test>"
    assert sent(BAD)["Subject"] == f"Re: {SECOND.subject}"
    assert (
        sent(replace(BAD, finding=replace(BAD.finding, culprit=None)))["In-Reply-To"]
        == f"<{COVER.message_id}>"
    )


def test_mail_without_an_id_is_answered_by_its_subject() -> None:
    mail = sent(of(GOOD, letter=replace(COVER, message_id="")))
    assert mail["Subject"] == f"Re: {COVER.subject}"
    assert not {"In-Reply-To", "References"} & set(mail.keys())


def test_a_series_of_ones_own() -> None:
    own = replace(COVER, reply_to=(ME,), others=())
    mail = sent(of(GOOD, letter=own))
    assert mail["To"] == ME
    assert mail["Cc"] is None


def test_b4_finds_the_trailer_of_what_is_good_and_no_other() -> None:
    found = as_b4_reads_it(GOOD)
    assert found.reply
    assert [trailer.as_string() for trailer in found.trailers] == [TRAILER]
    assert found.in_reply_to == COVER.message_id
    assert not as_b4_reads_it(BAD).trailers
    assert not as_b4_reads_it(UNDECIDED).trailers


NOTHING = tuple(replace(test, verdict=Verdict.SKIPPED) for test in GOOD.finding.after.tests)


@pytest.mark.parametrize(
    "less",
    [
        replace(GOOD, whole=False),
        answer(run(flags=BROKEN), run(flags=BROKEN)),  # fails on both
        answer(run(flags=KEPT), run()),  # did not run on one
        answer(
            replace(GOOD.finding.after, tests=NOTHING), replace(GOOD.finding.after, tests=NOTHING)
        ),
        answer(GOOD.finding.after, replace(GOOD.finding.after, finished=False)),
    ],
    ids=["narrowed", "base fails", "missing", "skipped", "unfinished"],
)
def test_nobody_vouches_for_less_than_all(less: Answer) -> None:
    assert "Tested-by:" not in body(less)


def test_what_is_mended_is_told() -> None:
    said = body(answer(run(flags=BROKEN), run(flags=KEPT)))
    assert "1 test that fails on the base passes with it." in said
    assert "Mended:\n  IOAS-1   test_flags[iommufd]\n" in said
    assert TRAILER in said


def test_a_splat_is_shown_and_cut() -> None:
    lines = ["BUG: KASAN: use-after-free in vfio_df_close\x1b", *(f"frame {n}" for n in range(90))]
    crash = run(flags=LOST)
    first = replace(crash.tests[0], splats=("\r\n".join(lines),), message="it panicked \udc80")
    crash = replace(crash, tests=(first, *crash.tests[1:]))
    said = body(answer(run(flags=KEPT), crash, console="not shown"))
    assert "Crashed:\n" in said
    assert "    BUG: KASAN: use-after-free in vfio_df_close\\x1b\n    frame 0\n" in said
    assert "frame 22\n" in said
    assert "frame 23" not in said
    assert "not shown" not in said
    assert "it panicked \\udc80" in said


def test_a_kernel_that_does_not_boot() -> None:
    said = body(answer(GOOD.finding.after, replace(GOOD.finding.after, tests=()),
                       crash="it is lost", console="booting\nand no further\n"))  # fmt: skip
    assert "The base boots, and with this series the kernel does not." in said
    assert "    and no further\n" in said
    assert "Nothing that the base keeps" not in said
    assert "Tested-by:" not in said


def test_what_no_test_stands_for() -> None:
    steps = (Step(1, "[PATCH 1/2] one", error="it does not compile"),)
    warnings = ({"file": "drivers/vfio/group.c", "line": 3, "text": "unused variable 'x'"},)
    splats = ("WARNING: f",)
    said = body(answer(GOOD.finding.after, GOOD.finding.after,
                       steps=steps, warnings=warnings, splats=splats))  # fmt: skip
    assert "reports what it does not report on the base: WARNING: f" in said
    assert "With the patches up to 1: it does not compile" in said
    assert "    drivers/vfio/group.c:3: unused variable 'x'" in said
    assert "Tested-by:" not in said


def test_a_long_list_is_cut() -> None:
    names = [f"case_{number}" for number in range(14)]
    said = body(answer(run(**dict.fromkeys(names, KEPT)), run(**dict.fromkeys(names, BROKEN))))
    assert "14 tests that pass on the base fail with this series." in said
    assert "test_case_9[iommufd]\n  and 4 more\n" in said


def test_what_fails_on_the_base_too_is_not_said_to_pass_there() -> None:
    """A test that the series brings, and does not pass."""
    broken = run(attach=Verdict.BROKEN)
    said = answer(broken, broken)
    owed = said.finding.comparison.owed(lambda test: "attach" in test.id)
    said = replace(said, finding=replace(said.finding, comparison=owed))
    text = " ".join(body(said).split())
    assert "that passes on the base" not in text
    assert "1 test, which does not pass on the base either, fails with this series." in text
