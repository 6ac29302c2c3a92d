# SPDX-License-Identifier: GPL-2.0-only
"""A series out of mail, as `git am` takes it: its newest version, in order, with its trailers.

Reading mail is b4's work, and it is not asked to reach for the network. What it gives up on is
mail without message-ids, which is what plain `git format-patch` writes: that gets some.
"""

import email
import email.policy
import hashlib
import io
import logging
import mailbox
import re
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path

import b4

from lab.errors import ConfigurationError
from lab.kernel.series import Letter, Series

STDIN = "-"
_BASE_COMMIT = re.compile(r"^base-commit: (?P<commit>[0-9a-f]{12,})\s*$", re.MULTILINE)
_POLICY = email.policy.EmailPolicy(utf8=True, cte_type="8bit", max_line_length=None)


def read_series(place: str) -> Series:
    """The series in an mbox, a maildir, a folder of `*.patch` or, for `-`, standard input.

    Raises ConfigurationError where there is none, or a part of it is missing.
    """
    letters = [_identified(number, letter) for number, letter in enumerate(_letters(place))]
    with _quiet_b4():
        box = b4.LoreMailbox()
        for letter in letters:
            box.add_message(letter)
        found = box.get_series(codereview_trailers=False)
        unnumbered = [patch for patch in box.msgid_map.values() if _is_alone(patch)]
        if len(unnumbered) > 1:
            return _in_order(place, unnumbered)
        if found is None:
            raise ConfigurationError(
                f"{place} holds no patch", hint="expected mail as git format-patch makes it"
            )
        missing = [n for n, patch in enumerate(found.patches) if n and patch is None]
        if missing:
            listed = ", ".join(f"{n}/{found.expected}" for n in missing)
            raise ConfigurationError(
                f"{place}: patch {listed} of v{found.revision} is missing",
                hint="save the whole thread",
            )
        patches = _mails(found.get_am_ready())
        first = found.patches[0] or found.patches[1]
    assert first is not None
    return Series(
        name=_name(place),
        file=place,
        patches=patches,
        letter=Letter(first.full_subject, f"{first.fromname} <{first.fromemail}>", first.msgid),
        base_commit=_base_commit(letters),
    )


def _in_order(place: str, patches: list[b4.LoreMessage]) -> Series:
    """Patches that do not say how many they are: their order is the mail's."""
    first = patches[0]
    mails = _mails([patch.get_am_message() for patch in patches])
    letter = Letter(first.full_subject, f"{first.fromname} <{first.fromemail}>", first.msgid)
    return Series(_name(place), place, mails, letter)


def _is_alone(patch: b4.LoreMessage) -> bool:
    return bool(patch.has_diff and not patch.reply and patch.counters_inferred)


def _letters(place: str) -> Iterator[EmailMessage]:
    if place == STDIN:
        yield from b4.mailsplit_bytes(sys.stdin.buffer.read())
        return
    path = Path(place).expanduser()
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
            hint="expected an mbox, a maildir, a folder of *.patch, or - for standard input",
        ) from None


def _parsed(data: bytes) -> EmailMessage:
    text = re.sub(rb"\AFrom [^\n]*\n", b"", data)
    return email.message_from_bytes(text, _class=EmailMessage, policy=_POLICY)


def _identified(number: int, letter: EmailMessage) -> EmailMessage:
    if not letter["Message-Id"]:
        digest = hashlib.sha256(letter.as_bytes()).hexdigest()[:16]
        letter["Message-Id"] = f"<{number:04}-{digest}@vfio-lab.invalid>"
    return letter


def _mails(letters: list[EmailMessage]) -> tuple[bytes, ...]:
    """Each as a mailbox of one."""
    found = []
    for letter in letters:
        content = io.BytesIO()
        b4.save_git_am_mbox([letter], content)
        found.append(content.getvalue())
    return tuple(found)


def _base_commit(letters: list[EmailMessage]) -> str | None:
    for letter in letters:
        body, _ = b4.LoreMessage.get_payload(letter)
        if found := _BASE_COMMIT.search(body):
            return found["commit"]
    return None


def _name(place: str) -> str:
    return "standard input" if place == STDIN else Path(place).stem


@contextmanager
def _quiet_b4() -> Iterator[None]:
    """b4 without a network, without a look at signatures, and without a word."""
    before = b4.can_network
    b4.can_network = False
    b4.setup_config(Namespace(config={"b4.attestation-policy": "off"}))
    logging.getLogger("b4").disabled = True
    try:
        yield
    except SystemExit as error:
        raise ConfigurationError(
            "b4 refuses this mail: it holds Unicode control characters that hide what it says",
            hint="look at it with `b4 am`",
        ) from error
    finally:
        b4.can_network = before
        logging.getLogger("b4").disabled = False
