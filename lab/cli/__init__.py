# SPDX-License-Identifier: GPL-2.0-only
"""The command line: words to calls, nothing else."""

import os
import signal
import sys
import traceback
from types import FrameType
from typing import NoReturn

# in the order of their help
from lab.cli import tests, nights, results, place, guests, inside, bugs  # isort: skip
from lab.cli.app import app
from lab.errors import LabError
from lab.text import printable

__all__ = ["app", "bugs", "guests", "inside", "main", "nights", "place", "results", "tests"]


def main() -> NoReturn:
    """Run a command; errors are one message, and every signal to end ends all guests, too."""
    # pydantic would look through every installed package for plugins of its own: 30 ms.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        app(standalone_mode=True, prog_name="vfio-lab")  # not __main__.py's own
    except LabError as error:
        print(f"vfio-lab: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("vfio-lab: interrupted", file=sys.stderr)
        sys.exit(2)
    except Exception:  # Python's own status would be 1: a kernel that broke a rule
        traceback.print_exc()
        print("vfio-lab: this is an error of the lab's own", file=sys.stderr)
        print("  tell its maintainers, with the lines above", file=sys.stderr)
        sys.exit(2)
    sys.exit(0)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    del number, frame
    raise KeyboardInterrupt
