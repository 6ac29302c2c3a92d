# SPDX-License-Identifier: GPL-2.0-only
"""Whether the lab's structures and numbers are those of the kernel under test.

The compiler says what the kernel's exported headers hold: where each field is and how large, and
what each constant is. uAPI grows and does not change, so this is no drift: a structure that goes on
behind the fields that are known here, or that ends before them, in an older kernel; reserved room
that got a use; what an older kernel does not have yet. A patched kernel is compared with its base,
too. A field that a series takes away is drift; a constant is told only: it has happened in mainline
(VFIO_TYPE1_NESTING_IOMMU, 6.13), and what the kernel answers then is for the tests to see.
"""

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from pathlib import Path
from types import ModuleType

from lab.cache import Cache, hash_of_file
from lab.errors import BuildError, DriftError
from lab.kernel import Kernel, sandbox
from lab.kernel.build import errors_in
from lab.proc import CommandError, run
from lab.progress import Progress
from lab.vfio.uapi import container, iommufd, vfio
from lab.vfio.uapi.layout import Layout

HEADERS = ("linux/vfio.h", "linux/iommufd.h")
_DECIDE = (*HEADERS, "linux/ioctl.h", "asm-generic/ioctl.h", "linux/types.h")
_PREFIXES = ("VFIO_", "IOMMU_")  # of the kernel's own constants; others are words of the lab's
_RESERVED = re.compile(r"_*(reserved|pad)\d*")
_RECIPE = 1  # of the comparison: a new number compares all kernels anew
_LIST = "lab"  # what the compiler is told that the file with one item a line is called
_ERROR = re.compile(rf"^{_LIST}:(\d+):\d+: error: ")
_PROGRAM = """\
%s
int printf(const char *, ...);

/* -1 is what its 32 bits are */
#define VALUE(x) { 1, sizeof(x) == 4 ? (unsigned int)(x) : (unsigned long long)(x) }

static const struct { unsigned int there; unsigned long long value; } values[] = {
#line 1 "%s"
%s
};

int main(void)
{
	for (unsigned int i = 0; i < sizeof(values) / sizeof(*values); i++)
		printf("%%u %%llu\\n", values[i].there, values[i].value);
	return 0;
}
"""


class Kind(StrEnum):
    """What of a name is compared; the value is how it is said, before and after its number."""

    PLACE = "is at {}"
    SIZE = "has {} bytes"
    NUMBER = "is {:#x}"


@dataclass(frozen=True)
class Item:
    """One thing that the lab believes: `expression` is C, `value` what it should give.

    `struct` is the structure that a field belongs to.
    """

    name: str
    kind: Kind
    expression: str
    value: int
    struct: str = ""

    def was_taken(self, values: Mapping[str, int], before: Mapping[str, int] | None) -> bool:
        """Whether `before` has it, and `values` no longer."""
        return self.expression not in values and self.expression in (before or {})

    def is_replaced(self, values: Mapping[str, int]) -> bool:
        """Whether the structure of a field goes on where the field should be, and has it not."""
        end = values.get(f"sizeof({self.struct})", 0)
        return self.expression not in values and end > self.value


def items(modules: Sequence[ModuleType] = (vfio, container, iommufd)) -> list[Item]:
    """All that is compared: every field and every constant of these modules."""
    found: list[Item] = []
    for module in modules:
        own = [each for each in vars(module).values() if isinstance(each, type)]
        for each in own:
            if each.__module__ != module.__name__:
                continue
            if issubclass(each, Layout):
                found += _fields(each)
            elif issubclass(each, Enum):
                # not the iteration's members: it passes over aliases, and flags of no or many bits
                found += [
                    Item(name, Kind.NUMBER, name, member.value)
                    for name, member in each.__members__.items()
                    if name.startswith(_PREFIXES)
                ]
    return list(dict.fromkeys(found))


def _fields(layout: type[Layout]) -> Iterator[Item]:
    struct = f"struct {layout.name_in_c()}"
    for name, *_ in layout._fields_:
        field = getattr(layout, name)
        if not _RESERVED.fullmatch(name):
            path = f"{layout.name_in_c()}.{name}"
            place = f"__builtin_offsetof({struct}, {name})"
            size = f"sizeof((({struct} *)0)->{name})"
            yield Item(path, Kind.PLACE, place, field.offset, struct)
            yield Item(path, Kind.SIZE, size, field.size, struct)


