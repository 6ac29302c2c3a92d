# SPDX-License-Identifier: GPL-2.0-only
"""What workers offer and cells ask for, by the names that Dask has for them."""

MEMORY = "memory"  # bytes
KVM = "kvm"  # cells that run with it at once
_LAB = "lab-"


def of_lab(digest: str) -> str:
    """What workers of one lab have, and those of another have not."""
    return f"{_LAB}{digest[:16]}"
