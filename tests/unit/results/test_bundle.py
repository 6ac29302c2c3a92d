# SPDX-License-Identifier: GPL-2.0-only
"""A run into a file and out of it again, and files that somebody has been at."""

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lab.errors import ConfigurationError, InfrastructureError
from lab.results import bundle
from lab.results.bundle import pack, unpack
from lab.results.folder import RunFolder
from lab.results.record import RunRecord, TestRecord
from lab.results.replay import EXEC, PYTEST, Part, Replay
from lab.results.verdict import Verdict

LAB = """
debian: {mirror: "http://mirror.test/debian", suites: [bookworm]}
kernels: {v6: {source: {tarball: linux.tar}, fragments: [base]}}
images: {minimal: {recipe: images/minimal}}
machines: {vtd: {}}
suites: {contract: {tests: suites/contract}}
run: {kernel: v6, machine: vtd, suites: [contract]}
"""
NEEDS_ZSTD = pytest.mark.skipif(not shutil.which("zstd"), reason="zstd is not installed")


@dataclass(frozen=True)
class Scene:
    """A run of a series' kernel, and the lab and cache that it stood on."""

    root: Path
    run: RunFolder
    replay: Replay

    def pack(self, name: str = "run.tar.gz", *, symbols: bool = False) -> Path:
        self.run.write_replay(self.replay)
        pack(self.run, self.root / name, symbols=symbols)
        return self.root / name


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    kernel, image, agent = (
        tmp_path / "cache" / name for name in ("kernel/a", "image/b", "agent/c")
    )
    head = bytearray(0x400)
    head[0x202:0x206] = b"HdrS"
    known = {"key": "a", "build_id": "d"}
    files: dict[Path, bytes] = {
        kernel / "bzImage": bytes(head),
        kernel / "config": b"CONFIG_VFIO=y\n",
        kernel / "vmlinux": b"symbols",
        kernel / "modules.cpio": b"modules",
        kernel / "symbols/vfio.ko": b"its own",
        kernel / "provenance.json": json.dumps(known).encode(),
        image / "initramfs": b"image",
        image / "provenance.json": b'{"key": "b"}',
        agent / "agent": b"agent",
        tmp_path / "lab/lab.yaml": LAB.encode(),
        tmp_path / "lab/kernels/fragments/base.config": b"",
        tmp_path / "lab/kernels/known.yaml": b"[]",
        tmp_path / "lab/tests/unit/test_a.py": b"",
        tmp_path / "lab/suites/contract/test_b.py": b"",
        tmp_path / "lab/suites/contract/__pycache__/test_b.pyc": b"",
        tmp_path / "run/guests/001/console.log": b"Linux\r\n",
        tmp_path / "run/guests/001/id_ed25519": b"secret",
        tmp_path / "run/guests/001/keys.cpio": b"secret",
    }
    for file, content in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    (agent / "agent").chmod(0o755)
    (tmp_path / "run/guests/001/link").symlink_to("/etc/passwd")
    run = RunFolder(tmp_path / "run")
    run.write_series(b"From: a\n")
    test = TestRecord("suites/contract/test_b.py::test_b", "contract", Verdict.KEPT, 0.1)
    run.write(RunRecord("0.1.0", "2026-11-22T12:59:00Z", 1.0, tests=(test,)))
    parts: dict[str, Any] = {
        "kernel": Part("v6", kernel / "bzImage", "a", "build it"),
        "image": Part("minimal", image / "initramfs", "b", "make it"),
        "agent": Part("agent", agent / "agent", "c", "make it"),
    }
    replay = Replay(
        version="0.1.0",
        commit=None,
        lab=tmp_path / "lab",
        package=tmp_path,
        python=tmp_path / "python",
        cache=tmp_path / "cache",
        qemu=tmp_path / "qemu",
        qemu_version="10.0.2",
        machine=None,
        qemu_arguments=(),
        boot_timeout=90.0,
        command=PYTEST,
        words=("suites/contract",),
        **parts,
    )
    return Scene(tmp_path, run, replay)


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", [pytest.param("run.tar.zst", marks=NEEDS_ZSTD), "run.tar.gz"])
def test_what_goes_in_comes_out(scene: Scene, tmp_path: Path, name: str) -> None:
    archive = scene.pack(name)
    shutil.rmtree(scene.replay.cache)
    found = unpack(archive, tmp_path / "out")
    assert files_in(tmp_path / "out") == {
        "agent/agent",
        "image/initramfs",
        "image/provenance.json",
        "kernel/bzImage",
        "kernel/config",
        "kernel/modules.cpio",
        "kernel/provenance.json",
        "lab/kernels/fragments/base.config",
        "lab/kernels/known.yaml",
        "lab/lab.yaml",
        "lab/suites/contract/test_b.py",
        "lab/tests/unit/test_a.py",
        "run/guests/001/console.log",
        "run/image.json",
        "run/junit.xml",
        "run/kernel.json",
        "run/replay.json",
        "run/replay.sh",
        "run/results.json",
        "run/run.ktap",
        "run/series.mbox",
    }
    assert found.contents.version == "0.1.0"
    assert found.run.read() == scene.run.read()
    assert os.access(found.agent, os.X_OK)
    replay = found.replay()
    assert replay.lab == tmp_path / "out" / "lab"
    assert replay.kernel.path.read_bytes()[0x202:0x206] == b"HdrS"
    assert replay.image.path.read_bytes() == b"image"
    assert replay.words == scene.replay.words


