# SPDX-License-Identifier: GPL-2.0-only
"""The user's terminal, handed over to a guest."""

import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def raw() -> Iterator[None]:
    """Every key, Ctrl-C too, comes as it is. Where standard input is no terminal it does anyway."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setraw(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
