# SPDX-License-Identifier: GPL-2.0-only
"""What foreign code that is built here can reach, and what becomes of what it leaves.

Where a test says that something cannot be done, the same is done without walls first.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.cache import Cache
from lab.errors import BuildError, ConfigurationError, InfrastructureError
from lab.kernel import modules, sandbox
from lab.kernel.build import Build, export_headers, release_of
from lab.kernel.configure import configure
from lab.kernel.sandbox import VARIABLE, Sandbox, put, taken
from lab.kernel.toolchain import Toolchain
from lab.progress import Progress
from lab.testing import lacking

OPEN = Sandbox(())


@pytest.fixture
def walls(monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    monkeypatch.delenv(VARIABLE, raising=False)
    found = sandbox.find()
    if found.obstacle:
        raise lacking(f"a sandbox ({found.obstacle})")
    return found


def _sees(where: Sandbox, script: str, **folders: list[Path]) -> bool:
    words = where.around(["sh", "-c", script], **folders)
    return subprocess.run(words, check=False, capture_output=True, timeout=60).returncode == 0


# What it can reach


def test_it_reads_and_writes_what_it_is_given_and_nothing_else(
    walls: Sandbox, tmp_path: Path
) -> None:
    tree, objects, home = (tmp_path / name for name in ("tree", "tree/objects", "home"))
    for folder in (tree, objects, home):
        folder.mkdir()
    (home / "key").write_text("secret")
    (tree / "file.c").write_text("int x;")
    given = {"reads": [tree], "writes": [objects]}
    assert _sees(OPEN, f"cat {home}/key")
    assert not _sees(walls, f"cat {home}/key", **given)
    assert _sees(walls, f"cat {tree}/file.c >{objects}/copy", **given)
    assert (objects / "copy").read_text() == "int x;"
    # not even the file's inode, which may be that of the cache's own tree
    assert not _sees(walls, f"echo >>{tree}/file.c", **given)
    assert not _sees(walls, f"ln {tree}/file.c {objects}/file.c", **given)
    assert _sees(OPEN, f"ln {tree}/file.c {objects}/file.c")
    _sees(walls, f"echo >{tmp_path}/new", **given)  # in a /tmp of its own
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("place", [str(Path.home()), "/etc/hostname", "/var", "/run", "/sys"])
def test_what_is_the_users_or_the_hosts_is_not_there(walls: Sandbox, place: str) -> None:
    assert _sees(OPEN, f"test -e {place}")
    assert not _sees(walls, f"test -e {place}")


def test_it_hears_of_no_secret_in_the_environment(
    walls: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "secret")
    monkeypatch.setenv("LANG", "C.UTF-8")
    assert _sees(OPEN, 'test "$TOKEN" = secret')
    assert _sees(walls, 'test -z "$TOKEN"')


@pytest.mark.parametrize("prefix", [".", ".local"])
def test_of_a_compiler_in_a_home_it_sees_the_compiler_alone(
    walls: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    """Not ~/.local/share/keyrings, though ~/.local/bin/gcc finds cc1 in ~/.local/libexec."""
    assert walls.words
    root = tmp_path / prefix
    for name in ("bin/gcc", "libexec/cc1", "share/keyrings/login"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("#!/bin/sh\n")
        (root / name).chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{root.resolve()}/bin:{os.environ['PATH']}")
    with_compiler = sandbox.find()
    assert _sees(with_compiler, f"gcc && cat {root}/libexec/cc1")
    assert _sees(OPEN, f"cat {root}/share/keyrings/login")
    assert not _sees(with_compiler, f"cat {root}/share/keyrings/login")


def test_a_name_is_the_same_program_within(
    walls: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """~/bin at the end of PATH, for a linker, may have a gcc of its own: it is not the one that the
    cache's key names."""
    assert walls.words
    for name in ("gcc", "ld.lld", "clang"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"/usr/bin:/bin:{tmp_path}/")
    assert _sees(sandbox.find(), "command -v clang")
    assert _sees(sandbox.find(), "test $(command -v gcc) = /usr/bin/gcc")


