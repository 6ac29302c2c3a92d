# SPDX-License-Identifier: GPL-2.0-only
"""An order as a worker gets it, and what a worker does with it: `vfio-lab errand`, a process of its
own, which ends with everything that it started.

What is tested is the same wherever that is: the lab's tests are compared, image and agent come from
the coordinator, and a kernel is the one that the first of a night made of a name.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lab import room
from lab.cache import Cache, Entry, hash_of_file, key_of
from lab.cell import Choice, prepare_kernel, series_of
from lab.child import run_of
from lab.config import Lab
from lab.digest import digest_of
from lab.errors import InfrastructureError, LabError
from lab.fleet.claim import Claims
from lab.fleet.parcel import Parcel, send
from lab.fleet.shared import Artefact, SharedCache
from lab.fleet.store import Store
from lab.image.prepare import INITRAMFS
from lab.kernel import Kernel, modules
from lab.nightly.carrier import CELLS, Order
from lab.progress import Progress
from lab.results.bundle import SECRET
from lab.results.folder import RESULTS, SERIES
from lab.results.record import Written

_MADE = ("kind", "key", "made", "seconds", "inputs")  # in every provenance
ERRAND = "errand.json"  # in the folder of the process that runs it
ANSWER = "answer.json"  # beside it, once it is done


@dataclass(frozen=True)
class Errand(Written):
    """All that another machine needs to run a cell once.

    `digest` is that of the lab (`lab_digest`). `kernel` is None where a worker has to make it:
    `facts` are what the coordinator knows of packages. `series` is a mailbox that is put on it;
    mail is bytes, which JSON has none of: they are written as Latin-1.
    """

    order: Order
    store: str
    digest: str
    image: Artefact
    agent: Artefact
    kernel: Artefact | None = None
    facts: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    series: str | None = None

    @property
    def card(self) -> str:
        """The name in the store of what became of it."""
        return f"nights/{self.order.night}/cells/{self.order.name}.json"

    @property
    def cut(self) -> str:
        """The name of another card: of what it had found when it was ended."""
        return f"{self.card.removesuffix('.json')}.cut.json"

    @property
    def tries(self) -> str:
        """The name of a folder: a mark for each worker that began it, and has not come to an
        end."""
        return f"{self.card.removesuffix('.json')}.tries"

    @property
    def pin(self) -> str:
        """The name in the store of the kernel that this night means."""
        key = key_of({"kernel": self.order.kernel, "series": self.series})
        return f"nights/{self.order.night}/kernels/{key}.json"


@dataclass(frozen=True)
class Card(Written):
    """What became of an errand: a folder with the run's and its log, or why there is none."""

    where: str
    trouble: str = ""
    parcel: Parcel | None = None
    kernel: Artefact | None = None


@dataclass(frozen=True)
class Answer(Written):
    """What a worker says: a card, or why it has none. `refused`: this machine will not do it, but
    others may; `failed`: it could not, and perhaps the next time can."""

    card: Card | None = None
    refused: str = ""
    failed: str = ""


