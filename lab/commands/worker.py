# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab worker`: this host runs cells for a fleet; and `vfio-lab errand`, one of them."""

import json
import os
import platform
from pathlib import Path

from lab.cache import Cache
from lab.config import Lab
from lab.fleet.errand import ANSWER, ERRAND, Answer, Errand, Share, make_alone, run_errand
from lab.progress import Progress
from lab.units import in_words


def start_worker(
    lab: Lab,
    scheduler: str,
    store: str | None,
    name: str | None,
    memory: int | None,
    cpus: int | None,
    jobs: int | None,
) -> None:
    """Work until SIGTERM or Ctrl-C. Raises ConfigurationError for what is no address."""
    from lab.fleet.worker import Offer, work  # noqa: PLC0415 (Dask takes a second)

    progress = Progress()
    name = name or f"{platform.node()}-{os.getpid()}"
    offer = Offer.of_host(Cache.of_user(), memory, cpus, jobs)
    kvm = "with KVM" if offer.kvm else "no KVM"
    progress.say(f"{name} has {in_words(offer.memory)} and {offer.cpus} processors, {kvm}")
    work(scheduler, store, lab, offer, name, progress)


def run_one(lab: Lab, place: Path, share: Share | None) -> None:
    """Run the errand that lies in a folder, and leave the answer there. Without a share only its
    kernel is made."""
    progress = Progress()
    errand = Errand.from_json(json.loads((place / ERRAND).read_text()))
    answer: Answer = (
        run_errand(errand, lab, share, place, progress)
        if share
        else make_alone(errand, lab, progress)
    )
    answer.save(place / ANSWER)
