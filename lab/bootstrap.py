# SPDX-License-Identifier: GPL-2.0-only
"""What the host needs, and how it gets there: distribution packages, then `.venv`.

This runs before anything is installed, so it imports nothing but the standard library and
`lab.errors`. `python3 -m lab.bootstrap` does the part that needs root, and only that.
"""

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import IO

from lab.errors import InfrastructureError, LabError

QEMU_WANTED = (8, 0)  # the first with igb
_SYSTEM_PYTHON = "/usr/bin/python3"
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


@dataclass(frozen=True)
class Need:
    """Something the host must have: it is there when its command, file or module is."""

    package: str
    """Its name on Debian and Ubuntu."""
    purpose: str
    command: str = ""
    file: str = ""
    module: str = ""

    @property
    def present(self) -> bool:
        if self.command:
            return shutil.which(self.command) is not None
        if self.file:
            return Path(self.file).exists()
        return _runs(interpreter(), f"import {self.module}")

    @property
    def mend(self) -> str:
        return f"apt-get install {self.package}"


SELFTESTS = "kernel selftests"
QEMU = Need("qemu-system-x86", "runs the guests", command="qemu-system-x86_64")
NEEDS = (
    Need("python3-venv", "keeps the lab's Python packages apart", module="ensurepip"),
    Need("git", "fetches kernels, applies series", command="git"),
    Need("apt", "fetches kernels and what images are made of", command="apt-get"),
    Need("dpkg", "unpacks them", command="dpkg-deb"),
    Need("dpkg-dev", "unpacks source packages, and patches them", command="dpkg-source"),
    Need("debian-archive-keyring", "verifies them", file=_KEYRING),
    Need("gcc", "compiles kernels", command="gcc"),
    Need("libc6-dev", "compiles the kernel's own tools", file="/usr/include/stdio.h"),
    Need("make", "builds kernels", command="make"),
    Need("flex", "kernel build: reads Kconfig", command="flex"),
    Need("bison", "kernel build: reads Kconfig", command="bison"),
    Need("bc", "kernel build: timer constants", command="bc"),
    Need("libelf-dev", "kernel build: objtool", file="/usr/include/gelf.h"),
    Need("libssl-dev", "kernel build: certificates", file="/usr/include/openssl/ssl.h"),
    Need("kmod", "kernel build: modules", command="kmod"),
    Need("rsync", "kernel build: uAPI headers", command="rsync"),
    Need("xz-utils", "unpacks kernel sources and modules", command="xz"),
    Need("ccache", "makes the second build of a kernel fast", command="ccache"),
    Need("bubblewrap", "keeps what a series builds away from your files", command="bwrap"),
    Need("musl-tools", "links the agent statically", command="musl-gcc"),
    Need("libcap-dev", SELFTESTS, file="/usr/include/sys/capability.h"),
    Need("uuid-dev", SELFTESTS, file="/usr/include/uuid/uuid.h"),
    Need("zstd", "packs runs for other machines", command="zstd"),
    Need("cpio", "the lab's tests read initramfs images back", command="cpio"),
    QEMU,
)

NEEDS_OF_TESTS = (
    Need("chromium", "shows the nights' pages to their tests", command="chromium"),
    Need("gdb", "opens guests and dumps, in tests too", command="gdb"),
    Need("postgresql", "keeps a history in its test", file="/usr/lib/postgresql"),
)
"""Without one of them the lab's own tests skip what it is for."""


def missing(needs: Sequence[Need] | None = None) -> list[Need]:
    """What this host lacks of these, by default of NEEDS, in their order."""
    return [need for need in (NEEDS if needs is None else needs) if not need.present]


def qemu_version() -> tuple[int, int] | None:
    """Version of the QEMU on PATH, or None without one."""
    if not QEMU.present:
        return None
    return version_in(_output([QEMU.command, "--version"]))


