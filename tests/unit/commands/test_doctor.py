# SPDX-License-Identifier: GPL-2.0-only
"""What this host lacks is named, with what it costs and what mends it."""

import json
import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab import bootstrap, host, room
from lab.bootstrap import Need
from lab.cache import Cache
from lab.commands.doctor import examine
from lab.config import Lab
from lab.errors import GuestLost
from lab.guest import AcceleratorMemory, accel, find_qemu
from lab.image import Image
from lab.kernel import Kernel, State

LAB = """
debian: {mirror: "http://mirror.test/debian", suites: [bookworm]}
kernels:
  v6.12: {source: {package: linux-source-6.12, suite: bookworm}, fragments: [boot]}
images: {minimal: {recipe: images/minimal}}
machines:
  vtd:
    iommu: {}
    devices: {edu0: {model: edu}, igb0: {model: igb, optional: true}}
  large: {memory: 64G, devices: {nic0: {model: e1000}}}
  first: {iommu: {scalable: true, first_stage: true}}
suites: {contract: {tests: tests}}
run: {kernel: v6.12, machine: vtd, suites: [contract]}
"""
QEMU = """\
case "$*" in
-version) echo "QEMU emulator version @VERSION@" ;;
"-device help") for name in @DEVICES@; do echo "name \\"$name\\", bus PCI"; done ;;
*) for name in @OPTIONS@; do echo "  $name=<bool> - (default: false)"; done ;;
esac
"""
DEVICES = "edu e1000 igb intel-iommu pvpanic virtio-net-pci"
OPTIONS = "x-scalable-mode x-flts"
BUILT = Kernel("v6.12", Path("bzImage"), None, None, None, "6.12.57", None, "abc", {})
MADE = Image("minimal", Path("initramfs"), "def", {"size": 6_300_000})
Usage = namedtuple("Usage", "total used free")
GiB = 1 << 30


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    root = tmp_path / "lab"
    (root / "kernels/fragments").mkdir(parents=True)
    (root / "kernels/fragments/boot.config").touch()
    (root / "lab.yaml").write_text(LAB)
    return Lab.load(root)


class Host:
    """A host that has everything; the methods take things away."""

    def __init__(self, lab: Lab, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.lab = lab
        self.patch = patch
        self.programs = folder / "bin"
        self.programs.mkdir()
        self.cache = Cache(folder / "cache")
        self.node = folder / "kvm"
        self.node.touch()
        self.keyring = folder / "keyring.gpg"
        self.keyring.touch()
        patch.setenv("VFIO_LAB_CACHE", str(self.cache.root))
        patch.setenv("VFIO_LAB_STATE", str(folder / "state"))
        patch.setenv("COLUMNS", "80")
        patch.setenv("PATH", str(self.programs))
        patch.setattr(accel, "KVM_NODE", self.node)
        patch.setattr(host, "KVM_NODE", self.node)
        patch.setattr(host, "KEYRING", self.keyring)
        patch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
        for name in ("gcc", "ld", "clang", "ld.lld", "musl-gcc", "ccache", "bwrap", "gdb"):
            self.program(name, f"echo {name} 12.2.0")
        self.program("drgn", "echo --qemu ADDRESS")
        self.qemu()
        self.packages()
        self.space(100 * 10**9)
        self.memory(100 * GiB)
        self.kernel(BUILT)
        self.image(MADE)

    def says(self, old: str, new: str) -> None:
        """lab.yaml has other words for something."""
        file = self.lab.root / "lab.yaml"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))
        self.lab = Lab.load(self.lab.root)

    def program(self, name: str, body: str) -> Path:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    def lacks_program(self, name: str) -> None:
        (self.programs / name).unlink()

    def qemu(self, version: str = "10.0.2", devices: str = DEVICES, options: str = OPTIONS) -> None:
        body = QEMU.replace("@VERSION@", version).replace("@DEVICES@", devices)
        self.program("qemu-system-x86_64", body.replace("@OPTIONS@", options))

    def packages(self, *missing: Need) -> None:
        self.patch.setattr(bootstrap, "missing", lambda: list(missing))

    def space(self, free: int) -> None:
        self.patch.setattr(shutil, "disk_usage", lambda _: Usage(free, 0, free))

    def memory(self, free: int) -> None:
        self.patch.setattr(room, "available", lambda: free)

    def kernel(self, built: Kernel | None) -> None:
        state = State("linux-source-6.12 6.12.57-1", built)
        self.patch.setattr("lab.kernel.look", lambda *_: state)

    def image(self, made: Image | None) -> None:
        self.patch.setattr("lab.image.look", lambda *_: made)

    def kvm(self) -> AcceleratorMemory:
        return AcceleratorMemory(self.cache, find_qemu(None, self.cache))


