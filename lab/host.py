# SPDX-License-Identifier: GPL-2.0-only
"""What this host can do: its packages, QEMU, KVM, compilers, mirror, space and memory.

Nothing is built, booted, downloaded, or installed to find out.
"""

import getpass
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from lab import bootstrap, image, kernel, room
from lab.cache import Cache
from lab.condition import needs
from lab.config import DebSource, GitSource, Kernel, Lab, Machine, TarballSource
from lab.debian import KEYRING, Archive
from lab.debug.debugger import Debugger, must_know_guests
from lab.errors import ConfigurationError, LabError
from lab.guest import AcceleratorMemory, Qemu, find_qemu
from lab.guest.accel import KVM_NODE, kvm_obstacle
from lab.guest.argv import KNOBS, Knob
from lab.kernel import sandbox, toolchain
from lab.proc import run
from lab.progress import Progress
from lab.results.folder import runs

BUILD_SPACE = 6 * 10**9  # bytes: the package, the source, the objects of one build, ccache
RUN_SPACE = 200 * 10**6  # bytes: the evidence of a long run
# no run fails without them
_OPTIONAL = {"python3-venv", "ccache", sandbox.PACKAGE, "libcap-dev", "uuid-dev", "cpio"}
_EVERY_RUN = {"gcc", "musl-tools"}  # also one that builds nothing
_ALWAYS = ("pvpanic", "virtio-net-pci")  # QEMU's devices that every guest has


class Mark(Enum):
    """How it stands with a capability."""

    OK = "ok"
    COSTS = "costs"  # a run works without it, and says so
    MISSING = "missing"  # no run works without it
    UNKNOWN = "unknown"  # nobody has tried yet


@dataclass(frozen=True)
class Finding:
    """One capability: what was found, what its lack costs, and what would mend that."""

    name: str
    mark: Mark
    found: str
    cost: str = ""
    mend: str = ""


@dataclass(frozen=True)
class Ready:
    """What of the lab's default run is in the cache."""

    kernel: bool
    image: bool


def findings(lab: Lab, given_qemu: Path | None, cache: Cache) -> Iterator[Finding]:
    """Every capability, in the order in which a run needs them."""
    yield Finding("Python", Mark.OK, f"{platform.python_version()}, in {sys.prefix}")
    kernels, images = _kernels(lab, cache), _images(lab, cache)
    ready = Ready(
        kernel=kernels[lab.run.kernel].mark is Mark.OK,
        image=images[lab.run.image].mark is Mark.OK,
    )
    yield from _packages(lab, ready)
    yield from _compilers(lab, cache)
    yield from _qemu(lab, given_qemu, cache)
    yield from map(_debugger, Debugger)
    yield _mirror(lab, cache, ready)
    yield from _space(cache, ready)
    yield _memory(lab)
    yield _cpus()
    yield from kernels.values()
    yield from images.values()
    yield _detectors()


def _packages(lab: Lab, ready: Ready) -> Iterator[Finding]:
    # QEMU has a line of its own, and may be another than the package's.
    missing = [need for need in bootstrap.missing() if need is not bootstrap.QEMU]
    if not missing:
        yield Finding("host packages", Mark.OK, f"all {len(bootstrap.NEEDS) - 1} are installed")
    for need in missing:
        found = f"is not installed ({need.purpose})"
        if _is_required(need.package, lab, ready):
            cost = "the default run cannot do without it"
            yield Finding(need.package, Mark.MISSING, found, cost, need.mend)
        else:
            cost = "the default run does without it, others may not"
            yield Finding(need.package, Mark.COSTS, found, cost, need.mend)


def _is_required(package: str, lab: Lab, ready: Ready) -> bool:
    if package == "git":
        return not ready.kernel and isinstance(_default(lab).source, GitSource)
    if package in _OPTIONAL:
        return False
    return package in _EVERY_RUN or not (ready.kernel and ready.image)


def _default(lab: Lab) -> Kernel:
    return _base(lab, lab.run.kernel)


