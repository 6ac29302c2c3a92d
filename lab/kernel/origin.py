# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel was made of, in a few words, out of its provenance."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def origin_of(source: Mapping[str, Any]) -> str:
    """The source, as a provenance or a cache's key has it: `linux-source-6.12 6.12.57-1`.

    Raises KeyError for one that says nothing that is known.
    """
    if "base" in source:
        return f"{origin_of(source['base'])} with a series"
    if "packages" in source:
        return few([origin_of(package) for package in source["packages"]])
    if "commit" in source:
        return " ".join(filter(None, (source.get("git"), f"at {source['commit'][:12]}")))
    if "version" in source:
        return f"{source.get('name') or source.get('package')} {source['version']}"
    return Path(str(source["tarball"])).name


def few(names: Sequence[str]) -> str:
    """The first of several, and how many more there are."""
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]
