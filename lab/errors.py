# SPDX-License-Identifier: GPL-2.0-only
"""Errors, told apart by who has to act.

| error               | who acts                | exit status             |
|---------------------|-------------------------|-------------------------|
| ConfigurationError  | the user                | 2                       |
| BuildError          | the author of the patch | 2                       |
| InfrastructureError | the owner of the lab    | 2                       |
| DriftError          | who changed the uAPI    | 2                       |
| GuestLost           | see `splat`             | 1 with a splat, else 2  |

A rule that the kernel broke is no error of the lab: it is a verdict (`lab.results`).
"""


class LabError(Exception):
    """Trouble that a person has to mend.

    `message` says what happened and where; `hint` says what to do next.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class ConfigurationError(LabError):
    """lab.yaml, an option, or a kernel fragment asks for what cannot be."""


class BuildError(LabError):
    """A kernel, an image or the agent did not compile."""


class InfrastructureError(LabError):
    """The host, its network, its disk or its QEMU failed."""


class DriftError(LabError):
    """The kernel's user-space API is not the one that the lab speaks: structures, numbers."""


class GuestLost(LabError):
    """A guest panicked, hung, or went away.

    `splat` is the kernel's own report when the console holds one: then the kernel is at
    fault. Without one, the lab or its QEMU is.
    """

    def __init__(self, message: str, *, hint: str | None = None, splat: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.splat = splat