def _base(lab: Lab, name: str) -> Kernel:
    """What lab.yaml says of a kernel that may have fragments behind its name."""
    return lab.kernels[name.partition("+")[0]]


def _compilers(lab: Lab, cache: Cache) -> Iterator[Finding]:
    wanted = {found.compiler for found in lab.kernels.values()}
    for compiler, package in (("gcc", "gcc"), ("clang", "clang lld")):
        try:
            version = toolchain.find(compiler, cache).compiler_version
        except LabError as error:
            yield Finding(
                compiler,
                Mark.MISSING if compiler in wanted else Mark.COSTS,
                error.message,
                f"kernels with `compiler: {compiler}` cannot be built",
                f"apt-get install {package}",
            )
        else:
            yield Finding(compiler, Mark.OK, version)
            if compiler in wanted:
                yield _sanitizers(compiler)
    if shutil.which("musl-gcc"):
        yield Finding("musl-gcc", Mark.OK, "links the agent")
    if shutil.which("ccache"):
        yield Finding("ccache", Mark.OK, run(["ccache", "--version"])[0])
    yield _sandbox()


def _sandbox() -> Finding:
    name = "sandbox"
    cost = (
        "the Makefiles of a series run with your rights: they read your files, and use the network"
    )
    try:
        walls = sandbox.find()
    except LabError as error:
        return Finding(name, Mark.MISSING, error.message, "no kernel can be built", _WALLS)
    if walls.obstacle:
        return Finding(name, Mark.COSTS, walls.obstacle, cost, _WALLS)
    return Finding(name, Mark.OK, f"{run([sandbox.BWRAP, '--version'])[0]}, around every build")


def _sanitizers(compiler: str) -> Finding:
    name = f"{compiler} sanitizers"
    able = toolchain.sanitizers(compiler)
    found = ", ".join(each for each in able if able[each]) or "none"
    if all(able.values()):
        return Finding(name, Mark.OK, found)
    lost = " ".join(f"+{each}" for each in able if not able[each])
    cost = f"kernels with {lost} cannot be built with it"
    return Finding(name, Mark.COSTS, found, cost, f"take a newer {compiler}: kcsan needs gcc 11")


def _qemu(lab: Lab, given: Path | None, cache: Cache) -> Iterator[Finding]:
    try:
        qemu = find_qemu(given, cache)
    except LabError as error:
        cost = "no guest can be started"
        mend = bootstrap.QEMU.mend if given is None else "name another with --qemu PATH"
        yield Finding("QEMU", Mark.MISSING, error.message, cost, mend)
        return
    yield Finding("QEMU", Mark.OK, f"{qemu.description}, {qemu.path}")
    yield _confinement(qemu)
    yield from _devices(lab, qemu)
    yield _kvm(qemu, cache)


def _confinement(qemu: Qemu) -> Finding:
    name = "QEMU sandbox"
    if not qemu.unconfined:
        return Finding(name, Mark.OK, "its system calls are filtered: it starts no program")
    cost = "a guest that breaks out of QEMU can start programs of yours"
    mend = "take a QEMU that is built with seccomp (Debian's is), on a kernel with CONFIG_SECCOMP"
    return Finding(
        name, Mark.COSTS, f"its system calls are not filtered: {qemu.unconfined}", cost, mend
    )


def _devices(lab: Lab, qemu: Qemu) -> Iterator[Finding]:
    needed = {name: _models(machine) for name, machine in lab.machines.items()}
    models = set().union(*needed.values())
    for model in sorted(models - qemu.devices):
        machines = [name for name in needed if model in needed[name]]
        mark = Mark.MISSING if lab.run.machine in machines else Mark.COSTS
        cost = f"these machines do not start: {', '.join(machines)}"
        yield Finding(model, mark, "this QEMU has none", cost, _NEWER)
    yield Finding("devices", Mark.OK, ", ".join(sorted(models & qemu.devices)))
    if "igb" in qemu.devices:
        yield Finding("igb", Mark.OK, "SR-IOV, MSI-X and FLR")
    else:
        cost = "rules about SR-IOV and MSI-X cannot be tested"
        yield Finding("igb", Mark.COSTS, "this QEMU has none", cost, _NEWER)
    for knob in KNOBS:
        yield _knob(lab, qemu, knob)


