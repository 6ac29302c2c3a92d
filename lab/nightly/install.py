# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab nightly` every night: a service and a timer of systemd's, or a line for crontab.

Of two nights that start at once the second ends, so nothing here has to see to that. What a night
prints is in the journal, or beside the runs in nightly.log. A file for the environment, which need
not be there, is where the mail's password can be.
"""

import getpass
import os
import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from lab.config import Lab
from lab.errors import ConfigurationError, InfrastructureError
from lab.proc import CommandError, run
from lab.results.folder import runs

NAME = "vfio-lab-nightly"
SERVICE, TIMER = f"{NAME}.service", f"{NAME}.timer"

_BOOTED = Path("/run/systemd/system")  # sd_booted(3)
_LINGER = Path("/var/lib/systemd/linger")  # users whose services run while they are away
_NICE = 10
# What a command needs of the environment in which it was installed. Secrets are not among it:
# everybody may read a unit.
_KEPT = (
    "PATH",
    "HOME",
    "XDG_CACHE_HOME",
    "XDG_STATE_HOME",
    "VFIO_LAB_CACHE",
    "VFIO_LAB_SANDBOX",
    "VFIO_LAB_STATE",
)

# `:` is for dollars to be dollars. A night that found something has done its work; one that is
# stopped ends its runs itself.
_SERVICE = """\
[Unit]
Description=vfio-lab: what lab.yaml has for every night

[Service]
Type=exec
ExecStart=:{command}
EnvironmentFile=-{environment}
Nice={nice}
SuccessExitStatus=1
KillMode=mixed
TimeoutStopSec=2min
"""
_TIMER = """\
[Unit]
Description=vfio-lab: every night

[Timer]
OnCalendar=*-*-* {at}:00
Persistent=true

[Install]
WantedBy=timers.target
"""


@dataclass(frozen=True)
class _Manager:
    """systemd, of the host or of a user. `folder` is where its units are."""

    folder: Path
    words: tuple[str, ...]

    @property
    def files(self) -> tuple[Path, Path]:
        return self.folder / SERVICE, self.folder / TIMER

    def say(self, *words: str) -> None:
        run(["systemctl", *self.words, *words])


def install(lab: Lab, at: str) -> list[str]:
    """Have it run at `at` (21:00, the host's time), in place of what was installed before.

    Returns lines for a person: what was done, or what is left to do where no systemd runs. Raises
    ConfigurationError for what is no time, and InfrastructureError for what cannot be written.
    """
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", at):
        raise ConfigurationError(f"--at {at}: expected a time of day: 21:00")
    command = _command(lab)
    manager = _manager()
    if not manager:
        line = _crontab(command, at)
        return ["no systemd runs here; give this line to `crontab -e`:", line]
    service, timer = manager.files
    environment = platformdirs.user_config_path("vfio-lab") / "nightly.env"
    try:
        manager.folder.mkdir(parents=True, exist_ok=True)
        service.write_text(
            _SERVICE.format(
                command=" ".join(map(_quoted, command)),
                environment=str(environment).replace("%", "%%"),
                nice=_NICE,
            )
        )
        timer.write_text(_TIMER.format(at=at))
    except OSError as error:
        raise InfrastructureError(f"{error.filename}: {error.strerror}") from error
    manager.say("daemon-reload")
    manager.say("stop", TIMER)  # one that runs has the old time
    manager.say("clean", "--what=state", TIMER)  # or a night that an older one missed starts now
    manager.say("enable", "--now", TIMER)
    return [
        f"every night at {at}: {timer}",
        f"what it says: {shlex.join(['journalctl', *manager.words, '-u', NAME])}",
        f"its environment, if it needs more: {environment}",
        *_while_away(manager),
    ]


def uninstall() -> list[str]:
    """No more. A night that runs comes to its end. Returns lines for a person."""
    manager = _manager()
    if not manager:
        return ["no systemd runs here; take the line of vfio-lab out with `crontab -e`"]
    there = [file for file in manager.files if file.exists()]
    if not there:
        return [f"nothing is installed in {manager.folder}"]
    if manager.folder / TIMER in there:
        manager.say("disable", "--now", TIMER)
    for file in there:
        file.unlink(missing_ok=True)
    manager.say("daemon-reload")
    return [f"removed {file}" for file in there]


def _command(lab: Lab) -> list[str]:
    """The words of a night. They begin with a program whose name systemd takes: it wants no quotes
    in one."""
    kept = [f"{name}={os.environ[name]}" for name in _KEPT if name in os.environ]
    night = [sys.executable, "-P", "-m", "lab", "nightly", "--lab", str(lab.root)]
    return ["/usr/bin/env", *kept, *night]


def _manager() -> _Manager | None:
    """Whom to ask, or None where nobody runs."""
    if not _BOOTED.is_dir() or not shutil.which("systemctl"):
        return None
    if os.geteuid() == 0:
        return _Manager(Path("/etc/systemd/system"), ())
    user = _Manager(platformdirs.user_config_path("systemd") / "user", ("--user",))
    try:
        user.say("show-environment")
    except CommandError:
        return None
    return user


def _while_away(manager: _Manager) -> list[str]:
    if not manager.words or (_LINGER / getpass.getuser()).exists():
        return []
    return ["while you are logged in; `loginctl enable-linger` makes that always"]


def _quoted(word: str) -> str:
    """A word of a unit's: systemd.service(5), COMMAND LINES, and systemd.unit(5), SPECIFIERS."""
    for plain, escaped in (("\\", r"\\"), ('"', r"\""), ("\n", r"\n"), ("%", "%%")):
        word = word.replace(plain, escaped)
    return f'"{word}"'


def _crontab(command: list[str], at: str) -> str:
    """A line of crontab(5), where a percent sign is a line's end unless it is escaped."""
    log = runs().parent / "nightly.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    hour, minute = at.split(":")
    words = f"nice -n {_NICE} {shlex.join(command)} >>{shlex.quote(str(log))} 2>&1"
    escaped = words.replace("%", r"\%")
    return f"{int(minute)} {int(hour)} * * * {escaped}"
