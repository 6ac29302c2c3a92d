# SPDX-License-Identifier: GPL-2.0-only
"""After the last cell: what is new, told in every way that somebody may want to hear it."""

import json
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.config import Lab
from lab.config.nightly import Nightly
from lab.errors import LabError
from lab.history.model import News
from lab.history.news import news_of
from lab.history.store import History
from lab.nightly.bisections import bisected
from lab.nightly.mail import Mailing, deliver
from lab.nightly.night import Night, State, nights
from lab.page.running import NEWS
from lab.page.write import INDEX, write_pages
from lab.progress import Progress
from lab.results.junit import junit_of_all
from lab.results.kcidb import kcidb
from lab.results.ktap import ktap_of_all
from lab.results.record import RunRecord


@dataclass(frozen=True)
class Morning:
    """What is told of a night. `status` is for cron: 0 nothing is broken, 1 something is, 2 the lab
    failed in some part; what there was no time for adds nothing."""

    night: Night
    news: tuple[News, ...]
    page: Path

    @property
    def alarms(self) -> list[News]:
        """What somebody has to look at."""
        return [each for each in self.news if each.change.is_alarm]

    @property
    def status(self) -> int:
        cells = [each.status for each in self.night.cells]
        return max([2 if self.night.trouble else 0, *cells])


def tell(lab: Lab, nightly: Nightly, night: Night, history: History, progress: Progress) -> Morning:
    """Everything that is written, sent and cleaned. What of it fails is the night's trouble, and
    hinders nothing else."""
    planned = [each.cell for each in night.cells if each.state is not State.LEFT]
    news = news_of(history, night.name, planned=planned)
    if nightly.bisect:
        with _trouble_of(night, progress):
            news = bisected(lab, night, history, news, progress)
    with _trouble_of(night, progress):
        (night.folder / NEWS).write_text(_json([each.to_json() for each in news]))
    with _trouble_of(night, progress):
        write_pages(history, nights(), night.name, progress)
    records: dict[str, RunRecord] = {}
    with _trouble_of(night, progress):
        records |= {order.name: record for order, record in night.records()}
    for name, text in _formats(records, nightly.link, night.name).items():
        with _trouble_of(night, progress):
            (night.folder / name).write_text(text())
    earlier = [name for name in history.nights() if name < night.name]
    mailing = Mailing(
        nights(),
        night.name,
        news,
        history.runs(night.name),
        before=earlier[0] if earlier else "",
        link=nightly.link,
        trouble=night.trouble,
    )
    if trouble := deliver(mailing, nightly.mail):
        progress.say(trouble)
        night.trouble.append(trouble)
    return Morning(night, news, night.folder / INDEX)


def _formats(
    records: Mapping[str, RunRecord], link: str, night: str
) -> dict[str, Callable[[], str]]:
    place = f"{link.rstrip('/')}/{night}" if link else ""
    return {
        "junit.xml": lambda: junit_of_all(records),
        "night.ktap": lambda: ktap_of_all(records),
        "kcidb.json": lambda: _json(
            kcidb({f"cells/{name}": record for name, record in records.items()}, place)
        ),
    }


@contextmanager
def _trouble_of(night: Night, progress: Progress) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a fault in one way of telling must not silence the others
        words = str(error) if isinstance(error, LabError | OSError) else traceback.format_exc()
        progress.say(words)
        night.trouble.append(words)


def _json(content: object) -> str:
    return json.dumps(content, indent=1) + "\n"


def counts(news: Sequence[News]) -> dict[str, int]:
    """How much there is of each kind of news, what matters most first."""
    kinds = [each.change for each in news]
    return {kind.value: kinds.count(kind) for kind in dict.fromkeys(kinds)}
