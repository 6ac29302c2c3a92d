# SPDX-License-Identifier: GPL-2.0-only
"""Mail that leaves: to a program, and to real servers on this host."""

import datetime
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lab.errors import ConfigurationError, InfrastructureError
from lab.nightly import post
from lab.nightly.post import PASSWORD, USER, send

HOST = "mail.lab.example"


@pytest.fixture
def letter() -> EmailMessage:
    made = EmailMessage()
    made["Subject"] = "vfio-lab: nothing new"
    made["From"] = "vfio-lab@lab.example"
    made["To"] = "Jane Doe <jane@lab.example>, joe@lab.example"
    made.set_content(".\nall is well\n")
    return made


@dataclass
class Box:
    """A server's: what came, and who said that they sent it."""

    port: int = 0
    letters: list[Envelope] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    refused: str = ""

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's
        self, _server: Any, _session: Any, envelope: Envelope, address: str, _options: Any
    ) -> str:
        if address == self.refused:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802
        self, _server: Any, _session: Any, envelope: Envelope
    ) -> str:
        self.letters.append(envelope)
        return "250 OK"

    def authenticate(
        self, _server: Any, _session: Any, _envelope: Any, _how: str, who: Any
    ) -> AuthResult:
        self.users.append(f"{who.login.decode()}:{who.password.decode()}")
        return AuthResult(success=who.password == b"secret", handled=False)


Server = Callable[..., Box]


@pytest.fixture
def server() -> Iterator[Server]:
    """Starts servers on loopback; `tls` is a context for STARTTLS."""
    with ExitStack() as stack:

        def start(tls: ssl.SSLContext | None = None) -> Box:
            box = Box()
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                box.port = free.getsockname()[1]
            controller = Controller(
                box,
                hostname="127.0.0.1",
                port=box.port,
                tls_context=tls,
                authenticator=box.authenticate,
                auth_require_tls=False,
            )
            controller.start()
            stack.callback(controller.stop)
            return box

        yield start


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Key and certificate of HOST, which it made itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    today = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "server.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return file


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """HOST is a name of this host's loopback."""
    ask = socket.getaddrinfo

    def answer(host: str, *rest: Any, **more: Any) -> Any:
        return ask("127.0.0.1" if host == HOST else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", answer)


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(USER, "me")
    monkeypatch.setenv(PASSWORD, "secret")


def test_a_server_gets_it_for_everybody(server: Server, letter: EmailMessage) -> None:
    box = server()
    send(letter, f"smtp://127.0.0.1:{box.port}")
    (got,) = box.letters
    assert got.mail_from == "vfio-lab@lab.example"
    assert got.rcpt_tos == ["jane@lab.example", "joe@lab.example"]
    assert isinstance(got.content, bytes)
    assert got.content.endswith(b"\r\n\r\n.\r\nall is well\r\n")
    assert box.users == []


def test_one_who_does_not_get_it_is_named(server: Server, letter: EmailMessage) -> None:
    box = server()
    box.refused = "joe@lab.example"
    with pytest.raises(InfrastructureError, match=r"refused it for joe@lab\.example"):
        send(letter, f"smtp://127.0.0.1:{box.port}")
    assert len(box.letters) == 1


@pytest.mark.usefixtures("login")
def test_tls_is_taken_where_it_is_offered(
    server: Server, letter: EmailMessage, tls: ssl.SSLContext
) -> None:
    box = server(tls)
    send(letter, f"smtp://localhost:{box.port}")  # whose certificate nobody can know
    assert len(box.letters) == 1
    assert box.users == ["me:secret"]


@pytest.mark.usefixtures("named", "login")
def test_a_stranger_s_certificate_is_looked_at(
    server: Server,
    letter: EmailMessage,
    tls: ssl.SSLContext,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    box = server(tls)
    with pytest.raises(InfrastructureError, match="certificate verify failed"):
        send(letter, f"smtp://{HOST}:{box.port}")
    assert (box.letters, box.users) == ([], [])
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    send(letter, f"smtp://{HOST}:{box.port}")
    assert box.users == ["me:secret"]


def test_a_user_has_a_password(
    server: Server, letter: EmailMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(USER, "me")
    with pytest.raises(ConfigurationError, match=PASSWORD):
        send(letter, f"smtp://127.0.0.1:{server().port}")


@pytest.mark.usefixtures("named", "login")
def test_a_password_is_not_told_in_the_clear(server: Server, letter: EmailMessage) -> None:
    box = server()
    with pytest.raises(InfrastructureError, match="offers no TLS"):
        send(letter, f"smtp://{HOST}:{box.port}")
    assert (box.letters, box.users) == ([], [])


def test_a_wrong_password_is_told(
    server: Server, letter: EmailMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(USER, "me")
    monkeypatch.setenv(PASSWORD, "wrong")
    box = server()
    with pytest.raises(InfrastructureError, match="535"):
        send(letter, f"smtp://127.0.0.1:{box.port}")
    assert box.letters == []


def test_a_server_that_is_not_there_is_told(letter: EmailMessage) -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(InfrastructureError, match=f"127.0.0.1:{port}: .*refused"):
            send(letter, f"smtp://127.0.0.1:{port}")


@pytest.mark.parametrize("via", ["smtp://localhost:mail", "smtp://[::1"])
def test_what_is_no_address_is_the_user_s(letter: EmailMessage, via: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(via)):
        send(letter, via)


@pytest.fixture
def sendmail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a program of that name on PATH; what it gets is in the file."""

    def make(end: str) -> Path:
        program, got = tmp_path / "bin" / "sendmail", tmp_path / "got"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\necho "$@" >{got}\ncat >>{got}\n{end}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent), prepend=":")
        return got

    return make


def test_sendmail_reads_to_whom_in_the_mail(
    sendmail: Callable[[str], Path], letter: EmailMessage
) -> None:
    got = sendmail("exit 0")
    send(letter, "sendmail")
    options, _, mail = got.read_bytes().partition(b"\n")
    assert options == b"-t -i"
    assert mail == bytes(letter)
    assert b"\r" not in mail


def test_what_sendmail_says_is_told(sendmail: Callable[[str], Path], letter: EmailMessage) -> None:
    sendmail("echo no queue >&2; exit 75")
    with pytest.raises(InfrastructureError, match="exited with 75: no queue"):
        send(letter, "sendmail")


def test_no_sendmail_is_told(
    letter: EmailMessage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(post, "_PLACES", ())
    with pytest.raises(InfrastructureError, match="not installed"):
        send(letter, "sendmail")


def test_a_file_goes_nowhere(letter: EmailMessage) -> None:
    send(letter, "file")
