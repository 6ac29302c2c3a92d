# SPDX-License-Identifier: GPL-2.0-only
"""CON-2, CON-3 and CON-4: of two who make the same call at once one succeeds, the other is late.

Source: drivers/vfio/group.c, group_lock, and drivers/vfio/container.c, the container's own. What
is looked at before the lock is had is old by then.
"""

from collections.abc import Callable, Sequence
from errno import EINVAL

from lab.agent.calls import close, openat
from lab.agent.process import Process
from lab.agent.program import Buf, Call, Field, Imm, Program, Reg
from lab.agent.syscalls import Syscall
from lab.contract import Mode
from lab.testing import contract
from lab.vfio.device import Device
from lab.vfio.modes import CONTAINER_MODES, GROUP_MODES, IOMMU_TYPES, container_path, open_device
from lab.vfio.uapi import ContainerRequest, GroupRequest

Recorder = Callable[[str, object], None]

ROUNDS = 60
TIMEOUT = 120.0  # seconds for all rounds
GROUP, ONE, OTHER = 0, 1, 2  # registers: the group's file, and two containers'
UNSET = Call(Syscall.IOCTL, (Reg(GROUP), Imm(GroupRequest.VFIO_GROUP_UNSET_CONTAINER)))


def _set_container(register: int) -> Call:
    fd = Buf(size=4, inputs=(Field(0, 4, register),))
    return Call(Syscall.IOCTL, (Reg(GROUP), Imm(GroupRequest.VFIO_GROUP_SET_CONTAINER), fd))


def _has_one_winner(
    process: Process,
    device: Device,
    mode: Mode,
    setup: Sequence[Call],
    racers: tuple[Call, Call],
    record: Recorder,
) -> None:
    """And then the group is in one container or in none; the flow works after all rounds.

    Records how often each won, and in how many rounds both were in the kernel at once.
    """
    path = container_path(process, mode)
    program = Program(
        setup=(
            openat(device.group_path(process), GROUP),
            openat(path, ONE),
            openat(path, OTHER),
            *setup,
        ),
        threads=tuple((racer,) for racer in racers),
        teardown=(UNSET, *map(close, (GROUP, ONE, OTHER))),
        rounds=ROUNDS,
    )
    rounds = process.run(program, timeout=TIMEOUT).rounds
    for each in rounds:
        assert all(result.ok for result in each.setup)
        assert sorted(thread[0].errno for thread in each.threads) == [0, EINVAL]
        assert each.teardown[0].errno == (EINVAL if UNSET in racers else 0)
    duels = [(one[0], other[0]) for one, other in (each.threads for each in rounds)]
    record("one won", sum(one.ok for one, _ in duels))
    record("other won", sum(other.ok for _, other in duels))
    record("at once", sum(a.start_ns < b.end_ns and b.start_ns < a.end_ns for a, b in duels))
    with open_device(process, device, mode) as opened:
        opened.device.info()


@contract("CON-3", *GROUP_MODES)
def test_racing_set_containers_have_one_winner(
    process: Process, edu: Device, mode: Mode, record_property: Recorder
) -> None:
    """vfio_group_ioctl_set_container(): a group is in one container."""
    _has_one_winner(
        process, edu, mode, (), (_set_container(ONE), _set_container(OTHER)), record_property
    )


@contract("CON-4", *GROUP_MODES)
def test_racing_unset_containers_have_one_winner(
    process: Process, edu: Device, mode: Mode, record_property: Recorder
) -> None:
    """vfio_group_ioctl_unset_container(): a group leaves its container once."""
    _has_one_winner(process, edu, mode, (_set_container(ONE),), (UNSET, UNSET), record_property)


@contract("CON-2", *CONTAINER_MODES)
def test_racing_set_iommus_have_one_winner(
    process: Process, edu: Device, mode: Mode, record_property: Recorder
) -> None:
    """vfio_ioctl_set_iommu(): a container sets its IOMMU once."""
    request = Imm(ContainerRequest.VFIO_SET_IOMMU), Imm(IOMMU_TYPES[mode])
    set_iommu = Call(Syscall.IOCTL, (Reg(ONE), *request))
    _has_one_winner(
        process, edu, mode, (_set_container(ONE),), (set_iommu, set_iommu), record_property
    )
