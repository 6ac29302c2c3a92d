# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab repro`: does it show, how often, and what does it look like?"""

import json
import sys
from pathlib import Path

from rich.console import Console

from lab.cell import Choice, machine_of
from lab.config import Lab
from lab.errors import LabError
from lab.progress import Progress
from lab.repro.order import Order
from lab.repro.run import attempt_in
from lab.repro.show import show
from lab.results.replay import REPRO
from lab.session import Session


def repro(lab: Lab, choice: Choice, order: Order, *, out: Path | None, as_json: bool) -> int:
    """Attempt it, and report; returns the exit status: see `Reproduction.status`."""
    order.check()
    order.check_names(lab, machine_of(lab, choice))
    progress = Progress()
    session = Session(
        lab,
        choice,
        progress,
        out=out,
        selection=[order.what, *order.arguments],
        words=order.words(),
        command=REPRO,
    )
    try:
        found = attempt_in(session, order)
    except LabError as error:
        session.add_trouble(error)
        session.close(finished=True)
        print(f"vfio-lab: {error}\n  see {session.folder.path}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        session.close(finished=False)
        raise
    if as_json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        show(found, session.folder.path, Console())
    return found.status
