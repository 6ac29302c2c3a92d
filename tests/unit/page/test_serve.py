# SPDX-License-Identifier: GPL-2.0-only
"""What the server gives away, to whom, and when a page is another one."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from lab.errors import InfrastructureError
from lab.page.serve import Server, Source
from lab.results.folder import RunFolder
from lab.results.record import RunRecord, TestRecord
from lab.results.verdict import Verdict

from .conftest import Scene


class Client:
    """Asks as a browser does, or as none would."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(
        self, path: str, host: str | None = None, method: str = "GET"
    ) -> tuple[int, str, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {} if host is None else {"Host": host}
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text, dict(answer.headers)

    def get(self, path: str) -> str:
        status, text, _ = self.ask(path)
        assert status == 200, path
        return text


@pytest.fixture
def client(scene: Scene) -> Iterator[Client]:
    source = Source(scene.folder, lambda: nullcontext(scene.history))
    with Server(source, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Client(server.server_port)
        server.shutdown()
        thread.join()


def test_pages_are_served_without_being_on_disk(client: Client, scene: Scene) -> None:
    assert "Every night" in client.get("/")
    page = client.get(f"/{scene.names[-1]}/")
    assert "2 newly broken" in page
    assert client.get(f"/{scene.names[-1]}/index.html") == page
    assert not list(scene.folder.rglob("index.html"))


def test_files_that_a_page_links_to_are_served_as_text(client: Client, scene: Scene) -> None:
    file = next(scene.folder.glob("*/cells/*/tests/*/calls.txt"))
    status, text, headers = client.ask(f"/{file.relative_to(scene.folder)}")
    assert (status, text) == (200, file.read_text())
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_another_host_is_refused(client: Client) -> None:
    for host in (f"evil.test:{client.port}", "127.0.0.1", f"127.0.0.1.evil.test:{client.port}", ""):
        status, text, _ = client.ask("/", host)
        assert status == 421, host
        assert "night" not in text
    assert client.ask("/", f"localhost:{client.port}")[0] == 200


def test_nothing_outside_of_the_nights_is_served(
    client: Client, scene: Scene, tmp_path: Path
) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    night = scene.folder / scene.names[-1]
    (night / "out.txt").symlink_to(tmp_path / "secret.txt")
    (night / "up").symlink_to(tmp_path)
    name = scene.names[-1]
    for path in (
        "/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", f"/{name}/out.txt",
        f"/{name}/up/secret.txt", "//secret.txt", str(tmp_path / "secret.txt"), "/%00", "/../",
        "/%2e%2e/", "/-/state/..", "/-/state/%2e%2e%2f", "/..%2f/", f"/{name}/../../secret.txt",
        "/%00/", f"/{'x' * 300}/", f"/{'x' * 300}.txt",
    ):  # fmt: skip
        status, text, _ = client.ask(path)
        assert status == 404, path
        assert "secret" not in text


def test_keys_of_guests_and_folders_are_nobodys(client: Client, scene: Scene) -> None:
    night = scene.folder / scene.names[-1]
    (night / "id_ed25519").write_text("key")
    (night / "page.html").write_text("<script>")
    for name in ("id_ed25519", "page.html", "cells", "cells/"):
        assert client.ask(f"/{scene.names[-1]}/{name}")[0] == 404, name


def test_nothing_but_reading_is_answered(client: Client) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert client.ask("/", method=method)[0] == 501
    status, text, headers = client.ask("/", method="HEAD")
    assert (status, text) == (200, "")
    assert int(headers["Content-Length"]) > 1000


def test_state_and_page_change_with_what_the_night_leaves(client: Client, scene: Scene) -> None:
    name = scene.names[-1]
    state = f"/-/state/{name}"
    before, page = client.get(state), client.get(f"/{name}/")
    assert client.get(state) == before
    assert f'data-live="{state}"' in page
    assert "Running now" not in page
    run = RunFolder.create(scene.folder / name / "cells/v6.19-vtd")
    tests = tuple(TestRecord(f"t{n}", "contract", Verdict.KEPT, 0.1) for n in range(12))
    run.write(RunRecord("1", "2026-11-28T21:00:00Z", 1.0, tests=tests, finished=False))
    assert client.get(state) != before
    assert "<b>v6.19-vtd</b> 12 tests so far" in client.get(f"/{name}/")
    assert client.get("/-/state/") == client.get(state)


def test_night_that_has_just_begun_has_a_page(client: Client, scene: Scene) -> None:
    folder = scene.folder / "20991128T210000Z"
    folder.mkdir()
    (folder / "night.json").write_text(json.dumps({"cells": [], "trouble": []}))
    assert "No cell has been run yet." in client.get(f"/{folder.name}/")
    assert client.ask("/20991129T210000Z/")[0] == 404


def test_before_the_first_night_there_is_a_page(scene: Scene, tmp_path: Path) -> None:
    source = Source(tmp_path / "none", lambda: nullcontext(scene.history))
    assert source.state(None) == source.state(None)


def test_browser_that_goes_is_nobodys_news(
    client: Client, scene: Scene, capfd: pytest.CaptureFixture[str]
) -> None:
    log = scene.folder / scene.names[-1] / "long.log"
    log.write_bytes(b"x" * (64 << 20))
    with socket.create_connection(("127.0.0.1", client.port)) as browser:
        browser.sendall(
            f"GET /{scene.names[-1]}/long.log HTTP/1.1\r\n"
            f"Host: 127.0.0.1:{client.port}\r\n\r\n".encode()
        )
        browser.recv(1)
    client.get("/")
    assert capfd.readouterr().err == ""


def test_port_that_is_taken_is_told(client: Client, scene: Scene) -> None:
    source = Source(scene.folder, lambda: nullcontext(scene.history))
    with pytest.raises(InfrastructureError, match=f"port {client.port}"):
        Server(source, client.port)
