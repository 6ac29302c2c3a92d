# SPDX-License-Identifier: GPL-2.0-only
import email
import email.policy
from collections.abc import Sequence
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path

import pytest
from pydantic import ValidationError

from lab.config.nightly import Mail
from lab.contract import Mode
from lab.errors import InfrastructureError
from lab.history.model import CellKey, CellRun, Change, News
from lab.nightly import mail as module
from lab.nightly.mail import Mailing, deliver

NIGHT, BEFORE = "20261128T210000Z", "20261127T210000Z"
CELL = CellKey("v6.12+kasan", "vtd", "contract")
RUN = CellRun(
    night=NIGHT,
    cell=CELL,
    attempt=0,
    folder=f"{NIGHT}/cells/a",
    started="2026-11-28T21:00:00Z",
    seconds=600.0,
    status=1,
    release="6.12.57",
    source="linux-source-6.12 6.12.57-1",
    figures={"login_seconds": 4.0, "guests": 3},
)
BROKEN = News(
    Change.BROKEN,
    CELL,
    test="tests/contract/test_ownership.py::test_second_bind_is_refused[iommufd]",
    rule="OWN-3",
    mode=Mode.IOMMUFD,
    message="BIND gave 0",
    evidence=f"{NIGHT}/cells/a/tests/test_ownership.test_second_bind-iommufd",
)
STILL = replace(BROKEN, change=Change.STILL, test="t.py::test_old", rule="OWN-1", evidence="")
TO = Mail(to=("Jane Doe <jane@lab.example>", "root"))


@pytest.fixture
def nights(tmp_path: Path) -> Path:
    (tmp_path / "nights of mine" / NIGHT).mkdir(parents=True)
    return tmp_path / "nights of mine"


@pytest.fixture
def mailing(nights: Path) -> Mailing:
    return Mailing(nights, NIGHT, [BROKEN, STILL], [RUN])


def read(file: Path) -> EmailMessage:
    found = email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    return found


def body_of(letter: EmailMessage) -> str:
    text: str = letter.get_content()
    return text


def news_lines(mailing: Mailing) -> Sequence[str]:
    lines = mailing.text.splitlines()
    start = lines.index("New:") + 1
    return lines[start : lines.index("", start)]


def many(count: int) -> list[News]:
    return [replace(BROKEN, test=f"t.py::test_{number}") for number in range(count)]


def test_the_subject_counts_what_is_new(mailing: Mailing) -> None:
    assert mailing.subject == "vfio-lab: 1 newly broken, 1 still broken (28 Nov 2026, 1 cell)"
    quiet = replace(mailing, news=[], runs=[RUN, RUN, replace(RUN, attempt=1)])
    assert quiet.subject == "vfio-lab: nothing new (28 Nov 2026, 2 cells)"


def test_a_thing_that_is_new_is_a_line(mailing: Mailing) -> None:
    assert [line.strip() for line in news_lines(mailing)] == [
        "newly broken      OWN-3 test_second_bind_is_refused",
        "v6.12+kasan on vtd: contract",
        "still broken      OWN-1 test_old, v6.12+kasan on vtd: contract",
    ]


def test_the_first_bad_commit_stands_below(mailing: Mailing) -> None:
    found = "the first bad commit: e08731ed7 iommu: Let two iommufds own the devices of a group"
    others = [replace(BROKEN, mode=Mode.TYPE1), replace(BROKEN, bisected=found)]
    text = replace(mailing, news=others).text
    below = text.partition("test_second_bind_is_refused")[2].splitlines()
    assert any("the first bad commit: e08731ed7 iommu: Let two" in line for line in below[:3])


def test_what_broke_in_many_places_is_one_thing(mailing: Mailing) -> None:
    places = [
        replace(BROKEN, cell=replace(CELL, machine=machine), mode=mode)
        for machine in ("vtd", "no-iommu")
        for mode in Mode
    ]
    _, line = news_lines(replace(mailing, news=places))
    assert line.endswith(f" and {2 * len(Mode) - 1} more")


@pytest.mark.parametrize(("count", "lines"), [(1, 1), (10, 10), (11, 10), (400, 10)])
def test_ten_lines_are_the_most(mailing: Mailing, count: int, lines: int) -> None:
    found = news_lines(replace(mailing, news=many(count)))
    assert len(found) == lines
    assert (found[-1] == f"  and {count - 9} more") == (count > 10)


def test_ten_lines_are_the_most_of_long_things_too(mailing: Mailing) -> None:
    news = [
        replace(each, test=f"t.py::test_{'x' * 60}_{number}") for number, each in enumerate(many(9))
    ]
    found = news_lines(replace(mailing, news=news))
    assert len(found) == 9
    assert found[-1] == "  and 5 more"
    assert len(news_lines(replace(mailing, news=news[:5]))) == 10


