# SPDX-License-Identifier: GPL-2.0-only
"""A run of `vfio-lab repro` becomes a bug that is kept."""

import json
import shutil
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from lab.bugs import versions
from lab.bugs.bug import FILE, Bug
from lab.errors import ConfigurationError
from lab.repro import reproduction
from lab.repro.reproduction import Reproduction
from lab.repro.run import REPRODUCER
from lab.results.folder import RunFolder


def keep(
    run: RunFolder,
    folder: Path,
    title: str | None,
    references: Sequence[str],
    variants: Collection[str],
) -> Bug:
    """Make `folder` of the reproduction in a run; what nobody can know yet is said in it.

    `variants` are the fragments whose names matter to it, if the kernel had them.

    Raises ConfigurationError where the run shows nothing, or the folder is there.
    """
    file = run.path / reproduction.FILE
    if not file.is_file():
        raise ConfigurationError(
            f"{run.path} is no run of vfio-lab repro", hint="name the folder of one"
        )
    found = Reproduction.from_json(json.loads(file.read_text()))
    if not found.shown:
        raise ConfigurationError(f"{run.path}: it did not show in {len(found.attempts)} attempts")
    if folder.exists():
        raise ConfigurationError(f"{folder} is there already")
    folder.mkdir(parents=True)
    try:
        lines = _lines(run, found, title, references, variants)
        for kept in (run.path / REPRODUCER).glob("*"):
            shutil.copy2(kept, folder)
        (folder / FILE).write_text("\n".join(lines) + "\n")
        return Bug.load(folder / FILE)
    except BaseException:
        shutil.rmtree(folder)
        raise


def _lines(
    run: RunFolder,
    found: Reproduction,
    title: str | None,
    references: Sequence[str],
    variants: Collection[str],
) -> Iterator[str]:
    sign, kernel = found.shown[0].shown[0], run.read().kernel
    order = found.order
    version = versions.parse(kernel.get("release") or "")
    yield f"title: {_quoted(title or sign.title)}"
    yield f"reference: [{', '.join(map(_quoted, references))}]"
    yield f"# seen on {found.kernel}"
    if version:
        yield f"# affected: {_quoted('.'.join(map(str, version)))}  # the first release that has it"
    yield "fixed: []  # of each branch the first release without it, once there is one"
    yield f"reproducer: {_quoted(Path(order.what).name if not order.is_test else order.what)}"
    if order.arguments:
        yield f"arguments: [{', '.join(map(_quoted, order.arguments))}]"
    if order.devices:
        yield f"devices: [{', '.join(order.devices)}]"
    if order.mode:
        yield f"mode: {order.mode.value}"
    yield f"machine: {found.machine}"
    fragments = kernel.get("provenance", {}).get("fragments", ())
    if fragments := [name for name in fragments if name in variants]:
        yield f"variant: [{', '.join(fragments)}]"
    yield f"signature: {_quoted(found.expected or sign.title)}"
    if order.status:
        yield f"status: {order.status}"
    if not order.is_test:
        yield f"timeout: {order.timeout:g}"
    if order.stress:
        yield f"stress: [{', '.join(order.stress)}]"
    if order.faults:
        yield f"fault_injection: {_quoted(str(order.faults))}"
    yield f"rate: {{shown: {len(found.shown)}, of: {len(found.attempts)}}}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # which YAML reads as it is