def test_it_has_no_network(walls: Sandbox) -> None:
    """Not this host's loopback, either."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        knock = f"python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", {port}), 2)'"
        assert _sees(OPEN, knock)
        assert not _sees(walls, knock)


def test_it_sees_and_signals_no_process_of_ours(walls: Sandbox) -> None:
    assert _sees(OPEN, f"kill -0 {os.getpid()}")
    assert not _sees(walls, f"kill -0 {os.getpid()}")
    assert not _sees(walls, f"test -e /proc/{os.getpid()}/environ && test {os.getpid()} -gt 50")


def test_it_changes_no_setting_of_the_kernel(walls: Sandbox) -> None:
    """Root may, of what is no namespace's own: its capabilities are gone, but not its name."""
    assert not _sees(walls, "echo host >/proc/sys/kernel/hostname")
    assert not _sees(walls, "grep -q CapEff:.*[1-9a-f] /proc/self/status")
    assert not _sees(walls, "mount -o remount,rw /usr")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_the_lab(
    walls: Sandbox, tmp_path: Path, number: int, wait_until: Callable[[Callable[[], object]], bool]
) -> None:
    """Also what has left its session, which no signal to a group reaches."""
    script = f"setsid sh -c 'while :; do date >{tmp_path}/beat; sleep 0.05; done' & sleep 60"
    words = walls.around(["sh", "-c", script], writes=[tmp_path])
    program = f"from lab.proc import run; run({words!r})"
    lab = subprocess.Popen([sys.executable, "-c", program])
    beat = tmp_path / "beat"
    assert wait_until(beat.exists)
    lab.send_signal(number)
    lab.wait()

    def still() -> bool:
        before = beat.stat().st_mtime_ns
        time.sleep(0.3)
        return beat.stat().st_mtime_ns == before

    assert wait_until(still)


@pytest.fixture
def wait_until() -> Callable[[Callable[[], object]], bool]:
    def wait(condition: Callable[[], object]) -> bool:
        end = time.monotonic() + 20
        while not condition():
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    return wait


# Whether there is one


def test_it_can_be_switched_off_and_be_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(VARIABLE, "off")
    assert sandbox.find() == Sandbox((), "VFIO_LAB_SANDBOX is off")
    assert sandbox.find().around(["true"], reads=[tmp_path]) == ["true"]
    monkeypatch.setenv(VARIABLE, "perhaps")
    with pytest.raises(ConfigurationError, match="expected one of auto, on, off"):
        sandbox.find()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(VARIABLE, "auto")
    assert sandbox.find().obstacle == "bubblewrap is not installed"
    monkeypatch.setenv(VARIABLE, "on")
    with pytest.raises(InfrastructureError, match="there is no sandbox: bubblewrap is not"):
        sandbox.find()


def test_without_one_it_is_said_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As a kernel says it that gives nobody a user namespace."""
    for name in ("bwrap", "unshare"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'bwrap: No permissions' >&2; exit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv(VARIABLE, raising=False)
    assert sandbox.find() == Sandbox((), "bwrap: No permissions")


def test_root_has_one_in_a_chroot_too(tmp_path: Path) -> None:
    """Where there are no user namespaces, and the root is no mount point."""
    if os.geteuid() != 0:
        raise lacking("root, to change its root")
    root = tmp_path / "root"
    links = [name for name in ("bin", "sbin", "lib", "lib64") if Path("/", name).is_symlink()]
    for name in ("usr", "proc", "dev", "tmp", "etc", "code"):
        (root / name).mkdir(parents=True)
    for name in links:
        (root / name).symlink_to(Path("/", name).readlink())
    code = Path(__file__).parents[3]
    program = (
        "import runpy, subprocess, sys;"  # lab.kernel wants packages that are not there
        "found = runpy.run_path('/code/lab/kernel/sandbox.py')['find']();"
        "print(found.obstacle or found.words[0]);"
        "sys.exit(subprocess.run(found.around(['ls', '/code'])).returncode)"
    )
    script = f"""\
set -e
mount --bind /usr {root}/usr; mount --rbind /dev {root}/dev; mount -t proc proc {root}/proc
mount --bind {code} {root}/code
chroot {root} env PYTHONPATH=/code /usr/bin/python3 -c "{program}"
"""
    words = ["unshare", "--mount", "sh", "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    if "mount:" in done.stderr or "propagation" in done.stderr:
        raise lacking("the right to mount, and a root that is a mount point")
    assert done.stdout == "unshare\n", done.stderr
    assert done.returncode != 0  # /code is outside its walls


# A kernel in it


_MAKEFILE = """\
bzImage:
	mkdir -p $(O)/arch/x86/boot $(O)/include/config
	echo '#define X' >$(O)/made.h
	cat {home}/key >$(O)/arch/x86/boot/bzImage || echo nothing >$(O)/arch/x86/boot/bzImage
	echo >>file.c || true
	echo "  CC      one.o"
