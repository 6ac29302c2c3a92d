# SPDX-License-Identifier: GPL-2.0-only
"""What Dask calls on a worker: it has an errand run in a process of its own, and ends that as soon
as nobody waits for it any more."""

import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distributed import Status, Worker, WorkerPlugin, get_worker

from lab.config import Lab
from lab.fleet.child import asked
from lab.fleet.errand import Answer, Card, Errand, Share, settled
from lab.fleet.store import Store

TRIES = 3  # workers that a cell may end


def carry_out(errand: dict[str, Any]) -> dict[str, Any]:
    """Run an errand here; both are JSON, of Errand and Answer. Dask knows it by its name."""
    worker = get_worker()
    site = worker.plugins[Site.name]
    assert isinstance(site, Site)
    return site.carry_out(Errand.from_json(errand), _asker(worker)).to_json()


def _asker(worker: Worker) -> Callable[[], bool]:
    """Says whether somebody still waits for what runs here: the coordinator has not cancelled it or
    gone, and the scheduler is there."""
    key = worker.get_current_task()

    def wanted() -> bool:
        task = worker.state.tasks.get(key)
        return (
            worker.status in (Status.running, Status.paused)
            and task is not None
            and task.state == "executing"
        )

    return wanted


@dataclass
class Site(WorkerPlugin):
    """This host, as errands see it: its lab, a folder for what they leave, and what each of those
    that run at once may take."""

    lab: Lab
    folder: Path
    share: Share
    store: str | None = None
    """Where this host sees the fleet's; None: where the coordinator does."""
    leave: Callable[[], None] = lambda: None
    """Called where the lab is not any more what the worker said it was."""

    name = "vfio-lab"

    def carry_out(self, errand: Errand, wanted: Callable[[], bool]) -> Answer:
        """The answer; an empty one where it is not wanted any more.

        What has ended several workers is given up: each leaves a mark in the store until it has
        come to an end, whatever that is.
        """
        errand = replace(errand, store=self.store or errand.store)
        store = Store(errand.store)
        if found := store.read(errand.card):
            return Answer(Card.from_json(found))
        if len(before := store.names(errand.tries)) >= TRIES:
            whys = [(store.read(f"{errand.tries}/{name}") or {}).get("why", "") for name in before]
            trouble = "\n".join([f"given up after {len(before)} tries:", *map(str, whys)])
            return Answer(settled(errand, Card("", trouble)))
        mark = f"{errand.tries}/{uuid.uuid4().hex}.json"
        store.write(mark, {"why": f"{self.share.where}: the worker died in it"})
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="cell-") as place:
            share = self.share
            words = (
                "--where",
                share.where,
                "--cpus",
                f"{share.cpus}",
                "--memory",
                f"{share.memory}",
            )
            answer = asked(errand, self.lab, Path(place), words, wanted) or Answer()
        if answer.failed:
            store.write(mark, {"why": f"{self.share.where}: {answer.failed}"})
        else:
            store.remove(mark)
        if answer.refused:
            self.leave()
        return answer
