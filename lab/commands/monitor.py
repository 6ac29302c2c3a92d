# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab monitor`: QEMU's monitors, for a person and for scripts."""

import json
import os
import sys
from collections.abc import Sequence

from qemu.qmp import QMPError
from qemu.qmp.qmp_shell import HMPShell, QMPShell

from lab.cell import Choice
from lab.config import Lab
from lab.debug.place import at_hand
from lab.debug.visit import monitor_of
from lab.errors import ConfigurationError, GuestLost
from lab.guest import doors
from lab.living import Living


def open_monitor(
    lab: Lab, name: str | None, choice: Choice | None, commands: Sequence[str], *, qmp: bool
) -> int:
    """The human monitor's prompt, or that of QMP, of the guest that `at_hand` finds or boots; with
    `commands` these are run and shown. Raises ConfigurationError, GuestLost, and
    InfrastructureError where QEMU refuses."""
    asked = [_qmp(command) for command in commands] if qmp else []
    with at_hand(lab, name, choice, "vfio-lab monitor") as place:
        if not commands:
            _prompt(place.living, HMPShell if not qmp else QMPShell)
            return 0
        with monitor_of(place.living) as monitor:
            for words, arguments in asked:
                print(json.dumps(monitor.execute(words, arguments), indent=1))
            for line in () if qmp else commands:
                sys.stdout.write(monitor.human(line).replace("\r\n", "\n"))
    return 0


def _qmp(command: str) -> tuple[str, dict[str, object]]:
    """A QMP command's name, and its arguments as JSON behind it."""
    name, _, rest = command.strip().partition(" ")
    try:
        arguments = json.loads(rest) if rest.strip() else {}
    except ValueError as error:
        raise ConfigurationError(
            f"{command}: its arguments are no JSON: {error}",
            hint='expected NAME, or NAME {"argument": VALUE}',
        ) from error
    return name, arguments


def _prompt(guest: Living, shell: type[QMPShell]) -> None:
    """qemu.qmp's own."""
    with doors.reached(guest.folder) as place, shell(os.fspath(place / doors.MONITOR)) as prompt:
        try:
            prompt.connect()
        except QMPError as error:
            raise GuestLost(f"{guest} has no monitor any more: {error}") from error
        for _ in prompt.repl():
            pass
