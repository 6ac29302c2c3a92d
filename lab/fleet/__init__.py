# SPDX-License-Identifier: GPL-2.0-only
"""Cells on many machines: Dask distributed says which worker runs what, a store that all of them
see has what they need and what they found.

| machine     | what runs there                                               |
|-------------|---------------------------------------------------------------|
| coordinator | `vfio-lab nightly --scheduler …`: it plans, asks, and gathers |
| scheduler   | Dask's own, as people always start it, in the lab's .venv     |
| worker      | `vfio-lab worker`: it offers its memory and processors        |
"""

from importlib.util import find_spec

from lab.errors import ConfigurationError


def check_installed() -> None:
    """Raises ConfigurationError where the packages of a fleet are missing; nothing else of the lab
    needs them."""
    if missing := [name for name in ("distributed", "fsspec") if not find_spec(name)]:
        raise ConfigurationError(
            f"a fleet needs {' and '.join(missing)}",
            hint="install them: .venv/bin/pip install -e '.[fleet]'",
        )
