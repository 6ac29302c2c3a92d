# SPDX-License-Identifier: GPL-2.0-only
"""A Dask worker with what this host has: memory and processors for guests, KVM, and its lab."""

import asyncio
import os
import platform
import shutil
import signal
import tempfile
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from distributed import Worker
from distributed.comm.addressing import get_address_host
from distributed.utils import get_ip

from lab import room
from lab.cache import Cache
from lab.config import Lab
from lab.errors import ConfigurationError, LabError
from lab.fleet.errand import Share, lab_digest
from lab.fleet.resources import KVM, MEMORY, of_lab
from lab.fleet.task import Site
from lab.guest import AcceleratorMemory, find_qemu
from lab.living import born
from lab.progress import Progress
from lab.results.folder import runs

_AGAIN = 2.0  # seconds between two looks for the scheduler
_EACH = 4  # processors of a cell, where the host has more


@dataclass(frozen=True)
class Offer:
    """What a host has for guests: `memory` in bytes, `cpus`; it runs `jobs` cells at once. `kvm` is
    whether a guest has booted with it there."""

    memory: int
    cpus: int
    jobs: int
    kvm: bool

    @classmethod
    def of_host(
        cls,
        cache: Cache,
        memory: int | None = None,
        cpus: int | None = None,
        jobs: int | None = None,
    ) -> "Offer":
        """All that it has now, but for what is given."""
        cpus = cpus or room.processors()
        return cls(
            memory or room.available(), cpus, jobs or max(1, cpus // _EACH), _boots_with_kvm(cache)
        )

    @property
    def share(self) -> Share:
        """That of one cell."""
        return Share(platform.node(), max(1, self.cpus // self.jobs), self.memory // self.jobs)

    def resources(self, digest: str) -> dict[str, float]:
        """The same for Dask: a task goes where all that it asks for is left. Of the lab, and of
        KVM, each job has one."""
        kvm = {KVM: float(self.jobs)} if self.kvm else {}
        return {MEMORY: float(self.memory), of_lab(digest): float(self.jobs), **kvm}


def _boots_with_kvm(cache: Cache) -> bool:
    try:
        known = AcceleratorMemory(cache, find_qemu(None, cache)).known()
    except LabError:
        return False  # every run says that there is no QEMU
    return bool(known and known["kvm"])


def work(
    scheduler: str, store: str | None, lab: Lab, offer: Offer, name: str, progress: Progress
) -> None:
    """Run cells until SIGTERM or SIGINT, which end all guests. A scheduler that goes is waited for,
    and what ran is left to whom it then gives it.

    `store` is where this host sees the fleet's, None where that is where the coordinator does.
    Raises ConfigurationError for what is no address.
    """
    try:
        host = get_ip(get_address_host(scheduler))  # it listens where the scheduler is, only
    except (ValueError, OSError) as error:
        raise ConfigurationError(
            f"--scheduler {scheduler}: {error}", hint="expected tcp://HOST:8786"
        ) from error
    with _folder() as folder:
        site = Site(lab, folder, offer.share, store)
        asyncio.run(_work(scheduler, host, site, offer, name, progress))


async def _work(
    scheduler: str, host: str, site: Site, offer: Offer, name: str, progress: Progress
) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stopped.set)
    while not stopped.is_set():
        digest = await asyncio.to_thread(lab_digest, site.lab)
        worker = Worker(
            scheduler,
            name=name,
            host=host,
            dashboard_address=f"{host}:0",
            nthreads=offer.jobs,
            resources=offer.resources(digest),
            memory_limit=0,  # guests are no memory of its own
            local_directory=str(site.folder),
            plugins=(site,),
        )
        site.leave = partial(_leave, loop, worker)
        try:
            await _unless(stopped, worker)
        except (OSError, RuntimeError) as error:
            progress.say_once(f"waiting for the scheduler at {scheduler}: {error}")
        else:
            if not stopped.is_set():
                progress.say(f"{name} works for {scheduler}: {offer.jobs} cells at once")
                await _unless(stopped, worker.finished())
        finally:
            await worker.close()
        with suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), _AGAIN)


async def _unless(stopped: asyncio.Event, what: Awaitable[object]) -> None:
    """Wait until it is done, or the worker is to end. Raises what it raises."""
    waits = asyncio.ensure_future(what)
    ends = asyncio.ensure_future(stopped.wait())
    await asyncio.wait((waits, ends), return_when=asyncio.FIRST_COMPLETED)
    ends.cancel()
    if not waits.done():
        waits.cancel()
        return
    waits.result()


def _leave(loop: asyncio.AbstractEventLoop, worker: Worker) -> None:
    """Have a worker end, from the thread of its task: the next one has the lab as it is now."""
    loop.call_soon_threadsafe(lambda: loop.create_task(worker.close(executor_wait=False)))


@contextmanager
def _folder() -> Iterator[Path]:
    """For what its errands leave until it is in the store. What killed workers left goes."""
    parent = runs().parent / "fleet"
    parent.mkdir(parents=True, exist_ok=True)
    for folder in parent.iterdir():
        pid = folder.name.partition("-")[0]
        if pid.isdigit() and born(int(pid)) is None:
            shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        dir=parent, prefix=f"{os.getpid()}-", ignore_cleanup_errors=True
    ) as name:
        yield Path(name)