def version_in(text: str) -> tuple[int, int] | None:
    """(major, minor) out of what `qemu-system-x86_64 --version` prints."""
    found = re.search(r"version (\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def interpreter() -> str:
    """The Python that `.venv` is made with.

    The system's if it is new enough: other users can run it, and apt's python3-venv is its.
    """
    modern = "import sys; sys.exit(sys.version_info < (3, 11))"
    return _SYSTEM_PYTHON if _runs(_SYSTEM_PYTHON, modern) else sys.executable


def prepare(root: str, recipe: Callable[[], bytes], is_current: Callable[[], bool]) -> int:
    """Install what the host lacks and make `.venv` in the tree `root`; returns the exit status.

    `recipe` tells what `.venv` is made from, `is_current` whether it was: both the launcher's.
    """

    def work() -> None:
        with _alone(Path(root)) as lock:
            if is_current():  # another start made it while this one waited
                return
            with _log() as log:
                _provide_host(log)
                _make_venv(Path(root), recipe, log, lock)

    return _status(work)


def main() -> int:
    """Only what needs root, for a root who does not own the tree; returns the exit status."""

    def work() -> None:
        with _log() as log:
            _provide_host(log)

    return _status(work)


def provide_for_tests() -> None:
    """Install what the lab's own tests use beside all that the lab does; what cannot be had costs
    them a part, and is told."""
    for need in missing(NEEDS_OF_TESTS):
        try:
            with _log() as log:
                _say("The tests lack:", f"  {need.package:<24}{need.purpose}")
                _install([need], log)
        except LabError as error:
            _say(f"going on without: {error}")


def _status(work: Callable[[], None]) -> int:
    try:
        work()
    except (LabError, OSError) as error:
        _say(f"vfio-lab: {error}")
    except KeyboardInterrupt:
        _say("vfio-lab: interrupted; the next start begins anew")
        return 130
    else:
        return 0
    return 2


def _provide_host(log: IO[str]) -> None:
    if needs := missing():
        _say("This host lacks:", *(f"  {need.package:<24}{need.purpose}" for need in needs))
        _install(needs, log)
    version = qemu_version()
    if version and version < QEMU_WANTED:
        root = privilege()
        if _release().get("ID") == "debian" and root is not None:
            _upgrade_qemu(root, log)
        else:
            _say(f"QEMU {version[0]}.{version[1]} has no igb, 8.0 and newer have; going on")


def privilege() -> list[str] | None:
    """What to put before a command that needs root: nothing, sudo, or None: it cannot be had."""
    if os.geteuid() == 0:
        return []
    return ["sudo"] if shutil.which("sudo") else None


def _install(needs: Sequence[Need], log: IO[str]) -> None:
    if not shutil.which("apt-get"):
        raise InfrastructureError(
            "this is neither Debian nor Ubuntu: install them by your distribution's own means",
            hint="the names are Debian's; then start vfio-lab again",
        )
    root = privilege()
    if root is None:
        tree = Path(__file__).parent.parent
        command = f"cd {shlex.quote(str(tree))} && {interpreter()} -B -m lab.bootstrap"
        raise InfrastructureError(
            "to install them takes root, and there is no sudo here",
            hint=f"as root run, once: {command}",
        )
    _update(root, log)
    packages = [need.package for need in needs]
    with _step("apt-get install"):
        _run(install_command(root, packages), log)
    if still := [need.package for need in missing(needs)]:
        raise InfrastructureError(
            f"apt installed {', '.join(still)}, and yet this host does not show it",
            hint="see what hides it: PATH, or another Python than the system's",
        )


def _update(root: Sequence[str], log: IO[str]) -> None:
    # Somebody's broken third source shall not stop the lab: the install that follows decides.
    with suppress(InfrastructureError), _step("apt-get update"):
        _run([*root, "apt-get", "update"], log)


def install_command(
    root: Sequence[str], packages: Sequence[str], options: Sequence[str] = ()
) -> list[str]:
    """apt-get's argv; `root` as from `privilege`, `options` when not the host's own sources."""
    return [
        *root,
        *("env", "DEBIAN_FRONTEND=noninteractive"),  # behind sudo, which clears the environment
        *("apt-get", "install", "--yes", "--no-install-recommends"),
        *("-o", "DPkg::Lock::Timeout=300"),  # seconds; a fresh machine updates itself meanwhile
        *options,
        *packages,
    ]


def _upgrade_qemu(root: Sequence[str], log: IO[str]) -> None:
    """Take QEMU from this Debian's backports.

    Over the release's own QEMU, because then the libraries that both use stay the release's,
    and fit its -dev packages.
    """
    _update(root, log)
    suite = f"{_release()['VERSION_CODENAME']}-backports"
    with tempfile.TemporaryDirectory(prefix="vfio-lab-") as scratch:
        options = _with_backports(suite, Path(scratch), log)
        with _step(f"installing QEMU from {suite}, the release's is too old"):
            _run(install_command(root, [QEMU.package], [*options, "-t", suite]), log)


def _with_backports(suite: str, scratch: Path, log: IO[str]) -> list[str]:
    """apt options that add `suite` to the host's sources for one command, and change none.

    The lists in `scratch` are the host's, linked, and those of `suite`, fetched as this user.
    """
    fields = "$(ORIGIN)\t$(CODENAME)\t$(REPO_URI)"
    targets = _output(["apt-get", "indextargets", "--format", fields])
    mirror = mirror_in(targets, suite.removesuffix("-backports"))
    sources, lists = scratch / "sources.list", scratch / "lists"
    sources.write_text(f"deb [signed-by={_KEYRING}] {mirror} {suite} main\n")
    scratch.chmod(0o755)  # root's apt downloads as another user
    system = _apt_paths()
    lists.mkdir()
    for known in Path(system["LISTS"]).glob("*_*"):
        (lists / known.name).symlink_to(known)
    options = [
        *("-o", f"Dir::Etc::SourceList={sources}"),
        *("-o", f"Dir::State::Lists={lists}"),
        *("-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache="),
    ]
    alone = ["-o", "Dir::Etc::SourceParts=/dev/null", "-o", "APT::Get::List-Cleanup=false"]
    with _step(f"reading {suite}"):
        _run(["apt-get", *options, *alone, "update"], log)
    with suppress(FileNotFoundError), sources.open("a") as file:
        file.write(Path(system["SOURCES"]).read_text())
    return options


def mirror_in(targets: str, codename: str) -> str:
    """The URI of Debian's own archive among apt's targets.

    A line of `targets` is origin, codename and URI. Other vendors name their suites by
    Debian's codename too, so the origin decides.
    """
    for line in targets.splitlines():
        origin, name, uri = line.split("\t")
        if (origin, name) == ("Debian", codename):
            return uri
    raise InfrastructureError(
        f"apt knows no Debian archive for {codename}", hint="look into apt's sources"
    )


def _apt_paths() -> dict[str, str]:
    wanted = ("SOURCES", "Dir::Etc::SourceList/f", "LISTS", "Dir::State::Lists/d")
    lines = shlex.split(_output(["apt-config", "shell", *wanted]))
    return dict(line.split("=", 1) for line in lines)


def _make_venv(root: Path, recipe: Callable[[], bytes], log: IO[str], lock: IO[bytes]) -> None:
    venv = root / ".venv"
    with _step("making .venv"):
        # The stamp goes first and comes last: between, no start trusts what is there.
        (venv / "stamp").unlink(missing_ok=True)
        _run([interpreter(), "-m", "venv", "--clear", str(venv)], log, lock)
        made_from = recipe()
    with _step("installing the lab's Python packages into .venv"):
        python = str(venv / "bin/python")
        pip = [python, "-m", "pip", "--disable-pip-version-check", "--no-input"]
        _run([*pip, "install", "--progress-bar=off", "--editable", f"{root}[dev]"], log, lock)
        # Python would do it at the first use, but not for a user who may not write here.
        _run([python, "-m", "compileall", "-q", f"{root}/lab"], log, lock)
    (venv / "stamp").write_bytes(made_from)


@contextmanager
def _alone(root: Path) -> Iterator[IO[bytes]]:
    """One start at a time makes `.venv`: the others wait here."""
    try:
        # For writing, as NFS wants it of an exclusive lock; and who cannot is in the wrong tree.
        lock = (root / "pyproject.toml").open("r+b")
    except PermissionError as error:
        raise InfrastructureError(
            f"{root}/.venv is missing or out of date, and the tree is not yours to write",
            hint="let its owner start vfio-lab once, or clone the repository yourself",
        ) from error
    with lock:
        try:
            flock(lock, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            with _step("waiting for another vfio-lab that is making .venv"):
                flock(lock, LOCK_EX)
        yield lock


@contextmanager
def _log() -> Iterator[IO[str]]:
    """Where apt and pip write."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    path = Path(state, "vfio-lab", "bootstrap.log")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w+", errors="replace") as log:
        yield log


def _run(argv: Sequence[str], log: IO[str], lock: IO[bytes] | None = None) -> None:
    """Run to the end, printing into `log`; whoever outlives this process keeps `lock`."""
    if argv[0] == "sudo":
        _say(shlex.join(argv))
    print("$", shlex.join(argv), file=log, flush=True)
    start = log.tell()
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        pass_fds=[lock.fileno()] if lock else [],
    ) as process:
        try:
            status = process.wait()
        except KeyboardInterrupt:
            process.wait()  # it got the ^C as well, and dpkg must not be killed half-way
            raise
    if status:
        log.seek(start)
        tail = "\n".join(f"    {line.rstrip()[:200]}" for line in log.readlines()[-15:])
        raise InfrastructureError(
            f"`{shlex.join(argv)}` failed with status {status}:\n{tail}",
            hint=f"all it printed is in {log.name}; mend it and start vfio-lab again",
        )


@contextmanager
def _step(name: str) -> Iterator[None]:
    started = time.monotonic()
    _say(f"… {name}")
    mark = "✗"
    try:
        yield
        mark = "✓"
    finally:
        _say(f"{mark} {name} {time.monotonic() - started:.1f} s")


def _say(*lines: str) -> None:
    print(*lines, sep="\n", file=sys.stderr, flush=True)


def _release() -> Mapping[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _output(argv: Sequence[str]) -> str:
    env = {**os.environ, "LC_ALL": "C"}  # its words are parsed
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False).stdout


def _runs(python: str, code: str) -> bool:
    try:
        return (
            subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0
        )
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    sys.exit(main())
