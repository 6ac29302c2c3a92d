# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab series --reply`: what came of a series, as a mail that its user may send."""

import subprocess
from email.errors import HeaderParseError
from email.headerregistry import Address
from pathlib import Path

from lab.errors import ConfigurationError
from lab.kernel import Kernel
from lab.trial.finding import Finding
from lab.trial.reply import POLICY, Answer, reply
from lab.vfio.trace import essence

_CONSOLE = "console.log"
_CALLS = "calls.txt"
_LAST_CALLS = 12


def write_reply(finding: Finding, run: Path, file: Path, *, whole: bool) -> None:
    """Write the mail to `file`. `run` is the folder of the run with the series; `whole`, see
    `Answer`.

    Raises ConfigurationError where git does not know the user's name and address, or where `file`
    cannot be written.
    """
    base = finding.base
    bad = finding.comparison.broken + finding.comparison.crashed
    evidence = bad[0].test.evidence if bad else ()
    if finding.crash:
        evidence = tuple(sorted(str(log.relative_to(run)) for log in run.rglob(_CONSOLE)))
    answer = Answer(
        finding,
        _title(base),
        _word(base),
        whole,
        console=_read(run, evidence, _CONSOLE),
        calls=essence(_read(run, evidence, _CALLS), _LAST_CALLS),
    )
    try:
        file.write_bytes(reply(answer, sender()).as_bytes(policy=POLICY))
    except OSError as error:
        raise ConfigurationError(f"--reply: {file}: {error.strerror}") from error


def must_be_writable(file: Path) -> None:
    """Raises ConfigurationError as `write_reply` will, before all is done for it."""
    sender()
    if not file.parent.is_dir():
        raise ConfigurationError(f"--reply: {file.parent} is no folder")


def sender() -> str:
    """The user, as git knows them, in a mail's words. Raises ConfigurationError where git does not
    know them, or what it knows is no address."""
    name, address = (_configured(f"user.{part}") for part in ("name", "email"))
    if not name or not address:
        raise ConfigurationError(
            "--reply: git does not know your name and address",
            hint="git config --global user.name NAME; git config --global user.email ADDRESS",
        )
    try:
        return str(Address(name, addr_spec=address))
    except (ValueError, HeaderParseError) as error:
        raise ConfigurationError(
            f"--reply: what git has as your address is none: {address}",
            hint="git config --global user.email ADDRESS",
        ) from error


def _configured(name: str) -> str:
    try:
        done = subprocess.run(
            ["git", "config", name], capture_output=True, text=True, check=False, timeout=10
        )
    except OSError:
        return ""
    return done.stdout.strip()


def _title(base: Kernel) -> str:
    source = base.provenance.get("source", {})
    if "commit" in source:
        return f"{base.release}, commit {source['commit'][:12]}"
    words = filter(None, [base.release, source.get("version")])
    return f"{_word(base)} ({', '.join(words)})"


def _word(base: Kernel) -> str:
    """What --kernel takes for it, on another's machine."""
    source = base.provenance.get("source", {})
    if "commit" in source:
        return f"TREE@{source['commit'][:12]}"
    return str(base.provenance.get("name", base.name))


def _read(run: Path, evidence: tuple[str, ...], name: str) -> str:
    """The first file of this name that the test left: of the console, its guest's, which was ended
    after it."""
    names = [path for path in evidence if Path(path).name == name]
    try:
        return (run / names[0]).read_text(errors="replace") if names else ""
    except OSError:
        return ""
