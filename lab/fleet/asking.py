# SPDX-License-Identifier: GPL-2.0-only
"""The coordinator's side of an errand: all that has to be known, made and sent before one can run
on another machine."""

import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from lab.agent import install
from lab.cache import Cache, Entry
from lab.config import Lab
from lab.errors import LabError
from lab.fleet.child import asked
from lab.fleet.claim import Claims
from lab.fleet.errand import Errand, entry_of, mail_of
from lab.fleet.shared import Artefact, SharedCache
from lab.fleet.store import Store
from lab.image.prepare import prepare as prepare_image
from lab.kernel.incremental import patched
from lab.kernel.kernel import Kernel
from lab.kernel.mail import read_series
from lab.kernel.prepare import look, refresh, source_of
from lab.kernel.source import GitIdentity, TarballIdentity
from lab.nightly.carrier import Order
from lab.progress import Progress


class Stopped(Exception):
    """Nobody wants it any more."""


@dataclass(frozen=True)
class Asking:
    """Makes errands of orders. `digest` is the lab's, `nights` the folder of all nights; `wanted`
    says whether somebody still waits: where that ends, Stopped is raised."""

    lab: Lab
    digest: str
    store: str
    nights: Path
    progress: Progress
    wanted: Callable[[], bool]
    alone: threading.Lock = field(default_factory=threading.Lock)

    def errand(self, order: Order) -> Errand:
        """One for this order. Image and agent are made here; a kernel is, where others cannot see
        its source; else a worker makes it, of the packages that are known here.

        Raises LabError.
        """
        with self.alone:  # what is looked up once need not be by all
            errand, is_ours = self._looked_up(order)
        return replace(errand, kernel=self._made_here(errand)) if is_ours else errand

    def _looked_up(self, order: Order) -> tuple[Errand, bool]:
        """An errand, and whether its kernel has to be made here."""
        lab, cache = self.lab, self.cache()
        image = prepare_image(lab.run.image, lab, cache, self.progress)
        errand = Errand(
            order,
            self.store,
            self.digest,
            image=cache.share(_entry(cache, "image", image.initramfs)),
            agent=cache.share(_entry(cache, "agent", install.binary(cache))),
        )
        if order.series:
            mail = self.nights / order.night / order.series
            errand = replace(errand, series=mail.read_bytes().decode("latin-1"))
        cache = self.cache()  # that of an image's packages is no news to a worker
        kernel = self._kernel(errand, cache)
        errand = replace(errand, facts=dict(cache.facts))
        if kernel:
            return replace(errand, kernel=cache.share(entry_of(kernel, cache))), False
        source = source_of(order.kernel, lab, cache, self.progress, known_only=True)
        return errand, isinstance(source, GitIdentity | TarballIdentity)

    def _kernel(self, errand: Errand, cache: SharedCache) -> Kernel | None:
        """The kernel where it is here already."""
        spec = errand.order.kernel
        if look(spec, self.lab, cache).source is None:
            refresh(spec, self.lab, cache, self.progress)
        kernel = look(spec, self.lab, cache).built
        if kernel is None:
            return None
        with mail_of(errand) as mail:
            return patched(kernel, read_series(mail), cache) if mail else kernel

    def _made_here(self, errand: Errand) -> Artefact:
        """In a process that can be ended."""
        with tempfile.TemporaryDirectory(prefix="vfio-lab-") as name:
            place = Path(name)
            answer = asked(errand, self.lab, place, ("--make",), self.wanted)
            if answer is None:
                raise Stopped
        if answer.card is None or answer.card.kernel is None:
            raise LabError(answer.failed or (answer.card.trouble if answer.card else "no answer"))
        return answer.card.kernel

    def cache(self) -> SharedCache:
        """The user's, with the store behind it."""
        claims = Claims(Store(self.store), on_wait=self.progress.say_once, pause=self._pause)
        return SharedCache(Cache.of_user().root, claims, on_wait=self.progress.say_once)

    def _pause(self, seconds: float) -> None:
        if not self.wanted():
            raise Stopped
        time.sleep(seconds)


def _entry(cache: Cache, kind: str, file: Path) -> Entry:
    entry = cache.entry(kind, file.parent.name)
    assert entry is not None, "what was just made lies in the cache"
    return entry
