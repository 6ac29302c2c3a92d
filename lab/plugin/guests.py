# SPDX-License-Identifier: GPL-2.0-only
"""Fixtures: the guest, and processes in it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from random import Random

import pytest

from lab.agent.process import Process
from lab.config import Machine
from lab.contract import Mode
from lab.errors import LabError
from lab.guest import Guest
from lab.plugin.items import machine_for, mode_of
from lab.plugin.options import SESSION
from lab.testbed import Testbed
from lab.vfio.device import Device


@pytest.fixture
def testbed(request: pytest.FixtureRequest) -> Testbed:
    """The living guest, and what the lab has in it."""
    machine = machine_for(request.config, request.node)
    try:
        return request.config.stash[SESSION].testbed(machine)
    except LabError:
        # It was tried twice: no later test will fare better.
        request.session.shouldstop = "no guest boots"
        raise


@pytest.fixture
def column(request: pytest.FixtureRequest) -> Mode | None:
    """The mode that this test belongs to, whether it takes the fixture `mode` or not."""
    return mode_of(request.node)


@pytest.fixture
def guest(testbed: Testbed) -> Guest:
    """The guest under test, seen from the host."""
    return testbed.guest


@pytest.fixture
def machine(testbed: Testbed) -> Machine:
    """The machine under test, as lab.yaml describes it: what a test may expect of it."""
    return testbed.machine


@pytest.fixture
def release(testbed: Testbed) -> tuple[int, int]:
    """Major and minor version of the kernel under test."""
    major, minor = testbed.hands.read_text("/proc/sys/kernel/osrelease").split(".")[:2]
    return int(major), int(minor.partition("-")[0])


@pytest.fixture
def devices(testbed: Testbed) -> Mapping[str, Device]:
    """The devices under test by their role in the machine."""
    return testbed.devices


@pytest.fixture
def hands(testbed: Testbed) -> Process:
    """The lab's own process in the guest: for sysfs, not for what is under test."""
    return testbed.hands


@pytest.fixture
def new_process(testbed: Testbed) -> Iterator[Callable[[], Process]]:
    """Starts processes under test, which end with the test."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(testbed.start_process())


@pytest.fixture
def dice(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Random:
    """Chance that comes again: its seed is the run's, and is noted."""
    seed = request.config.stash[SESSION].choice.seed
    record_property("seed", seed)
    return Random(seed)


@pytest.fixture
def process(new_process: Callable[[], Process]) -> Process:
    """A process under test."""
    return new_process()