def _knob(lab: Lab, qemu: Qemu, knob: Knob) -> Finding:
    if name := qemu.iommu_property(*knob.properties):
        return Finding(knob.meaning, Mark.OK, f"intel-iommu has {name}")
    machines = [name for name, machine in lab.machines.items() if knob.is_turned(machine)]
    mark = Mark.MISSING if lab.run.machine in machines else Mark.COSTS
    cost = f"these machines do not start: {', '.join(machines) or '(none of lab.yaml)'}"
    return Finding(knob.meaning, mark, "intel-iommu has none", cost, _NEWER)


def _models(machine: Machine) -> set[str]:
    """QEMU's devices that a machine does not start without."""
    models = {device.model.value for device in machine.devices.values() if not device.optional}
    return models | {*_ALWAYS} | ({"intel-iommu"} if machine.iommu else set())


_WALLS = (
    f"apt-get install {sandbox.PACKAGE}; where it is, allow user namespaces "
    "(sysctl kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns), "
    f"and see {sandbox.VARIABLE} in SECURITY.md"
)
_NEWER = "take a newer QEMU: `./vfio-lab` installs Debian's backport, or --qemu PATH"
_TCG = "guests are emulated (TCG): all they do takes several times as long"


def _kvm(qemu: Qemu, cache: Cache) -> Finding:
    if obstacle := kvm_obstacle():
        mend = "turn on virtualisation in the firmware, or nested in the hypervisor above"
        if KVM_NODE.exists():
            mend = f"usermod -aG kvm {getpass.getuser()}, and log in anew"
        return Finding("KVM", Mark.COSTS, obstacle, _TCG, mend)
    known = AcceleratorMemory(cache, qemu).known()
    if known is None:
        found = f"{KVM_NODE} opens; whether guests boot is not tried yet: the first one will"
        return Finding("KVM", Mark.UNKNOWN, found, mend="vfio-lab doctor --probe")
    if known["kvm"]:
        return Finding("KVM", Mark.OK, f"tried: {known['why']}")
    why = known["why"].strip().splitlines()[0]
    mend = "`vfio-lab doctor --probe` tries again, after a change of host, QEMU or hypervisor"
    return Finding("KVM", Mark.COSTS, f"tried, and no guest boots: {why}", _TCG, mend)


def _debugger(each: Debugger) -> Finding:
    name, program = each.value, each.find()
    if not program:
        cost = f"`vfio-lab {name}` and `vfio-lab crash --{name}` do not work"
        return Finding(name, Mark.COSTS, "is not installed", cost, each.remedy)
    try:
        if each is Debugger.DRGN:
            must_know_guests(program)
    except ConfigurationError as error:
        cost = "`vfio-lab drgn` does not work"
        return Finding(name, Mark.COSTS, error.message, cost, error.hint or "")
    return Finding(name, Mark.OK, f"{program}, for guests that live and for dumps")


def _mirror(lab: Lab, cache: Cache, ready: Ready) -> Finding:
    name = "Debian mirror"
    fetched = ready.kernel or isinstance(_default(lab).source, GitSource | TarballSource)
    needed = Mark.COSTS if fetched and ready.image else Mark.MISSING
    cost = "nothing can be fetched that is not in the cache"
    try:
        mirror = Archive(lab.debian, cache, Progress(quiet=True)).mirrors().main
    except LabError as error:
        mend = error.hint or "name one in lab.yaml: `debian: {mirror: URL}`"
        return Finding(name, needed, error.message, cost, mend)
    if not KEYRING.is_file():
        mend = "apt-get install debian-archive-keyring"
        return Finding(name, needed, f"{mirror}, but {KEYRING} is missing", cost, mend)
    return Finding(name, Mark.OK, f"{mirror}, checked with {KEYRING}")


def _space(cache: Cache, ready: Ready) -> Iterator[Finding]:
    needed = RUN_SPACE if ready.kernel else BUILD_SPACE
    yield _room("cache", cache.root, needed, "VFIO_LAB_CACHE")
    yield _room("runs", runs(), RUN_SPACE, "VFIO_LAB_STATE")


