# SPDX-License-Identifier: GPL-2.0-only
"""Series that lie somewhere: in a folder, or in a maildir amid other mail."""

import mailbox
from email.message import EmailMessage
from pathlib import Path

import pytest

from lab.config.nightly import Drop
from lab.nightly.drops import collect, threads

PATCH = """\
---
 a.c | 2 +-
 1 file changed, 1 insertion(+), 1 deletion(-)

diff --git a/a.c b/a.c
index 1234567..89abcde 100644
--- a/a.c
+++ b/a.c
@@ -1 +1 @@
-old
+new
--
2.39.5
"""


def letter(subject: str, id_: str, *, to: str = "", body: str = PATCH) -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = "A <a@example.com>"
    mail["Date"] = "Sat, 28 Nov 2026 12:00:00 +0000"
    mail["Subject"] = subject
    mail["Message-Id"] = f"<{id_}@example.com>"
    if to:
        mail["In-Reply-To"] = mail["References"] = f"<{to}@example.com>"
    mail.set_content(body)
    return mail


def mbox(path: Path, *letters: EmailMessage) -> None:
    box = mailbox.mbox(path)
    for each in letters:
        box.add(each)
    box.close()


def maildir(path: Path, *letters: EmailMessage) -> None:
    box = mailbox.Maildir(path)
    for each in letters:
        box.add(each)


def test_each_mbox_of_a_folder_is_a_series(tmp_path: Path) -> None:
    mbox(tmp_path / "one.mbox", letter("[PATCH] vfio: a", "1"))
    mbox(tmp_path / "two.mbox", letter("[PATCH] vfio: b", "2"))
    (tmp_path / ".hidden").write_text("nothing")
    found, trouble = collect([Drop(drop=tmp_path, kernels=("v6.12",))], Path("/"))
    assert [(each.name, each.kernels) for each in found] == [
        ("one", ("v6.12",)),
        ("two", ("v6.12",)),
    ]
    assert trouble == []


def test_what_holds_no_patch_is_told_and_hinders_no_other(tmp_path: Path) -> None:
    mbox(tmp_path / "good.mbox", letter("[PATCH] vfio: a", "1"))
    (tmp_path / "notes.txt").write_text("buy milk\n")
    found, trouble = collect([Drop(drop=tmp_path, kernels=("v6.12",))], Path("/"))
    assert [each.name for each in found] == ["good"]
    assert len(trouble) == 1
    assert "notes" in trouble[0]


def test_a_place_that_is_not_there_is_told(tmp_path: Path) -> None:
    found, trouble = collect([Drop(drop=tmp_path / "gone", kernels=("v6.12",))], Path("/"))
    assert found == []
    assert "No such file" in trouble[0]


def test_each_thread_of_a_maildir_with_a_patch_is_a_series(tmp_path: Path) -> None:
    maildir(
        tmp_path / "box",
        letter("[PATCH 0/2] vfio: Two", "cover", body="About.\n"),
        letter("[PATCH 1/2] vfio: first", "p1", to="cover"),
        letter("[PATCH 2/2] vfio: second", "p2", to="cover"),
        letter("[PATCH v2] iommu: Alone", "alone"),
        letter("lunch?", "lunch", body="At noon.\n"),
    )
    found, trouble = collect([Drop(drop=tmp_path / "box", kernels=("v6.12",))], Path("/"))
    assert sorted(each.name for each in found) == ["iommu-alone", "vfio-two"]
    assert trouble == []
    (two,) = [each for each in found if each.name == "vfio-two"]
    file = two.save(tmp_path)
    again, _ = collect([Drop(drop=tmp_path, kernels=("v6.12",))], Path("/"))
    assert file.name == "vfio-two.mbox"
    assert "vfio-two" in [each.name for each in again]


def test_the_next_version_of_a_series_has_its_name(tmp_path: Path) -> None:
    maildir(tmp_path / "box", letter("[PATCH] vfio: A", "1"), letter("[RFC PATCH v2] vfio: A", "2"))
    found, _ = collect([Drop(drop=tmp_path / "box", kernels=("v6.12",))], Path("/"))
    assert [each.name for each in found] == ["vfio-a"]


def test_a_thread_is_found_whatever_the_order_of_its_mails() -> None:
    mails = [
        letter("c", "3", to="2"),
        letter("a", "1"),
        letter("other", "9"),
        letter("b", "2", to="1"),
    ]
    subjects = [[str(mail["Subject"]) for mail in thread] for thread in threads(mails)]
    assert sorted(subjects) == [["a", "c", "b"], ["other"]]


@pytest.mark.parametrize(
    ("header", "value"),
    [
        (b"Content-Type", b'text/plain; charset="no-such"'),
        (b"Content-Type", b"text/plain; charset*=''%%"),
        (b"Message-Id", b"<"),
        (b"Message-Id", b"<a@[>"),
        (b"From", b"<"),
    ],
)
def test_a_mail_that_no_reader_foresaw_hinders_no_other(
    tmp_path: Path, header: bytes, value: bytes
) -> None:
    """Anybody can send one to a list; Python's parser raises what it likes for these."""
    maildir(tmp_path / "box", letter("[PATCH] vfio: a", "1"))
    odd = letter("[PATCH] odd", "2").as_bytes()
    start = odd.index(header + b": ")
    odd = odd[:start] + header + b": " + value + odd[odd.index(b"\n", start) :]
    (tmp_path / "box" / "new" / "odd").write_bytes(odd)
    found, _ = collect([Drop(drop=tmp_path / "box", kernels=("v6.12",))], Path("/"))
    assert "vfio-a" in [each.name for each in found]
