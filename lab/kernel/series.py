# SPDX-License-Identifier: GPL-2.0-only
"""A series: patches as they come by mail, and what git has to say of them."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lab.errors import ConfigurationError
from lab.proc import CommandError

# No line of a patch begins so.
_ENVELOPE = re.compile(
    rb"^(From |(Date|Received|Message-ID|In-Reply-To|References|X-[-\w]+):).*\n",
    re.MULTILINE | re.IGNORECASE,
)
_HUNK = re.compile(r"^@@ -(?P<start>\d+)(?:,\d+)? \+")
_FAILED = re.compile(r"^error: patch failed: (?P<file>.+):(?P<line>\d+)$")
_REASON = re.compile(r"^error: (?!patch failed)(?P<reason>.+)$")
_APPLYING = re.compile(r"^Applying: (?P<subject>.*)$")
# git's own header, or that of other tools' diffs, which `git am` takes as well
_TOUCHED = re.compile(
    r"^(?:diff --git a/.+ b/|rename from |(?:---|\+\+\+) [^/\s]+/)([^\t\n]+)", re.MULTILINE
)
_HUNK_SHOWN, _CONFLICT_SHOWN = 12, 60  # lines


@dataclass(frozen=True)
class Letter:
    """A mail of a series: a patch, or the cover letter.

    `message_id` has no brackets, and is empty where the mail came without one. `reply_to` is who
    wants the answers, the author or whom the mail names instead; `others` are all the rest that it
    went to. `text` is what it says before its diff.
    """

    subject: str
    author: str
    message_id: str
    date: str = ""
    reply_to: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    text: str = ""


@dataclass(frozen=True)
class Series:
    """Patches, each a mail that `git am` takes. `name` is for messages, `file` where they are from.

    `letter` is the mail that it begins with, the cover letter or the first patch; `letters` are
    the patches' own, as many. `base_commit` is the commit that they say they were made for,
    `prerequisites` are the patches or series that they say must come before them.
    """

    name: str
    file: str
    patches: tuple[bytes, ...]
    letter: Letter | None = None
    letters: tuple[Letter, ...] = ()
    base_commit: str | None = None
    prerequisites: tuple[str, ...] = ()

    @classmethod
    def read(cls, file: Path) -> "Series":
        """A mailbox as it is. Raises ConfigurationError for one that cannot be read."""
        try:
            return cls(file.stem, str(file), (file.read_bytes(),))
        except OSError as error:
            raise ConfigurationError(f"{file}: {error.strerror}; expected an mbox") from error

    def first(self, count: int) -> "Series":
        """The same without the patches after `count`.

        Raises ConfigurationError where it has not so many.
        """
        if not 0 < count <= (total := len(self.patches)):
            raise ConfigurationError(f"{self.name} has {total} patches, and no first {count}")
        if count == total:
            return self
        name = f"the first {count} of {total} patches of {self.name}"
        return replace(self, name=name, patches=self.patches[:count])

    @property
    def content(self) -> bytes:
        """A mailbox with all of it."""
        return b"".join(self.patches)

    @property
    def inputs(self) -> Mapping[str, str]:
        """What the cache's key is made of: the mails as they are, but for how they came."""
        return {"sha256": hashlib.sha256(_ENVELOPE.sub(b"", self.content)).hexdigest()}

    @property
    def text(self) -> str:
        return self.content.decode(errors="replace")

    @property
    def files(self) -> tuple[str, ...]:
        """The files that the patches touch, sorted; of one that is renamed both names."""
        return tuple(sorted(set(_TOUCHED.findall(self.text))))

    def does_not_apply(
        self, am: CommandError, check: Sequence[str], patch: str, conflict: Sequence[str]
    ) -> ConfigurationError:
        """Which patch, file and hunk: from what `git am` said, what `git apply --check` said of
        the patch at which it stopped, that patch, and the `git diff` of what a merge left."""
        subjects = [found["subject"] for line in am.lines if (found := _APPLYING.match(line))]
        if not subjects:
            said = next((line for line in am.lines if line.strip()), "nothing to apply")
            return ConfigurationError(
                f"{self.file} holds no patch: {said}",
                hint="expected mail as git format-patch makes",
            )
        lines = [f"{self.name}: patch {len(subjects)}, '{subjects[-1]}', does not apply:"]
        for line in check:
            if found := _FAILED.match(line):
                lines.append(f"    {found['file']}, the hunk at line {found['line']}:")
                hunk = _hunk(patch, found["file"], int(found["line"]))
                lines += [f"      | {words}" for words in hunk]
            elif found := _REASON.match(line):
                lines.append(f"    {found['reason']}")
        if conflict:
            lines.append("    a three-way merge ends in this conflict:")
            lines += [f"      {words}" for words in conflict[:_CONFLICT_SHOWN]]
        return ConfigurationError(
            "\n".join(lines), hint=f"{self.file} is made for another base, or needs a patch first"
        )


def _hunk(patch: str, file: str, line: int) -> list[str]:
    """The hunk of a file that begins at this line of the old one, or a little of it."""
    shown: list[str] = []
    here = False
    for text in patch.splitlines():
        if text.startswith("diff --git "):
            here = text.endswith(f" b/{file}")
        elif found := _HUNK.match(text):
            if shown:
                break
            if here and int(found["start"]) == line:
                shown.append(text)
        elif shown:
            shown.append(text)
    return shown[:_HUNK_SHOWN]
