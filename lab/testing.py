# SPDX-License-Identifier: GPL-2.0-only
"""What a test says: which rule it checks, what it expects, and why it cannot be run."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest
from _pytest.outcomes import Skipped  # pytest.skip.Exception, for those who check types

from lab.agent.errors import RemoteError
from lab.contract import Mode

Test = TypeVar("Test", bound=Callable[..., object])


def contract(rule: str, *modes: Mode) -> Callable[[Test], Test]:
    """Mark a test with the rule that it checks.

    `modes` are those in which it makes sense; none given means all in which the rule applies. A
    test that takes the fixture `mode` runs once in each of them; one that does not, and names a
    single mode, belongs to that column of the table.
    """
    mark: Callable[[Test], Test] = pytest.mark.contract(rule, *modes)
    return mark


def on_machine(name: str) -> Callable[[Test], Test]:
    """Mark a test that needs a certain machine of lab.yaml.

    It gets a guest there, whatever machine the run's other tests have. Where the run was given a
    machine with `--machine`, and another one, it does not apply.
    """
    mark: Callable[[Test], Test] = pytest.mark.on_machine(name)
    return mark


class NotApplicable(Skipped):
    """This mode, kernel or machine has no such thing: nothing is missing from the run."""


def not_applicable(reason: str) -> NotApplicable:
    """To be raised where there is nothing to test."""
    return NotApplicable(reason)


def lacking(capability: str) -> Skipped:
    """To be raised where a capability is missing that another host or QEMU would have."""
    return Skipped(f"needs {capability}")


@contextmanager
def raises_errno(*expected: int) -> Iterator[None]:
    """The block's system call must fail, with one of these errnos."""
    wanted = " or ".join(errno.errorcode[number] for number in expected)
    try:
        yield
    except RemoteError as error:
        got = errno.errorcode.get(error.errno or 0, str(error.errno))
        if error.errno not in expected:
            pytest.fail(f"{error.call}: expected {wanted}, got {got}")
    else:
        pytest.fail(f"expected {wanted}, but the call succeeded", pytrace=True)
