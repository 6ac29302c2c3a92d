# SPDX-License-Identifier: GPL-2.0-only
"""What there is: kernels, machines, images, suites, rules, and the tests that check them."""

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lab import image, kernel
from lab.cache import Cache
from lab.config import (
    DebSource,
    GitSource,
    Iommu,
    Kernel,
    Lab,
    Machine,
    PackageSource,
    VersionSource,
)
from lab.contract import rule, rules
from lab.errors import InfrastructureError, LabError
from lab.kernel import fragment
from lab.results.explain import explain, listing
from lab.results.layout import line


@dataclass(frozen=True)
class KernelState:
    """A kernel of lab.yaml: the version of its source and what is built, as far as is known."""

    name: str
    described: Kernel
    source: str | None = None
    release: str | None = None
    key: str | None = None
    trouble: str | None = None

    @property
    def state(self) -> str:
        """In words."""
        if self.trouble:
            return self.trouble
        if self.release:
            return f"{self.release}, built"
        return f"{self.source}, not built yet" if self.source else "not fetched yet"


@dataclass(frozen=True)
class Tests:
    """The tests of all suites by their node ids, as pytest collects them."""

    suites: Mapping[str, Sequence[str]]
    """By suite."""
    rules: Mapping[str, Sequence[str]]
    """By the rule that they cite."""
    trouble: Mapping[str, str]
    """What is wrong with a file that cannot be read, by its node id."""


class _Collector:
    """The pytest plugin that notes what is collected."""

    def __init__(self) -> None:
        self.items: list[pytest.Item] = []
        self.trouble: dict[str, str] = {}

    @pytest.hookimpl(trylast=True)  # after the terminal's reporter has come
    def pytest_configure(self, config: pytest.Config) -> None:
        config.pluginmanager.unregister(name="terminalreporter")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.trouble[report.nodeid] = report.longreprtext

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.items = session.items


def collect(lab: Lab) -> Tests:
    """Ask pytest which tests the suites have. Nothing is booted, and nothing printed.

    Raises InfrastructureError when pytest itself fails; a file that cannot be read is in `trouble`.
    """
    folders = {name: lab.path(suite.tests) for name, suite in lab.suites.items()}
    there = [str(folder) for folder in folders.values() if folder.exists()]
    found = _Collector()
    words = ["--collect-only", "-p", "no:cacheprovider", "--import-mode=importlib"]
    words += ["--rootdir", str(lab.root), "--lab", str(lab.root)]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = pytest.main([*words, *there], plugins=[found]) if there else pytest.ExitCode.OK
    if status in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERNAL_ERROR):
        raise InfrastructureError(f"pytest cannot collect the tests:\n{said.getvalue().strip()}")
    suites: dict[str, list[str]] = {name: [] for name in folders}
    cited: dict[str, list[str]] = {}
    for item in found.items:
        for name, folder in folders.items():
            if item.path.is_relative_to(folder):
                suites[name].append(item.nodeid)
        if mark := item.get_closest_marker("contract"):
            cited.setdefault(str(mark.args[0]), []).append(item.nodeid)
    return Tests(suites, cited, found.trouble)


def show(lab: Lab, *, as_json: bool) -> None:
    """Print what the lab has: tables, or one JSON object."""
    cache = Cache.of_user()
    kernels = [_kernel(lab, name, cache) for name in lab.kernels]
    images = {name: _image(lab, name, cache) for name in lab.images}
    tests = collect(lab)
    if as_json:
        print(json.dumps(_json(lab, kernels, images, tests), indent=1))
        return
    console = Console()
    _show_kernels(console, lab, kernels)
    _show_variants(console, lab, kernels)
    for name, machine in lab.machines.items():
        same = (n for n, other in lab.machines.items() if other.devices == machine.devices)
        chosen = name == lab.run.machine
        _show_machine(console, name, machine, chosen=chosen, devices_of=next(same))
    _show_images(console, lab, images)
    _show_suites(console, lab, tests)
    line(console, Text("\n* what `vfio-lab run` takes when nothing else is asked for\n", "dim"))
    listing(rules().values(), tests.rules, console)
    for where, why in tests.trouble.items():
        line(console, Text(f"\n{where} cannot be read:\n{why}", "red"))


def show_rule(lab: Lab, id_: str) -> None:
    """Print a rule in full. Raises ConfigurationError, with near ids, for one there is not."""
    found = rule(id_.upper())
    explain(found, collect(lab).rules.get(found.id, ()), Console())


def _kernel(lab: Lab, name: str, cache: Cache) -> KernelState:
    described = lab.kernels[name]
    try:
        state = kernel.look(name, lab, cache)
    except LabError as error:
        return KernelState(name, described, trouble=error.message)
    if not state.built:
        return KernelState(name, described, state.source)
    return KernelState(name, described, state.source, state.built.release, state.built.key)


def _image(lab: Lab, name: str, cache: Cache) -> str:
    try:
        found = image.look(name, lab, cache)
    except LabError as error:
        return error.message
    return f"made, {found.provenance['size'] / 1e6:.1f} MB" if found else "not made yet"


# For a person


