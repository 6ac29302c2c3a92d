# SPDX-License-Identifier: GPL-2.0-only
"""Each case on its own: a program that dies, or takes the kernel with it, loses this case only."""

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import pytest

from lab.agent.process import Process
from lab.deadline import Deadline
from lab.expected import Announced
from lab.guest import Guest
from lab.programs import run as running
from lab.programs.ktap import Outcome
from lab.programs.run import TimedOut
from lab.programs.selftests import TIMEOUT, Case, judge, said
from lab.testing import lacking, not_applicable
from lab.vfio.device import Device


@dataclass(frozen=True)
class Newer:
    """What programs of a newer tree check that kernels owe only from a version on."""

    program: str
    cases: str  # a pattern of names
    since: tuple[int, int]
    reason: str

    def explains(self, case: Case, release: tuple[int, int]) -> bool:
        found = case.program.name == self.program and re.search(self.cases, case.name)
        return bool(found) and release < self.since


NEWER = (
    Newer(
        "vfio_pci_sriov_uapi_test",
        r"\.iommufd_(same|diff|null)_uuid\.",
        (6, 17),
        "VFIO_DEVICE_BIND_IOMMUFD takes a token from 6.17 on",
    ),
    Newer(
        "vfio_dma_mapping_test",
        r"\.vfio_type1(v2)?_iommu\.overflow$",
        (6, 18),
        "type1 says EOVERFLOW from 6.18 on, and EINVAL before",
    ),
)

# vfio_pci_driver_test.c: these let the device reach for what is not mapped.
_BLOCKED = re.compile(r"\.(?:memcpy_(?:from|to)_unmapped_iova|mix_and_match)$")
_SECONDS = TIMEOUT + 30.0  # the harness ends a case before that
_SLOW_SECONDS = 900.0


def _blocked_dma(
    case: Case, devices: Mapping[str, Device], expected: Announced
) -> AbstractContextManager[object]:
    """What a case that provokes it announces, for it cannot itself."""
    provokes = case.needs_device and _BLOCKED.search(case.name or "")
    return expected.dma_faults(devices["igb0"]) if provokes else nullcontext()


def test_case(
    case: Case,
    guest: Guest,
    expected: Announced,
    hands: Process,
    devices: Mapping[str, Device],
    release: tuple[int, int],
    request: pytest.FixtureRequest,
) -> None:
    """tools/testing/selftests/kselftest_harness.h: test_harness_run()."""
    if case.missing:
        raise lacking(case.missing)
    argv = [running.push(guest, hands, case.program)]
    argv += ["-r", case.name] if case.name else []
    if case.needs_device:
        if "igb0" not in devices:
            raise lacking("a device igb0, which QEMU has from 8.0 on")
        argv.append(devices["igb0"].address)
    slow = request.node.get_closest_marker("slow")
    deadline = Deadline.after(_SLOW_SECONDS if slow else _SECONDS)
    try:
        with _blocked_dma(case, devices, expected):
            ended = running.run(guest, argv, deadline)
    except TimedOut as error:
        pytest.fail(f"{error}\n{said(error.output)}", pytrace=False)
    outcome, why = judge(case, ended)
    if outcome is Outcome.SKIPPED:
        pytest.skip(why)
    if outcome is Outcome.FAILED:
        # Only now: stable kernels get backports.
        for newer in NEWER:
            if newer.explains(case, release):
                raise not_applicable(newer.reason)
        pytest.fail(why, pytrace=False)
