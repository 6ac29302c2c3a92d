# SPDX-License-Identifier: GPL-2.0-only
"""Parameters of the guest's kernel modules, built in or not."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from lab.agent.process import Process


def parameter(module: str, name: str) -> str:
    """The file of a module's parameter; it is there while the kernel has the module."""
    return f"/sys/module/{module}/parameters/{name}"


def turned_on(process: Process, path: str) -> AbstractContextManager[None]:
    """A yes-or-no parameter is Y for as long as the block lasts. Raises RemoteError."""
    return set_to(process, path, "Y")


@contextmanager
def set_to(process: Process, path: str, value: str) -> Iterator[None]:
    """A parameter has another value for as long as the block lasts. Raises RemoteError."""
    before = process.read_text(path)
    process.write_text(path, f"{value}\n")
    try:
        yield
    finally:
        process.write_text(path, before)
