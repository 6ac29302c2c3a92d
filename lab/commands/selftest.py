# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab test`: hands over to tox, which knows what the project's tests are."""

import os
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import NoReturn

from lab.bootstrap import provide_for_tests
from lab.cache import Cache
from lab.config import known
from lab.errors import ConfigurationError


def run_tox(root: Path, environments: tuple[str, ...], words: tuple[str, ...]) -> NoReturn:
    """Become tox. `words` go to pytest. Raises ConfigurationError where there is no tox.ini, or no
    such environment in it."""
    recipe = root / "tox.ini"
    if not recipe.is_file():
        raise ConfigurationError(f"{root} has no tox.ini", hint="name the project's own folder")
    content = ConfigParser()
    content.read(recipe)
    there = [name.partition(":")[2] for name in content.sections() if ":" in name]
    for name in environments:
        known("environment", name, there)
    if "lab" in (environments or ("lab",)):
        provide_for_tests()
    argv = [sys.executable, "-m", "tox", "run", "--conf", str(recipe)]
    if not os.access(root, os.W_OK):  # somebody else's tree can be tested, too
        argv += ["--workdir", str(Cache.of_user().root / "tox")]
    if environments:
        argv += ["-e", ",".join(environments)]
    if words:
        argv += ["--", *words]
    os.execv(sys.executable, argv)
