# SPDX-License-Identifier: GPL-2.0-only
"""A guest's keys fit each other, and are this guest's alone."""

import struct
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_private_key,
)

from lab.guest.keys import ARCHIVE, FOLDER, PRIVATE, Keys


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys.make()


def strings(blob: bytes) -> list[bytes]:
    """The strings of an SSH blob (RFC 4251, section 5)."""
    found = []
    while blob:
        (length,) = struct.unpack_from(">I", blob)
        found.append(blob[4 : 4 + length])
        blob = blob[4 + length :]
    return found


def unpacked(keys: Keys, folder: Path) -> Path:
    words = ["cpio", "-i", "-d", "--quiet", "--no-absolute-filenames"]
    subprocess.run(words, cwd=folder, input=keys.archive, check=True)
    return folder / FOLDER


def test_the_guest_lets_in_who_has_the_private_key(keys: Keys) -> None:
    public = load_ssh_private_key(keys.private, None).public_key()
    line = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    assert keys.authorized == line + b" vfio-lab\n"


def test_the_hosts_public_key_belongs_to_its_private_one(keys: Keys) -> None:
    algorithm, pair = strings(keys.host)
    assert algorithm == b"ssh-ed25519"
    seed, public = pair[:32], pair[32:]
    derived = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    assert derived.public_bytes(Encoding.Raw, PublicFormat.Raw) == public
    assert strings(keys.host_public) == [b"ssh-ed25519", public]


def test_no_two_guests_share_a_key(keys: Keys) -> None:
    other = Keys.make()
    assert other.private != keys.private
    assert other.host != keys.host


def test_the_archive_brings_what_init_looks_for(keys: Keys, tmp_path: Path) -> None:
    folder = unpacked(keys, tmp_path)
    assert (folder / "authorized_keys").read_bytes() == keys.authorized
    assert (folder / "dropbear_host_key").read_bytes() == keys.host
    assert sorted(path.name for path in folder.iterdir()) == [
        "authorized_keys",
        "dropbear_host_key",
    ]


def test_the_archive_belongs_to_root_and_another_can_follow_it(keys: Keys) -> None:
    listing = subprocess.run(
        ["cpio", "-i", "-t", "-v", "-n", "--quiet"], input=keys.archive, capture_output=True,
        check=True,
    ).stdout.decode()  # fmt: skip
    owners = {tuple(line.split()[2:4]) for line in listing.splitlines()}
    assert owners == {("0", "0")}
    # initramfs/buffer-format.rst: a header starts at a multiple of four
    assert len(keys.archive) % 4 == 0


def test_secrets_are_stored_for_this_user_alone(keys: Keys, tmp_path: Path) -> None:
    keys.store(tmp_path)
    assert (tmp_path / PRIVATE).read_bytes() == keys.private
    assert (tmp_path / ARCHIVE).read_bytes() == keys.archive
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
