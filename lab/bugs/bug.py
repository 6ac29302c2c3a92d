# SPDX-License-Identifier: GPL-2.0-only
"""What a bug.yaml says. It stands in `tests/bugs/NAME/`, its reproducer beside it:

```yaml
title: "vfio/pci: an INTx eventfd is signalled after its memory was freed"
reference: [CVE-2024-26812, https://git.kernel.org/stable/c/18c198c96a81]
affected: "3.6"                   # the first release that has it; left out: always there
fixed: [6.1.85, 6.6.24, "6.9"]    # of each branch the first without it; mainline's is the greatest
revert: revert.mbox               # patches that bring it back: a kernel with this series has it
reproducer: repro.c               # C, a static program or a script beside this file, or a pytest id
arguments: [--fast]
devices: [edu0]                   # roles of the machine that it is told of
mode: vfio_type1v2_iommu          # the mode that it is told
machine: vtd                      # left out: any that has the devices
variant: [kasan]                  # fragments without which it does not show
signature: "KASAN: use-after-free in vfio_…"      # as in --expect; left out: whatever shows
status: 0                         # the reproducer's where nothing is wrong
timeout: 30                       # seconds that an attempt may take, before a variant stretches it
stress: [pin, memory]             # as in --stress
fault_injection: nth=12           # as in --fault-injection
rate: {shown: 3, of: 100}         # as it was seen on an affected kernel
```

A reproducer that cannot run where it is says so as a program of KTAP: it prints `1..0 # SKIP why`.
Its signature may be what `vfio-lab repro` has titled: a report of the kernel's, "hang in f",
"it exited with status 1", or "it did not end", for one that shows by standing still.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from lab.bugs import versions
from lab.bugs.versions import Version
from lab.contract import Mode
from lab.document import load
from lab.repro import rate as rates

FILE = "bug.yaml"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _version(value: Any) -> Any:
    # YAML reads 6.12 as a number, and 6.10 as the number 6.1
    if isinstance(value, float):
        raise PydanticCustomError("version", 'expected a version in quotation marks: "6.10"')
    if isinstance(value, str) and (found := versions.parse(value)):
        return found
    if isinstance(value, tuple):
        return value
    raise PydanticCustomError("version", 'expected a version, as "6.9" or 6.1.85')


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Versions = Annotated[Version, BeforeValidator(_version)]


class Rate(_Model):
    """How often it showed, of how many attempts."""

    shown: Annotated[int, Field(ge=1)]
    of: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _at_most_all(self) -> "Rate":
        if self.shown > self.of:
            raise PydanticCustomError("rate", "expected `shown` to be no more than `of`")
        return self

    def needed(self, confidence: float) -> int:
        """How many quiet attempts say with this confidence that it is not there."""
        return rates.needed(rates.lower(self.shown, self.of), confidence)


class Content(_Model):
    """The file; see above what each key means."""

    title: Annotated[str, Field(min_length=1)]
    reference: Annotated[tuple[str, ...], BeforeValidator(_several), Field(min_length=1)]
    affected: Versions | None = None
    fixed: tuple[Versions, ...] = ()
    revert: Path | None = None
    reproducer: str
    arguments: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    mode: Mode | None = None
    machine: str | None = None
    variant: tuple[str, ...] = ()
    signature: str | None = None
    status: int = 0
    timeout: Annotated[float, Field(gt=0)] = 30.0
    stress: tuple[str, ...] = ()
    fault_injection: str | None = None
    rate: Rate


@dataclass(frozen=True)
class Bug:
    """One folder under `tests/bugs`. `folder` and what is beside bug.yaml are absolute paths."""

    folder: Path
    content: Content

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read a bug.yaml. Raises ConfigurationError with file, line and expectation."""
        document = load(file)
        try:
            content = Content.model_validate(document.content)
        except ValidationError as invalid:
            there = f"; expected one of {', '.join(Content.model_fields)}"
            raise document.invalid(invalid, lambda _: there) from None
        bug = cls(file.absolute().parent, content)
        for key, name in (("reproducer", bug.file), ("revert", bug.revert)):
            if name and not name.is_file():
                raise document.error((key,), f"{name.name} is not beside it")
        return bug

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def is_test(self) -> bool:
        """Whether its reproducer is a pytest id."""
        return "::" in self.content.reproducer

    @property
    def file(self) -> Path | None:
        """Its reproducer, where that is a file."""
        return None if self.is_test else self.folder / self.content.reproducer

    @property
    def revert(self) -> Path | None:
        """The patches that bring it back, where it has such."""
        return self.folder / self.content.revert if self.content.revert else None
