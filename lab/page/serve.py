# SPDX-License-Identifier: GPL-2.0-only
"""The nights' pages on loopback, as they are just now: also of a night that goes on.

Pages are made when they are asked for, of the history; evidence is read from the folder of all
nights; nothing is written. It is Python's own server: what it has to do is to answer GET to a few
browsers of one user, and a framework would bring more that has to be trusted than it saves.

| path              | answer                                                                       |
|-------------------|------------------------------------------------------------------------------|
| /                 | the page of all nights                                                       |
| /NIGHT/           | the page of a night, also as /NIGHT/index.html                               |
| /-/state/NIGHT    | a word that changes when that page does; /-/state/ that of all nights        |
| /NIGHT/cells/...  | a file of the kinds that runs leave for people, as plain text                |
"""

import os
import re
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from lab.errors import InfrastructureError, LabError
from lab.history.store import History
from lab.page.night import Night
from lab.page.place import file_in
from lab.page.running import running, state
from lab.page.trends import Trends
from lab.page.write import INDEX, index_page, night_page

LOOPBACK = "127.0.0.1"
_STATE = "/-/state/"
_HTML, _TEXT = "text/html; charset=utf-8", "text/plain; charset=utf-8"
# Keys of guests, dumps of their memory and whatever else lies there is nobody's to fetch.
_SHOWN = {".json", ".ktap", ".log", ".mbox", ".sh", ".txt", ".xml"}
_NOTHING = "there is no such page or file"
_PART = 1 << 16  # bytes of a file that are sent at once
_NIGHT = r"([^/.][^/]*)"  # a name that leads nowhere else
_PAGE = re.compile(rf"/{_NIGHT}/(?:{re.escape(INDEX)})?")
_STATE_OF = re.compile(rf"{_STATE}{_NIGHT}?")


@dataclass
class Source:
    """What is served. `opened` opens the history; each page is made under a lock of its own, and
    kept until its night changes."""

    nights: Path
    opened: Callable[[], AbstractContextManager[History]]
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _kept: dict[str, tuple[str, str]] = field(default_factory=dict)

    def index(self) -> str:
        """The page of all nights."""
        with self.opened() as history:
            return index_page(Trends.of(history), live=_STATE)

    def page(self, name: str) -> str | None:
        """The page of a night; None where there is no such night."""
        with self._lock, self.opened() as history:
            now = state(self.nights, name)
            if self._kept.get(name, ("", ""))[0] != now:
                runs = history.runs(name)
                if not runs and not (self.nights / name).is_dir():
                    return None
                night = Night.of(history, self.nights, name, Trends.of(history))
                known = {run.folder for run in runs}
                going = list(running(self.nights, name, known))
                self._kept[name] = now, night_page(night, live=_STATE + name, running=going)
            return self._kept[name][1]

    def file(self, path: str) -> Path | None:
        """A file of a run, all links followed; None where there is none that is shown."""
        found = file_in(self.nights, path.lstrip("/"))
        return found if found and found.suffix in _SHOWN else None

    def state(self, name: str | None) -> str:
        """As `lab.page.running.state`; of the newest night where there is no name."""
        if not name:
            found = self.nights.glob("[!.]*/")  # none where there was no night yet
            name = max((folder.name for folder in found), default="none")
        return state(self.nights, name)


class Server(ThreadingHTTPServer):
    """A server on loopback; `port` 0 is any that is free. Raises InfrastructureError where the port
    is taken."""

    daemon_threads = True

    def __init__(self, source: Source, port: int) -> None:
        try:
            super().__init__((LOOPBACK, port), partial(_Handler, source))
        except OSError as error:
            raise InfrastructureError(
                f"port {port}: {error.strerror}", hint="name another one with --port"
            ) from error

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes in the middle of an answer is nobody's news."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def __init__(self, source: Source, *rest: Any) -> None:
        self._source = source
        super().__init__(*rest)

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Requests are nobody's news."""

    def _answer(self) -> None:
        # A page of another site can have its own name resolve to 127.0.0.1, and would then be of
        # the same origin as this one: but it cannot choose the name that a browser sends.
        if self.headers.get("Host") not in self._names():
            self._say(HTTPStatus.MISDIRECTED_REQUEST, "this is not the host that was asked for")
            return
        path = unquote(urlsplit(self.path).path)
        try:
            self._find(path)
        except LabError as error:
            self._say(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        except ConnectionError:
            raise
        except (OSError, ValueError):  # no file can have that name, or it has just gone
            self._say(HTTPStatus.NOT_FOUND, _NOTHING)

    def _names(self) -> tuple[str, ...]:
        port = self.server.server_port
        return f"{LOOPBACK}:{port}", f"localhost:{port}"

    def _find(self, path: str) -> None:
        if path in ("/", f"/{INDEX}"):
            self._say(HTTPStatus.OK, self._source.index(), _HTML)
        elif asked := _STATE_OF.fullmatch(path):
            self._say(HTTPStatus.OK, self._source.state(asked[1]))
        elif (asked := _PAGE.fullmatch(path)) and (page := self._source.page(asked[1])):
            self._say(HTTPStatus.OK, page, _HTML)
        elif file := self._source.file(path):
            self._send(file)
        else:
            self._say(HTTPStatus.NOT_FOUND, _NOTHING)

    def _say(self, status: HTTPStatus, text: str, kind: str = _TEXT) -> None:
        content = text.encode("utf-8", "replace")
        self._begin(status, len(content), kind)
        if self.command != "HEAD":
            self.wfile.write(content)

    def _send(self, file: Path) -> None:
        with file.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            self._begin(HTTPStatus.OK, size, _TEXT)
            if self.command != "HEAD":  # a log may grow meanwhile: only what was announced
                while size and (part := opened.read(min(size, _PART))):
                    self.wfile.write(part)
                    size -= len(part)

    def _begin(self, status: HTTPStatus, size: int, kind: str) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(size),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
        }.items():
            self.send_header(name, value)
        self.end_headers()
