# SPDX-License-Identifier: GPL-2.0-only
"""What every detector is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lab.condition.asking import Question

Seen = Mapping[str, str]
"""How each thing is, by its name: a thing that is not there is not in it."""

MEANWHILE = 3.0  # seconds: what was killed or closed lets go while nobody waits for it


@dataclass(frozen=True)
class Detector:
    """One kind of thing that a test can leave behind.

    `look` asks how things are, and is given what was seen when the guest was new, None the first
    time. Its answer is None where this kernel or machine has nothing of the kind. `tell` says of a
    thing what has become of it, from how it was and how it is, None where it is not there; the
    empty string when that is nobody's fault. `patience` is how many seconds it may take until
    things are as before without anything being wrong. `needs` is the kernel's option without which
    it sees nothing. `off` says of a guest that is new what keeps it from ever seeing anything, the
    empty string where nothing does.
    """

    name: str
    look: Callable[[Seen | None], Question[Seen | None]]
    tell: Callable[[str, str | None, str | None], str]
    patience: float = 0.0
    needs: str = ""
    off: Callable[[Seen], str] = lambda _: ""
