# SPDX-License-Identifier: GPL-2.0-only
"""File and line behind each address of what showed: once for each title, as all say the same."""

from collections.abc import Iterable
from dataclasses import replace

from lab.errors import LabError
from lab.kernel import Kernel
from lab.repro.attempt import Attempt
from lab.repro.sign import Sign
from lab.splats.symbols import Symbols


def with_lines(attempts: Iterable[Attempt], kernel: Kernel) -> tuple[Attempt, ...]:
    """The attempts, the first of each title with its report decoded."""
    symbols = Symbols(kernel.vmlinux) if kernel.vmlinux else None
    titles: set[str] = set()

    def told(sign: Sign) -> Sign:
        if sign.title in titles or not Symbols.are_wanted(sign.text):
            return sign
        titles.add(sign.title)
        return replace(sign, text=_decoded(sign.text, symbols))

    found = []
    for attempt in sorted(attempts, key=lambda attempt: attempt.since):
        shown, others = tuple(map(told, attempt.shown)), tuple(map(told, attempt.others))
        found.append(replace(attempt, shown=shown, others=others))
    return tuple(sorted(found, key=lambda attempt: attempt.number))


def _decoded(text: str, symbols: Symbols | None) -> str:
    if not symbols:
        return f"{text}\n(no file and line: this kernel came without a vmlinux)"
    try:
        return symbols.decode(text)
    except LabError as error:
        return f"{text}\n({error.message})"
