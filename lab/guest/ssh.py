# SPDX-License-Identifier: GPL-2.0-only
"""SSH to a guest: one transport, with a channel for each agent and each command.

dropbear looks after all channels whenever one of its children has ended, and takes a channel that
waits for its command for one whose program has ended: it closes it, and when the command comes
for it, drops the transport ("Unknown channel"; common-channel.c: check_close(), seen in 2022.83).
So no child may end while a channel is being opened. Programs end when they like, by a signal too;
the shell that dropbear has started for each outlives it (`_STAY`), and ends when we have it end.
"""

import contextlib
import io
import logging
import shlex
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import paramiko

from lab.deadline import Deadline
from lab.errors import GuestLost, InfrastructureError

_LOG = "vfio-lab.ssh"
_OPEN = 5.0  # seconds
_WRITTEN = 30.0  # seconds for a piece of a file, of which there are many on their way
_CLOSE = 2.0  # seconds for a program to end once its standard input has
# The program has ended: say so, and stay until our side closes the input.
_STAY = "status=$?; exec >&- 2>&-; read -rn1 _ && cat >/dev/null; exit $status"
# The server has one CPU (see images/minimal/init), which is no matter of what it starts.
_GO_ANYWHERE = f"taskset -p {(1 << 256) - 1:x} $$ >/dev/null 2>&1"
_TROUBLE = (paramiko.SSHException, OSError, EOFError)


@dataclass(frozen=True)
class Admission:
    """What lets one in: the port on 127.0.0.1, our key, and the one that the server will show."""

    port: int
    private: bytes
    host_public: bytes


@dataclass(frozen=True)
class Finished:
    """A command that came to its end in the guest."""

    status: int
    output: str  # standard output and error, as they came


class Channel:
    """A program in the guest whose standard input and output we hold."""

    def __init__(self, channel: paramiko.Channel, connection: "Connection") -> None:
        self._channel = channel
        self._connection = connection

    def send(self, data: bytes) -> None:
        """Write to its standard input. Raises OSError when it is gone."""
        self._channel.settimeout(_OPEN)  # a program that lives reads what it asked for
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

    def fileno(self) -> int:
        """For select(): readable when `take` has something."""
        return self._channel.fileno()

    def take(self) -> bytes:
        """What has come, without waiting for more; b"" once it has ended."""
        return self._channel.recv(1 << 16)

    def end_input(self) -> None:
        """Its standard input is at its end."""
        self._channel.shutdown_write()

    def close(self) -> None:
        """End its standard input, and wait a moment for its end; safe twice."""
        self._connection.end(self._channel)

    @property
    def status(self) -> int:
        """Its exit status once it has been closed: 128 and the signal that ended it, -1 if none
        came."""
        return self._channel.exit_status

    @property
    def was_cut(self) -> bool:
        """Whether the other side is gone without a word of how it ended."""
        return self._channel.closed and self.status < 0


class Connection:
    """A login as root."""

    def __init__(self, transport: paramiko.Transport, end: socket.socket) -> None:
        self._transport = transport
        self._socket = end
        self._lock = threading.Lock()
        # paramiko closes a channel that nobody holds, at whatever moment that is.
        self._living: set[paramiko.Channel] = set()
        self._ending: list[paramiko.Channel] = []  # told to end, and not seen to

    @classmethod
    def login(cls, admission: Admission, deadline: Deadline) -> "Connection":
        """Connect to a guest that said that it listens. Raises GuestLost."""
        logging.getLogger(_LOG).addHandler(logging.NullHandler())
        port = admission.port
        try:
            end = socket.create_connection(("127.0.0.1", port), deadline.left)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport = paramiko.Transport(end)
            transport.set_log_channel(_LOG)
            transport.start_client(timeout=deadline.left)
            shown = transport.get_remote_server_key().asbytes()
            if shown != admission.host_public:
                transport.close()
                raise InfrastructureError(
                    f"port {port} shows a host key that is not this guest's",
                    hint="something else listens there; run the command again",
                )
            transport.auth_timeout = deadline.left
            key = paramiko.Ed25519Key(file_obj=io.StringIO(admission.private.decode()))
            transport.auth_publickey("root", key)
        except _TROUBLE as error:
            raise GuestLost(f"SSH on port {port} does not let us in: {error!r}") from error
        return cls(transport, end)

    def cut(self) -> None:
        """Break it off at once, from any thread: whoever waits for the guest is told."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    @property
    def alive(self) -> bool:
        return self._transport.is_active()

    def start(
        self,
        command: str,
        *,
        merge: bool = False,
        terminal: str | None = None,
        near: bool = False,
    ) -> Channel:
        """Start a command. `merge` puts its standard error into its output; `terminal` gives it
        a terminal of that kind, as large as ours. What is `near` has the server's CPUs, as is best
        for who talks much with us, and all else every CPU."""
        if not near:
            command = f"{_GO_ANYWHERE}\n{command}"
        with self._quiet():
            try:
                channel = self._transport.open_session(timeout=_OPEN)
                channel.set_combine_stderr(merge)
                if terminal:
                    channel.get_pty(terminal, *shutil.get_terminal_size())
                # A terminal's user leaves when the terminal closes, which the shell would hold.
                channel.exec_command(command if terminal else f"{command}\n{_STAY}")
            except _TROUBLE as error:
                raise GuestLost(f"SSH cannot start `{command}`: {error!r}") from error
            self._living.add(channel)
        return Channel(channel, self)

    def run(self, *words: str, timeout: float = 30.0) -> Finished:
        """Run a command to its end. Raises GuestLost when it takes longer than `timeout` s, or the
        connection breaks meanwhile."""
        command = shlex.join(words)
        channel = self.start(command, merge=True)
        deadline = Deadline.after(timeout)
        output = bytearray()
        try:
            while data := channel.recv(deadline.moment):
                output += data
        except TimeoutError:
            raise GuestLost(f"`{command}` did not end in {timeout:.0f} s") from None
        finally:
            channel.close()
        if channel.was_cut:
            raise GuestLost(f"`{command}`: the connection ended before it did")
        return Finished(channel.status, output.decode(errors="replace"))

    def push(self, source: Path, target: str, mode: int = 0o755) -> None:
        """Copy a file into the guest over SFTP. Raises GuestLost."""
        with self._quiet():
            try:
                channel = self._transport.open_session(timeout=_OPEN)
                channel.settimeout(_WRITTEN)
                channel.invoke_subsystem("sftp")
                sftp = paramiko.SFTPClient(channel)
                with sftp.open(target, "wb") as file:
                    file.set_pipelined(True)
                    file.write(source.read_bytes())
                sftp.chmod(target, mode)
                self._end(channel)
            except _TROUBLE as error:
                raise GuestLost(f"SFTP cannot write {target}: {error!r}") from error

    def end(self, channel: paramiko.Channel) -> None:
        """End a program's standard input, and wait a moment for its end; safe twice."""
        with self._lock:
            if not channel.closed and channel not in self._ending:
                self._end(channel)

    def _end(self, channel: paramiko.Channel) -> None:
        self._living.discard(channel)
        with contextlib.suppress(*_TROUBLE):  # the other side closed first
            channel.shutdown_write()
        if channel.status_event.wait(_CLOSE):
            channel.close()
        else:
            self._ending.append(channel)

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        """While no program ends: see above."""
        with self._lock:
            while self._ending:
                self._ending[-1].status_event.wait(_CLOSE)
                self._ending.pop().close()
            yield

    def close(self) -> None:
        self._transport.close()
