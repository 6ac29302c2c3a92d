# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab gdb` and `vfio-lab drgn`: the kernel of a living guest in a debugger."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from lab.cache import Cache
from lab.cell import Choice
from lab.config import Lab
from lab.debug import debugger, stub
from lab.debug.debugger import NO_HELP, Debugger, Help
from lab.debug.place import at_hand
from lab.debug.scripts import scripts_of
from lab.errors import LabError
from lab.guest import doors
from lab.kernel import Kernel
from lab.kernel.prebuilt import of_bzimage
from lab.kernel.prepare import source_of
from lab.proc import run
from lab.progress import Progress

# The folder of the objects, as debug information has it (`lab.kernel.build`), which calls sources
# ../FILE. That folder is gone: any other one of the tree does as well.
_OBJECTS, _INSTEAD = "/usr/src/linux/objects", "scripts"


def open_gdb(lab: Lab, name: str | None, choice: Choice | None, commands: Sequence[str]) -> int:
    """gdb on QEMU's stub, in the guest that `at_hand` finds or boots; returns gdb's exit status.

    The guest stands while gdb has it. Raises ConfigurationError where there is no gdb or no
    vmlinux.
    """
    _, program = debugger.choose([Debugger.GDB])
    progress = Progress()
    with (
        at_hand(lab, name, choice, "vfio-lab gdb") as place,
        TemporaryDirectory(prefix="vfio-lab-gdb-") as copies,
    ):
        kernel = of_bzimage(place.living.release, place.living.bzimage)
        vmlinux = debugger.vmlinux_of(kernel)
        helped = _helped(kernel, lab, progress, Path(copies))
        with stub.opened(place.living) as folder:
            words = Debugger.GDB.on_guest(folder / doors.GDB, vmlinux, commands, helped)
            return debugger.run([program, *words], pass_fds=[doors.descriptor_of(folder)])


def _helped(kernel: Kernel, lab: Lab, progress: Progress, copies: Path) -> Help:
    """The kernel's sources and scripts, and its modules' symbols, where they are to be had. The
    folder for `copies` has to last as long as gdb."""
    cache = Cache.of_user()
    try:
        identity = source_of(str(kernel.bzimage), lab, cache, progress)
        tree: Path | None = identity.tree() if identity else None
        scripts = scripts_of(kernel, lab, cache, progress)
        after = _modules(kernel.symbols, copies) if scripts and kernel.symbols else ()
    except LabError as error:
        progress.say(f"without the kernel's sources and scripts: {error.message}")
        return NO_HELP
    before = [f"set substitute-path {_OBJECTS} {tree / _INSTEAD}"] if tree else []
    before += [f"source {scripts}"] if scripts else []
    return Help(tuple(before), after)


def _modules(symbols: Path, copies: Path) -> tuple[str, ...]:
    """gdb's words for the symbols of modules that are loaded, and of those that will be.

    The kernel's linker gives some sections an address in the file, and gdb then takes all of them
    for such as lie where the file says: of what is no function it would show another place.
    """
    for file in symbols.glob("*.ko"):
        run(["objcopy", "--change-section-address", "*=0", file, copies / file.name])
    # lx-symbols looks everywhere below the current folder, which may be a large one
    return f"cd {copies}", "lx-symbols", f"cd {Path.cwd()}"


def open_drgn(lab: Lab, name: str | None, choice: Choice | None, commands: Sequence[str]) -> int:
    """drgn in the guest that `at_hand` finds or boots, which runs on; returns drgn's exit status.

    Raises ConfigurationError where there is no drgn that can do that, or no vmlinux.
    """
    _, program = debugger.choose([Debugger.DRGN])
    debugger.must_know_guests(program)
    with at_hand(lab, name, choice, "vfio-lab drgn") as place:
        vmlinux = debugger.vmlinux_of(of_bzimage(place.living.release, place.living.bzimage))
        with doors.reached(place.living.folder) as folder:
            words = Debugger.DRGN.on_guest(folder / doors.DRGN, vmlinux, commands)
            return debugger.run([program, *words], pass_fds=[doors.descriptor_of(folder)])
