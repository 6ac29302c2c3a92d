# SPDX-License-Identifier: GPL-2.0-only
"""A process in a guest, held by a test: remote system calls, memory, MMIO, threads, races.

The agent, whose C is in `source`, is pushed into a guest and run there; it knows no VFIO. `build`
compiles it, `program` is what it can be asked to do, `protocol` is what is said over the wire,
`process` is what a test holds, and `memory` is memory of that process.
"""
