# SPDX-License-Identifier: GPL-2.0-only
"""How a run is repeated: what it stood on, to the bit, and the script in its folder that says so.

What is built is named by its key in the cache: tomorrow lab.yaml, or the mirror behind it, may mean
another kernel by the same name. What is not built is the lab itself, its tests and its machines:
they are those of the lab's tree, whose commit the script compares.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lab.cache import hash_of_file
from lab.errors import ConfigurationError
from lab.results.record import Written
from lab.text import one_line

SCRIPT = "replay.sh"
ORDERS = "replay.json"

# `python -m` with these, and then options and words.
PYTEST = ("pytest", "-p", "no:cacheprovider", "--rootdir", ".", "--import-mode=importlib")
EXEC = ("lab", "exec")
REPRO = ("lab", "repro")


@dataclass(frozen=True)
class Part(Written):
    """A file that a run stood on.

    `title` is for people. `mend` says how it is made when it is not there any more; `sha256` is
    known of what the lab did not make itself, and may have changed where it lies.
    """

    title: str
    path: Path
    key: str
    mend: str
    sha256: str | None = None

    def check(self) -> None:
        """Raises ConfigurationError where the file is gone, or another one lies there now."""
        if not self.path.is_file():
            raise ConfigurationError(f"{self.path} is not there any more", hint=self.mend)
        if self.sha256 and self.sha256 != hash_of_file(self.path):
            raise ConfigurationError(f"{self.path} is not the file that the run had")


@dataclass(frozen=True)
class Replay(Written):
    """All that decides what a run does; the content of replay.json.

    `lab` is the lab's folder, at `commit` if it is a git tree (`describe`'s words), `package` the
    folder that Python has the lab's code from, `cache` the cache's. `machine` is None where none
    was asked for: then each suite has its own. `command` is PYTEST, EXEC or REPRO; `words`, what
    follows the options, are relative to the lab's folder.
    """

    version: str
    commit: str | None
    lab: Path
    package: Path
    python: Path
    cache: Path
    kernel: Part
    image: Part
    agent: Part
    qemu: Path
    qemu_version: str
    machine: str | None
    qemu_arguments: tuple[str, ...]
    boot_timeout: float  # seconds
    command: tuple[str, ...]
    words: tuple[str, ...]
    seed: int | None = None  # None: there were none yet

    def moved(self, *, lab: Path, package: Path, python: Path, cache: Path) -> "Replay":
        """The same on another machine, where these lie there, and the cache has the same."""

        def there(part: Part) -> Part:
            if not part.path.is_relative_to(self.cache):
                return part
            return replace(part, path=cache / part.path.relative_to(self.cache))

        return replace(
            self,
            lab=lab,
            package=package,
            python=python,
            cache=cache,
            kernel=there(self.kernel),
            image=there(self.image),
            agent=there(self.agent),
        )

    def argv(self, *more: str) -> list[str]:
        """The command, to be run in the lab's folder with `environment`. `more` are its last
        words."""
        return [str(self.python), "-P", "-m", *self.command, *self._options(), *self.words, *more]

    @property
    def is_of_tests(self) -> bool:
        """Whether pytest's words can follow."""
        return self.command[0] == PYTEST[0]

    @property
    def environment(self) -> dict[str, str]:
        """What the command wants there. The words have what PYTEST_ADDOPTS once added."""
        return {
            "PYTHONPATH": str(self.package),
            "VFIO_LAB_CACHE": str(self.cache),
            "PYTEST_ADDOPTS": "",
        }

    def script(self) -> str:
        """The text of replay.sh."""
        # What is in the cache is looked for where the cache is then.
        inside = {
            "kernel": _in_cache(self.kernel.path, self.cache),
            "image": _in_cache(self.image.path, self.cache),
        }
        shown = replace(
            self,
            cache=Path("$cache"),
            kernel=replace(self.kernel, path=Path("$kernel")),
            image=replace(self.image, path=Path("$image")),
        )
        settings = [f"{name}={_quoted(value)}" for name, value in shown.environment.items()]
        lines = [
            "#!/bin/sh",
            *(f"# {one_line(line)}".rstrip() for line in self._account()),
            f"lab={shlex.quote(str(self.lab))}",
            f"cache=${{VFIO_LAB_CACHE:-{shlex.quote(str(self.cache))}}}",
            "case $cache in /*) ;; *) cache=$PWD/$cache ;; esac",
            *(f"{name}={place}" for name, place in inside.items()),
            *_FUNCTIONS,
            *self._checks(),
            *(_FAILED if self.is_of_tests else ()),
            'cd "$lab" || exit 2',
            f"export {' '.join(settings)}",
            f'exec {" ".join(_quoted(word) for word in shown.argv())} "$@"',
        ]
        return "\n".join(lines) + "\n"

    def _options(self) -> list[str]:
        words = ["--lab", "."]
        words += ["--kernel", str(self.kernel.path), "--image", str(self.image.path)]
        words += ["--machine", self.machine] if self.machine else []
        words += ["--qemu", str(self.qemu), "--boot-timeout", f"{self.boot_timeout:g}"]
        words += ["--seed", str(self.seed)] if self.is_of_tests and self.seed is not None else []
        return words + [f"--qemu-arg={word}" for word in self.qemu_arguments]

    def account(self) -> list[str]:
        """What the run stood on, a line each."""
        tree = f", its tree at {self.commit}" if self.commit else ""
        return [
            f"vfio-lab {self.version}{tree}",
            f"  kernel  {self.kernel.title}",
            f"  image   {self.image.title}",
            f"  machine {self.machine or 'that of the suite'}",
            f"  QEMU    {self.qemu_version}",
        ]

    def _account(self) -> list[str]:
        first, *rest = self.account()
        return [
            f"Repeats a run of {first}",
            *rest,
            *(_PYTEST_HELP if self.is_of_tests else _EXEC_HELP),
            "It exits as the run does, and with 2 where it cannot be repeated.",
            "",
        ]

    def _checks(self) -> list[str]:
        lines = [
            f"there {shlex.quote(str(self.python))} 'run `vfio-lab` once, which makes it'",
            f"there {shlex.quote(str(self.qemu))} 'install that QEMU'",
        ]
        for name, part in (("kernel", self.kernel), ("image", self.image)):
            lines.append(f'there "${name}" {shlex.quote(part.mend)}')
            if part.sha256:
                lines.append(f'same "${name}" {shlex.quote(part.sha256)}')
        return lines + ([f"at {shlex.quote(self.commit)}"] if self.commit else [])


