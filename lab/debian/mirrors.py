# SPDX-License-Identifier: GPL-2.0-only
"""Where Debian's archive is: this host's apt knows."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lab.debian.apt import trouble
from lab.errors import ConfigurationError
from lab.proc import CommandError, run

_CODENAMES = {
    *("bullseye", "bookworm", "trixie", "forky", "duke", "sid"),
    *("oldoldstable", "oldstable", "stable", "testing", "unstable"),
}
_POCKETS = {"", "updates", "backports", "proposed-updates"}


@dataclass(frozen=True)
class Mirrors:
    """Where the archive and its security part are."""

    main: str
    security: str

    def of(self, suite: str) -> str:
        """The mirror that has a suite."""
        return self.security if suite.endswith("-security") else self.main


def mirrors_of_host(targets: Iterable[str]) -> Mirrors:
    """The Debian mirrors among apt's index targets, `release|origin|component|uri` each.

    apt knows the origin once it has read lists; before that the line is taken at its word.
    """
    main, security = [], []
    for line in targets:
        release, origin, component, uri = line.split("|", 3)
        codename, _, pocket = release.partition("-")
        if codename not in _CODENAMES or component != "main" or uri.startswith("cdrom:"):
            continue
        # Others name their suites like Debian's own: their origin tells them apart.
        if origin not in ("Debian", "", "$(ORIGIN)"):
            continue
        rank = (origin != "Debian", uri.rstrip("/"))
        if pocket == "security":
            security.append(rank)
        elif pocket in _POCKETS:
            main.append(rank)
    if not main:
        raise ConfigurationError(
            "debian.mirror is `auto`, but this host's apt has no Debian mirror",
            hint="name one in lab.yaml: `debian: {mirror: URL}`",
        )
    best = min(main, key=lambda rank: rank[0])[1]
    safe = min(security, key=lambda rank: rank[0])[1] if security else f"{best}-security"
    return Mirrors(best, safe)


def targets_of_host(cache: Path) -> list[str]:
    """apt's index targets, as `mirrors_of_host` takes them; `cache` is a folder for its index."""
    # With an index of its lists apt answers at once; some hosts tell it to keep none.
    cache.mkdir(parents=True, exist_ok=True)
    index = ["-o", f"Dir::Cache={cache}", "-o", "Dir::Cache::pkgcache=pkgcache.bin"]
    words = ["$(RELEASE)", "$(ORIGIN)", "$(COMPONENT)", "$(REPO_URI)"]
    try:
        ask = ["apt-get", *index, "indextargets", "--format", "|".join(words)]
        return run([*ask, "Created-By: Packages"])
    except CommandError as error:
        raise trouble("apt cannot say where its mirrors are", error) from error
