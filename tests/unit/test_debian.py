# SPDX-License-Identifier: GPL-2.0-only
"""apt's answers, and what is made of them. apt itself is a script here: no network."""

import hashlib
import io
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

import lab.debian.archive
from lab.cache import Cache
from lab.config import Debian
from lab.debian import Archive, Listed, ListsTooOld, Package, mirrors_of_host
from lab.errors import ConfigurationError, InfrastructureError
from lab.progress import Progress

URI = "'http://mirror.test/pool/l/linux-source_6.12.9-1_all.deb'"
ANSWER = f"{URI} linux-source_1%3a6.12.9-1_all.deb 12 SHA256:abcd"


@dataclass(frozen=True)
class Usage:
    """Bytes of a disk."""

    free: int


@dataclass(frozen=True)
class Apt:
    """Scripts in apt's place. `says` writes what a verb prints and with what status it ends."""

    folder: Path

    def says(self, verb: str, text: str, status: int = 0) -> None:
        (self.folder / f"{verb}.out").write_text(text + "\n")
        (self.folder / f"{verb}.status").write_text(str(status))

    def calls(self) -> list[str]:
        """The verbs it was called with, in order."""
        log = self.folder / "calls"
        return log.read_text().split() if log.exists() else []


SCRIPT = """#!/bin/sh
here={folder}
for word; do
    if [ -f "$here/$word.out" ]; then
        echo "$word" >>"$here/calls"
        cat "$here/$word.out"
        exit "$(cat "$here/$word.status")"
    fi
done
echo "E: this apt does not know $*"; exit 9
"""


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Apt:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("apt-get", "apt-cache"):
        (folder / name).write_text(SCRIPT.format(folder=folder))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    keyring = tmp_path / "keyring.gpg"
    keyring.touch()
    monkeypatch.setattr(lab.debian.archive, "KEYRING", keyring)
    fake = Apt(folder)
    fake.says("update", "")
    fake.says("download", ANSWER)
    return fake


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def archive(cache: Cache) -> Archive:
    settings = Debian(mirror="http://mirror.test/debian", suites=("bookworm",))
    return Archive(settings, cache, Progress(Console(file=io.StringIO())))


def line(release: str, origin: str, component: str, uri: str) -> str:
    return f"{release}|{origin}|{component}|{uri}"


def test_the_hosts_mirrors_are_its_debian_ones() -> None:
    found = mirrors_of_host(
        [
            line("nodistro", "", "main", "https://other.test/node"),
            line("bookworm", "Docker", "main", "https://docker.test/debian"),
            line("bookworm-pgdg", "PGDG", "main", "https://pgdg.test/"),
            line("bookworm-security", "Debian", "main", "http://a.test/debian-security/"),
            line("bookworm-updates", "Debian", "main", "http://a.test/debian/"),
        ]
    )
    assert found.main == "http://a.test/debian"
    assert found.security == "http://a.test/debian-security"


def test_before_any_update_a_line_is_taken_at_its_word() -> None:
    found = mirrors_of_host([line("bookworm", "$(ORIGIN)", "main", "http://a.test/debian/")])
    assert found.main == "http://a.test/debian"


def test_what_says_that_it_is_debian_comes_first() -> None:
    lines = [line("bookworm", "", "main", "http://unread.test/"),
             line("bookworm", "Debian", "main", "http://debian.test/")]  # fmt: skip
    assert mirrors_of_host(lines).main == "http://debian.test"


def test_security_is_beside_the_archive_where_the_host_has_no_line_for_it() -> None:
    found = mirrors_of_host([line("trixie", "Debian", "main", "http://a.test/debian/")])
    assert found.of("trixie-security") == "http://a.test/debian-security"
    assert found.of("trixie-backports") == "http://a.test/debian"


def test_a_host_without_debian_is_told_to_name_a_mirror() -> None:
    ubuntu = [line("noble", "Ubuntu", "main", "http://ubuntu.test/ubuntu/")]
    with pytest.raises(ConfigurationError, match="no Debian mirror") as caught:
        mirrors_of_host(ubuntu)
    assert caught.value.hint
    assert "mirror" in caught.value.hint


def test_a_package_is_resolved(apt: Apt, archive: Archive) -> None:
    package = archive.resolve("linux-source", "bookworm")
    assert package == Package("linux-source", "1:6.12.9-1", "bookworm", "abcd", 12, URI.strip("'"))
    assert package.file == "linux-source_1%3a6.12.9-1_all.deb"
    assert apt.calls() == ["update", "download"]


def test_the_lists_are_read_once_unless_they_should_be_new(apt: Apt, archive: Archive) -> None:
    archive.resolve("linux-source", "bookworm")
    archive.resolve("linux-source", "bookworm")
    assert apt.calls().count("update") == 1
    archive.resolve("linux-source", "bookworm", update=True)
    assert apt.calls().count("update") == 2


def test_lists_that_could_not_be_read_are_tried_again(apt: Apt, archive: Archive) -> None:
    apt.says("update", "E: Failed to fetch: Could not connect", 100)
    with pytest.raises(InfrastructureError, match="E: Failed to fetch: Could not connect"):
        archive.resolve("linux-source", "bookworm")
    apt.says("update", "")
    assert archive.resolve("linux-source", "bookworm").size == 12


