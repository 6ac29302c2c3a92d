# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab nightly`: the whole matrix, compared with the nights before."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from lab.cache import Cache
from lab.config import Lab
from lab.config.nightly import Nightly
from lab.errors import ConfigurationError, LabError
from lab.fleet import check_installed
from lab.history.store import History
from lab.kernel.prepare import look, refresh
from lab.nightly import drops, keep, matrix, turns
from lab.nightly.carrier import Carrier, LocalCarrier
from lab.nightly.conduct import Conductor
from lab.nightly.drops import Dropped
from lab.nightly.morning import Morning, tell
from lab.nightly.night import SERIES, Night, Planned, alone, nights
from lab.nightly.show import show, show_plan
from lab.progress import Progress
from lab.results.folder import runs
from lab.session import commit_of
from lab.units import in_words, seconds_in

INTERRUPTED = 2  # the exit status


@dataclass(frozen=True)
class Wish:
    """What was asked for beside lab.yaml: None and empty stand for what it says."""

    budget: str | None = None
    jobs: int | None = None
    scheduler: str | None = None
    store: str | None = None
    resume: bool = False
    update: bool = True
    kernels: tuple[str, ...] = ()


def run_night(lab: Lab, wish: Wish, *, as_json: bool) -> int:
    """A night, or the rest of one; returns the exit status, that of `Morning`.

    Raises LabError where it cannot begin. Ctrl-C leaves it to be resumed.
    """
    nightly, progress = wanted(lab, wish), Progress()
    with alone(), History.opened(nightly.history) as history:
        night = Night.unfinished() if wish.resume else _begun(lab, nightly, wish, history, progress)
        conductor = Conductor(lab, night, history, progress, version_of(lab), nightly.again)
        carrier = carrier_of(lab, nightly, wish, progress)
        try:
            conductor.run(carrier)
            morning = tell(lab, nightly, night, history, progress)
        except KeyboardInterrupt:
            progress.say(f"interrupted; `vfio-lab nightly --resume` goes on with {night.name}")
            return INTERRUPTED
        night.finish()
        _clean(nightly, morning, progress)
        report(morning, as_json=as_json)
        return morning.status


def show_matrix(lab: Lab, wish: Wish, *, as_json: bool) -> None:
    """What a night would do now; nothing is looked up anew, and nothing is run."""
    nightly, progress = wanted(lab, wish), Progress()
    with History.opened(nightly.history) as history:
        found, trouble = drops.collect(nightly.series, lab.root)
        for words in trouble:
            progress.say(words)
        planned = _planned(lab, nightly, found, history)
    if as_json:
        print(json.dumps([each.to_json() for each in planned], indent=1))
    else:
        show_plan(planned, Console())


def wanted(lab: Lab, wish: Wish) -> Nightly:
    """What lab.yaml says, with what was asked for in its place. Raises ConfigurationError where it
    says nothing of nights, or there is no such kernel."""
    if lab.nightly is None:
        raise ConfigurationError(
            f"{lab.root / 'lab.yaml'} says nothing of nights",
            hint="add `nightly: {kernels: [v6.12], suites: [contract]}`; see doc/nightly.md",
        )
    changes: dict[str, object] = {}
    for spec in wish.kernels:
        look(spec, lab, Cache.of_user())  # a slip of the finger would cost the night
    if wish.budget:
        seconds_in(wish.budget, "--budget")
        changes["budget"] = wish.budget
    changes |= {"jobs": wish.jobs} if wish.jobs else {}
    changes |= {"kernels": wish.kernels, "series": ()} if wish.kernels else {}
    changes |= {"store": wish.store} if wish.store else {}
    return lab.nightly.model_copy(update=changes)


def carrier_of(lab: Lab, nightly: Nightly, wish: Wish, progress: Progress) -> Carrier:
    """Processes of this host, or the fleet at a scheduler."""
    if not wish.scheduler:
        return LocalCarrier(lab, nights(), nightly.jobs)
    if not nightly.store:
        raise ConfigurationError(
            "a fleet has a store that all its machines see",
            hint="name it: --store URL, or `store: URL` under `nightly` in lab.yaml",
        )
    check_installed()
    from lab.fleet.fleet import Fleet  # noqa: PLC0415 (Dask takes a second, and is an extra)

    return Fleet(
        wish.scheduler, nightly.store, lab=lab, nights=nights(), progress=progress, kvm=nightly.kvm
    )


def version_of(lab: Lab) -> str:
    """The lab's own: its release, and the commit of its tree where git knows that."""
    return " ".join(filter(None, (version("vfio-lab"), commit_of(lab.root))))


def _clean(nightly: Nightly, morning: Morning, progress: Progress) -> None:
    """What is too old, or for which there is no room, goes."""
    now = time.time()
    gone = keep.clean(nights(), nightly.keep, now)
    lost = keep.begun_in(gone, morning.news)
    gone += keep.clean_runs(runs(), nightly.keep, now)
    if gone:
        freed = in_words(sum(each.bytes for each in gone))
        progress.say(f"removed, as `keep` says: {len(gone)} old nights and runs, {freed}")
    for each in lost:
        progress.say(f"with them went the first evidence of {each.subject}, broken since then")


def report(morning: Morning, *, as_json: bool) -> None:
    """To a person, or a script."""
    if as_json:
        content = {
            "night": morning.night.to_json(),
            "news": [each.to_json() for each in morning.news],
            "page": str(morning.page),
            "status": morning.status,
        }
        print(json.dumps(content, indent=1))
    else:
        show(morning, Console())


def _begun(lab: Lab, nightly: Nightly, wish: Wish, history: History, progress: Progress) -> Night:
    """A new night, with its series in its folder and its plan on disk."""
    cache, trouble = Cache.of_user(), []
    if wish.update:
        trouble += _refreshed(lab, nightly, cache, progress)
    found, unreadable = drops.collect(nightly.series, lab.root)
    trouble += unreadable
    for words in trouble:
        progress.say(words)
    cells = _planned(lab, nightly, found, history)
    if not cells:
        raise ConfigurationError("no cell is left to run", hint="look at `nightly` in lab.yaml")
    night = Night.new(nightly.seconds)
    for each in found:
        each.save(night.folder / SERIES)
    night.trouble += trouble
    night.cells = cells
    night.write()
    return night


def _planned(
    lab: Lab, nightly: Nightly, found: Sequence[Dropped], history: History
) -> list[Planned]:
    """The matrix in its order."""
    cells = matrix.cells(lab, nightly, found)
    with TemporaryDirectory(prefix="vfio-lab-") as folder:
        mails = {each.name: each.save(Path(folder)) for each in found}
        return turns.plan(cells, mails, lab, Cache.of_user(), history, version_of(lab))


def _refreshed(lab: Lab, nightly: Nightly, cache: Cache, progress: Progress) -> list[str]:
    """Newer packages are looked for; why some cannot be."""
    trouble = []
    for spec in dict.fromkeys(name.partition("+")[0] for name in nightly.kernels):
        try:
            refresh(spec, lab, cache, progress)
        except LabError as error:
            trouble.append(f"{spec}: what is new cannot be looked up: {error.message}")
    return trouble
