# SPDX-License-Identifier: GPL-2.0-only
"""pytest's side of the lab.

`pytest tests/contract --kernel v6.12 --machine vtd` and `vfio-lab run` meet here. The plugin wakes
up only for tests that lie in a suite of lab.yaml or in the folder of `--tests`; everything else
runs as if it were not there.
"""

pytest_plugins = [
    "lab.plugin.options",
    "lab.plugin.selection",
    "lab.plugin.bugs",
    "lab.plugin.guests",
    "lab.plugin.devices",
    "lab.plugin.sessions",
    "lab.plugin.workers",
    "lab.plugin.verdicts",
    "lab.plugin.hold",
    "lab.plugin.tracing",
    "lab.plugin.deadlines",
]
