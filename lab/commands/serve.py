# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab serve`: the nights' pages, live, on loopback."""

from functools import partial
from urllib.parse import quote

from lab.config import Lab
from lab.errors import ConfigurationError
from lab.history.store import History
from lab.nightly.night import nights
from lab.page.serve import Server, Source


def serve(lab: Lab, port: int, night: str | None) -> None:
    """Serve until Ctrl-C. `night` is the one whose page is named; by default all are.

    Raises ConfigurationError for a night that there is not, InfrastructureError where the port is
    taken.
    """
    opened = partial(History.opened, lab.nightly.history if lab.nightly else None)
    with opened() as history:
        known = history.nights()
    if night and night not in known and not (nights() / night).is_dir():
        newest = f"the newest is {known[0]}" if known else "`vfio-lab nightly` makes one"
        raise ConfigurationError(f"there is no night {night}", hint=newest)
    with Server(Source(nights(), opened), port) as server:
        # it may be that nobody reads it on a terminal
        print(server.url + (f"{quote(night)}/" if night else ""), flush=True)
        server.serve_forever()
