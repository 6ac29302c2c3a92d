# SPDX-License-Identifier: GPL-2.0-only
"""What a guest reaches of this host, and what others on this host reach of a guest.

One guest has two cards: the lab's own, and one on a network that is open. What must not go through
the first is seen to go through the second.
"""

import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import paramiko
import pytest

from lab.cache import Cache
from lab.cell import Cell, Choice
from lab.config import Lab
from lab.deadline import Deadline
from lab.errors import LabError
from lab.guest import Qemu, find_qemu
from lab.progress import Progress
from lab.results.folder import RunFolder
from lab.testbed import Testbed
from lab.testing import lacking

_LAB, _OPEN = "10.0.2", "10.9.0"
_HOST, _DNS = 2, 3  # their last numbers in a user network of QEMU's
_MAC = "52:54:00:0e:0e:0e"  # of the card on the open network
_NOBODY = 65534
_SOON = 30.0  # seconds
_MOMENT = 0.5  # seconds in which `touch` is done
_ROOT = Path(__file__).parents[2]
_ATTACHED = (
    *("-netdev", f"user,id=open,net={_OPEN}.0/24,restrict=off"),
    *("-device", f"e1000,netdev=open,mac={_MAC},romfile="),
)


@pytest.fixture(scope="module")
def guest(choice: Choice, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    """The guest with both cards; e1000 is no device under test here."""
    attached = replace(choice, qemu_arguments=_ATTACHED)
    folder = RunFolder(tmp_path_factory.mktemp("walls"))
    progress = Progress(quiet=True)
    with Cell(Lab.load(_ROOT), attached, Cache.of_user(), progress, folder) as cell:
        testbed = cell.testbed()
        found = testbed.guest.ssh.run("sh", "-c", f"grep -l {_MAC} /sys/class/net/*/address")
        card = Path(found.output.strip()).parent.name
        up = testbed.guest.ssh.run(
            "ifconfig", card, f"{_OPEN}.15", "netmask", "255.255.255.0", "up"
        )
        assert up.status == 0, up.output
        yield testbed


@pytest.fixture
def qemu(choice: Choice) -> Qemu:
    return find_qemu(choice.qemu, Cache.of_user())


def _says(testbed: Testbed, script: str) -> str:
    return testbed.guest.ssh.run("sh", "-c", script, timeout=60.0).output


# From outside: first, for what goes through the open card leaves QEMU with sockets of its own


def _sockets(pid: int) -> set[str]:
    links = (path.readlink() for path in Path(f"/proc/{pid}/fd").iterdir())
    return {link.name[8:-1] for link in links if link.name.startswith("socket:[")}


def _listening(table: str, inodes: set[str]) -> list[str]:
    rows = [line.split() for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    return [row[1] for row in rows if row[9] in inodes and (row[3] == "0A" or table[:3] == "udp")]


def test_a_guest_listens_on_loopback_only(
    guest: Testbed, qemus: Callable[[Path], list[int]]
) -> None:
    (qemu,) = qemus(guest.guest.folder)
    inodes = _sockets(qemu)
    (address,) = _listening("tcp", inodes)
    assert address.startswith("0100007F:")  # 127.0.0.1
    assert not [
        *_listening("tcp6", inodes),
        *_listening("udp", inodes),
        *_listening("udp6", inodes),
    ]
    with socket.create_server(("0.0.0.0", 0)) as control:
        inode = re.findall(r"\d+", str(Path(f"/proc/self/fd/{control.fileno()}").readlink()))
        assert _listening("tcp", set(inode))[0].startswith("00000000:")


def test_nobody_can_connect_to_its_monitor(
    guest: Testbed, qemus: Callable[[Path], list[int]]
) -> None:
    """It is one end of a pair: it has no name, and takes no connection."""
    (qemu,) = qemus(guest.guest.folder)
    inodes = _sockets(qemu)
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    own = [row for row in rows if row[6] in inodes]
    assert own
    assert all(len(row) == 7 for row in own)  # the eighth would be a name
    assert not any(int(row[3], 16) & 0x10000 for row in own)  # __SO_ACCEPTCON


def test_without_its_key_nobody_logs_in(guest: Testbed) -> None:
    table = guest.guest.monitor.human("info usernet")
    found = re.search(r"HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)", table)
    assert found
    own = paramiko.Ed25519Key.from_private_key_file(str(guest.guest.folder / "id_ed25519"))
    attempts: list[Callable[[paramiko.Transport], object]] = [
        lambda transport: transport.auth_none("root"),
        lambda transport: transport.auth_password("root", ""),
        lambda transport: transport.auth_publickey("root", paramiko.RSAKey.generate(2048)),
    ]
    for attempt in attempts:
        with paramiko.Transport(("127.0.0.1", int(found[1]))) as transport:
            transport.start_client(timeout=10)
            with pytest.raises(paramiko.SSHException) as refused:
                attempt(transport)
            if isinstance(refused.value, paramiko.BadAuthenticationType):
                assert refused.value.allowed_types == ["publickey"]
            assert not transport.is_authenticated()
    with paramiko.Transport(("127.0.0.1", int(found[1]))) as transport:
        transport.start_client(timeout=10)
        transport.auth_publickey("root", own)
        assert transport.is_authenticated()


def test_another_user_cannot_read_its_keys(guest: Testbed) -> None:
    folder = guest.guest.folder
    for name in ("id_ed25519", "keys.cpio"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    if os.geteuid() != 0:
        raise lacking("root, to become another user")
    for parent in folder.parents:
        if not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o001)
    identity = [f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]

    def can_read(name: str) -> bool:
        words = ["setpriv", *identity, "cat", str(folder / name)]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    assert can_read("console.log")
    assert not can_read("id_ed25519")
    assert not can_read("keys.cpio")


def test_each_guest_has_keys_of_its_own(guest: Testbed, testbed: Testbed) -> None:
    keys = {(each.guest.folder / "id_ed25519").read_bytes() for each in (guest, testbed)}
    assert len(keys) == 2


# From QEMU itself


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_its_system_calls_are_filtered(
    guest: Testbed, qemus: Callable[[Path], list[int]], qemu: Qemu
) -> None:
    if qemu.unconfined:
        raise lacking(f"a QEMU that filters its system calls: {qemu.unconfined}")
    (pid,) = qemus(guest.guest.folder)
    assert (_status(pid)["Seccomp"], _status(pid)["NoNewPrivs"]) == ("2", "1")
    assert _status(os.getpid())["Seccomp"] == "0"  # not its parent's


def test_what_the_lab_asks_of_it_goes_through_the_filter(guest: Testbed) -> None:
    """A dump of memory, a device that goes and one that comes; see also
    tests/contract/test_unplug.py and tests/lab/test_crash.py."""
    monitor, folder = guest.guest.monitor, guest.guest.folder
    monitor.execute("device_del", {"id": "edu1"})
    assert monitor.wait_for("DEVICE_DELETED", "edu1", Deadline.after(_SOON))
    monitor.execute("device_add", {"driver": "edu", "id": "late", "bus": "port0"})
    monitor.execute("dump-guest-memory", {"paging": False, "protocol": "file:dump"}, timeout=_SOON)
    assert (folder / "dump").stat().st_size > 1 << 20
    (folder / "dump").unlink()
    assert guest.guest.ssh.run("true").status == 0


def test_it_starts_no_program(
    testbed: Testbed, wait_until: Callable[..., bool], qemu: Qemu, tmp_path: Path
) -> None:
    """What `migrate exec:` does in a QEMU whose filter is off fails in this one, or ends it."""
    if qemu.unconfined:
        raise lacking(f"a QEMU that filters its system calls: {qemu.unconfined}")
    started = tmp_path / "started"
    monitor = testbed.guest.monitor
    with suppress(LabError):
        monitor.execute("migrate", {"uri": f"exec:touch {started}"})

    def is_over() -> bool:
        if not testbed.guest.alive:
            return True
        return monitor.execute("query-migrate").get("status") in (None, "failed", "completed")

    assert wait_until(is_over, _SOON)
    time.sleep(_MOMENT)
    assert not started.exists()


def test_where_it_is_told_to_it_starts_one(
    new_cell: Callable[..., Cell], wait_until: Callable[..., bool], tmp_path: Path
) -> None:
    started = tmp_path / "started"
    testbed = new_cell(qemu_arguments=("-sandbox", "off")).testbed()
    testbed.guest.monitor.execute("migrate", {"uri": f"exec:touch {started}"})
    assert wait_until(started.exists, _SOON)


# From inside


def test_no_service_of_the_host_is_reached(guest: Testbed) -> None:
    """Those of its loopback, with which another guest's SSH server would be."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5.0)
        port = server.getsockname()[1]
        _says(guest, f"echo lab | timeout 5 nc -w 3 {_LAB}.{_HOST} {port}")
        _says(guest, f"echo open | timeout 5 nc -w 3 {_OPEN}.{_HOST} {port}")
        connection, _ = server.accept()
        with connection:
            assert connection.recv(16) == b"open\n"
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()


def test_no_datagram_leaves(guest: Testbed) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5.0)
        port = server.getsockname()[1]
        for net, word in ((_LAB, "lab"), (_OPEN, "open")):
            _says(guest, f"timeout 2 tftp -g -r {word} -l /dev/null {net}.{_HOST} {port}")
        assert b"open" in server.recv(64)  # the name of the file that is asked for


def test_no_name_is_looked_up(guest: Testbed) -> None:
    """QEMU's own name server would ask this host's; that it knows no such name is an answer."""

    def is_answered(net: str) -> bool:
        said = _says(guest, f"timeout 4 nslookup localhost {net}.{_DNS}")
        return "NXDOMAIN" in said or "can't find" in said or "127.0.0.1" in said

    assert not is_answered(_LAB)
    if not is_answered(_OPEN):
        raise lacking("a name server that this host can ask")
