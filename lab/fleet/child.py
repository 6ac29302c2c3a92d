# SPDX-License-Identifier: GPL-2.0-only
"""An errand in a process of its own: it can be ended, with all that it started."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lab.config import Lab
from lab.errors import LabError
from lab.fleet.errand import ANSWER, ERRAND, Answer, Errand
from lab.proc import background

_GRACE = 45.0  # seconds to end, in which its run has 30 for the same
_LOOK = 0.2  # seconds between two looks at whether it is still wanted


def asked(
    errand: Errand, lab: Lab, place: Path, words: Sequence[str], wanted: Callable[[], bool]
) -> Answer | None:
    """What `vfio-lab errand` with these words answers; None where it was ended, because it was not
    wanted any more. It leaves what it leaves in `place`, which is empty."""
    errand.save(place / ERRAND)
    argv = [sys.executable, "-P", "-m", "lab", "errand", "--lab", str(lab.root), *words, str(place)]
    log = place / "log"
    with background(argv, log, grace=_GRACE) as process:
        while process.poll() is None:
            if not wanted():
                return None
            time.sleep(_LOOK)
    try:
        return Answer.from_json(json.loads((place / ANSWER).read_text()))
    except (OSError, ValueError, LabError):
        said = log.read_text(errors="replace").strip()[-2000:]
        return Answer(failed=f"its process ended with status {process.returncode}\n{said}".strip())
