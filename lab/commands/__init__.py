# SPDX-License-Identifier: GPL-2.0-only
"""What each command of `vfio-lab` does; `lab.cli` gives it its words."""
