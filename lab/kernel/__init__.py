# SPDX-License-Identifier: GPL-2.0-only
"""Kernels: source → configuration → build, or one that somebody built already."""

from lab.kernel.kernel import Kernel
from lab.kernel.prepare import State, look, prepare

__all__ = ["Kernel", "State", "look", "prepare"]
