# SPDX-License-Identifier: GPL-2.0-only
"""Verdicts, and those who write them down: JSON, JUnit and the terminal."""