def rebuilt(kernel: Mapping[str, Any], key: str, file: Path | None = None) -> str:
    """How a kernel with this provenance is made again. `file` is where its series is from now;
    another run may have made it of another file."""
    if "name" not in kernel:
        return "nothing but that file has its bits"
    words = ["--kernel", kernel.get("base", {}).get("name", kernel["name"])]
    if series := kernel.get("series"):
        place = str(file.absolute()) if file and file.exists() else series["file"]
        words += ["--series", place, "--patches", str(len(series["patches"]))]
    return (
        f"make it again: vfio-lab run {shlex.join(words)}; if its key is not {key} then, "
        "its source, its fragments or its compiler have changed"
    )


_PYTEST_HELP = (
    "More words are pytest's, so that `replay.sh -k test_x` repeats one test (a second -k replaces",
    "the first); `replay.sh --failed` repeats only those that failed.",
)
_EXEC_HELP = ("More words are the program's.",)

_FUNCTIONS = (
    'stop() { printf "replay.sh: %s\\n" "$@" >&2; exit 2; }',
    'there() { [ -e "$1" ] || stop "$1 is not there any more" "  $2"; }',
    'same() { echo "$2  $1" | sha256sum --check --status || stop "$1 is not the file it was"; }',
    "at() {",
    '    now=$(git -C "$lab" describe --always --dirty --exclude="*" --abbrev=40 2>&1)',
    '    [ "$now" = "$1" ] || echo "replay.sh: the lab was at $1, and is at $now" >&2',
    "    case $1 in *-dirty)",
    '        echo "replay.sh: the lab had changes that are in no commit; perhaps others now" >&2',
    "    esac",
    "}",
)
# As `at` asks it.
DESCRIBE = ("describe", "--always", "--dirty", "--exclude=*", "--abbrev=40")
_FAILED = (
    'if [ "${1-}" = --failed ]; then',
    "    shift",
    '    set -- --failed "$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)" "$@"',
    "fi",
)


def _in_cache(path: Path, cache: Path) -> str:
    if path.is_relative_to(cache):
        return f'"$cache"/{shlex.quote(path.relative_to(cache).as_posix())}'
    return shlex.quote(str(path))


def _quoted(word: str) -> str:
    """A word for the shell; the script's own variables are the words that begin with a dollar."""
    return f'"{word}"' if word in _VARIABLES else shlex.quote(word)


_VARIABLES = ("$cache", "$kernel", "$image")
