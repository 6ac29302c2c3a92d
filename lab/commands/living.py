# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab guests`: what lives and can be entered."""

import json
from dataclasses import asdict

from lab.living import living


def show_living(*, as_json: bool) -> None:
    """Print the guests of this user that have doors, the newest first."""
    found = living()
    if as_json:
        print(json.dumps([asdict(guest) for guest in found], default=str, indent=1))
        return
    if not found:
        print("no guest lives that can be entered")
        return
    for guest in found:
        print(f"{guest.pid}  {guest.release} on {guest.machine}, {guest.folder}")
        print(f"    {guest.why or 'a test runs in it'}")
