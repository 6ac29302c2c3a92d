# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel says on its console when something is wrong with it.

`signatures` is the table of what that looks like, `reader` cuts the reports out of a log, `frames`
finds the function that a title names.
"""

from lab.splats.reader import Splat, find
from lab.splats.signatures import Kind

__all__ = ["Kind", "Splat", "find"]
