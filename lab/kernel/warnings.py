# SPDX-License-Identifier: GPL-2.0-only
"""What compilers and kbuild's own checkers warned of, and what of it is new."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lab.kernel.build import MAKE, STEP

# "../drivers/vfio/group.c:20:13: warning: unused variable 'x' [-Wunused-variable]" of gcc and
# clang; "vmlinux.o: warning: objtool: ..."; "../drivers/vfio/Kconfig:3:warning: ..."
_WARNING = re.compile(
    r"^(?P<file>[^\s:][^:]*)(:(?P<line>\d+))?(:\d+)?: ?[Ww]arning: (?P<text>.*?)"
    r"( \[(?P<option>-W[^\]]+)\])?$"
)
_CHECKER = re.compile(r"^WARNING: (?P<text>.+)$")  # modpost, and Kconfig's unmet dependencies
_END = re.compile(r"(: (fatal )?error: |^\d+ (warning|error)s? .*generated\.$|^#( |$))")
# What gcc and clang say before a warning, or before a note to the warning that stands above.
_BEFORE = re.compile(
    r"^(In file included from |In function |\s+(from|inlined from) \S"
    r"|.*: (In (member )?function |At top level:))"
)
_OFFSET = re.compile(r"\+0x[0-9a-f]+")
_QUOTES = str.maketrans("\u2018\u2019", "''")  # which ones gcc takes is the locale's


@dataclass(frozen=True)
class CompilerWarning:
    """One warning. `file` is relative to the tree (or the tool's name, or empty, where there is no
    file), `line` None where there is none, `option` such as "-Wunused-variable" or empty; `lines`
    are all that was printed of it."""

    file: str
    line: int | None
    text: str
    option: str
    lines: tuple[str, ...]

    @property
    def same(self) -> tuple[str, str, str]:
        """Equal for one warning in two builds, wherever in its file or function it stands."""
        return self.file, _OFFSET.sub("", self.text.translate(_QUOTES)), self.option

    def to_json(self) -> dict[str, Any]:
        """As provenance has it."""
        return {
            "file": self.file,
            "line": self.line,
            "text": self.text,
            "option": self.option,
            "lines": list(self.lines),
        }


def warnings_in(log: str) -> tuple[CompilerWarning, ...]:
    """Every warning of a build's log, in order; what several files say of one header is one."""
    found: list[tuple[re.Match[str], list[str]]] = []
    before: list[str] = []
    lines: list[str] | None = None  # of the warning above, as long as it lasts
    for line in log.splitlines():
        if STEP.match(line) or MAKE.match(line) or _END.search(line):
            before, lines = [], None
        elif _BEFORE.match(line):
            before.append(line)
        elif match := _WARNING.match(line) or _CHECKER.match(line):
            lines = [*before, line]
            before = []
            found.append((match, lines))
        elif lines is not None:
            lines += [*before, line]
            before = []
    distinct: dict[Any, CompilerWarning] = {}
    for match, words in found:
        warning = _warning(match, tuple(words))
        distinct.setdefault((warning.same, warning.line), warning)
    return tuple(distinct.values())


def new_warnings(log: str, base_log: str) -> tuple[CompilerWarning, ...]:
    """Those of `log` that `base_log`, which is of a whole build, has not, or not as often."""
    return _beyond(warnings_in(log), warnings_in(base_log))


def _beyond(
    these: Iterable[CompilerWarning], known: Iterable[CompilerWarning]
) -> tuple[CompilerWarning, ...]:
    left = Counter(each.same for each in known)
    new = []
    for each in these:
        if left[each.same]:
            left[each.same] -= 1
        else:
            new.append(each)
    return tuple(new)


def _warning(match: re.Match[str], lines: tuple[str, ...]) -> CompilerWarning:
    parts = match.groupdict()
    file = re.sub(r"^(\.\.?/)+", "", parts.get("file") or "")  # as seen from the objects
    number = parts.get("line")
    option = parts.get("option") or ""
    return CompilerWarning(file, int(number) if number else None, parts["text"], option, lines)
