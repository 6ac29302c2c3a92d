# SPDX-License-Identifier: GPL-2.0-only
"""What goes wrong in a remote process, told apart by whose answer it is.

A failed system call raises RemoteError, which is an OSError; a faulting access raises
RemoteFault. Both are the kernel's answer, and the process goes on. AgentDied and AgentTimeout
mean that there is no process any more; AgentRefused that the lab asked for nonsense.
"""

import errno
import os
import signal

from lab.agent.program import Fault, Result
from lab.errors import LabError


class RemoteError(OSError):
    """A system call in the guest failed; `errno` is what it failed with."""

    def __init__(self, number: int, call: str) -> None:
        self.call = call
        name = errno.errorcode.get(number, f"errno {number}")
        super().__init__(number, f"{call}: {os.strerror(number)} ({name})")


class RemoteFault(Exception):
    """A memory access in the guest raised a signal, SIGSEGV or SIGBUS."""

    def __init__(self, fault: Fault, what: str) -> None:
        name = signal.Signals(fault.signal).name
        super().__init__(f"{what}: {name}, si_code {fault.code}, address {fault.address:#x}")
        self.fault = fault


class AgentDied(LabError):
    """The agent, or the channel to it, is gone: killed by the test, by the guest, or with it."""


class AgentTimeout(LabError):
    """The agent did not answer in time. The channel is closed: the process is gone."""


class AgentRefused(LabError):
    """The agent found a program malformed and ran nothing of it."""


def check(result: Result, what: str) -> Result:
    """The same result, unless it is a failure: raises RemoteError or RemoteFault then."""
    if result.fault:
        raise RemoteFault(result.fault, what)
    if result.errno:
        raise RemoteError(result.errno, what)
    return result
