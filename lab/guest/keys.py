# SPDX-License-Identifier: GPL-2.0-only
"""Keys made for one guest: it knows whom to let in, and we know it before it speaks."""

import os
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from lab.image import cpio

_ALGORITHM = "ssh-ed25519"
FOLDER = "etc/vfio-lab"  # where the image's init looks for them
PRIVATE = "id_ed25519"
ARCHIVE = "keys.cpio"


@dataclass(frozen=True)
class Keys:
    """The user's private key in OpenSSH's form, and the host's in dropbear's."""

    private: bytes
    authorized: bytes
    host: bytes
    host_public: bytes  # the blob that the server shows in the key exchange

    @classmethod
    def make(cls) -> "Keys":
        user, host = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        raw_seed = host.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        raw_public = host.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return cls(
            private=user.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
            authorized=user.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
            + b" vfio-lab\n",
            host=_string(_ALGORITHM.encode()) + _string(raw_seed + raw_public),
            host_public=_string(_ALGORITHM.encode()) + _string(raw_public),
        )

    def store(self, folder: Path) -> None:
        """Keep in `folder` what starting and entering the guest by hand needs."""
        store_private(folder / PRIVATE, self.private)
        store_private(folder / ARCHIVE, self.archive)

    @cached_property
    def archive(self) -> bytes:
        """A cpio archive that the kernel unpacks before the image's initramfs."""
        return cpio.archive(
            [
                cpio.file(f"{FOLDER}/authorized_keys", self.authorized),
                cpio.file(f"{FOLDER}/dropbear_host_key", self.host, 0o600),
            ]
        )


def store_private(path: Path, content: bytes) -> None:
    """Write a file with a key in it: nobody else reads it, not even for a moment."""

    def for_us_alone(name: str, flags: int) -> int:
        return os.open(name, flags, 0o600)

    with open(path, "wb", opener=for_us_alone) as file:
        file.write(content)


def _string(data: bytes) -> bytes:
    """SSH's own string: its length in four bytes, then the bytes (RFC 4251, section 5)."""
    return struct.pack(">I", len(data)) + data
