# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab series --quick` on one patch to drivers/vfio, from the command to the verdict, beside
make alone for the same patch and QEMU alone."""

import difflib
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lab.bench.boot import login_seconds
from lab.bench.figures import Measured
from lab.cache import Cache
from lab.cell import Choice
from lab.config import Lab
from lab.errors import InfrastructureError
from lab.kernel.incremental import Base
from lab.kernel.mail import read_series
from lab.progress import Progress
from lab.results.folder import RunFolder
from lab.trial.trial import AFTER

_FILE = "drivers/vfio/device_cdev.c"
_MAIL = """\
From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: vfio-lab <lab@vfio-lab.invalid>
Date: Thu, 1 Jan 1970 00:00:00 +0000
Subject: [PATCH] vfio: cdev: Another constant
Message-Id: <{token}@vfio-lab.invalid>

No compiler has seen it yet.
---
diff --git a/{file} b/{file}
{diff}"""


def measure(lab: Lab, choice: Choice, rounds: int) -> Sequence[Measured]:
    """`rounds` of each, by default 3."""
    make, login = Measured("make alone"), Measured("QEMU alone, to a login")
    floor = Measured("make and QEMU alone")
    apply, tests = Measured("apply"), Measured("tests")
    build = Measured("from mail to kernel", make.name)
    first = Measured("run to its first test", login.name)
    whole = Measured("series --quick, to its verdict", floor.name)
    spec = choice.kernel or lab.run.kernel
    base = Base.prepare(spec, lab, Cache.of_user(), Progress())
    with TemporaryDirectory(prefix="vfio-lab-bench-") as name:
        folder = Path(name)
        _timed(lab, choice, _mail(base, folder, "warm"), folder / "warm")  # the base's results
        for number in range(rounds or 3):
            alone = base.make_alone(read_series(str(_mail(base, folder, f"alone-{number}"))))
            guest = login_seconds(lab, choice)
            mail = _mail(base, folder, f"series-{number}")
            seconds, kernel, run = _timed(lab, choice, mail, folder / str(number))
            make.values.append(alone)
            login.values.append(guest)
            floor.values.append(alone + guest)
            apply.values.append(kernel["stages"]["apply"])
            build.values.append(kernel["seconds"])
            first.values.append(run["figures"]["first_call_seconds"])
            tests.values.append(run["seconds"] - run["figures"]["first_call_seconds"])
            whole.values.append(seconds)
    return make, login, floor, apply, build, first, tests, whole


def _timed(
    lab: Lab, choice: Choice, mail: Path, out: Path
) -> tuple[float, Mapping[str, Any], Mapping[str, Any]]:
    """Seconds of the whole, the kernel's provenance, and the run's record."""
    argv = [sys.executable, "-P", "-m", "lab", "series", str(mail), "--quick"]
    argv += ["--lab", str(lab.root), "--out", str(out)]
    argv += ["--kernel", choice.kernel] if choice.kernel else []
    argv += ["--machine", choice.machine] if choice.machine else []
    started = time.perf_counter()
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise InfrastructureError(f"a series failed while it was measured:\n{done.stderr[-2000:]}")
    after = out / AFTER
    kernel = json.loads((after / "kernel.json").read_text())["provenance"]
    return seconds, kernel, RunFolder(after).read().to_json()


def _mail(base: Base, folder: Path, name: str) -> Path:
    """A patch that no cache has seen, so that all of it is made."""
    token = f"{name}-{time.time_ns()}"
    before = (base.plan.identity.tree() / _FILE).read_text().splitlines(keepends=True)
    after = [*before, f'\nstatic const char __used vfio_lab_bench[] = "{token}";\n']
    diff = difflib.unified_diff(before, after, f"a/{_FILE}", f"b/{_FILE}")
    mail = folder / f"{name}.mbox"
    mail.write_text(_MAIL.format(token=token, file=_FILE, diff="".join(diff)))
    return mail
