# SPDX-License-Identifier: GPL-2.0-only
"""A run of attempts: its folder, and what is in it."""

import json
import shutil

from lab.cache import Cache
from lab.repro.attempt import Attempt
from lab.repro.order import Order
from lab.repro.reproduce import Site, reproduce
from lab.repro.reproduction import FILE, Reproduction
from lab.results.record import TestRecord
from lab.results.verdict import Verdict
from lab.session import Session

SUITE = "repro"
REPRODUCER = "reproducer"  # the folder of a copy of it


def attempt_in(session: Session, order: Order) -> Reproduction:
    """Attempt it in a run that has only begun, and end that: all is in the run's folder.

    Raises LabError where there is nothing to be told of; then the run has not ended.
    """
    parts = session.prepare(guests=False)
    cache, folder = Cache.of_user(), session.folder
    if not order.is_test:
        kept = folder.path / REPRODUCER
        kept.mkdir()
        shutil.copy2(order.what, kept)
    site = Site(session.lab, session.choice, parts, folder, cache, session.progress)
    found = reproduce(site, order, lambda made: session.add(record_of(made, order)))
    (folder.path / FILE).write_text(json.dumps(found.to_json(), indent=1) + "\n")
    session.close(finished=found.finished)
    return found


def record_of(made: Attempt, order: Order) -> TestRecord:
    """An attempt as a test of the run: what the kernel did, whatever was expected."""
    verdict = Verdict.BROKEN if made.signs else Verdict.KEPT
    return TestRecord(
        f"{order.name}#{made.number}",
        SUITE,
        Verdict.GUEST_LOST if made.lost else verdict,
        made.seconds,
        mode=order.mode,
        message="; ".join(sign.title for sign in made.signs),
        splats=tuple(sign.text for sign in made.signs if sign.text),
        evidence=made.evidence,
        program=order.name,
    )
