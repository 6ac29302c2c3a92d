# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab bundle` and `vfio-lab replay`: a run on its way to another machine, and there again."""

import contextlib
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.text import Text

import lab as package
from lab.cache import Cache
from lab.errors import ConfigurationError, LabError
from lab.guest import find_qemu
from lab.proc import CommandError, run
from lab.progress import Progress
from lab.results.bundle import pack, unpack
from lab.results.folder import LATEST, RESULTS, RunFolder, runs
from lab.results.layout import line
from lab.results.record import RunRecord, TestRecord
from lab.results.replay import Replay
from lab.results.verdict import Verdict
from lab.session import commit_of
from lab.text import printable

_LAST_LINES = 15


def make_bundle(name: str, out: Path | None, *, symbols: bool) -> None:
    """Put a run into one file. `name` is as `find_run` takes it. Raises ConfigurationError."""
    found = find_run(name)
    suffix = "tar.zst" if shutil.which("zstd") else "tar.gz"
    file = out or Path(f"{found.path.resolve().name}.{suffix}")
    if file.exists():
        raise ConfigurationError(f"{file} is there already", hint="name another with --out FILE")
    progress = Progress()
    replay = found.read_replay()
    if (now := commit_of(replay.lab)) != replay.commit:
        progress.say(f"the lab was at {replay.commit}, and its tests are those of {now}")
    with progress.step(f"bundle {found.path}") as step:
        contents = pack(found, file, symbols=symbols)
        step.result(f"{len(contents.files)} files, {file.stat().st_size / 1e6:.1f} MB")
    print(file)


def find_run(name: str) -> RunFolder:
    """A run by its folder, or by its name under the folder of all runs; `latest` is the last."""
    for path in (Path(name), runs() / name):
        if path.is_dir():
            return RunFolder(path)
    raise ConfigurationError(
        f"there is no run {name}", hint=f"expected a folder, {LATEST}, or a name in {runs()}"
    )


@dataclass(frozen=True)
class Difference:
    """A test whose verdict is another one; None where a run does not have it."""

    id: str
    recorded: Verdict | None
    now: TestRecord | None


def differences(recorded: RunRecord, now: RunRecord, *, narrowed: bool) -> list[Difference]:
    """Where the verdicts differ. `narrowed`: tests that were not run now are none.

    Of a test that was repeated the worst counts. Of a record that was cut short nobody knows what
    the other tests would have said.
    """
    before, after = _worst(recorded), _worst(now)
    found = [
        Difference(id_, before[id_].verdict if id_ in before else None, test)
        for id_, test in after.items()
        if (id_ in before and before[id_].verdict is not test.verdict)
        or (id_ not in before and recorded.finished)
    ]
    if not narrowed:
        found += [
            Difference(id_, test.verdict, None) for id_, test in before.items() if id_ not in after
        ]
    return found


def status_of(now: RunRecord, differing: Sequence[Difference]) -> int:
    """0: the same verdicts; 1: others; 2: the lab failed, where it had not when it was recorded."""
    failed = any(trouble.exit_status == 2 for trouble in now.every_trouble)
    failed |= any(each.now is not None and each.now.exit_status == 2 for each in differing)
    return 2 if failed else min(len(differing), 1)


def replay_run(target: str, words: Sequence[str], *, out: Path | None) -> int:
    """Repeat a run, of a folder or of a bundle, and compare; returns the exit status.

    `words` are pytest's. Raises LabError where it cannot be repeated.
    """
    progress = Progress()
    with _repeatable(target, progress) as (recorded, replay, more):
        _tell_of_the_lab(replay, progress)
        record = recorded.read()
        folder = RunFolder.create(out)
        with progress.step(f"replay {target}") as step:
            now = _replayed(replay, folder, [*more, *words])
            step.result(f"{len(now.tests)} of {len(record.tests)} tests")
    if more:
        _tell_of_the_bundle(folder, Path(target).absolute())
    differing = differences(record, now, narrowed=bool(words))
    _show(record, now, differing, folder.path)
    return status_of(now, differing)