"""


def _build(tree: Path, cache: Cache, walls: Sandbox, *, patched: bool = True) -> Build:
    tools = Toolchain("gcc", "gcc", "ld")
    progress = Progress(quiet=True)
    return Build("k", {}, tree, (), tools, None, cache, progress, walls, patched)


def test_makefiles_run_in_it(walls: Sandbox, tmp_path: Path, cache: Cache) -> None:
    tree, home = tmp_path / "tree", tmp_path / "home"
    (tree / "objects").mkdir(parents=True)
    home.mkdir()
    (home / "key").write_text("secret\n")
    (tree / "file.c").write_text("")
    (tree / "Makefile").write_text(_MAKEFILE.format(home=home))
    image = tree / "objects" / "arch/x86/boot/bzImage"
    for where, said, file in ((walls, "nothing\n", ""), (OPEN, "secret\n", "\n")):
        build = _build(tree, cache, where)
        make = build.make(tree, tree / "objects")
        with build.timed("build", "build") as step:
            assert build.compile(make, tmp_path / "log", step) == 1
        assert image.read_text() == said
        assert (tree / "file.c").read_text() == file


def test_what_a_series_leaves_with_the_compiler_no_base_gets(
    walls: Sandbox, tmp_path: Path, cache: Cache
) -> None:
    objects = tmp_path / "objects"
    objects.mkdir()
    words = {
        patched: " ".join(_build(tmp_path, cache, walls, patched=patched).make(tmp_path, objects))
        for patched in (False, True)
    }
    assert f" {cache.root}/ccache " in words[False]
    assert f" {cache.root}/ccache " not in words[True]
    assert f"CCACHE_DIR={cache.root}/ccache-of-series " in words[True]


# What it leaves


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    folder = tmp_path / "objects"
    folder.mkdir()
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder that no build has to do with."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "file.h").write_text("mine")
    return folder


def test_a_file_is_taken_and_a_link_is_not(objects: Path, home: Path) -> None:
    (objects / "vmlinux").write_text("kernel")
    assert taken(objects, "vmlinux").read_text() == "kernel"
    (objects / "link").symlink_to(home / "file.h")
    (objects / "folder").symlink_to(home)
    os.mkfifo(objects / "pipe")
    for name in ("link", "folder/file.h", "../home/file.h", "pipe", "missing"):
        with pytest.raises(BuildError, match="the build left"):
            taken(objects, name)


def test_nothing_is_written_through_a_link(objects: Path, home: Path) -> None:
    place = objects / ".config"
    place.symlink_to(home / "file.h")
    put(place, b"CONFIG_X=y\n")
    assert (home / "file.h").read_text() == "mine"
    assert place.read_text() == "CONFIG_X=y\n"
    place.unlink()
    (place / "folder").mkdir(parents=True)
    put(place, b"again")
    assert place.read_text() == "again"


def test_the_wishes_are_not_written_through_a_link(objects: Path, home: Path) -> None:
    (objects / "wanted.config").symlink_to(home / "file.h")
    (objects / ".config").symlink_to(home / "file.h")
    with pytest.raises(BuildError, match=r"as \.config"):
        configure(objects, objects, (), ["true"])
    assert (home / "file.h").read_text() == "mine"


def test_no_header_is_moved_from_elsewhere(objects: Path, home: Path, tmp_path: Path) -> None:
    """`usr` as a link to the host's would have all of its headers moved away."""
    (home / "include").mkdir()
    (home / "file.h").rename(home / "include" / "file.h")
    (objects / "usr").symlink_to(home)
    with pytest.raises(BuildError, match="left a link"):
        export_headers(["true"], objects, tmp_path / "exported")
    assert (home / "include" / "file.h").read_text() == "mine"


@pytest.mark.parametrize("release", ["../../../home", "6.12 x", "", "-6", "\x1b[2J"])
def test_a_release_is_no_path(objects: Path, release: str) -> None:
    """It is the name of the folder that the modules are taken from, and shown to people."""
    (objects / "include" / "config").mkdir(parents=True)
    file = objects / "include" / "config" / "kernel.release"
    file.write_text(f"{release}\n")
    with pytest.raises(BuildError, match="its release is"):
        release_of(objects)
    file.write_text("6.12.117-g0123_x+~1\n")
    assert release_of(objects) == "6.12.117-g0123_x+~1"


def test_no_module_is_taken_from_elsewhere(objects: Path, home: Path) -> None:
    (objects / "modules.dep").write_text("../home/file.h:\n")
    with pytest.raises(BuildError, match="out of its folder"):
        modules.archive(objects)
    (objects / "modules.dep").write_text("vfio.ko:\n")
    (objects / "vfio.ko").symlink_to(home / "file.h")
    with pytest.raises(BuildError, match="left a link"):
        modules.archive(objects)


def test_headers_run_nothing_outside(
    walls: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To read a header's values a program is made of it, and a header may hold functions."""
    from lab.vfio import drift  # noqa: PLC0415 (below `lab.vfio`: this folder tests lab.kernel)

    (tmp_path / "linux").mkdir()
    mark = tmp_path / "ran"
    (tmp_path / "linux" / "vfio.h").write_text(
        "int creat(const char *, unsigned);\n"
        f'__attribute__((constructor)) static void f(void) {{ creat("{mark}", 0600); }}\n'
    )
    item = drift.Item("X", drift.Kind.NUMBER, "1", 1)
    monkeypatch.setenv(VARIABLE, "off")
    assert drift.read(tmp_path, "these", [item]) == {"1": 1}
    assert mark.exists()
    mark.unlink()
    monkeypatch.delenv(VARIABLE)
    assert walls.words
    assert drift.read(tmp_path, "these", [item]) == {"1": 1}
    assert not mark.exists()
