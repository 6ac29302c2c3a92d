# SPDX-License-Identifier: GPL-2.0-only
"""A process in a guest, held by a test: remote system calls, memory, MMIO, threads, races.

The agent, whose C is in `source`, is pushed into a guest and run there; it knows no VFIO. `build`
compiles it and `install` brings it there. `program` is what it can be asked to do, `protocol` how
that is said, `channel` where, and `agent` is who asks. `process` is what a test holds, with its
`memory`, `file`s, and what it shares with another one: `race`, `inherit`. `trace` keeps what it was
asked and what it answered.
"""
