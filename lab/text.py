# SPDX-License-Identifier: GPL-2.0-only
"""Text that came from a guest, or a mail, made fit for a terminal, for XML and for scripts."""

import re

# Control characters (but tab and newline), lone surrogates and two non-characters: XML 1.0 has
# no way to write them, and in a terminal an escape sequence would act instead of being seen.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def printable(text: str) -> str:
    """`text` with each character that cannot be shown as `\\x1b` or `\\udc80`.

    The carriage returns of a serial console's line ends are dropped.
    """
    if text.isascii() and text.isprintable():
        return text  # nearly all of it is
    return _UNPRINTABLE.sub(_escaped, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """The same without line ends: what follows them would be no comment of a script any more."""
    return printable(text).replace("\n", " ")


def _escaped(found: re.Match[str]) -> str:
    number = ord(found.group())
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
