# SPDX-License-Identifier: GPL-2.0-only
"""lab.yaml as a whole: read, validated, and its names checked against each other."""

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from lab.config.models import (
    Debian,
    DebSource,
    Device,
    GitSource,
    Image,
    Iommu,
    Kernel,
    Machine,
    Model,
    PackageSource,
    Release,
    Run,
    Suite,
    TarballSource,
    Variant,
    VersionSource,
    bytes_of,
)
from lab.config.nightly import Drop, Exclusion, Keep, Mail, Nightly
from lab.document import Document, load
from lab.errors import ConfigurationError

FILE = "lab.yaml"
_MOST = 20  # names that an error lists: there are 61 rules, and 183 mutants


class Content(Model):
    """The file as a whole, before its names are checked against each other."""

    debian: Debian
    kernels: dict[str, Kernel]
    versions: dict[Release, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(default={})
    variants: dict[str, Variant] = Field(default={})
    images: dict[str, Image]
    machines: dict[str, Machine]
    suites: dict[str, Suite]
    run: Run
    nightly: Nightly | None = None


class Lab:
    """A lab: its folder, and what lab.yaml says of it."""

    def __init__(self, root: Path, document: Document, model: Content) -> None:
        self.root = root
        self._document = document
        self.debian = model.debian
        self.kernels: Mapping[str, Kernel] = model.kernels
        self.versions: Mapping[str, tuple[str, ...]] = model.versions
        self.variants: Mapping[str, Variant] = model.variants
        self.images: Mapping[str, Image] = model.images
        self.machines: Mapping[str, Machine] = model.machines
        self.suites: Mapping[str, Suite] = model.suites
        self.run = model.run
        self.nightly = model.nightly
        self._check_names()

    @classmethod
    def load(cls, root: Path) -> "Lab":
        """Read `root`/lab.yaml. Raises ConfigurationError with file, line and expectation."""
        document = load(root / FILE)
        try:
            model = Content.model_validate(document.content)
        except ValidationError as invalid:
            raise document.invalid(invalid, _slip) from None
        return cls(root.resolve(), document, model)

    @classmethod
    def find(cls, given: Path | None = None) -> "Lab":
        """The lab in `given`, in $VFIO_LAB, or upwards from the current folder."""
        named = given or (Path(os.environ["VFIO_LAB"]) if os.environ.get("VFIO_LAB") else None)
        if named:
            if not (named / FILE).is_file():
                raise ConfigurationError(f"{named} holds no {FILE}", hint="name a lab's folder")
            return cls.load(named)
        here = Path.cwd()
        for folder in (here, *here.parents):
            if (folder / FILE).is_file():
                return cls.load(folder)
        raise ConfigurationError(
            f"no {FILE} in {here} or above it",
            hint="go to a lab's folder, or name it with --lab DIR or VFIO_LAB",
        )

    def path(self, relative: Path) -> Path:
        """A path as lab.yaml means it: `~` is a home, everything else starts at the lab."""
        return self.root / relative.expanduser()

    def fragment(self, name: str) -> Path:
        """The file of a kernel fragment."""
        return self.root / "kernels" / "fragments" / f"{name}.config"

    def fragments(self) -> list[str]:
        """The names of all fragments."""
        return sorted(p.stem for p in (self.root / "kernels" / "fragments").glob("*.config"))

    def kernel_of(self, version: str) -> Kernel:
        """The kernel that is built of a version's source: with the fragments of the newest version
        of lab.yaml's `versions` that is not newer.

        Raises ConfigurationError where all of them are.
        """
        older = [each for each in self.versions if _numbers(each) <= _numbers(version)]
        if not older:
            raise ConfigurationError(
                f"{self.root / FILE}: `versions` has no fragments for a kernel as old as {version}",
                hint="name them there: `versions: {X.Y: [FRAGMENT, …]}`",
            )
        fragments = self.versions[max(older, key=_numbers)]
        return Kernel(source=VersionSource(version=version), fragments=fragments)

    def variant(self, fragments: Iterable[str]) -> Variant:
        """What a kernel of these fragments costs, all together."""
        parts = [self.variants[name] for name in fragments if name in self.variants]
        return Variant(
            slower=prod(part.slower for part in parts),
            memory=max((part.memory for part in parts if part.memory), key=bytes_of, default=None),
            command_line=tuple(word for part in parts for word in part.command_line),
        )

    def machine(self, name: str) -> Machine:
        """A machine by its name."""
        return self.machines[known("machine", name, self.machines)]

    def image(self, name: str) -> Image:
        """An image by its name."""
        return self.images[known("image", name, self.images)]

    def suite(self, name: str) -> Suite:
        """A suite by its name."""
        return self.suites[known("suite", name, self.suites)]

    def machine_for(self, suites: Iterable[str]) -> str:
        """The machine that these suites want. Raises ConfigurationError when they differ."""
        wanted = {name: self.suite(name).machine or self.run.machine for name in suites}
        if len(set(wanted.values())) > 1:
            raise ConfigurationError(
                "these suites want different machines: "
                + ", ".join(f"{suite} wants {machine}" for suite, machine in wanted.items()),
                hint="run one after the other, or name one machine for all with --machine",
            )
        return next(iter(wanted.values()), self.run.machine)

    def _check_names(self) -> None:
        """What one part of the file says of another must be there."""
        self._check_kernels()
        for name in self.variants:
            self._check(("variants", name), name, self.fragments())
        for name, machine in self.machines.items():
            self._check_machine(name, machine)
        for name, suite in self.suites.items():
            if suite.machine is not None:
                self._check(("suites", name, "machine"), suite.machine, self.machines)
        self._check(("run", "kernel"), self.run.kernel.split("+")[0], self.kernels)
        self._check(("run", "machine"), self.run.machine, self.machines)
        self._check(("run", "image"), self.run.image, self.images)
        for index, chosen in enumerate(self.run.suites):
            self._check(("run", "suites", index), chosen, self.suites)
        if self.nightly:
            self._check_nightly(self.nightly)

    def _check_kernels(self) -> None:
        for name, kernel in self.kernels.items():
            self._check_fragments(("kernels", name, "fragments"), kernel.fragments)
            if isinstance(kernel.source, PackageSource | DebSource) and kernel.source.suite:
                where = ("kernels", name, "source", "suite")
                self._check(where, kernel.source.suite, self.debian.suites)
        for version, fragments in self.versions.items():
            self._check_fragments(("versions", version), fragments)

    def _check_nightly(self, nightly: Nightly) -> None:
        for index, machine in enumerate(nightly.machines):
            self._check(("nightly", "machines", index), machine, self.machines)
        for index, suite in enumerate(nightly.suites):
            self._check(("nightly", "suites", index), suite, self.suites)
        for index, drop in enumerate(nightly.series):
            where = ("nightly", "series", index, "kernels")
            for kernel in drop.kernels:
                if kernel not in nightly.kernels:
                    raise self._document.error(
                        where,
                        f"'{kernel}' is not among `kernels`: a series is compared with its kernel"
                        f" as it is; expected one of {_listed(nightly.kernels)}",
                    )

    def _check_fragments(self, where: tuple[str, ...], names: Iterable[str]) -> None:
        for index, name in enumerate(names):
            self._check((*where, index), name, self.fragments())

    def _check_machine(self, name: str, machine: Machine) -> None:
        if machine.iommu and machine.iommu.first_stage and not machine.iommu.scalable:
            raise self._document.error(
                ("machines", name, "iommu", "first_stage"), "expected `scalable: true` with it"
            )
        buses: list[str] = []
        for role, device in machine.devices.items():
            if device.bus is not None and device.bus not in buses:
                raise self._document.error(
                    ("machines", name, "devices", role, "bus"),
                    f"'{device.bus}' is no port or bridge that stands above it; expected one "
                    f"of {_listed(buses)}",
                )
            buses += [role] if device.model.is_bus else []

    def _check(self, where: tuple[str | int, ...], name: str, names: Iterable[str]) -> None:
        if name not in names:
            raise self._document.error(where, _unknown(name, names))


def _numbers(version: str) -> tuple[int, ...]:
    """Of X.Y.Z the first two."""
    return tuple(int(number) for number in re.findall(r"[0-9]+", version)[:2])


def known(what: str, name: str, names: Iterable[str]) -> str:
    """`name`, or a ConfigurationError that lists what there is."""
    if name in names:
        return name
    raise ConfigurationError(f"unknown {what}: {_unknown(name, names)}")


def _unknown(name: str, names: Iterable[str]) -> str:
    return f"'{name}' is not known; expected one of {_listed(names)}{_perhaps(name, names)}"


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = f", … ({len(every)} in all)" if len(every) > _MOST else ""
    return ", ".join(every[:_MOST]) + more or "(there is none)"


def _perhaps(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), 1)
    return f" (did you mean '{close[0]}'?)" if close else ""


def _slip(place: tuple[str | int, ...]) -> str:
    """Which key may have been meant, of all that any model knows."""
    models = (Content, Debian, Kernel, Variant, Image, Iommu, Device, Machine, Suite, Run)
    models_of_nights = (Nightly, Drop, Exclusion, Keep, Mail)
    models_of_sources = (PackageSource, GitSource, TarballSource, VersionSource, DebSource)
    every = (*models, *models_of_nights, *models_of_sources)
    return _perhaps(str(place[-1]), [field for model in every for field in model.model_fields])
