# SPDX-License-Identifier: GPL-2.0-only
"""SSH to a guest: one transport, with a channel for each agent and each command."""

import logging
import shlex
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import paramiko

from lab.deadline import Deadline
from lab.errors import GuestLost, InfrastructureError
from lab.guest.keys import Keys

_LOG = "vfio-lab.ssh"
_CLOSE = 5.0  # seconds for a program to end once its standard input has
_TROUBLE = (paramiko.SSHException, OSError, EOFError)


@dataclass(frozen=True)
class Finished:
    """A command that came to its end in the guest."""

    status: int
    output: str  # standard output and error, as they came


class Channel:
    """A program in the guest whose standard input and output we hold."""

    def __init__(self, channel: paramiko.Channel, lock: threading.Lock) -> None:
        self._channel = channel
        self._lock = lock

    def send(self, data: bytes) -> None:
        """Write to its standard input. Raises OSError when it is gone."""
        self._channel.settimeout(_CLOSE)  # a program that lives reads what it asked for
        try:
            self._channel.sendall(data)
        except (paramiko.SSHException, EOFError) as error:
            raise OSError(str(error)) from error

    def recv(self, deadline: float) -> bytes:
        """What it wrote, b"" once it has ended.

        `deadline` is a value of `time.monotonic()`; raises TimeoutError when it has passed.
        """
        self._channel.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            return self._channel.recv(1 << 20)
        except TimeoutError:
            raise
        except _TROUBLE:
            return b""

    def close(self) -> None:
        """End its standard input, wait for its end, and give the channel back; safe twice.

        dropbear drops the whole transport ("Unknown channel") when another channel is opened
        between the two halves of a close, so both are done under the connection's lock.
        """
        with self._lock:
            try:
                self._channel.shutdown_write()
                deadline = Deadline.after(_CLOSE)
                while not self._channel.status_event.wait(0.2):
                    if deadline.passed or not self._transport_lives():
                        break
            except _TROUBLE:
                pass  # the other side closed first
            self._channel.close()

    @property
    def status(self) -> int:
        """Its exit status once it has been closed; -1 when a signal ended it."""
        return self._channel.exit_status

    def _transport_lives(self) -> bool:
        transport = self._channel.get_transport()
        return transport is not None and transport.is_active()


class Connection:
    """A login as root."""

    def __init__(self, transport: paramiko.Transport) -> None:
        self._transport = transport
        self._lock = threading.Lock()

    @classmethod
    def login(
        cls, port: int, keys: Keys, client_key: paramiko.PKey, deadline: Deadline
    ) -> "Connection":
        """Connect to a guest that said that it listens. Raises GuestLost."""
        logging.getLogger(_LOG).addHandler(logging.NullHandler())
        try:
            end = socket.create_connection(("127.0.0.1", port), deadline.left)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport = paramiko.Transport(end)
            transport.set_log_channel(_LOG)
            transport.start_client(timeout=deadline.left)
            shown = transport.get_remote_server_key().asbytes()
            if shown != keys.host_public:
                transport.close()
                raise InfrastructureError(
                    f"port {port} shows a host key that is not this guest's",
                    hint="something else listens there; run the command again",
                )
            transport.auth_timeout = deadline.left
            transport.auth_publickey("root", client_key)
        except _TROUBLE as error:
            raise GuestLost(f"SSH on port {port} does not let us in: {error!r}") from error
        return cls(transport)

    @property
    def alive(self) -> bool:
        return self._transport.is_active()

    def start(self, command: str, *, merge: bool = False) -> Channel:
        """Start a command. `merge` puts its standard error into its output."""
        with self._lock:
            try:
                channel = self._transport.open_session(timeout=_CLOSE)
                channel.set_combine_stderr(merge)
                channel.exec_command(command)
            except _TROUBLE as error:
                raise GuestLost(f"SSH cannot start `{command}`: {error!r}") from error
        return Channel(channel, self._lock)

    def run(self, *words: str, timeout: float = 30.0) -> Finished:
        """Run a command to its end. Raises GuestLost when it takes longer than `timeout` s."""
        channel = self.start(shlex.join(words), merge=True)
        deadline = Deadline.after(timeout)
        output = bytearray()
        try:
            while data := channel.recv(deadline.moment):
                output += data
        except TimeoutError:
            raise GuestLost(f"`{shlex.join(words)}` did not end in {timeout:.0f} s") from None
        finally:
            channel.close()
        return Finished(channel.status, output.decode(errors="replace"))

    def push(self, source: Path, target: str, mode: int = 0o755) -> None:
        """Copy a file into the guest over SFTP."""
        with self._lock:
            try:
                sftp = paramiko.SFTPClient.from_transport(self._transport)
                assert sftp is not None
                with sftp:
                    with sftp.open(target, "wb") as file:
                        file.set_pipelined(True)
                        file.write(source.read_bytes())
                    sftp.chmod(target, mode)
            except _TROUBLE as error:
                raise GuestLost(f"SFTP cannot write {target}: {error!r}") from error

    def close(self) -> None:
        self._transport.close()
