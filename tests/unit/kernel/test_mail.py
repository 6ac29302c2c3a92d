# SPDX-License-Identifier: GPL-2.0-only
"""A series as it comes: with replies and older versions, cut short, or without message-ids."""

import gzip
import io
import mailbox
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote

import pytest

from lab.errors import ConfigurationError
from lab.kernel.letters import read_letters, save_letters
from lab.kernel.mail import read_series
from lab.kernel.series import Series

DIFF = """\
---
 drivers/vfio/{name}.c | 2 +-
 1 file changed, 1 insertion(+), 1 deletion(-)

diff --git a/drivers/vfio/{name}.c b/drivers/vfio/{name}.c
index 1111111..2222222 100644
--- a/drivers/vfio/{name}.c
+++ b/drivers/vfio/{name}.c
@@ -1 +1 @@
-before
+after
--
2.39.5

"""


def mail(
    subject: str,
    body: str = "",
    *,
    number: int = 0,
    version: int = 1,
    reply: str = "",
    ids: bool = True,
) -> str:
    """One message of an mbox."""
    head = [
        "From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001",
        "From: A Developer <dev@kernel.test>",
        f"Date: Sun, {20 + version} Nov 2026 12:00:{number:02} +0000",
        f"Subject: {subject}",
    ]
    if ids:
        head.append(f"Message-Id: <v{version}-{number}@kernel.test>")
    if reply:
        head.append(f"In-Reply-To: <{reply}@kernel.test>")
    return "\n".join([*head, "", body])


def patch(subject: str, name: str, number: int, *, version: int = 1, ids: bool = True) -> str:
    body = f"Say why.\n\nSigned-off-by: A Developer <dev@kernel.test>\n{DIFF.format(name=name)}"
    return mail(subject, body, number=number, version=version, reply=f"v{version}-0", ids=ids)


def two(version: int = 1, *, ids: bool = True) -> list[str]:
    mark = "PATCH" if version == 1 else f"PATCH v{version}"
    return [
        patch(f"[{mark} 1/2] vfio: First", f"one{version}", 1, version=version, ids=ids),
        patch(f"[{mark} 2/2] vfio: Second", f"two{version}", 2, version=version, ids=ids),
    ]


COVER = mail("[PATCH 0/2] vfio: Do both", "Both.\n\nbase-commit: 0123456789abcdef0123\n")


def read(tmp_path: Path, *mails: str) -> Series:
    file = tmp_path / "thread.mbox"
    file.write_text("".join(mails))
    return read_series(str(file))


def subjects(series: Series) -> list[str]:
    return [
        line.removeprefix("Subject: ")
        for each in series.patches
        for line in each.decode().splitlines()
        if line.startswith("Subject: ")
    ]


def test_a_thread_is_put_in_order(tmp_path: Path) -> None:
    first, second = two()
    series = read(tmp_path, COVER, second, first)
    assert subjects(series) == ["[PATCH 1/2] vfio: First", "[PATCH 2/2] vfio: Second"]
    assert series.files == ("drivers/vfio/one1.c", "drivers/vfio/two1.c")
    assert series.letter is not None
    assert series.letter.subject == "[PATCH 0/2] vfio: Do both"
    assert series.letter.message_id == "v1-0@kernel.test"
    assert series.base_commit == "0123456789abcdef0123"
    assert subjects(series.first(1)) == ["[PATCH 1/2] vfio: First"]


def test_each_mail_knows_who_is_to_be_answered(tmp_path: Path) -> None:
    first, second = two()
    to = 'To: =?utf-8?q?J=C3=B6rg?= <joerg@kernel.test>,\n "List, Kvm" <kvm@vger.test>\n'
    named = second.replace(
        "Subject:", f"{to}Cc: not an address\nReply-To: Me <me@kernel.test>\nSubject:"
    )
    series = read(tmp_path, COVER, first, named)
    assert [letter.message_id for letter in series.letters] == [
        "v1-1@kernel.test",
        "v1-2@kernel.test",
    ]
    assert series.letters[0].reply_to == ("A Developer <dev@kernel.test>",)
    letter = series.letters[1]
    assert letter.reply_to == ("Me <me@kernel.test>",)
    assert letter.others == ("Jörg <joerg@kernel.test>", '"List, Kvm" <kvm@vger.test>')
    assert letter.references == ("v1-0@kernel.test",)
    assert letter.date == "Sat, 21 Nov 2026 12:00:02 +0000"
    assert letter.text.strip().splitlines()[0] == "Say why."
    assert "diff" not in letter.text


