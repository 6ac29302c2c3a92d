# SPDX-License-Identifier: GPL-2.0-only
"""What a guest is like while nobody uses it, and what a test has left behind."""

from lab.condition.condition import Condition
from lab.condition.leaks import Leaks, Object

__all__ = ["Condition", "Leaks", "Object"]
