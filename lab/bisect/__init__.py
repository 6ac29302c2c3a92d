# SPDX-License-Identifier: GPL-2.0-only
"""Which kernel, which patch, which commit was it?

`judge` says of one kernel whether it is bad, `memory` is what outlives Ctrl-C, `line` are kernels
and patches in a row, `commits` is a range of a git tree.
"""
