# SPDX-License-Identifier: GPL-2.0-only
"""Bugs that were reported once: `tests/bugs/NAME/`, each a test for as long as it is kept.

`bug` is what bug.yaml says, `versions` which kernels should have it, `keep` makes one of a run.
"""
