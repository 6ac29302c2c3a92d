# SPDX-License-Identifier: GPL-2.0-only
"""A series out of mail, as `git am` takes it: its newest version, in order, with its trailers.

Reading mail is b4's work, and it is not asked to reach for the network. What it gives up on is
mail without message-ids, which is what plain `git format-patch` writes: that gets some.
"""

import contextlib
import io
import logging
import re
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import getaddresses

import b4

from lab.errors import ConfigurationError
from lab.kernel.letters import MADE_UP, name_of, read_letters
from lab.kernel.series import Letter, Series

_PREREQUISITE = re.compile(r"^prerequisite-(?:patch|change|message)-id: *(\S.*?)\s*$", re.MULTILINE)
_BASE_COMMIT = re.compile(r"^base-commit: ([0-9a-f]{12,})\s*$", re.MULTILINE)


def read_series(place: str) -> Series:
    """The series in the mails of a place, as `read_letters` takes it.

    Raises ConfigurationError where there is none, or a part of it is missing.
    """
    return series_in(read_letters(place), place)


def series_in(letters: Sequence[EmailMessage], place: str) -> Series:
    """The series in these mails, which came from a place. Raises as `read_series` does."""
    with _quiet_b4():
        box = b4.LoreMailbox()
        for mail in letters:
            box.add_message(mail)
        found = box.get_series(codereview_trailers=False)
        unnumbered = [patch for patch in box.msgid_map.values() if _is_alone(patch)]
        # as their subjects have it: b4 takes the next one for a newer version of the first
        newest = max((patch.lsubject.revision for patch in unnumbered), default=0)
        unnumbered = [patch for patch in unnumbered if patch.lsubject.revision == newest]
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
        patches = [patch for patch in found.patches[1:] if patch]
        return _series(place, found.patches[0], patches, found.get_am_ready())


def _in_order(place: str, patches: list[b4.LoreMessage]) -> Series:
    """Patches that do not say how many they are: their order is the mail's."""
    return _series(place, None, patches, [patch.get_am_message() for patch in patches])


def _series(
    place: str,
    cover: b4.LoreMessage | None,
    patches: Sequence[b4.LoreMessage],
    ready: list[EmailMessage],
) -> Series:
    """`ready` are the patches as `git am` shall have them."""
    said = [mail.body for mail in (cover, *patches) if mail]
    return Series(
        name=name_of(place),
        file=place,
        patches=_mails(ready),
        letter=_letter(cover or patches[0]),
        letters=tuple(_letter(patch) for patch in patches),
        base_commit=next(_all(_BASE_COMMIT, said), None),
        prerequisites=tuple(_all(_PREREQUISITE, said)),
    )


def _letter(mail: b4.LoreMessage) -> Letter:
    author = f"{mail.fromname} <{mail.fromemail}>"
    return Letter(
        subject=mail.full_subject,
        author=author,
        message_id="" if mail.msgid.endswith(MADE_UP) else mail.msgid,
        date=_header(mail, "Date"),
        reply_to=_addresses(mail, "Reply-To") or _addresses(mail, "From"),
        others=_addresses(mail, "To", "Cc"),
        references=tuple(id_ for id_ in mail.references if not id_.endswith(MADE_UP)),
        text=re.split(r"^---$|^diff --git ", mail.body, maxsplit=1, flags=re.MULTILINE)[0],
    )


def _header(mail: b4.LoreMessage, name: str) -> str:
    return str(b4.LoreMessage.clean_header(mail.msg[name])) if mail.msg[name] else ""


def _addresses(mail: b4.LoreMessage, *names: str) -> tuple[str, ...]:
    values = [value for name in names for value in mail.msg.get_all(name, [])]
    pairs = getaddresses([b4.LoreMessage.clean_header(value) for value in values])
    found = []
    for name, address in pairs:
        # what is no address is passed over, and of an empty one Address knows no better
        with contextlib.suppress(ValueError, HeaderParseError, IndexError):
            found.append(str(Address(name, addr_spec=address)))
    return tuple(found)


def _is_alone(patch: b4.LoreMessage) -> bool:
    return bool(patch.has_diff and not patch.reply and patch.counters_inferred)


def _mails(letters: list[EmailMessage]) -> tuple[bytes, ...]:
    """Each as a mailbox of one."""
    found = []
    for letter in letters:
        content = io.BytesIO()
        b4.save_git_am_mbox([letter], content)
        found.append(content.getvalue())
    return tuple(found)


def _all(pattern: re.Pattern[str], texts: Sequence[str]) -> Iterator[str]:
    """What the pattern's group is in them."""
    for text in texts:
        yield from pattern.findall(text)


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
    # of a date that is none, for one; over some addresses Python's own parser falls
    except (ValueError, LookupError, AttributeError) as error:
        raise ConfigurationError(f"b4 cannot read this mail: {error}") from error
    finally:
        b4.can_network = before
        logging.getLogger("b4").disabled = False