@dataclass(frozen=True)
class Share(Written):
    """What of a host a cell may take: `cpus` of its processors, `memory` in bytes. `where` is the
    host."""

    where: str
    cpus: int
    memory: int

    def workers(self, lab: Lab, machine: str) -> int:
        """How many processes of the run have room there, each with a guest and one that boots."""
        each = 2 * room.memory_of(lab.machine(machine))
        return max(1, min(self.cpus, self.memory // each))


def lab_digest(lab: Lab) -> str:
    """What the labs of a fleet have in common: that which decides verdicts, and what kernels and
    images are made of."""
    return digest_of(lab, lab.root / "kernels" / "fragments", lab.root / "images")


def run_errand(errand: Errand, lab: Lab, share: Share, place: Path, progress: Progress) -> Answer:
    """Run it, with all that it leaves in `place`, and put that into the store.

    Raises nothing but what is a mistake of the lab's own.
    """
    if lab_digest(lab) != errand.digest:
        return Answer(refused=another_lab(share.where, lab.root))
    try:
        return Answer(settled(errand, _tried(errand, lab, share, place, progress)))
    except InfrastructureError as error:  # of this host, or of the store
        return Answer(failed=str(error))


def settled(errand: Errand, card: Card) -> Card:
    """Put a card into the store; what the store says then: of several that did the same errand it
    keeps the first. Raises InfrastructureError."""
    store = Store(errand.store)
    if store.create(errand.card, card.to_json()):
        return card
    if found := store.read(errand.card):
        return Card.from_json(found)
    store.write(errand.card, card.to_json())  # who wrote it did not come to the end of it
    return card


def another_lab(where: str, root: Path | None = None) -> str:
    """What is said of a machine whose lab is another one."""
    place = f" in {root}" if root else ""
    return (
        f"{where}: its lab{place} is not the coordinator's, and tests nothing for it: bring both "
        "to the same commit, without changes, and with the same lab.yaml"
    )


def make_kernel(errand: Errand, lab: Lab, progress: Progress) -> Artefact:
    """The kernel of an errand, in the store: the one that this night has made already, or the one
    that is made now. Raises as `prepare_kernel` does."""
    cache = _cache_of(errand, progress)

    def made() -> dict[str, Any]:
        with mail_of(errand) as mail:
            choice = Choice(kernel=errand.order.kernel, series=series_of(mail))
            kernel = prepare_kernel(lab, choice, cache, progress)
        return cache.share(entry_of(kernel, cache)).to_json()

    return errand.kernel or Artefact.from_json(cache.claims.once(errand.pin, made))


def make_alone(errand: Errand, lab: Lab, progress: Progress) -> Answer:
    """Only have its kernel made, where others cannot see the source."""
    try:
        return Answer(Card("", kernel=make_kernel(errand, lab, progress)))
    except LabError as error:
        return Answer(failed=str(error))


def entry_of(kernel: Kernel, cache: Cache) -> Entry:
    """The entry of the cache that a kernel is, or becomes: that of another cache is copied, and of
    one that was built elsewhere the files that a guest needs."""
    folder = kernel.bzimage.parent
    kind, key = folder.parent.name, folder.name
    if kernel.provenance.get("kind") == kind and kernel.key == key:
        return cache.adopt(kind, key, lambda place: _copy(folder, place))

    def copy(place: Path) -> Mapping[str, Any]:
        shutil.copyfile(kernel.bzimage, place / "bzImage")
        for name, file in beside.items():
            shutil.copyfile(file, place / name)
        if kernel.headers:
            _copy(kernel.headers, place / "headers")
        own = {name: kernel.provenance[name] for name in kernel.provenance if name not in _MADE}
        return {**own, "key": kernel.key, "release": kernel.release, "build_id": kernel.build_id}

    named = {"config": kernel.config, "vmlinux": kernel.vmlinux, modules.ARCHIVE: kernel.modules}
    beside = {name: file for name, file in named.items() if file}
    hashes = {name: hash_of_file(file) for name, file in beside.items()}
    inputs = {"bzimage": hash_of_file(kernel.bzimage), "beside": hashes, "key": kernel.key}
    return Cache(cache.root).make("kernel", inputs, copy)


def _copy(folder: Path, place: Path) -> None:
    shutil.copytree(folder, place, dirs_exist_ok=True)


@contextmanager
def mail_of(errand: Errand) -> Iterator[str | None]:
    """A mailbox with its series, None where it has none."""
    if errand.series is None or errand.order.series is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="vfio-lab-") as folder:
        file = Path(folder, Path(errand.order.series).name)
        file.write_bytes(errand.series.encode("latin-1"))
        yield str(file)


def _tried(errand: Errand, lab: Lab, share: Share, place: Path, progress: Progress) -> Card:
    kernel = None
    try:
        kernel = make_kernel(errand, lab, progress)
        parcel = _run(replace(errand, kernel=kernel), lab, share, place, progress)
    except InfrastructureError:
        raise
    except LabError as error:  # anywhere else it would be the same
        return Card(share.where, str(error), kernel=kernel)
    return Card(share.where, parcel=parcel, kernel=kernel)


def _run(errand: Errand, lab: Lab, share: Share, place: Path, progress: Progress) -> Parcel:
    order, cache = errand.order, _cache_of(errand, progress)
    assert errand.kernel is not None
    kernel, image, agent = (
        cache.fetch(each).path for each in (errand.kernel, errand.image, errand.agent)
    )
    words = ["--kernel", str(kernel / "bzImage"), "--image", str(image / INITRAMFS)]
    words += ["--agent", str(agent / "agent"), *order.words]
    if not order.attempt:  # what is run again are a few tests
        words += ["-n", str(share.workers(lab, order.cell.machine))]
    out = place / CELLS / order.name
    try:
        with progress.step(f"{order.cell}"), run_of(lab, out, words) as process:
            process.wait()
        if (out / RESULTS).exists():
            return _sent(errand, out)
    except KeyboardInterrupt:
        if (out / RESULTS).exists():  # the night's time may be up: then it counts
            card = Card(share.where, parcel=_sent(errand, out), kernel=errand.kernel)
            Store(errand.store).write(errand.cut, card.to_json())
        raise
    log = out.with_name(f"{out.name}.log")
    raise InfrastructureError(
        f"the run left no results:\n{log.read_text(errors='replace')[-2000:]}"
    )


def _sent(errand: Errand, out: Path) -> Parcel:
    """All that a run has left."""
    if errand.series:
        (out / SERIES).write_bytes(errand.series.encode("latin-1"))
    return send(Store(errand.store), out.parent, without=SECRET)


def _cache_of(errand: Errand, progress: Progress) -> SharedCache:
    claims = Claims(Store(errand.store), on_wait=progress.say)
    return SharedCache(Cache.of_user().root, claims, errand.facts, progress.say)