@contextmanager
def _repeatable(
    target: str, progress: Progress
) -> Iterator[tuple[RunFolder, Replay, tuple[str, ...]]]:
    """A run, how it is repeated here, and the options that this takes."""
    if not Path(target).is_file():
        found = find_run(target)
        replay = found.read_replay()
        if not replay.is_of_tests:
            raise ConfigurationError(
                f"{found.path} is a run of a program", hint="its replay.sh repeats it"
            )
        for part in (replay.kernel, replay.image):
            part.check()
        yield found, replay, ()
        return
    with tempfile.TemporaryDirectory(prefix="vfio-lab-replay-") as place:
        with progress.step(f"unpack {target}"):
            bundle = unpack(Path(target), Path(place))
        cache = Cache.of_user()
        here = replace(
            bundle.replay(),
            package=Path(package.__file__).parents[1],
            python=Path(sys.executable),
            cache=cache.root.absolute(),
            qemu=find_qemu(None, cache).path,
        )
        yield bundle.run, here, ("--agent", str(bundle.agent))


def _tell_of_the_lab(replay: Replay, progress: Progress) -> None:
    own = version("vfio-lab")
    now = commit_of(replay.package)
    if own != replay.version:
        progress.say(f"the run was vfio-lab {replay.version}'s, this is {own}")
    elif replay.commit and now != replay.commit:
        progress.say(
            f"the run's vfio-lab was at {replay.commit}, this one is at {now or 'no commit'}"
        )


def _tell_of_the_bundle(folder: RunFolder, bundle: Path) -> None:
    """The new run's own replay.sh finds nothing of what was unpacked for it."""
    with contextlib.suppress(ConfigurationError):  # it had not come so far
        replay = folder.read_replay()
        mend = f"it was in a bundle: vfio-lab replay {shlex.quote(str(bundle))}"
        kernel, image = (replace(part, mend=mend) for part in (replay.kernel, replay.image))
        folder.write_replay(replace(replay, kernel=kernel, image=image))


def _replayed(replay: Replay, folder: RunFolder, words: Sequence[str]) -> RunRecord:
    """Raises LabError, with what pytest said last, where the run left nothing."""
    argv = replay.argv("--out", str(folder.path.absolute()), *words)
    said = []
    try:
        said = run(argv, cwd=replay.lab, env=replay.environment)
    except CommandError as error:
        said = list(error.lines)  # the record says whether that was the tests
    if not (folder.path / RESULTS).exists():
        raise LabError("\n".join(["the run left no results:", *said[-_LAST_LINES:]]))
    return folder.read()


def _worst(record: RunRecord) -> dict[str, TestRecord]:
    found: dict[str, TestRecord] = {}
    for test in record.tests:
        known = found.get(test.id)
        if not known or test.verdict.severity > known.verdict.severity:
            found[test.id] = test
    return found


def _show(
    recorded: RunRecord, now: RunRecord, differing: Sequence[Difference], folder: Path
) -> None:
    console = Console()
    for trouble in now.every_trouble:
        line(console, Text.assemble(("the run", "bold red"), f": {printable(trouble.message)}"))
    for each in differing:
        line(console, Text.assemble(("differs", "bold red"), f" {printable(each.id)}"))
        line(console, Text(f"  recorded {each.recorded or 'nothing'}, now {_now(each)}"))
    before, after = _platform(recorded), _platform(now)
    line(console, Text(f"on {after}" + (f"; recorded on {before}" if before != after else "")))
    same = sum(test.id not in {each.id for each in differing} for test in now.tests)
    line(console, Text(f"{same} of {len(now.tests)} tests as recorded, {len(differing)} differ"))
    line(console, Text(f"report: {printable(str(folder))}"))


def _now(difference: Difference) -> str:
    if not difference.now:
        return "not run"
    said = printable(difference.now.message).strip().splitlines()
    return f"{difference.now.verdict}: {said[0]}" if said else str(difference.now.verdict)


def _platform(record: RunRecord) -> str:
    return f"QEMU {record.qemu.get('version', 'unknown')}, {record.accel or 'no guest'}"