def check(kernel: Kernel, cache: Cache, progress: Progress) -> None:
    """Compare; what the headers say is remembered until they change.

    What cannot be compared is said. Raises DriftError that names each field and number, and
    BuildError where the headers do not compile.
    """
    if not kernel.headers:
        progress.say(
            f"{kernel.name} comes without headers: whether the lab's structures are this kernel's "
            "is not checked"
        )
        return
    if not shutil.which("gcc"):
        progress.say("gcc is not installed: the lab's structures are not checked")
        return
    wanted, what = items(), f"the headers of {kernel.name}"
    values = _known(kernel.headers, what, wanted, cache)
    base = kernel.provenance.get("base", {})
    entry = cache.entry("kernel", base.get("key", ""))
    before = (
        _known(entry.path / "headers", f"the headers of {base['name']}", wanted, cache)
        if entry
        else None
    )
    if differences := compare(wanted, values, what, before):
        raise DriftError(
            "\n".join(differences),
            hint="what programs were built with must go on to work: mend the series; or, where the "
            "kernel is right, lab/vfio/uapi",
        )
    gone = [item.name for item in wanted if not item.struct and item.was_taken(values, before)]
    if gone:
        progress.say(f"{', '.join(gone)}: no longer in {what}")


def compare(
    wanted: Sequence[Item],
    values: Mapping[str, int],
    what: str,
    before: Mapping[str, int] | None = None,
) -> list[str]:
    """Each difference in a line. `values` are those of `read`, `before` those of the base."""
    found = []
    for item in wanted:
        ours = item.kind.value.format(item.value)
        theirs = values.get(item.expression)
        if theirs is not None and theirs != item.value:
            there = item.kind.value.removeprefix("has").removeprefix("is").strip()
            found.append(f"{item.name} {ours} in the lab and {there.format(theirs)} in {what}")
        elif item.kind is Kind.PLACE and item.was_taken(values, before):
            found.append(f"{item.name} {ours} in the lab and is no longer in {what}")
        elif item.kind is Kind.PLACE and before is None and item.is_replaced(values):
            found.append(f"{item.name} {ours} in the lab, and there is no such field in {what}")
    return found


def _known(headers: Path, what: str, wanted: Sequence[Item], cache: Cache) -> Mapping[str, int]:
    """As `read`, but once."""
    files = [(name, headers / name) for name in _DECIDE]
    inputs = {
        "recipe": _RECIPE,
        "headers": {name: hash_of_file(file) for name, file in files if file.is_file()},
        "expressions": [item.expression for item in wanted],
    }
    known = cache.recall("uapi", inputs)
    if known is None:
        known = read(headers, what, wanted)
        cache.remember("uapi", inputs, known)
    return known


def read(headers: Path, what: str, wanted: Sequence[Item]) -> dict[str, int]:
    """What the headers say of each expression, and of the size of each structure.

    Those are left out that they do not know. Raises BuildError for headers that do not compile.
    """
    structs = dict.fromkeys(f"sizeof({item.struct})" for item in wanted if item.struct)
    expressions: list[str] = [*structs, *dict.fromkeys(item.expression for item in wanted)]
    includes = [f"#include <{name}>" for name in HEADERS if (headers / name).is_file()]
    lines = [f"VALUE({expression})," for expression in expressions]
    walls = sandbox.find()
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder) / "probe"
        source = probe.with_suffix(".c")

        def attempt() -> list[str]:
            text = "\n".join(lines)
            source.write_text(_PROGRAM % ("\n".join(includes), _LIST, text))
            # One place for all that a macro's words come from: the line of the list.
            words = ["-w", "-O0", "-ftrack-macro-expansion=0", "-fmax-errors=0"]
            paths = ["-isystem", str(headers), "-o", str(probe), str(source)]
            compiler = ["gcc", *words, "-nostdinc", *paths]
            # Headers can hold functions, and some of those run before main().
            run(walls.around(compiler, reads=[headers], writes=[probe.parent]))
            return run(walls.around([probe], reads=[probe.parent]))

        try:
            printed = attempt()
        except CommandError as error:
            unknown = {int(found[1]) for line in error.lines if (found := _ERROR.match(line))}
            for number in unknown:
                lines[number - 1] = "{ 0 },"
            try:
                printed = attempt()
            except CommandError as again:
                said = "\n".join(f"    {line}" for line in errors_in("\n".join(again.lines)))
                raise BuildError(f"{what} do not compile:\n{said}") from again
    pairs = [line.split() for line in printed]
    return {
        expression: int(value)
        for expression, (there, value) in zip(expressions, pairs, strict=True)
        if there == "1"
    }