def test_every_line_but_a_command_fits(mailing: Mailing) -> None:
    cell = CellKey("~/a/very/long/path/to/linux@next+kasan+lockdep", "vtd-first-stage", "contract",
                   "a-series-with-a-very-long-name-of-its-own")  # fmt: skip
    long = replace(BROKEN, cell=cell, test=f"t.py::test_{'x' * 200}")
    trouble = ["the kernel could not be built " * 10]
    text = replace(
        mailing,
        news=[long, replace(long, test="t.py::test_y")],
        runs=[replace(RUN, cell=cell, source="s" * 50 + " " + "t" * 60)],
        trouble=trouble,
    ).text
    assert [line for line in text.splitlines() if len(line) > 78] == []


def test_a_page_is_linked_if_others_can_see_it(mailing: Mailing) -> None:
    assert "index.html" not in mailing.text
    linked = replace(mailing, link="https://lab.example/nights/").text
    assert f"\nAll of it: https://lab.example/nights/{NIGHT}/index.html\n" in linked


def test_what_failed_says_how_it_is_repeated(mailing: Mailing, nights: Path) -> None:
    assert "replay" not in mailing.text
    folder = nights / BROKEN.evidence
    folder.mkdir(parents=True)
    (folder / "replay.sh").touch()
    lines = mailing.text.splitlines()
    assert f"  '{folder}/replay.sh'" in lines
    assert "  # OWN-3 test_second_bind_is_refused" in lines


def test_figures_are_those_of_the_night(mailing: Mailing) -> None:
    runs = [RUN, replace(RUN, figures={"login_seconds": 6.0}), replace(RUN, attempt=1, seconds=60)]
    text = replace(mailing, runs=runs).text
    assert "  runs: 3, 1 of them once more, 21 min 0 s\n" in text
    assert "  login: 5.0 s, the median\n" in text
    assert "  kernel v6.12+kasan 6.12.57: linux-source-6.12 6.12.57-1\n" in text


def test_nights_are_one_thread(mailing: Mailing) -> None:
    first = replace(mailing, night=BEFORE).message(TO)
    second = replace(mailing, before=BEFORE).message(TO)
    assert first["Message-ID"] != second["Message-ID"]
    assert first["In-Reply-To"] is None
    assert second["In-Reply-To"] == second["References"] == first["Message-ID"]


def test_a_long_host_name_breaks_no_thread(
    mailing: Mailing, monkeypatch: pytest.MonkeyPatch, nights: Path
) -> None:
    monkeypatch.setattr("platform.node", lambda: "host-" * 12 + ".lab.example")
    deliver(replace(mailing, before=BEFORE), TO)
    assert b"=?" not in (nights / NIGHT / "mail.txt").read_bytes()


def test_a_mail_is_a_file_always(mailing: Mailing, nights: Path) -> None:
    assert deliver(mailing, None) == ""
    letter = read(nights / NIGHT / "mail.txt")
    assert letter["To"] is None
    assert body_of(letter) == mailing.text
    assert deliver(mailing, TO) == ""
    assert read(nights / NIGHT / "mail.txt")["To"] == "Jane Doe <jane@lab.example>, root"


@pytest.mark.parametrize("words", ["a\r\nBcc: all@lab.example", "a\u2028b", "\x1b[31m\udc80", "né"])
def test_others_words_make_no_header_and_no_control_character(
    mailing: Mailing, nights: Path, words: str
) -> None:
    bad = replace(BROKEN, test="", rule=None, message=words, cell=CellKey(words, words, words))
    assert deliver(replace(mailing, news=[bad], trouble=[words], link=words), TO) == ""
    letter = read(nights / NIGHT / "mail.txt")
    assert letter["Bcc"] is None
    assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in body_of(letter) if c != "\n")


@pytest.mark.parametrize("address", ["a@lab.example\nBcc: b", "", "a\x00"])
def test_an_address_is_a_line(address: str) -> None:
    with pytest.raises(ValidationError):
        Mail(to=(address,))


@pytest.mark.parametrize(
    ("when", "news", "sent"),
    [
        ("always", [], True),
        ("news", [], False),
        ("news", [STILL], False),
        ("news", [BROKEN], True),
        ("news", [replace(BROKEN, change=Change.MENDED)], True),
    ],
)
def test_it_is_sent_when_lab_yaml_says(
    mailing: Mailing, monkeypatch: pytest.MonkeyPatch, when: str, news: list[News], sent: bool
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(module, "send", lambda _, via: seen.append(via))
    mail = TO.model_copy(update={"when": when, "via": "sendmail"})
    assert deliver(replace(mailing, news=news), mail) == ""
    assert seen == ["sendmail"] * sent


def test_a_mail_that_is_not_sent_is_told(
    mailing: Mailing, monkeypatch: pytest.MonkeyPatch, nights: Path
) -> None:
    def refuse(*_: object) -> None:
        raise InfrastructureError("nobody listens")

    monkeypatch.setattr(module, "send", refuse)
    assert deliver(mailing, TO) == "the mail was not sent: nobody listens"
    assert (nights / NIGHT / "mail.txt").exists()
    assert "No such file" in deliver(replace(mailing, night="gone"), None)
