# SPDX-License-Identifier: GPL-2.0-only
"""Runs as a report for KCIDB, the kernel's CI database: checkouts, builds, tests, known issues.

`kcidb-io` has the schema and reads the report; `kcidb-submit` sends it, with its owner's
credentials. A report is about builds: a run that came to no kernel says nothing there.

| verdict                 | status                                                     |
|-------------------------|------------------------------------------------------------|
| kept                    | PASS                                                       |
| known                   | FAIL, with an incident of the issue that is recorded       |
| broken                  | FAIL                                                       |
| guest-lost              | FAIL with a splat; ERROR without, as nobody knows then     |
| skipped, not-applicable | SKIP                                                       |
| lab-error               | MISS: the harness failed, nobody knows of the kernel       |

A run's figures are tests, too, whose status is DONE.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

from lab.cache import key_of
from lab.kernel.origin import origin_of
from lab.results.folder import SERIES
from lab.results.record import RunRecord, TestRecord, Trouble
from lab.results.verdict import Verdict
from lab.text import printable

ORIGIN = "vfio_lab"
VERSION = {"major": 5, "minor": 3}

_STATUS = {
    Verdict.KEPT: "PASS",
    Verdict.KNOWN: "FAIL",
    Verdict.BROKEN: "FAIL",
    Verdict.GUEST_LOST: "ERROR",
    Verdict.SKIPPED: "SKIP",
    Verdict.NOT_APPLICABLE: "SKIP",
    Verdict.LAB_ERROR: "MISS",
}
_UNITS = {"seconds": "s", "bytes": "B"}  # by the end of a figure's name
_ARCHITECTURE = "x86_64"
_LONGEST = 16384  # characters of an excerpt
_NOT_IN_PATHS = re.compile(r"[^A-Za-z0-9_-]+")

Object = dict[str, Any]


def kcidb(records: Mapping[str, RunRecord], link: str = "") -> Object:
    """The report of several runs, as JSON can write it.

    They are named by their folders, as `link` has them below it: a URL, without which the report
    has no links. The same kernel of two runs is one build, the same source one checkout.
    """
    place = link if urlsplit(link).scheme in ("http", "https") else ""
    runs = [_Run(folder, record, place) for folder, record in records.items() if record.kernel]
    return {
        "version": dict(VERSION),
        "checkouts": _once(run.checkout for run in runs),
        "builds": _once(run.build for run in runs),
        "tests": [test for run in runs for test in run.tests()],
        "issues": _once(issue for run in runs for issue in run.issues()),
        "incidents": [incident for run in runs for incident in run.incidents()],
    }


@dataclass(frozen=True)
class _Run:
    """A run that had a kernel."""

    folder: str
    record: RunRecord
    link: str

    @property
    def _provenance(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.record.kernel.get("provenance", {})
        return found

    @property
    def _source(self) -> Mapping[str, Any]:
        """Without the place of a tree on this host. Of a kernel that was built elsewhere only the
        bits are known."""
        seen = self._provenance
        found = seen.get("source") or {"sha256": seen.get("sha256")}
        return {name: value for name, value in found.items() if name != "git"}

    @property
    def _series(self) -> Mapping[str, Any]:
        """The patches' subjects, and the hash of their mails; empty where there are none."""
        seen = self._provenance
        if "series" not in seen:
            return {}
        mails = seen.get("inputs", {}).get("series", {})
        return {"patches": list(seen["series"]["patches"]), **mails}

    @cached_property
    def checkout(self) -> Object:
        """The source, with the patches on it."""
        source, series = self._source, self._series
        release = self.record.kernel.get("release")
        try:
            words = origin_of(source)
        except KeyError:
            words = f"{release}, built elsewhere"
        return _known(
            id=_id(key_of({"source": source, "series": series})),
            origin=ORIGIN,
            git_commit_hash=source.get("commit"),
            git_repository_branch=_branch(source),
            patchset_files=self._files([SERIES]) if series else None,
            # theirs is a hash of files, and the lab's one of mails
            patchset_hash=None if series else "",
            comment=printable(" with ".join([words, *series.get("patches", ())])),
            start_time=self._provenance.get("made"),
            valid=True,
            misc=_known(release=release, series=series or None),
        )

    @cached_property
    def build(self) -> Object:
        """The kernel; a variant is one of its own."""
        kernel, seen = self.record.kernel, self._provenance
        return _known(
            id=_id(str(kernel.get("key") or key_of(dict(kernel)))),
            checkout_id=self.checkout["id"],
            origin=ORIGIN,
            comment=" ".join(str(kernel[part]) for part in ("name", "release") if kernel.get(part)),
            start_time=seen.get("made"),
            duration=seen.get("seconds"),
            architecture=_ARCHITECTURE,
            compiler=seen.get("toolchain", {}).get("compiler_version"),
            config_name="+".join(seen.get("fragments", ())) or None,
            status="PASS",
            misc=_known(build_id=kernel.get("build_id")),
        )

    def tests(self) -> Iterator[Object]:
        """Its tests, what went wrong outside of them, and its figures."""
        for number, test in enumerate(self.record.tests):
            yield self._common(number) | _known(
                path=_path(test.suite, *_subject(test), test.id.partition("::")[2] or test.id),
                duration=test.duration,
                misc=_known(id=test.id, rule=test.rule, mode=test.mode, verdict=test.verdict),
                **self._outcome(test),
            )
        for number, trouble in enumerate(self.record.every_trouble):
            yield self._common(f"trouble-{number}") | _known(
                path=_path("run"), **self._outcome(trouble)
            )
        for name, value in self.record.figures.items():
            unit = _UNITS.get(name.rpartition("_")[2])
            yield self._common(f"figure-{name}") | _known(
                path=_path("figures", name), status="DONE", number=_known(value=value, unit=unit)
            )

    def issues(self) -> Iterator[Object]:
        """The recorded deviations that showed."""
        for _, test in self._deviating():
            yield {
                "id": _issue(test),
                "version": 1,
                "origin": ORIGIN,
                "comment": printable(test.known),
                "culprit": {"code": True, "tool": False, "harness": False},
            }

    def incidents(self) -> Iterator[Object]:
        """Where they did."""
        for number, test in self._deviating():
            yield {
                "id": self._id(f"known-{number}"),
                "origin": ORIGIN,
                "issue_id": _issue(test),
                "issue_version": 1,
                "test_id": self._id(number),
                "present": True,
            }

    def _deviating(self) -> Iterator[tuple[int, TestRecord]]:
        for number, test in enumerate(self.record.tests):
            if test.verdict is Verdict.KNOWN and test.known:
                yield number, test

    def _id(self, number: int | str) -> str:
        # Two labs may have a folder of the same name, and begin in the same second.
        parts = (self.folder, self.record.started, dict(self.record.host))
        return _id(f"{key_of({'run': parts})}-{number}")

    def _common(self, number: int | str) -> Object:
        return {
            "id": self._id(number),
            "build_id": self.build["id"],
            "origin": ORIGIN,
            "start_time": self.record.started,  # the run's: nobody noted the test's own
            "environment": self._environment,
        }

    @property
    def _environment(self) -> Object:
        # `compatible` would be a device tree's, which these machines do not have
        record = self.record
        machine, qemu = record.machine.get("name"), record.qemu.get("version")
        told = (f"QEMU {qemu}" if qemu else "", record.accel, f"machine {machine}")
        return {
            "comment": ", ".join(filter(None, told)),
            "misc": _known(platform=machine, qemu=qemu, accel=record.accel or None),
        }

    def _outcome(self, item: TestRecord | Trouble) -> Object:
        excerpt = printable("\n".join(filter(None, (*item.splats, item.detail))))
        return {
            "status": "FAIL" if item.exit_status == 1 else _STATUS[item.verdict],
            "comment": printable(item.message) or None,
            "log_excerpt": excerpt[:_LONGEST] or None,
            "output_files": self._files(item.evidence),
        }

    def _files(self, paths: Iterable[str]) -> list[Object] | None:
        """Files of the run's folder; None where nobody can fetch them."""
        if not self.link:
            return None
        top = f"{self.link.rstrip('/')}/{quote(self.folder)}"
        return [
            {"name": PurePosixPath(path).name, "url": f"{top}/{quote(path)}"} for path in paths
        ] or None


def _known(**fields: Any) -> Object:
    """An object without the fields that nobody knows: null is no value there."""
    return {name: value for name, value in fields.items() if value is not None}


def _once(objects: Iterable[Object]) -> list[Object]:
    """The first of those with the same id."""
    found: dict[str, Object] = {}
    for each in objects:
        found.setdefault(each["id"], each)
    return list(found.values())


def _id(text: str) -> str:
    return f"{ORIGIN}:{text}"


def _issue(test: TestRecord) -> str:
    return _id(f"known-{key_of({'known': test.known})}")


def _subject(test: TestRecord) -> tuple[str, ...]:
    return (test.subject,) if test.subject != test.suite else ()


def _path(*parts: str) -> str:
    """In the tree of tests. What a part must not hold becomes "-"."""
    plain = [_NOT_IN_PATHS.sub("-", part).strip("-") or "-" for part in parts]
    return ".".join([ORIGIN, *plain])


def _branch(source: Mapping[str, Any]) -> str | None:
    ref = source.get("ref")
    return None if ref in ("HEAD", source.get("commit")) else ref
