# SPDX-License-Identifier: GPL-2.0-only
"""How a mail leaves the host: by sendmail, or by a server."""

import ipaddress
import os
import shutil
import smtplib
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from urllib.parse import SplitResult, urlsplit

from lab.errors import ConfigurationError, InfrastructureError

USER, PASSWORD = "VFIO_LAB_SMTP_USER", "VFIO_LAB_SMTP_PASSWORD"

_PATIENCE = 60.0  # seconds, for any one answer
_SENDMAIL = ("sendmail", "-t", "-i")  # to whom the headers say; a dot alone is no end
_PLACES = ("/usr/sbin", "/usr/lib")  # of sendmail, which a user's PATH need not have


def send(letter: EmailMessage, via: str) -> None:
    """Hand it over; `via` is as in `lab.config.nightly.Mail`, and `file` is nothing to do.

    Raises ConfigurationError for what is no address of a server, and InfrastructureError where
    somebody does not get it.
    """
    if via == "sendmail":
        _by_program(letter)
    elif via != "file":
        _by_server(letter, _server(via))


def _by_program(letter: EmailMessage) -> None:
    name, *options = _SENDMAIL
    program = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), *_PLACES)))
    if not program:
        raise InfrastructureError("sendmail is not installed", hint="or say smtp://HOST:PORT")
    try:
        done = subprocess.run(
            [program, *options],
            input=bytes(letter),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InfrastructureError(f"{program} took longer than {_PATIENCE:g} s") from None
    if done.returncode:
        said = done.stdout.decode(errors="replace").strip()
        raise InfrastructureError(f"{program} exited with {done.returncode}: {said[-500:]}")


def _by_server(letter: EmailMessage, server: SplitResult) -> None:
    try:
        with _connected(server) as smtp:
            refused = smtp.send_message(letter)
    except (OSError, smtplib.SMTPException) as error:
        raise InfrastructureError(f"{server.netloc}: {error}") from error
    if refused:
        raise InfrastructureError(f"{server.netloc} refused it for {', '.join(sorted(refused))}")


def _server(via: str) -> SplitResult:
    try:
        server = urlsplit(via)
        _ = server.port  # which is not looked at before it is asked for
    except ValueError as error:
        raise ConfigurationError(f"{via}: {error}") from None
    return server


@contextmanager
def _connected(server: SplitResult) -> Iterator[smtplib.SMTP]:
    """A server that has been told who sends, if that is known."""
    host, port = server.hostname or "", server.port or 0  # 0 is the protocol's own
    context = _context(host)
    if server.scheme == "smtps":
        opened: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=_PATIENCE, context=context)
    else:
        opened = smtplib.SMTP(host, port, timeout=_PATIENCE)
    with opened as smtp:
        smtp.ehlo_or_helo_if_needed()
        if smtp.has_extn("starttls"):
            smtp.starttls(context=context)
            smtp.ehlo()
        if user := os.environ.get(USER):
            _log_in(smtp, host, user, os.environ.get(PASSWORD))
        yield smtp


def _log_in(smtp: smtplib.SMTP, host: str, user: str, password: str | None) -> None:
    if not password:
        raise ConfigurationError(f"{USER} is set, and {PASSWORD} is not")
    if not isinstance(smtp.sock, ssl.SSLSocket) and not _is_here(host):
        raise InfrastructureError(
            f"{host} offers no TLS: a password would be read on its way",
            hint=f"say smtps://, or unset {USER}",
        )
    smtp.login(user, password)


def _context(host: str) -> ssl.SSLContext:
    """What is believed of a server. One on this host mostly has a certificate that it made
    itself, and nobody stands in between."""
    context = ssl.create_default_context()
    if _is_here(host):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
