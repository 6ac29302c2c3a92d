# SPDX-License-Identifier: GPL-2.0-only
"""Letters, in every shape that mail comes in."""

import email
import email.policy
import hashlib
import mailbox
import re
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from email.message import EmailMessage
from pathlib import Path

import b4

from lab.errors import ConfigurationError, InfrastructureError

STDIN = "-"
MADE_UP = "@without-an-id.invalid"  # the end of a message-id that is ours
_POLICY = email.policy.EmailPolicy(utf8=True, cte_type="8bit", max_line_length=None)
_MESSAGE_ID = re.compile(r"<?[^\s/<>]+@[^\s/<>]+>?")


def read_letters(place: str) -> list[EmailMessage]:
    """The mails of an mbox, a maildir, a folder of `*.patch`, standard input for `-`, or of the
    thread with a message-id, which b4 fetches. Each has a message-id, if need be one of ours.

    Raises ConfigurationError where there is no such place, InfrastructureError where the thread
    cannot be had.
    """
    return [_identified(number, letter) for number, letter in enumerate(_letters(place))]


def save_letters(letters: Sequence[EmailMessage], file: Path) -> None:
    """Write an mbox that is read as the same letters."""
    with file.open("wb") as mbox:
        b4.save_mboxrd_mbox(list(letters), mbox, mangle_from=True)


def name_of(place: str) -> str:
    """What to call what came from there."""
    return "standard-input" if place == STDIN else Path(place.strip("<>")).stem


def _letters(place: str) -> Iterator[EmailMessage]:
    if place == STDIN:
        yield from b4.mailsplit_bytes(sys.stdin.buffer.read())
        return
    path = Path(place).expanduser()
    if _MESSAGE_ID.fullmatch(place) and not path.exists():
        yield from _thread(place.strip("<>"))
        return
    try:
        if (path / "cur").is_dir():
            for key in sorted((box := mailbox.Maildir(path, create=False)).keys()):
                yield _parsed(box.get_bytes(key))
        elif path.is_dir():
            for file in sorted(path.glob("*.patch")):
                yield _parsed(file.read_bytes())
        else:
            yield from b4.mailsplit_bytes(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(
            f"{place}: {error.strerror}",
            hint="expected an mbox, a maildir, a folder of *.patch, a message-id, "
            "or - for standard input",
        ) from None


def _thread(message_id: str) -> list[EmailMessage]:
    """The thread, from where the user's b4 looks for it: lore, or what `b4.midmask` says."""
    b4.setup_config(Namespace(config={}))
    found = b4.get_pi_thread_by_msgid(message_id, quiet=True)
    if not found:
        raise InfrastructureError(
            f"no thread of <{message_id}> could be fetched",
            hint="without a network, save the thread and name the file",
        )
    return found


def _parsed(data: bytes) -> EmailMessage:
    text = re.sub(rb"\AFrom [^\n]*\n", b"", data)
    return email.message_from_bytes(text, _class=EmailMessage, policy=_POLICY)


def _identified(number: int, letter: EmailMessage) -> EmailMessage:
    try:
        known = letter["Message-Id"]
    except (LookupError, AttributeError):  # over some that are none Python's own parser falls
        del letter["Message-Id"]
        known = None
    if not known:
        digest = hashlib.sha256(letter.as_bytes()).hexdigest()[:16]
        letter["Message-Id"] = f"<{number:04}-{digest}{MADE_UP}>"
    return letter