def test_the_newest_version_counts(tmp_path: Path) -> None:
    series = read(tmp_path, COVER, *two(1), *two(2))
    assert series.files == ("drivers/vfio/one2.c", "drivers/vfio/two2.c")


def test_trailers_of_replies_are_taken(tmp_path: Path) -> None:
    said = "> vfio: First\n\nReviewed-by: A Developer <dev@kernel.test>\n"
    reply = mail("Re: [PATCH 1/2] vfio: First", said, number=9, reply="v1-1")
    series = read(tmp_path, COVER, *two(), reply)
    assert b"Reviewed-by: A Developer" in series.patches[0]
    assert b"Reviewed-by:" not in series.patches[1]


def test_a_missing_patch_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"patch 2/2 of v1 is missing"):
        read(tmp_path, COVER, two()[0])


def test_mail_without_message_ids(tmp_path: Path) -> None:
    series = read(tmp_path, *two(ids=False))
    assert subjects(series) == ["[PATCH 1/2] vfio: First", "[PATCH 2/2] vfio: Second"]
    assert [letter.message_id for letter in series.letters] == ["", ""]


def test_patches_without_numbers_are_taken_as_they_come(tmp_path: Path) -> None:
    mails = [
        patch(f"[PATCH] vfio: {word}", word, number, ids=False)
        for number, word in enumerate(("zero", "one", "two"))
    ]
    series = read(tmp_path, *mails)
    assert series.files == ("drivers/vfio/one.c", "drivers/vfio/two.c", "drivers/vfio/zero.c")
    assert [text.split()[-1] for text in subjects(series)] == ["zero", "one", "two"]


def test_a_folder_of_patches(tmp_path: Path) -> None:
    for number, text in enumerate([COVER, *two(ids=False)]):
        (tmp_path / f"{number:04}-x.patch").write_text(text)
    (tmp_path / "notes.txt").write_text("not mail")
    assert len(read_series(str(tmp_path)).patches) == 2


def test_a_maildir(tmp_path: Path) -> None:
    box = mailbox.Maildir(tmp_path / "mail")
    for text in (COVER, *two()):
        box.add(text.partition("\n")[2].encode())
    assert len(read_series(str(tmp_path / "mail")).patches) == 2


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO("".join([COVER, *two()]).encode()))
    monkeypatch.setattr("sys.stdin", stdin)
    series = read_series("-")
    assert len(series.patches) == 2
    assert series.name == "standard-input"