def _show_kernels(console: Console, lab: Lab, kernels: Sequence[KernelState]) -> None:
    table = _table("kernel", "source", "fragments", "state")
    default, _, extra = lab.run.kernel.partition("+")
    for found in kernels:
        fragments = " ".join(found.described.fragments) or "built by Debian"
        if found.described.compiler != "gcc":
            fragments += f" ({found.described.compiler})"
        chosen = found.name == default and not extra
        table.add_row(_name(found.name, chosen), _source(found.described), fragments, found.state)
    console.print(table)
    line(console, Text("or a path, deb:VERSION or src:VERSION: see `vfio-lab kernels`", "dim"))


def _show_variants(console: Console, lab: Lab, kernels: Sequence[KernelState]) -> None:
    table = _table("variant", "what it adds to a kernel, or takes from it", "slower")
    for name in lab.fragments():
        if name not in _used(kernels):
            slower = f"{lab.variants[name].slower:g}" if name in lab.variants else ""
            table.add_row(_name(f"+{name}", False), fragment.meaning(lab.fragment(name)), slower)
    if table.row_count:
        console.print()
        console.print(table)


def _used(kernels: Sequence[KernelState]) -> set[str]:
    """The fragments that every kernel has that is built here."""
    sets = [set(found.described.fragments) for found in kernels if found.described.fragments]
    return set.intersection(*sets) if sets else set()


def _source(described: Kernel) -> str:
    source = described.source
    if isinstance(source, PackageSource):
        return f"{source.package} of {source.suite}"
    if isinstance(source, GitSource):
        return f"{source.git} at {source.ref}"
    if isinstance(source, DebSource):
        return f"{source.deb} of {source.suite or 'any suite'}"
    if isinstance(source, VersionSource):
        return f"{source.version} of any suite"
    return str(source.tarball)


def _show_machine(
    console: Console, name: str, machine: Machine, *, chosen: bool, devices_of: str
) -> None:
    """`devices_of` is the first machine with these devices: with it alone they are told."""
    title = Text.assemble(
        "\nmachine ", _name(name, chosen), f"  {machine.memory}, {machine.cpus} CPUs, "
    )
    line(console, title + Text(_iommu(machine.iommu)))
    if machine.command_line:
        line(console, Text(f"  its kernel is told {' '.join(machine.command_line)}"))
    if machine.devices and devices_of != name:
        line(console, Text(f"  the devices of {devices_of}"))
        return
    places = {role: "  " * (1 + _depth(machine, role)) + role for role in machine.devices}
    width = max(map(len, places.values()), default=0)
    for role, device in machine.devices.items():
        note = ", if QEMU has it" if device.optional else ""
        line(console, Text(f"{places[role]:{width}}  {device.model.value}{note}"))


def _depth(machine: Machine, role: str) -> int:
    bus = machine.devices[role].bus
    return 0 if bus is None else 1 + _depth(machine, bus)


def _iommu(iommu: Iommu | None) -> str:
    if not iommu:
        return "no IOMMU"
    options = {
        "interrupt remapping": iommu.interrupt_remapping,
        "caching mode": iommu.caching_mode,
        "scalable": iommu.scalable,
        "first stage": iommu.first_stage,
    }
    words = [f"{iommu.address_width} bits", *(name for name, on in options.items() if on)]
    return f"{iommu.model} IOMMU ({', '.join(words)})"


def _show_images(console: Console, lab: Lab, images: Mapping[str, str]) -> None:
    console.print()
    table = _table("image", "recipe", "state")
    for name, state in images.items():
        table.add_row(_name(name, name == lab.run.image), str(lab.images[name].recipe), state)
    console.print(table)


def _show_suites(console: Console, lab: Lab, tests: Tests) -> None:
    console.print()
    table = _table("suite", "folder", "tests")
    for name, suite in lab.suites.items():
        exists = lab.path(suite.tests).exists()
        count = str(len(tests.suites[name])) if exists else "there is no such folder"
        table.add_row(_name(name, name in lab.run.suites), str(suite.tests), count)
    console.print(table)


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, no_wrap=index == 0)
    return table


def _name(name: str, chosen: bool) -> Text:
    """A name; a star behind it says that `vfio-lab run` takes it by itself."""
    return Text.assemble((name, "bold"), " *" if chosen else "")


# For a program


def _json(
    lab: Lab, kernels: Sequence[KernelState], images: Mapping[str, str], tests: Tests
) -> dict[str, Any]:
    return {
        "kernels": {
            found.name: {
                **found.described.model_dump(mode="json"),
                "version": found.source,
                "release": found.release,
                "key": found.key,
                "built": found.key is not None,
                "trouble": found.trouble,
            }
            for found in kernels
        },
        "fragments": {name: fragment.meaning(lab.fragment(name)) for name in lab.fragments()},
        "variants": {name: each.model_dump(mode="json") for name, each in lab.variants.items()},
        "machines": {
            name: machine.model_dump(mode="json") for name, machine in lab.machines.items()
        },
        "images": {
            name: {**lab.images[name].model_dump(mode="json"), "state": state}
            for name, state in images.items()
        },
        "suites": {
            name: {"folder": str(lab.path(suite.tests)), "tests": tests.suites[name]}
            for name, suite in lab.suites.items()
        },
        "rules": {
            found.id: {
                "title": found.title,
                "section": found.section,
                "modes": list(found.modes),
                "tests": tests.rules.get(found.id, []),
            }
            for found in rules().values()
        },
        "run": lab.run.model_dump(mode="json"),
        "unreadable": tests.trouble,
    }
