# SPDX-License-Identifier: GPL-2.0-only
"""The draft beside a series' runs, by the user that git knows."""

from dataclasses import replace
from pathlib import Path

import pytest

from lab.errors import ConfigurationError
from lab.kernel import Kernel
from lab.kernel.series import Letter, Series
from lab.results.compare import compare
from lab.results.folder import RunFolder
from lab.results.record import RunRecord, TestRecord
from lab.results.verdict import Verdict
from lab.trial.culprit import Culprit
from lab.trial.draft import sender, write_reply
from lab.trial.finding import Finding

LETTER = Letter("[PATCH] vfio: Do it", "Ada <a@kernel.test>", "one@kernel.test",
                reply_to=("Ada <a@kernel.test>",))  # fmt: skip
SERIES = Series("topic", "topic.mbox", (b"one",), LETTER, (LETTER,))
BASE = Kernel(
    "v6.12", Path("bzImage"), None, None, None, "6.12.117", None, "abc",
    {"name": "v6.12", "source": {"package": "linux", "version": "6.12.117-1"}},
)  # fmt: skip
CONSOLE = "guests/001/console.log"
CALLS = "tests/test_x.test_y/calls.txt"


@pytest.fixture(autouse=True)
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own settings, and none of the host's."""
    file = tmp_path / "gitconfig"
    file.write_text("[user]\nname = Jörg Tester\nemail = joerg@lab.test\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(file))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    monkeypatch.chdir(tmp_path)
    return file


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = RunFolder.create(tmp_path / "after")
    (folder.guest(1) / "console.log").write_bytes(b"first\r\nlast \xff\r\n")
    return folder.path


def test_what_is_broken(tmp_path: Path, run: Path) -> None:
    test = TestRecord(
        "tests/test_x.py::test_y", "contract", Verdict.BROKEN, 0.1, evidence=(CONSOLE, CALLS)
    )
    (run / CALLS).parent.mkdir(parents=True)
    (run / CALLS).write_text(
        "\n\nCalls of the processes under test:\n"
        "     70    0.000001 ioctl(4, VFIO_DEVICE_RESET) = 0 <0.000001>\n"
        "     70    0.000002 close(4) = 0 <0.000001>\n"
    )
    after = RunRecord("0.1.0", "2026-11-22T12:59:00Z", 1.0, tests=(test,))
    RunFolder(run).write(after)
    before = replace(after, tests=(replace(test, verdict=Verdict.KEPT),))
    file = tmp_path / "reply.eml"
    culprit = Culprit(1, 1, "[PATCH] vfio: Do it")
    finding = Finding(SERIES, BASE, BASE, compare(before, after), after, culprit=culprit)
    write_reply(finding, run, file, whole=True)
    text = file.read_text()
    assert "From: =?utf-8?q?J=C3=B6rg?= Tester <joerg@lab.test>\n" in text
    assert "\nIn-Reply-To: <one@kernel.test>\n" in text
    assert "\nBase     v6.12 (6.12.117, 6.12.117-1)\n" in text
    assert "\nIts last calls:\n\n    ioctl(4, VFIO_DEVICE_RESET) = 0\n\n" in text
    assert "\n    first\n    last \ufffd\n" in text
    assert "\n    vfio-lab run --kernel v6.12 --series SERIES \\\n        -k test_y\n" in text
    with pytest.raises(ConfigurationError, match="Is a directory"):
        write_reply(finding, run, tmp_path, whole=True)


def test_where_the_tester_keeps_a_tree_is_nobodys_business(tmp_path: Path, run: Path) -> None:
    source = {"git": "/home/me/linux", "ref": "topic", "commit": "0123456789abcdef"}
    base = replace(BASE, provenance={"name": "/home/me/linux@0123456789abcdef", "source": source})
    test = TestRecord("tests/test_x.py::test_y", "contract", Verdict.BROKEN, 0.1)
    after = RunRecord("0.1.0", "2026-11-22T12:59:00Z", 1.0, tests=(test,))
    before = replace(after, tests=(replace(test, verdict=Verdict.KEPT),))
    finding = Finding(SERIES, base, base, compare(before, after), after)
    write_reply(finding, run, tmp_path / "reply.eml", whole=True)
    text = (tmp_path / "reply.eml").read_text()
    assert "\nBase     6.12.117, commit 0123456789ab\n" in text
    assert "vfio-lab run --kernel TREE@0123456789ab --series SERIES" in text
    assert "/home/me" not in text


def test_a_user_without_a_name(git: Path) -> None:
    assert sender() == "Jörg Tester <joerg@lab.test>"
    git.write_text("[user]\nname = Jörg Tester\n")
    with pytest.raises(ConfigurationError, match="your name and address"):
        sender()


def test_a_name_with_a_comma_is_one_name(git: Path) -> None:
    git.write_text("[user]\nname = Doe, Jane\nemail = jane@lab.test\n")
    assert sender() == '"Doe, Jane" <jane@lab.test>'


def test_an_address_that_is_none_is_refused_at_once(git: Path) -> None:
    git.write_text("[user]\nname = Jane\nemail = jane\n")
    with pytest.raises(ConfigurationError, match="as your address is none: jane"):
        sender()
