# SPDX-License-Identifier: GPL-2.0-only
"""Foreign code on this host, behind walls: a kernel's Makefiles, and programs made of its files.

Whoever builds a series runs what its author wrote. It runs under bubblewrap, where there is: the
system's programs and the folders that it is given are all that it sees, the network, other
processes and the user's files are not there, and it ends with the lab. Every folder has the path
that it has outside, so that the bits are the same with walls and without.

What it leaves is not trusted either: see `taken` and `put`.
"""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import BuildError, ConfigurationError, InfrastructureError

VARIABLE = "VFIO_LAB_SANDBOX"
PACKAGE = "bubblewrap"
_WISHES = ("auto", "on", "off")
BWRAP = "bwrap"
_SYSTEM = Path("/usr")
_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")  # of them most are links into /usr
_SETTINGS = ("alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "passwd", "group",
             "ssl/openssl.cnf", "ccache.conf")  # fmt: skip
_TOOLS = ("make", "gcc", "clang", "ld", "ld.lld", "ccache")
_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_LIBRARIES = ("lib", "lib32", "lib64", "libexec", "include")
_PATIENCE = 20  # seconds
# root can do without a user namespace, which a chroot denies. There the root is no mount point
# either, and bubblewrap needs one. It is made where no other namespace hears of it.
_MOUNTED = (
    *("unshare", "--mount", "--propagation", "unchanged", "sh", "-c"),
    'mount --make-private /proc && mount --rbind / /proc && cd /proc && exec chroot . "$@"',
    "sandbox",
)


@dataclass(frozen=True)
class Sandbox:
    """The words that stand before a command; without any it runs as the user's own programs do,
    and `obstacle` says why."""

    words: tuple[str, ...]
    obstacle: str = ""

    def around(
        self,
        argv: Sequence[str | Path],
        *,
        reads: Sequence[Path] = (),
        writes: Sequence[Path] = (),
    ) -> list[str]:
        """The command with its walls: it may read `reads` and write `writes`, which exist. One of
        `writes` may lie in one of `reads`."""
        if not self.words:
            return [*map(str, argv)]
        given = [("--ro-bind", str(folder)) for folder in reads]
        given += [("--bind", str(folder)) for folder in writes]
        binds = [word for option, folder in given for word in (option, folder, folder)]
        return [*self.words, *binds, "--", *map(str, argv)]


def find() -> Sandbox:
    """What this host offers; `$VFIO_LAB_SANDBOX` may be `off`, or `on` for no build without.

    Raises ConfigurationError for another word, and InfrastructureError where it is on and there is
    none.
    """
    wish = os.environ.get(VARIABLE) or "auto"
    if wish not in _WISHES:
        raise ConfigurationError(f"{VARIABLE}={wish}: expected one of {', '.join(_WISHES)}")
    if wish == "off":
        return Sandbox((), f"{VARIABLE} is off")
    obstacle = "" if shutil.which(BWRAP) else f"{PACKAGE} is not installed"
    for words in () if obstacle else _ways():
        refused = _obstacle(words)
        if not refused:
            return Sandbox(words)
        obstacle = obstacle or refused
    if wish == "on":
        raise InfrastructureError(
            f"{VARIABLE} is on, and there is no sandbox: {obstacle}",
            hint="`vfio-lab doctor` says how to get one",
        )
    return Sandbox((), obstacle)


def _ways() -> Iterator[tuple[str, ...]]:
    room = tuple(_room())
    yield (BWRAP, "--unshare-user", "--disable-userns", *room)
    if os.geteuid() == 0:
        yield (*_MOUNTED, BWRAP, *room)


def _obstacle(words: Sequence[str]) -> str:
    """Why nothing runs behind these walls, "" if it does."""
    try:
        tried = subprocess.run(
            [*words, "--", "true"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = tried.stderr.strip().splitlines() or [f"{words[0]} ended with {tried.returncode}"]
    return said[-1] if tried.returncode else ""


def _room() -> Iterator[str]:
    """What every command finds there."""
    yield from ("--die-with-parent", "--unshare-pid", "--unshare-net", "--unshare-ipc")
    yield from ("--unshare-uts", "--unshare-cgroup-try", "--cap-drop", "ALL", "--clearenv")
    programs, roots = _tools_elsewhere()
    # in the user's order, so that a name is the same program within and without
    users = [str(Path(place)) for place in os.get_exec_path()]
    known = (*_PATH, *map(str, programs))
    path = os.pathsep.join(dict.fromkeys([*(each for each in users if each in known), *_PATH]))
    environment = {"PATH": path, "HOME": "/tmp", "LC_ALL": "C.UTF-8"}
    if language := os.environ.get("LANG"):
        environment["LANG"] = language  # ccache's keys have it: they are to be those of outside
    for name, value in environment.items():
        yield from ("--setenv", name, value)
    yield from ("--ro-bind", str(_SYSTEM), str(_SYSTEM))
    for name in _MERGED:
        place = Path("/", name)
        if place.is_symlink():
            yield from ("--symlink", str(place.readlink()), str(place))
        elif place.is_dir():
            yield from ("--ro-bind", str(place), str(place))
    for name in _SETTINGS:
        yield from ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")
    # Of /proc root may write what is the whole host's, core_pattern for one.
    yield from ("--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev", "--tmpfs", "/tmp")
    for folder in (*roots, *programs):
        yield from ("--ro-bind-try", str(folder), str(folder))


def _tools_elsewhere() -> tuple[list[Path], list[Path]]:
    """Folders on PATH of tools that are not the distribution's, and where those are installed, with
    a compiler's own headers. None of them has a home in it, or ~/.local, where keyrings lie: of
    those it is the folders that a compiler has there."""
    found = [Path(place) for tool in _TOOLS if (place := shutil.which(tool))]
    programs = [tool.parent for tool in found]
    roots = [tool.resolve().parent.parent for tool in found]
    roots += [root / name for root in roots for name in _LIBRARIES]
    system = (_SYSTEM, *(Path("/", name) for name in _MERGED))
    homes = (Path.home() / ".local", Path("/home"), Path("/root"))

    def elsewhere(folders: list[Path]) -> list[Path]:
        return [
            folder
            for folder in dict.fromkeys(folders)
            if not any(folder.is_relative_to(place) for place in system)
            and not any(home.is_relative_to(folder) for home in homes)
        ]

    return elsewhere(programs), elsewhere(roots)


def taken(folder: Path, name: str | Path) -> Path:
    """A file that foreign code made in `folder`, if it is one and lies there: a link would have us
    read, or move, what lies elsewhere. Raises BuildError."""
    path = folder / name
    real = folder.resolve() / name
    if path.resolve() != real or ".." in Path(name).parts:
        raise BuildError(f"the build left a link, or a path out of its folder, as {name}")
    if not path.exists():
        raise BuildError(f"the build left no {name}")
    if not stat.S_ISREG(path.lstat().st_mode):
        raise BuildError(f"the build left something that is no file as {name}")
    return path


def put(path: Path, content: bytes) -> None:
    """Write a file where foreign code was at work: in place of what it left there, whatever it is,
    and never through it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        file.write(content)
