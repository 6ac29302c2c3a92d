# SPDX-License-Identifier: GPL-2.0-only
"""A guest that goes away, or falls silent, in the midst of a command is told of as lost."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import paramiko
import pytest

from lab.errors import GuestLost
from lab.guest import ssh
from lab.guest.ssh import Channel, Connection

Act = Callable[[paramiko.Channel], None]
Connect = Callable[[Act], Connection]


class Server(paramiko.ServerInterface):
    """Lets everybody in, and does `act` for a command that has `begun`."""

    def __init__(self, act: Act, begun: threading.Event) -> None:
        self.act = act
        self.begun = begun

    def get_allowed_auths(self, username: str) -> str:
        del username
        return "none"

    def check_auth_none(self, username: str) -> int:
        del username
        return paramiko.AUTH_SUCCESSFUL  # type: ignore[attr-defined,no-any-return]

    def check_channel_request(self, kind: str, chanid: int) -> int:
        del kind, chanid
        return paramiko.OPEN_SUCCEEDED  # type: ignore[attr-defined,no-any-return]

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        del command
        threading.Thread(target=self._act, args=[channel]).start()
        return True

    def _act(self, channel: paramiko.Channel) -> None:
        if self.begun.wait(30):
            self.act(channel)

    def check_channel_subsystem_request(self, channel: paramiko.Channel, name: str) -> bool:
        del channel, name
        return True  # and that is its last word


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """A login to a server that acts so."""
    opened: list[paramiko.Transport] = []
    begun = threading.Event()
    start = Connection.start

    def started(connection: Connection, command: str, *, merge: bool = False) -> Channel:
        channel = start(connection, command, merge=merge)
        begun.set()
        return channel

    monkeypatch.setattr(Connection, "start", started)

    def login(act: Act) -> Connection:
        ours, theirs = socket.socketpair()
        server, client = paramiko.Transport(theirs), paramiko.Transport(ours)
        opened.extend((server, client))
        server.add_server_key(paramiko.ECDSAKey.generate())
        server.start_server(event=threading.Event(), server=Server(act, begun))
        client.start_client(timeout=30)
        client.auth_none("root")
        return Connection(client, ours)

    yield login
    for each in opened:
        each.close()


def end_well(channel: paramiko.Channel) -> None:
    channel.sendall(b"said\n")
    channel.send_exit_status(0)
    channel.close()


def end_the_connection(channel: paramiko.Channel) -> None:
    channel.sendall(b"sa")
    channel.get_transport().close()


def test_a_command_says_how_it_ended(connect: Connect) -> None:
    with closing(connect(end_well)) as connection:
        done = connection.run("say")
    assert (done.status, done.output) == (0, "said\n")


def test_a_command_whose_guest_went_away_has_not_ended(connect: Connect) -> None:
    with closing(connect(end_the_connection)) as connection:
        with pytest.raises(GuestLost, match="`say`: the connection ended before it did"):
            connection.run("say")
        assert not connection.alive


def test_a_file_is_not_waited_for_in_a_guest_that_hangs(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ssh, "_WRITTEN", 0.1, raising=False)
    (tmp_path / "file").touch()
    with (
        closing(connect(end_well)) as connection,
        pytest.raises(GuestLost, match="SFTP cannot write /run/file: TimeoutError"),
    ):
        connection.push(tmp_path / "file", "/run/file")
