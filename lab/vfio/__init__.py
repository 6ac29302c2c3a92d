# SPDX-License-Identifier: GPL-2.0-only
"""VFIO as user space sees it: the uAPI, the files of both flows, the five modes, edu."""