@pytest.mark.parametrize(("content", "words"), [(COVER, "holds no patch"), ("", "holds no patch")])
def test_mail_without_a_patch(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        read(tmp_path, content)


def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        read_series(str(tmp_path / "none.mbox"))


def test_what_is_saved_is_read_as_the_same(tmp_path: Path) -> None:
    """Runs of a series read it from a file of the lab's own, however it came."""
    tricky = patch("[PATCH 1/2] vfio: =?utf-8?q?caf=C3=A9?=", "one", 1).replace(
        "Say why.", "Say why.\n\nFrom here on it is better.\n>From there, too.\n\u00e4\u00f6\u00fc"
    )
    for number, texts in enumerate(([COVER, tricky, two()[1]], two(ids=False), [*two(2), *two()])):
        came = tmp_path / f"{number}"
        came.write_text("".join(texts))
        letters = read_letters(str(came))
        first = read_series(str(came))
        save_letters(letters, tmp_path / "kept.mbox")
        again = read_series(str(tmp_path / "kept.mbox"))
        assert again.patches == first.patches
        assert again.inputs == first.inputs
        assert again.letter == first.letter


def test_prerequisites_and_base_are_read(tmp_path: Path) -> None:
    file = tmp_path / "series.mbox"
    trailer = f"base-commit: {'a' * 40}\nprerequisite-patch-id: {'b' * 40}\n"
    file.write_text("".join([mail("[PATCH 0/2] vfio: tidy", trailer), *two()]))
    series = read_series(str(file))
    assert series.base_commit == "a" * 40
    assert series.prerequisites == ("b" * 40,)


class _Archive(BaseHTTPRequestHandler):
    """Serves one thread as public-inbox does."""

    def do_GET(self) -> None:
        found = "v1-1@kernel.test" in unquote(self.path)
        content = gzip.compress("".join([COVER, *two()]).encode()) if found else b""
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the library's name)
        pass


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Callable[[str], subprocess.CompletedProcess[str]]]:
    """Reads a message-id in a process whose b4 asks a server of this host."""
    server = HTTPServer(("127.0.0.1", 0), _Archive)
    thread = Thread(target=server.serve_forever)
    thread.start()
    config = tmp_path / "gitconfig"
    config.write_text(f"[b4]\n\tmidmask = http://127.0.0.1:{server.server_port}/all/%s\n")
    env = {"GIT_CONFIG_GLOBAL": str(config), "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}

    def read(message_id: str) -> subprocess.CompletedProcess[str]:
        program = "import sys; from lab.kernel.mail import read_series; "
        program += "print(len(read_series(sys.argv[1]).patches))"
        argv = [sys.executable, "-c", program, message_id]
        return subprocess.run(
            argv, env={**os.environ, **env}, capture_output=True, text=True, check=False
        )

    yield read
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_message_id_is_fetched(
    archive: Callable[[str], subprocess.CompletedProcess[str]],
) -> None:
    found = archive("<v1-1@kernel.test>")
    assert found.stdout == "2\n", found.stderr
    missing = archive("other@kernel.test")
    assert "no thread of <other@kernel.test> could be fetched" in missing.stderr


def test_of_a_single_patch_the_newest_version_is_taken(tmp_path: Path) -> None:
    mails = (
        patch("[PATCH] vfio: First", "one", 1),
        patch("[PATCH v2] vfio: First", "two", 1, version=2),
    )
    series = read(tmp_path, *mails)
    assert subjects(series) == ["[PATCH v2] vfio: First"]


def test_a_list_of_nobody_is_no_address(tmp_path: Path) -> None:
    mail = patch("[PATCH] vfio: First", "one", 1)
    series = read(tmp_path, mail.replace("Subject:", "To: undisclosed-recipients:;\nSubject:"))
    assert series.letters[0].others == ()


def test_the_base_is_that_of_the_version_that_is_taken(tmp_path: Path) -> None:
    newer = mail("[PATCH v2 0/2] vfio: Do both", f"Both.\n\nbase-commit: {'f' * 40}\n", version=2)
    assert read(tmp_path, COVER, *two(), newer, *two(2)).base_commit == "f" * 40


def test_patches_without_numbers_have_a_base_too(tmp_path: Path) -> None:
    mails = [patch(f"[PATCH] vfio: {n}", f"file{n}", n) for n in (1, 2)]
    assert read(tmp_path, f"{mails[0]}base-commit: {'a' * 40}\n", mails[1]).base_commit == "a" * 40


def test_files_of_what_is_renamed_or_is_no_diff_of_gits(tmp_path: Path) -> None:
    renamed = "diff --git a/old.h b/new.h\nrename from old.h\nrename to new.h\n"
    quilt = "--- linux.orig/with blank.c\t2026-11-22\n+++ linux/with blank.c\n@@ -1 +1 @@\n-a\n+b\n"
    made = "--- /dev/null\n+++ b/made.c\n@@ -0,0 +1 @@\n+a\n"
    series = read(tmp_path, mail("[PATCH] vfio: First", f"---\n{renamed}{quilt}{made}", number=1))
    assert series.files == ("made.c", "new.h", "old.h", "with blank.c")
