# SPDX-License-Identifier: GPL-2.0-only
"""All that a page of one night shows, as plain data for its template."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lab.errors import ConfigurationError
from lab.history.model import CellRun, Change, News
from lab.history.news import news_of
from lab.history.store import History
from lab.page.evidence import Evidence, evidence_of
from lab.page.place import href, lasted
from lab.page.running import NEWS, Account, Missing
from lab.page.table import Section, Tested, ordered, sections
from lab.page.told import Told, told
from lab.page.trends import Trends
from lab.results.verdict import Verdict
from lab.text import printable


@dataclass(frozen=True)
class Night:
    """`nights` is the folder of all of them, `before` and `after` the neighbours' names, empty
    where there are none. `missing` are planned cells without a verdict, and `trouble` what went
    wrong with the night as a whole. `trends` end with this night."""

    name: str
    nights: Path
    sections: Sequence[Section]
    news: Sequence[News]
    before: str
    after: str
    missing: Sequence[Missing]
    trouble: Sequence[str]
    trends: Trends

    @classmethod
    def of(cls, history: History, nights: Path, name: str, trends: Trends) -> "Night":
        """A night as history has it, and as its folder says what is new."""
        runs = history.runs(name)
        news = _news(history, nights, name, runs)
        made = sections(runs, history.tests(name), history.troubles(name), news)
        tested = {section.cell for section in made}
        account = Account.of(nights / name)
        names = history.nights()
        return cls(
            name,
            nights,
            made,
            news,
            before=max((each for each in names if each < name), default=""),
            after=min((each for each in names if each > name), default=""),
            missing=[each for each in account.cells if each.cell not in tested],
            trouble=account.trouble,
            trends=trends.until(name),
        )

    @cached_property
    def told(self) -> Mapping[Change, Sequence[Told]]:
        """What is new, by change."""
        places = {
            (section.slug, test.worst.test): entry.place
            for section in self.sections
            for entry in section.entries
            for test in entry.tests
        }
        return told(self.news, places, self.nights, self.name)

    @cached_property
    def counts(self) -> Mapping[Verdict, int]:
        """How many tests have each verdict, the worst first."""
        found: Counter[Verdict] = Counter()
        for section in self.sections:
            found.update(section.counts)
        return ordered(found)

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def seconds(self) -> float:
        return sum(section.seconds for section in self.sections)

    def cells(self) -> Mapping[str, Any]:
        """What opens where a cell of a table is clicked: by slug, ready for JSON. Words are fit to
        be shown, and short where there is nothing to say."""
        return {
            entry.place.slug: [self._test(test, section) for test in entry.tests]
            for section in self.sections
            for entry in section.entries
        }

    def _test(self, test: Tested, section: Section) -> Mapping[str, Any]:
        row = test.worst
        said: dict[str, Any] = {
            "name": printable(row.test),
            "verdict": row.verdict,
            "took": lasted(row.duration),
        }
        if row.message:
            said["message"] = printable(row.message)
        if test.news:
            said["news"] = [news.change for news in test.news]
        if len(test.rows) > 1:
            said["runs"] = [each.verdict for each in test.rows]
        if row.splats:
            said["splats"] = [printable(splat) for splat in row.splats]
        if row.evidence or row.verdict.is_trouble:
            said |= _plain(self._evidence(test, section))
        return said

    def _evidence(self, test: Tested, section: Section) -> Evidence:
        row = test.worst
        folders = {run.attempt: run.folder for run in section.runs}
        run = folders.get(row.attempt, "")
        return evidence_of(self.nights, self.name, row.evidence, run, row.test)

    def logs(self, section: Section) -> Sequence[tuple[str, str]]:
        """What there is of a cell's runs as a whole: words and link."""
        found = []
        for run in section.runs:
            for file, what in ((f"{run.folder}.log", "log"), (f"{run.folder}/junit.xml", "JUnit")):
                if (self.nights / file).is_file():
                    again = f" of run {run.attempt + 1}" if run.attempt else ""
                    found.append((what + again, href(file, self.name)))
        return found


def _plain(evidence: Evidence) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "links": [[link.name, link.href] for link in evidence.links],
        "excerpts": [[excerpt.name, excerpt.text] for excerpt in evidence.excerpts],
        "replay": evidence.replay,
    }
    return {key: value for key, value in plain.items() if value}


def _news(history: History, nights: Path, name: str, runs: Sequence[CellRun]) -> Sequence[News]:
    """As the night left it; while it has not yet, of what has been run."""
    try:
        content = json.loads((nights / name / NEWS).read_text(encoding="utf-8"))
        return [News.from_json(each) for each in content]
    except (OSError, ValueError, ConfigurationError):
        return news_of(history, name, planned={run.cell for run in runs})
