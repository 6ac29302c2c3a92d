# SPDX-License-Identifier: GPL-2.0-only
"""Looking inside: a living guest entered from another process, held, debugged, traced."""
