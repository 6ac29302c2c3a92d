# SPDX-License-Identifier: GPL-2.0-only
"""What a guest boots into: a small initramfs of Debian's programs."""

from lab.image.prepare import Image, check, look, prepare

__all__ = ["Image", "check", "look", "prepare"]
