# SPDX-License-Identifier: GPL-2.0-only
"""What `nightly` in lab.yaml says: what is tested each night, for how long, and who is told."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from lab.config.models import Model, shaped
from lab.errors import ConfigurationError
from lab.units import bytes_in, seconds_in


def _read_by(reader: Any) -> Any:
    def check(text: str) -> str:
        try:
            reader(text)
        except ConfigurationError as error:
            raise PydanticCustomError("amount", error.message.replace("{", "{{")) from None
        return text

    return AfterValidator(check)


Duration = Annotated[str, _read_by(seconds_in)]
Size = Annotated[str, _read_by(bytes_in)]
Address = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$")]  # of mail; a line of its header


class Drop(Model):
    """A place that series are dropped into: a folder of mboxes (or of folders with *.patch), or a
    maildir. Each is put on every one of `kernels`."""

    drop: Path
    kernels: Annotated[tuple[str, ...], Field(min_length=1)]


class Exclusion(Model):
    """Cells that are left out: those that all its patterns fit. `*` stands for anything."""

    kernel: str = "*"
    machine: str = "*"
    suite: str = "*"
    series: str = "*"

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if set(self.model_dump().values()) == {"*"}:
            raise PydanticCustomError("exclusion", "expected a pattern: this leaves out every cell")
        return self


class Keep(Model):
    """How long nights are kept: those younger than `nights` and, the newest first, as many as
    `size` has room for. Verdicts stay in the history."""

    nights: Duration = "30d"
    size: Size = "20G"


class Mail(Model):
    """Where the morning's mail goes. `via` is `file` (mail.txt in the night's folder alone),
    `sendmail`, or `smtp://HOST:PORT`; `when` is `always`, or `news` for nights that have any."""

    to: Annotated[tuple[Address, ...], Field(min_length=1)]
    sender: Address = "vfio-lab"
    via: Annotated[
        str,
        shaped(
            r"file|sendmail|smtps?://[^/\s]+", "file, sendmail, or smtp://HOST:PORT or smtps://"
        ),
    ] = "file"
    when: Literal["always", "news"] = "always"


class Nightly(Model):
    """The matrix is `kernels` x `machines` x `suites`, and the series on their kernels likewise.

    A suite that wants a machine of its own is run on that one alone. `budget` is for all of it,
    `again` how often what fails is run again on the same bits, `jobs` how many cells run at once on
    this host. `history` is the URL of a database (SQLAlchemy's), by default a file of the user's
    state; `link` is what the mail puts before a page's name.
    """

    kernels: tuple[str, ...] = ()
    series: tuple[Drop, ...] = ()
    machines: tuple[str, ...] = ()
    suites: Annotated[tuple[str, ...], Field(min_length=1)]
    exclude: tuple[Exclusion, ...] = ()
    budget: Duration = "8h"
    again: Annotated[int, Field(ge=0, le=20)] = 2
    jobs: Annotated[int, Field(ge=1)] = 1
    bisect: bool = True
    history: str | None = None
    keep: Keep = Keep()
    mail: Mail | None = None
    link: str = ""
    store: str | None = None
    """Of a fleet: the URL of a folder that all its machines see (`lab.fleet`)."""
    kvm: bool = False
    """Of a fleet: only hosts on which guests have booted with KVM run cells."""

    @property
    def seconds(self) -> float:
        """The budget."""
        return seconds_in(self.budget)