def _room(name: str, folder: Path, needed: int, variable: str) -> Finding:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    found = f"{free / 1e9:.1f} GB free in {folder}"
    if not os.access(there, os.W_OK | os.X_OK):
        found, cost = f"{folder} cannot be written", "nothing can be kept there"
    elif free < needed:
        cost = f"a run needs {needed / 1e9:.1f} GB there"
    else:
        return Finding(name, Mark.OK, found)
    mend = f"make room (`vfio-lab cache --clean`), or name another folder in {variable}"
    return Finding(name, Mark.MISSING, found, cost, mend)


def _memory(lab: Lab) -> Finding:
    free = room.available()
    default = room.memory_of(lab.machine(lab.run.machine))
    largest = max(map(room.memory_of, lab.machines.values()))
    found = f"{free / (1 << 30):.1f} GB free, the largest machine takes {largest / (1 << 30):.1f}"
    if free >= largest:
        return Finding("memory", Mark.OK, found)
    mark = Mark.MISSING if free < default else Mark.COSTS
    mend = "end other programs, or give the machine less `memory` in lab.yaml"
    return Finding("memory", mark, found, "the host would swap, or end the guest", mend)


def _cpus() -> Finding:
    """The name is what a skipped race says that it needs."""
    count = room.processors()
    if count >= 2:
        return Finding("two processors", Mark.OK, f"{count} CPUs; builds use all of them")
    cost = "races seldom meet: their tests may be skipped"
    return Finding("two processors", Mark.COSTS, "1 CPU", cost, "give this host another CPU")


def _kernels(lab: Lab, cache: Cache) -> dict[str, Finding]:
    """Those of lab.yaml, and the default with its fragments, by name."""
    return {
        name: _kernel(lab, name, cache) for name in dict.fromkeys((*lab.kernels, lab.run.kernel))
    }


def _kernel(lab: Lab, name: str, cache: Cache) -> Finding:
    title = f"kernel {name}"
    try:
        state = kernel.look(name, lab, cache)
    except LabError as error:
        mark = Mark.MISSING if name == lab.run.kernel else Mark.COSTS
        configured = isinstance(error, ConfigurationError)
        mend = "correct lab.yaml" if configured else "mend what is missing above"
        return Finding(title, mark, error.message, "it cannot be built", mend)
    if state.built:
        return Finding(title, Mark.OK, f"{state.built.release}, built")
    if isinstance(_base(lab, name).source, DebSource):
        cost = "the first run fetches it: about 100 MB"
        return Finding(title, Mark.COSTS, "is not here yet", cost, f"vfio-lab run --kernel {name}")
    found = f"{state.source} is not built yet" if state.source else "is not fetched yet"
    cost = "the first run builds it: about 10 minutes of two CPUs"
    return Finding(title, Mark.COSTS, found, cost, f"vfio-lab run --kernel {name}")


def _detectors() -> Finding:
    """Which of them a kernel has is told by `detectors` in a run's results.json."""
    options = needs()
    always = ", ".join(name for name, option in options.items() if not option)
    others = [f"{name}: {option}" for name, option in options.items() if option]
    return Finding("detectors", Mark.OK, "\n".join([f"in every kernel {always}", *others]))


def _images(lab: Lab, cache: Cache) -> dict[str, Finding]:
    return {name: _image(lab, name, cache) for name in lab.images}


def _image(lab: Lab, name: str, cache: Cache) -> Finding:
    title = f"image {name}"
    try:
        found = image.look(name, lab, cache)
    except LabError as error:
        mark = Mark.MISSING if name == lab.run.image else Mark.COSTS
        return Finding(title, mark, error.message, "it cannot be made", "correct its recipe")
    if found:
        return Finding(title, Mark.OK, f"made, {found.provenance['size'] / 1e6:.1f} MB")
    cost = "the first run makes it: about 10 seconds"
    return Finding(title, Mark.COSTS, "is not made yet", cost, "vfio-lab run")
