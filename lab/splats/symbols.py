# SPDX-License-Identifier: GPL-2.0-only
"""File and line for each "function+0x1c/0x60" of a report.

The kernel's own scripts/decode_stacktrace.sh says the same, but starts addr2line once for every
address; here it is started once for all of them, on the addresses that nm knows for the names, so
that a report takes half a second and its text keeps the offsets.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.errors import InfrastructureError, LabError
from lab.proc import run

_PLACE = re.compile(
    r"(?P<function>[A-Za-z_][\w.$]*)\+0x(?P<offset>[0-9a-f]+)/0x(?P<size>[0-9a-f]+)"
    r"(?: \[(?P<module>[\w-]+)(?: [0-9a-f]{40})?\])?(?! \()"
)
# There the address is that of the instruction itself; in a call trace it is the one after a call.
_EXACT = re.compile(r"(?:[RE]?IP ?:|pc ?:|PC is at|NIP|epc ?:|WARNING:|BUG:|Krnl PSW)")
_ADDRESS = re.compile(r"0x[0-9a-f]+$")
_LINE = re.compile(r"(?P<file>\S+):(?P<line>\d+)(?: \(discriminator \d+\))?$")
_ROOT = ("start_kernel", "init/main.c")  # in every kernel, so it tells where the tree was
_LIMIT = 120.0  # seconds for one of the tools: 500 places all over a kernel take 10 of a CPU
_PADDING = 64  # bytes between a function's end and the next one, which printk counts to it


@dataclass(frozen=True)
class _Place:
    function: str
    offset: int
    size: int
    module: str | None
    exact: bool

    @classmethod
    def of(cls, match: re.Match[str]) -> "_Place":
        exact = _EXACT.search(match.string, 0, match.start()) is not None
        numbers = int(match["offset"], 16), int(match["size"], 16)
        return cls(match["function"], *numbers, match["module"], exact)


@dataclass(frozen=True)
class _Symbol:
    address: int
    size: int
    section: str  # of a module, where each section's addresses begin at 0; else empty


class Symbols:
    """What a kernel's vmlinux, and its modules if a folder of them is given, say of addresses.

    Paths are relative to the kernel's tree. What it has looked up once it remembers.
    """

    modules: Path | None

    def __init__(self, vmlinux: Path, modules: Path | None = None) -> None:
        self._vmlinux = vmlinux
        self.modules = modules
        self._tables: dict[Path, Mapping[str, list[_Symbol]]] = {}
        self._known: dict[_Place, str] = {}
        self._tree = ""

    @staticmethod
    def are_wanted(text: str) -> bool:
        """Whether there is anything to decode in it."""
        return _PLACE.search(text) is not None

    def lack(self, text: str) -> bool:
        """Whether functions of modules are in it, and nothing is known of modules."""
        return not self.modules and any(match["module"] for match in _PLACE.finditer(text))

    def decode(self, text: str) -> str:
        """The text with " (drivers/vfio/group.c:212)" behind each place that is known.

        Of a function that the compiler put into another both lines stand there, the inner first.
        Raises InfrastructureError where nm or addr2line are missing or refuse the file.
        """
        lines = text.split("\n")
        places = {_Place.of(m) for line in lines for m in _PLACE.finditer(line)}
        self._look_up(place for place in places if place not in self._known)

        def decoded(match: re.Match[str]) -> str:
            found = self._known[_Place.of(match)]
            return f"{match[0]} ({found})" if found else match[0]

        return "\n".join(_PLACE.sub(decoded, line) for line in lines)

    def _look_up(self, places: Iterable[_Place]) -> None:
        wanted: dict[Path, list[_Place]] = defaultdict(list)
        for place in places:
            self._known[place] = ""
            if file := self._file(place.module):
                wanted[file].append(place)
        if wanted:
            self._look_up_in(self._vmlinux, wanted.pop(self._vmlinux, []))  # says where the tree is
        for file, there in wanted.items():
            self._look_up_in(file, there)

    def _file(self, module: str | None) -> Path | None:
        if not module:
            return self._vmlinux
        names = {f"{module.replace('_', sign)}.ko" for sign in "_-"}
        found = (path for name in sorted(names) for path in (self.modules or Path()).rglob(name))
        return next(found, None) if self.modules else None

    def _look_up_in(self, file: Path, places: list[_Place]) -> None:
        table = self._table(file)
        addresses = {p: where for p in places if (where := _address(table, p)) is not None}
        root = table.get(_ROOT[0], []) if file == self._vmlinux and not self._tree else []
        asked = [*addresses.values(), *((symbol.section, symbol.address) for symbol in root)]
        found = _lines(file, asked) if asked else {}
        for symbol in root:
            path = next(iter(found.get((symbol.section, symbol.address), [])), "")
            self._tree = path.partition(_ROOT[1])[0] if _ROOT[1] in path else ""
        for place, where in addresses.items():
            names = dict.fromkeys(line.removeprefix(self._tree) for line in found.get(where, []))
            self._known[place] = " ".join(names)

    def _table(self, file: Path) -> Mapping[str, list[_Symbol]]:
        if file not in self._tables:
            table: dict[str, list[_Symbol]] = defaultdict(list)
            linked = file.suffix != ".ko"

            def note(line: str) -> None:
                match [word.strip() for word in line.split("|")]:
                    case [name, address, kind, _, size, _, section] if kind in "tTwW" and size:
                        where = "" if linked else section
                        table[name].append(_Symbol(int(address, 16), int(size, 16), where))

            _tool(["nm", "-f", "sysv", str(file)], note)
            self._tables[file] = table
        return self._tables[file]


def _address(table: Mapping[str, list[_Symbol]], place: _Place) -> tuple[str, int] | None:
    """Where it is in the file: section and address. Of functions of one name it is the one of that
    size, if one is."""
    fitting = [s for s in table.get(place.function, []) if 0 <= place.size - s.size < _PADDING]
    best = [s for s in fitting if s.size == max(each.size for each in fitting)]
    if len(best) != 1:
        return None
    behind = 0 if place.exact or not place.offset else 1
    return best[0].section, best[0].address + place.offset - behind


def _lines(file: Path, places: Iterable[tuple[str, int]]) -> dict[tuple[str, int], list[str]]:
    """File and line of each section's addresses, the innermost function's first."""
    wanted: dict[str, list[int]] = defaultdict(list)
    for section, address in dict.fromkeys(places):
        wanted[section].append(address)
    found: dict[tuple[str, int], list[str]] = {}
    for section, addresses in wanted.items():
        lines = _lines_in(file, ["-j", section] if section else [], addresses)
        found.update({(section, address): lines.get(address, []) for address in addresses})
    return found


def _lines_in(file: Path, words: list[str], addresses: list[int]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    current: list[str] = []

    def note(line: str) -> None:
        nonlocal current
        if _ADDRESS.match(line):
            current = found.setdefault(int(line, 16), [])
        elif match := _LINE.match(line):
            path = re.sub(r"[^/]+/\.\./", "", match["file"])
            if not path.startswith("??"):
                current.append(f"{path}:{match['line']}")

    asked = [f"{address:#x}" for address in addresses]
    for batch in _batches(asked, 500):
        _tool(["addr2line", "-a", "-i", "-e", str(file), *words, *batch], note)
    return found


def _batches(words: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(words), size):
        yield words[start : start + size]


def _tool(argv: list[str], note: Callable[[str], None]) -> None:
    try:
        run(argv, on_line=note, seconds=_LIMIT)
    except LabError as error:
        raise InfrastructureError(f"no file and line: {error.message}", hint=error.hint) from error