@pytest.fixture
def machine(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(lab, tmp_path, monkeypatch)


@pytest.fixture
def examined(machine: Host, capsys: pytest.CaptureFixture[str]) -> Callable[[], Any]:
    """Run the doctor: its status, and its findings by name."""

    def work(*, qemu: Path | None = None, probe: bool = False) -> Any:
        status = examine(machine.lab, qemu, probe=probe, as_json=True)
        said = json.loads(capsys.readouterr().out)
        assert said["status"] == status
        return status, {finding["name"]: finding for finding in said["capabilities"]}

    return work


def need(package: str) -> Need:
    return next(need for need in bootstrap.NEEDS if need.package == package)


def test_a_host_with_everything_is_well(machine: Host, examined: Callable[[], Any]) -> None:
    machine.kvm().learn(kvm=True, why="a guest booted")
    status, found = examined()
    assert status == 0
    assert {name for name, finding in found.items() if finding["mark"] != "ok"} == set()
    assert found["QEMU"]["found"].startswith("QEMU emulator version 10.0.2, ")
    assert found["QEMU sandbox"]["found"].startswith("its system calls are filtered")
    assert found["gcc"]["found"] == "gcc 12.2.0"
    assert found["scalable mode"]["found"] == "intel-iommu has x-scalable-mode"
    assert found["Debian mirror"]["found"].startswith("http://mirror.test/debian, checked with ")
    assert found["kernel v6.12"]["found"] == "6.12.57, built"
    assert found["image minimal"]["found"] == "made, 6.3 MB"
    detectors = found["detectors"]["found"].splitlines()
    assert detectors[0].startswith("in every kernel processes, ")
    assert "lockdep: CONFIG_PROVE_LOCKING" in detectors


def test_a_capability_that_costs_says_what_and_how_to_mend_it(
    machine: Host, examined: Callable[[], Any]
) -> None:
    machine.qemu("7.2.19", DEVICES.replace("igb ", ""))
    status, found = examined()
    assert status == 0
    igb = found["igb"]
    assert igb["mark"] == "costs"
    assert igb["cost"] == "rules about SR-IOV and MSI-X cannot be tested"
    assert "newer QEMU" in igb["mend"]


def test_a_qemu_without_seccomp_costs_something(machine: Host, examined: Callable[[], Any]) -> None:
    qemu = machine.programs / "qemu-system-x86_64"
    refuse = "case $1 in -sandbox) echo 'no such option' >&2; exit 1 ;; esac\n"
    qemu.write_text(qemu.read_text().replace("#!/bin/sh\n", f"#!/bin/sh\n{refuse}"))
    status, found = examined()
    assert status == 0
    confined = found["QEMU sandbox"]
    assert confined["mark"] == "costs"
    assert confined["found"] == "its system calls are not filtered: no such option"


def test_no_qemu_is_missing_with_its_package(machine: Host, examined: Callable[[], Any]) -> None:
    machine.lacks_program("qemu-system-x86_64")
    status, found = examined()
    assert status == 2
    assert found["QEMU"]["mark"] == "missing"
    assert found["QEMU"]["mend"] == "apt-get install qemu-system-x86"
    assert "KVM" not in found


def test_the_qemu_that_is_named_is_examined(machine: Host, examined: Callable[..., Any]) -> None:
    status, found = examined(qemu=machine.program("other", "echo no QEMU at all"))
    assert status == 2
    assert "it says 'no QEMU at all'" in found["QEMU"]["found"]


@pytest.mark.parametrize(
    ("device", "mark", "status", "machines"),
    [
        ("edu", "missing", 2, "vtd"),
        ("intel-iommu", "missing", 2, "vtd, first"),
        ("pvpanic", "missing", 2, "vtd, large, first"),
        ("e1000", "costs", 0, "large"),
    ],
)
def test_a_device_that_a_machine_needs(
    machine: Host, examined: Callable[[], Any], device: str, mark: str, status: int, machines: str
) -> None:
    machine.qemu(devices=" ".join(set(DEVICES.split()) - {device}))
    seen, found = examined()
    assert (seen, found[device]["mark"]) == (status, mark)
    assert found[device]["cost"] == f"these machines do not start: {machines}"


@pytest.mark.parametrize(
    ("options", "lacks"),
    [("intremap", {"scalable mode", "first stage"}), ("x-scalable-mode", {"first stage"})],
)
def test_a_knob_that_a_machine_turns_costs_where_qemu_lacks_it(
    machine: Host, examined: Callable[[], Any], options: str, lacks: set[str]
) -> None:
    machine.qemu(options=options)
    status, found = examined()
    assert status == 0
    for name in lacks:
        assert found[name]["mark"] == "costs"
        assert found[name]["cost"] == "these machines do not start: first"


def test_kvm_that_nobody_has_tried_is_unknown(examined: Callable[[], Any]) -> None:
    status, found = examined()
    assert (status, found["KVM"]["mark"]) == (0, "unknown")
    assert "not tried yet: the first one will" in found["KVM"]["found"]
    assert found["KVM"]["mend"] == "vfio-lab doctor --probe"


def test_kvm_that_boots_no_guest_costs(machine: Host, examined: Callable[[], Any]) -> None:
    machine.kvm().learn(kvm=False, why="    internal-error\n    and more")
    status, found = examined()
    assert (status, found["KVM"]["mark"]) == (0, "costs")
    assert found["KVM"]["found"] == "tried, and no guest boots: internal-error"
    assert "TCG" in found["KVM"]["cost"]


def test_no_kvm_costs(machine: Host, examined: Callable[[], Any]) -> None:
    machine.node.unlink()
    status, found = examined()
    assert (status, found["KVM"]["mark"]) == (0, "costs")
    assert found["KVM"]["found"].endswith("does not exist")
    assert "virtualisation" in found["KVM"]["mend"]


def test_a_kvm_of_others_is_mended_with_a_group(
    machine: Host, examined: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: path != machine.node and allowed(path, mode)
    )
    _, found = examined()
    assert "usermod -aG kvm" in found["KVM"]["mend"]


def test_packages_are_one_line_when_all_are_there(examined: Callable[[], Any]) -> None:
    _, found = examined()
    assert found["host packages"]["found"] == f"all {len(bootstrap.NEEDS) - 1} are installed"


@pytest.mark.parametrize(
    ("package", "ready", "mark", "status"),
    [
        ("flex", False, "missing", 2),
        ("flex", True, "costs", 0),  # this run builds nothing
        ("musl-tools", True, "missing", 2),
        ("libcap-dev", False, "costs", 0),
        ("git", False, "costs", 0),  # no kernel of this lab comes from git
    ],
)
def test_a_missing_package_has_its_apt_line(
    machine: Host, examined: Callable[[], Any], package: str, ready: bool, mark: str, status: int
) -> None:
    machine.packages(need(package), bootstrap.QEMU)
    machine.kernel(BUILT if ready else None)
    seen, found = examined()
    assert (seen, found[package]["mark"]) == (status, mark)
    assert found[package]["mend"] == f"apt-get install {package}"
    assert found[package]["found"] == f"is not installed ({need(package).purpose})"
    assert "host packages" not in found


def test_debuggers_are_optional(machine: Host, examined: Callable[[], Any]) -> None:
    machine.lacks_program("gdb")
    machine.program("drgn", "echo of the year before")
    status, found = examined()
    assert status == 0
    assert (found["gdb"]["mark"], found["gdb"]["mend"]) == ("costs", "apt-get install gdb")
    assert found["drgn"]["mark"] == "costs"
    assert "too old" in found["drgn"]["found"]
    assert "pip install --upgrade drgn" in found["drgn"]["mend"]


def test_clang_is_optional_and_gcc_is_not(machine: Host, examined: Callable[[], Any]) -> None:
    machine.lacks_program("clang")
    status, found = examined()
    assert (status, found["clang"]["mark"]) == (0, "costs")
    assert found["clang"]["mend"] == "apt-get install clang lld"
    machine.lacks_program("gcc")
    status, found = examined()
    assert (status, found["gcc"]["mark"]) == (2, "missing")


def test_a_sanitizer_that_the_compiler_lacks_costs_its_variant(
    machine: Host, examined: Callable[[], Any]
) -> None:
    status, found = examined()
    assert (status, found["gcc sanitizers"]["found"]) == (0, "kasan, kcsan, ubsan")
    machine.program("gcc", 'case "$*" in *thread*) exit 1 ;; esac; echo gcc 10.2.1')
    status, found = examined()
    assert (status, found["gcc sanitizers"]["mark"]) == (0, "costs")
    assert found["gcc sanitizers"]["found"] == "kasan, ubsan"
    assert "+kcsan cannot be built" in found["gcc sanitizers"]["cost"]


def test_a_kernel_that_is_not_built_costs_its_build(
    machine: Host, examined: Callable[[], Any]
) -> None:
    machine.kernel(None)
    status, found = examined()
    kernel = found["kernel v6.12"]
    assert (status, kernel["mark"]) == (0, "costs")
    assert kernel["found"] == "linux-source-6.12 6.12.57-1 is not built yet"
    assert kernel["mend"] == "vfio-lab run --kernel v6.12"


def test_a_default_with_a_fragment_is_a_kernel_of_its_own(
    machine: Host, examined: Callable[[], Any]
) -> None:
    machine.says("run: {kernel: v6.12,", "run: {kernel: v6.12+boot,")
    machine.kernel(None)
    status, found = examined()
    kernel = found["kernel v6.12+boot"]
    assert (status, kernel["mark"]) == (0, "costs")
    assert kernel["mend"] == "vfio-lab run --kernel v6.12+boot"


@pytest.mark.parametrize(("built", "status"), [(BUILT, 0), (None, 2)])
def test_a_build_needs_more_space_than_a_run(
    machine: Host, examined: Callable[[], Any], built: Kernel | None, status: int
) -> None:
    machine.space(10**9)
    machine.kernel(built)
    seen, found = examined()
    assert seen == status
    assert found["cache"]["mark"] == ("ok" if built else "missing")
    assert "1.0 GB free" in found["cache"]["found"]


def test_a_full_disk_is_missing_space(machine: Host, examined: Callable[[], Any]) -> None:
    machine.space(10**6)
    status, found = examined()
    assert (status, found["cache"]["mark"], found["runs"]["mark"]) == (2, "missing", "missing")
    assert "vfio-lab cache --clean" in found["cache"]["mend"]


@pytest.mark.parametrize(
    ("free", "mark", "status"),
    [(100 * GiB, "ok", 0), (4 * GiB, "costs", 0), (GiB, "missing", 2)],
)
def test_memory_must_do_for_the_default_machine(
    machine: Host, examined: Callable[[], Any], free: int, mark: str, status: int
) -> None:
    machine.memory(free)
    seen, found = examined()
    assert (seen, found["memory"]["mark"]) == (status, mark)


def test_one_processor_costs_under_the_name_that_skips_give(
    examined: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    status, found = examined()
    assert (status, found["two processors"]["mark"]) == (0, "costs")


@pytest.mark.parametrize(("made", "mark", "status"), [(MADE, "costs", 0), (None, "missing", 2)])
def test_a_mirror_is_needed_for_what_is_not_in_the_cache(
    machine: Host, examined: Callable[[], Any], made: Image | None, mark: str, status: int
) -> None:
    machine.keyring.unlink()
    machine.image(made)
    seen, found = examined()
    assert (seen, found["Debian mirror"]["mark"]) == (status, mark)
    assert found["Debian mirror"]["mend"] == "apt-get install debian-archive-keyring"


@pytest.mark.parametrize(
    ("source", "mark"),
    [
        ("{version: 6.12.8}, fragments: [boot]", "missing"),
        ("{deb: 6.12.8}", "missing"),
        ("{git: linux}, fragments: [boot]", "costs"),
    ],
)
def test_a_mirror_is_needed_for_a_kernel_that_comes_from_it(
    machine: Host, examined: Callable[[], Any], source: str, mark: str
) -> None:
    machine.says("{package: linux-source-6.12, suite: bookworm}, fragments: [boot]", source)
    machine.keyring.unlink()
    machine.kernel(None)
    assert examined()[1]["Debian mirror"]["mark"] == mark


def test_a_probe_without_a_kernel_builds_none_and_forgets_nothing(
    machine: Host, examined: Callable[..., Any]
) -> None:
    machine.kernel(None)
    machine.kvm().learn(kvm=False, why="internal-error")
    status, found = examined(probe=True)
    assert (status, found["probe"]["mark"]) == (0, "unknown")
    assert "v6.12 is not built" in found["probe"]["found"]
    assert machine.kvm().known() is not None


def test_a_guest_that_does_not_boot_is_missing(
    machine: Host, examined: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> None:
        assert machine.kvm().known() is None, "what is known of KVM is forgotten before"
        raise GuestLost("boot: no login within 120 s", hint="all of it is in console.log")

    machine.kvm().learn(kvm=False, why="internal-error")
    monkeypatch.setattr("lab.commands.doctor.boot", lost)
    monkeypatch.setattr("lab.image.prepare", lambda *_: MADE)
    status, found = examined(probe=True)
    assert (status, found["probe"]["mark"]) == (2, "missing")
    assert found["probe"]["found"] == "boot: no login within 120 s"
    assert found["probe"]["mend"] == "all of it is in console.log"


@pytest.mark.parametrize("columns", [80, 120])
def test_every_line_fits_the_terminal(
    machine: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    machine.qemu("7.2.19", DEVICES.replace("igb ", ""))
    machine.kernel(None)
    machine.packages(need("flex"))
    assert examine(machine.lab, None, probe=False, as_json=False) == 2
    lines = capsys.readouterr().out.splitlines()
    too_long = [line for line in lines if len(line) > columns and "/" not in line]
    assert too_long == []
    assert "✗ flex            is not installed (kernel build: reads Kconfig)" in lines
    assert "                  mend: apt-get install flex" in lines
    assert lines[-1] == "`vfio-lab run` cannot work: 1 missing"


def test_a_host_without_walls_costs_something(machine: Host, examined: Callable[[], Any]) -> None:
    machine.program("bwrap", "echo 'No permissions to create new namespace' >&2; exit 1")
    status, found = examined()
    assert status == 0
    assert found["sandbox"]["mark"] == "costs"
    assert found["sandbox"]["found"] == "No permissions to create new namespace"
    assert "with your rights" in found["sandbox"]["cost"]
    machine.patch.setenv("VFIO_LAB_SANDBOX", "on")
    assert examined()[0] == 2
