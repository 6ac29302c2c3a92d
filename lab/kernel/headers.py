# SPDX-License-Identifier: GPL-2.0-only
"""The user-space API of a source, without a kernel that is built of it."""

from pathlib import Path

from lab.cache import Cache
from lab.kernel import sandbox
from lab.kernel.build import RECIPE, export_headers
from lab.kernel.patched import for_headers
from lab.kernel.source import Identity
from lab.proc import run
from lab.progress import Progress


def headers_of(identity: Identity, cache: Cache, progress: Progress) -> Path:
    """The include folder; the entry is the one that a build of this source makes, too, and that of
    the base's where a series does not touch the API."""
    identity = for_headers(identity)

    def maker(folder: Path) -> None:
        objects = folder / "objects"
        objects.mkdir()
        tree = identity.tree()
        words = ["make", "-C", str(tree), f"O={objects}", "ARCH=x86_64"]
        make = sandbox.find().around(words, reads=[tree], writes=[objects])
        with progress.step(f"export headers of {identity.title}"):
            export_headers(make, objects, folder / "include")
        run(["rm", "-rf", objects])

    inputs = {"recipe": RECIPE, **identity.inputs}
    return cache.make("headers", inputs, maker).path / "include"