def test_symbols_where_asked_for(scene: Scene, tmp_path: Path) -> None:
    unpack(scene.pack(symbols=True), tmp_path / "out")
    assert (tmp_path / "out/kernel/vmlinux").read_bytes() == b"symbols"
    assert (tmp_path / "out/kernel/symbols/vfio.ko").read_bytes() == b"its own"


@pytest.mark.parametrize("kind", [pytest.param("zst", marks=NEEDS_ZSTD), "gz"])
def test_it_is_the_same_each_time(scene: Scene, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = scene.pack(f"first.{kind}").read_bytes()
    os.utime(scene.replay.kernel.path, (1, 1))
    monkeypatch.setattr("time.time", lambda: 1.0)
    assert scene.pack(f"second.{kind}").read_bytes() == first


def test_what_cannot_be_repeated_elsewhere_is_refused(scene: Scene) -> None:
    def refused(match: str, **changes: Any) -> None:
        with pytest.raises(ConfigurationError, match=match):
            replace(scene, replay=replace(scene.replay, **changes)).pack()
        assert not list(scene.root.glob("*.gz*"))
        assert not list(scene.root.glob(".*unfinished"))

    refused("one of a program", command=EXEC)
    for option in ("--tests", "--failed"):
        within = f"{scene.replay.lab}/there"  # they are named so wherever they are
        refused(f"the run needs {within}, too", words=("tests", option, within))
    foreign = replace(scene.replay.kernel, sha256="0" * 64)
    refused("not the file that the run had", kernel=foreign)
    scene.replay.image.path.unlink()
    refused("not there any more")
    record = scene.run.read()
    case = replace(record.tests[0], program="iommufd")
    scene.run.write(replace(record, tests=(case,)))
    refused("iommufd is built from the kernel's source")


# Files that somebody has been at


def tampered(content: dict[str, bytes], listed: dict[str, Any] | None = None, **more: Any) -> bytes:
    """An archive of these files, with a list of them or another one."""
    files = {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in content.items()
    }
    head = {"version": "1", "commit": None, "files": files, "schema": 1, **more}
    head |= {"files": {**files, **listed}} if listed is not None else {}
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, data in {bundle.LIST: json.dumps(head).encode(), **content}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return gzip.compress(sink.getvalue())


def damaged(archive: bytes) -> bytes:
    """One whose second half is no deflate: the list can be read."""
    tar = gzip.decompress(archive)
    packer = zlib.compressobj(wbits=31)
    good = packer.compress(tar[: len(tar) // 2]) + packer.flush(zlib.Z_FULL_FLUSH)
    return good + b"\xff" * 100


def link(kind: bytes) -> bytes:
    """An archive with a link, and a file behind it."""
    files = {"run": {"size": 0, "sha256": ""}, "run/x": {"size": 0, "sha256": ""}}
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        text = json.dumps({"version": "1", "commit": None, "files": files, "schema": 1}).encode()
        member = tarfile.TarInfo(bundle.LIST)
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
        out = tarfile.TarInfo("run")
        out.type, out.linkname = kind, "../.."
        tar.addfile(out)
        tar.addfile(tarfile.TarInfo("run/x"))
    return gzip.compress(sink.getvalue())


WRONG = {"size": 1, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (tampered({"../x": b"1"}), "no name of a file"),
        (tampered({"/tmp/x": b"1"}), "no name of a file"),
        (tampered({"run/../../x": b"1"}), "no name of a file"),
        (tampered({"run/./x": b"1"}), "no name of a file"),
        (tampered({}, {"run/\0": WRONG}), "no name of a file"),
        (link(tarfile.SYMTYPE), "not the file of its list"),
        (link(tarfile.LNKTYPE), "not the file of its list"),
        (link(tarfile.FIFOTYPE), "not the file of its list"),
        (tampered({"run/x": b"1"}, {"run/x": WRONG}), "other bytes"),
        (tampered({"run/x": b"12"}, {"run/x": WRONG}), "not the file of its list"),
        (tampered({}, {"run/x": WRONG}), r"run/x is missing"),
        (tampered({"run/x": b"1"}, schema=9), "schema 9"),
        (tampered({}, version=None), "version"),
        (gzip.compress(b"no tar"), "no bundle"),
        (gzip.compress(bytes(10240)), "no bundle"),
        (tampered({"run/x": b"1"})[:-20], "no bundle, or is damaged"),
        (damaged(tampered({"run/x": bytes(1 << 17)})), "no bundle, or is damaged"),
        pytest.param(b"\x28\xb5\x2f\xfd no frame", "no bundle|zstd failed", marks=NEEDS_ZSTD),
        (b"plain", "is no bundle"),
        (b"", "is no bundle"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # the same in every process
)
def test_nothing_is_written_elsewhere(tmp_path: Path, content: bytes, match: str) -> None:
    archive, place = tmp_path / "archive", tmp_path / "a" / "b" / "out"
    archive.write_bytes(content)
    place.mkdir(parents=True)
    with pytest.raises((ConfigurationError, InfrastructureError), match=match):
        unpack(archive, place)
    assert files_in(tmp_path) - {"archive"} <= {"a/b/out/run/x"}
    assert not [path for path in place.rglob("*") if path.is_symlink()]


def test_one_more_file_is_refused(tmp_path: Path) -> None:
    good = tampered({"run/x": b"1"})
    tar = gzip.decompress(good)
    sink = io.BytesIO(tar)
    with tarfile.open(fileobj=sink, mode="a") as more:
        more.addfile(tarfile.TarInfo("run/y"))
    (tmp_path / "archive").write_bytes(gzip.compress(sink.getvalue()))
    with pytest.raises(ConfigurationError, match=r"'run/y' is not in its list"):
        unpack(tmp_path / "archive", tmp_path / "out")
