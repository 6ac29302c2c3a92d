# SPDX-License-Identifier: GPL-2.0-only
"""Does it show? A program, or a test, again and again in fresh guests, and what that says.

`sign` is what can show, `rate` what so many attempts prove, `attempt` one of them, `reproduction`
all of them, `reproduce` the guests that make them.
"""