def test_a_package_that_does_not_exist_is_named_with_its_nearest(
    apt: Apt, archive: Archive
) -> None:
    apt.says("download", "E: Unable to locate package linux-sauce", 100)
    apt.says("pkgnames", "bash\nlinux-source\nzsh")
    with pytest.raises(ConfigurationError, match="bookworm has no package linux-sauce") as caught:
        archive.resolve("linux-sauce", "bookworm")
    assert caught.value.hint == "the nearest names there: linux-source"


def test_a_suite_that_does_not_exist_is_the_configurations_fault(
    apt: Apt, archive: Archive
) -> None:
    absent = "E: The repository 'x bookwurm Release' does not have a Release file."
    apt.says("update", f"Err:1 x\n  404  Not Found\n{absent}", 100)
    with pytest.raises(ConfigurationError, match="bookwurm"):
        archive.resolve("linux-source", "bookwurm")
    apt.says("update", f"Err:1 x\n  403  Forbidden\n{absent}", 100)
    with pytest.raises(InfrastructureError, match="403"):
        archive.resolve("linux-source", "bookwurm")


def test_a_version_that_the_mirror_dropped_asks_for_new_lists(apt: Apt, archive: Archive) -> None:
    package = archive.resolve("linux-source", "bookworm")
    apt.says("download", "E: Failed to fetch http://mirror.test/x.deb  404  Not Found", 100)
    with pytest.raises(ListsTooOld, match="404"):
        archive.fetch([package])


DSC = """\
NOTICE: 'linux' packaging is maintained in the 'Git' version control system
'http://mirror.test/linux_6.12.8-1.dsc' linux_6.12.8-1.dsc 3 SHA256:%s
'http://mirror.test/linux_6.12.8.orig.tar.xz' linux_6.12.8.orig.tar.xz 5 SHA256:%s"""


def test_a_source_package_is_its_files(apt: Apt, archive: Archive) -> None:
    files = {"linux_6.12.8-1.dsc": "dsc", "linux_6.12.8.orig.tar.xz": "a tar"[:5]}
    hashes = [hashlib.sha256(text.encode()).hexdigest() for text in files.values()]
    apt.says("source", DSC % tuple(hashes))
    package = archive.resolve_source("linux", "6.12.8-1", "trixie")
    assert package.identity == {"package": "linux", "version": "6.12.8-1", "sha256": hashes[0]}
    script = (apt.folder / "apt-get").read_text()
    written = "".join(f'printf %s "{text}" >{name}\n' for name, text in files.items())
    (apt.folder / "apt-get").write_text(script.replace("here=", f"{written}here="))
    dsc = archive.fetch_source(package)
    assert dsc.read_text() == "dsc"
    assert "deb-src" in "".join(
        file.read_text() for file in dsc.parents[2].glob("apt/*/sources.list")
    )
    dsc.write_text("rot")
    with pytest.raises(InfrastructureError, match="is not what was downloaded"):
        archive.fetch_source(package)


def test_all_versions_of_a_package_are_listed(apt: Apt, archive: Archive) -> None:
    apt.says("pkgnames", "linux-image-6.1.0-47-amd64\nlinux-image-6.1.0-47-cloud-amd64")
    apt.says(
        "madison",
        "linux-image-6.1.0-47-amd64 | 6.1.170-3 | http://m.test/debian bookworm/main amd64 Packages"
        "\n  linux |  6.1.8-1 | http://m.test/debian-security bookworm-security/main Sources",
    )
    assert archive.listed("linux-image-.*-[0-9]+-amd64", "linux", "bookworm") == [
        Listed("linux-image-6.1.0-47-amd64", "6.1.170-3", "bookworm", source=False),
        Listed("linux", "6.1.8-1", "bookworm-security", source=True),
    ]


def test_a_download_that_is_cut_off_is_not_kept(apt: Apt, archive: Archive, cache: Cache) -> None:
    package = archive.resolve("linux-source", "bookworm")
    apt.says("download", "E: Failed to fetch x.deb  Hash Sum mismatch", 100)
    with pytest.raises(InfrastructureError, match="Hash Sum mismatch"):
        archive.fetch([package])
    apt.says("download", "nothing went wrong, and nothing came")
    with pytest.raises(InfrastructureError, match="is not the 12 bytes"):
        archive.fetch([package])
    assert cache.entries() == []


@pytest.mark.usefixtures("apt")
def test_without_the_keyring_nothing_is_asked_for(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(lab.debian.archive, "KEYRING", tmp_path / "missing.gpg")
    with pytest.raises(InfrastructureError, match=r"missing\.gpg is missing") as caught:
        archive.resolve("linux-source", "bookworm")
    assert caught.value.hint == "apt-get install debian-archive-keyring"


def test_the_hosts_lists_and_locks_are_left_alone(apt: Apt, archive: Archive, cache: Cache) -> None:
    script = apt.folder / "apt-get"
    script.write_text(script.read_text().replace("here=", f'echo "$@" >>{apt.folder}/argv\nhere='))
    archive.resolve("linux-source", "bookworm-security")
    argv = (apt.folder / "argv").read_text()
    assert f"Dir::State::Lists={cache.root}/apt/lists" in argv
    assert "Dir::Etc::SourceParts=/dev/null" in argv
    sources = next(cache.root.glob("apt/*/sources.list")).read_text()
    assert "http://mirror.test/debian-security bookworm-security main" in sources
    assert "signed-by=" in sources


def test_a_disk_without_room_is_not_shown_to_apt(
    apt: Apt, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: Usage(free=1))
    with pytest.raises(InfrastructureError, match="the disk is full"):
        archive.resolve("linux-source", "bookworm")
    assert apt.calls() == []
