# SPDX-License-Identifier: GPL-2.0-only
"""What a guest is like while nobody uses it, and what a test has left behind."""

from lab.condition.condition import Condition, needs
from lab.condition.leaks import NAME, Leaks, Object

__all__ = ["NAME", "Condition", "Leaks", "Object", "needs"]
