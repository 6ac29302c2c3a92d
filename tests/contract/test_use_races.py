# SPDX-License-Identifier: GPL-2.0-only
"""LIFE-4, REG-2: use of a device that races with its close, with its driver's unbind, with itself.

Source: drivers/vfio/vfio_main.c, vfio_device_fops_release() and vfio_unregister_group_dev(). One
side's start wanders from before the other's to after it, so that each comes first in some rounds;
that it did is counted, and a race that none side or only one has won fails. Nothing is random: a
run's rounds are every run's.
"""

from collections.abc import Callable, Sequence
from errno import EBADF, EBUSY, EEXIST, EINVAL, EIO, ENODEV, ENOENT, ENXIO

from lab.agent.calls import close, write_file
from lab.agent.process import Process
from lab.agent.program import (
    BARRIER_SIZE,
    Buf,
    Call,
    Delay,
    Imm,
    Load,
    Op,
    Program,
    Reg,
    Result,
    Store,
)
from lab.agent.race import run_together, shared_mapping
from lab.agent.syscalls import Syscall
from lab.contract import Mode
from lab.expected import Announced
from lab.testing import contract
from lab.vfio.device import Device
from lab.vfio.edu import BUFFER, BUFFER_SIZE, Command, Register, edu_of
from lab.vfio.modes import open_device
from lab.vfio.steps import Place, closes, info, map_bar, unmap_bar, way_back, way_in
from lab.vfio.uapi import PCI_COMMAND, PciCommand, VfioIommuType1DmaUnmap

IOVA = 0x10_0000
TIMEOUT = 120.0  # seconds for all rounds
MICROSECOND = 1_000  # nanoseconds
BAR, CONFIG = 0 << 40, 7 << 40  # where the file has each: VFIO_PCI_INDEX_TO_OFFSET()

Recorder = Callable[[str, object], None]


def _report(record: Recorder, wins: Sequence[bool], names: tuple[str, str]) -> None:
    """Who came first how often; both must have."""
    record("rounds", len(wins))
    record(f"{names[0]} first", sum(wins))
    record(f"{names[1]} first", len(wins) - sum(wins))
    assert 0 < sum(wins) < len(wins), f"always the same came first, of {names}"


def _is_as_before(process: Process, device: Device, mode: Mode) -> None:
    with open_device(process, device, mode) as opened, edu_of(opened.device) as registers:
        assert registers.inverted(0) == 0xFFFF_FFFF


@contract("LIFE-4")
def test_close_races_with_every_use(
    process: Process, edu: Device, mode: Mode, record_property: Recorder
) -> None:
    """A file is in use until the last call on it has ended: success, or EBADF after the close."""
    rounds = 40
    read = Call(Syscall.PREAD64, (Reg(Place.DEVICE), Buf(size=4), Imm(4), Imm(CONFIG)))
    with process.mmap(process.page_size) as page:
        steps = way_in(process, edu, mode, IOVA, page)
        program = Program(
            setup=tuple(step.call for step in steps),
            threads=(
                (Delay(0, 1200 * MICROSECOND // rounds), close(Place.DEVICE)),
                (Delay(400 * MICROSECOND), info(), read, map_bar(process), Load(Reg(Place.BAR), 4)),
            ),
            teardown=(unmap_bar(process), *closes()),
            rounds=rounds,
        )
        results = process.run(program, timeout=TIMEOUT).rounds
    first = []
    for each in results:
        assert all(result.ok for result in each.setup)
        (_, closed), (_, *uses, _) = each.threads
        assert closed.ok
        assert {use.errno for use in uses} <= {0, EBADF}
        errnos = [use.errno for use in uses]
        assert errnos == sorted(errnos), "a call on a closed file succeeded"
        first.append(errnos[0] == EBADF)
    _is_as_before(process, edu, mode)
    _report(record_property, first, ("close", "use"))


def _driver(device: Device, name: str, driver: str) -> tuple[Call, ...]:
    """A write of the device's address to a file of a driver, or of the bus."""
    path = f"/sys/bus/pci/{driver}{name}"
    return write_file(path, device.address.encode(), register=Place.FREE)


@contract("LIFE-4")
def test_unbind_races_with_the_whole_flow(
    new_process: Callable[[], Process],
    hands: Process,
    edu: Device,
    mode: Mode,
    record_property: Recorder,
) -> None:
    """Either the flow comes through, and the driver waits for its close, or it finds no device at
    one of its steps. The driver is taken off and bound in each round."""
    rounds = 30
    user, operator = new_process(), new_process()
    unbind = _driver(edu, "/unbind", "drivers/vfio-pci")
    with (
        shared_mapping(user, operator, BARRIER_SIZE) as (barrier, same),
        user.mmap(user.page_size) as page,
    ):
        steps = [step.call for step in way_in(user, edu, mode, IOVA, page)]
        flow: tuple[Op, ...] = (Delay(1000 * MICROSECOND), *steps, info(), *closes())
        off: tuple[Op, ...] = (Delay(0, 6000 * MICROSECOND // rounds), *unbind)
        used, unbound = run_together(
            [
                (user, Program((), (flow,), (), rounds, barrier.address, 2)),
                (
                    operator,
                    Program((), (off,), _driver(edu, "_probe", "drivers"), rounds, same.address, 2),
                ),
            ],
            timeout=TIMEOUT,
        )
    first = []
    for use, off_again in zip(used.rounds, unbound.rounds, strict=True):
        assert all(result.ok for result in (*off_again.threads[0], *off_again.teardown))
        calls = use.threads[0][1 : len(steps) + 2]
        failed = next((result.errno for result in calls if not result.ok), 0)
        assert failed in {0, ENOENT, ENXIO, ENODEV, EINVAL}
        first.append(failed == 0)
    _is_as_before(user, edu, mode)
    assert edu.driver(hands) == "vfio-pci"
    _report(record_property, first, ("flow", "unbind"))


def _removed(unmap: Result) -> int:
    """Bytes, of either flow's request; nothing where there was none."""
    return VfioIommuType1DmaUnmap.from_buffer_copy(unmap.data).size if unmap.ok else 0


@contract("LIFE-4")
def test_map_races_with_unmap_and_dma(
    expected: Announced, process: Process, edu: Device, mode: Mode, record_property: Recorder
) -> None:
    """No mapping is lost and none is unmapped twice, while the device writes there or tries to.

    At first both go as fast as they can. Then one side is quicker, and then the other one, so that
    each finds the other's work not done.
    """
    rounds, tight = 100, 1000
    quick, slow = Delay(500 * MICROSECOND), Delay(1500 * MICROSECOND)
    words = (
        (Register.SOURCE, BUFFER),
        (Register.DESTINATION, IOVA),
        (Register.COUNT, BUFFER_SIZE - 1),
        (Register.COMMAND, Command.RUN | Command.TO_MEMORY),
    )
    dma = tuple(Store(Reg(Place.BAR, place), 8, Imm(value)) for place, value in words)
    command = (PciCommand.MASTER | PciCommand.MEMORY).to_bytes(2, "little")
    place = Buf(command, returned=False), Imm(len(command)), Imm(CONFIG + PCI_COMMAND)
    with process.mmap(process.page_size) as page:
        *steps, last = (step.call for step in way_in(process, edu, mode, IOVA, page))
        unmap = way_back(mode, IOVA, page.length)[0].call
        map_ = last if mode is Mode.IOMMUFD else steps[-1]
        mapper = (map_,) * tight + (quick, map_) * rounds + (slow, map_) * rounds
        unmapper = (unmap,) * tight + (slow, unmap) * rounds + (quick, unmap) * rounds
        program = Program(
            setup=(
                *steps,
                last,
                unmap,
                Call(Syscall.PWRITE64, (Reg(Place.DEVICE), *place)),
                map_bar(process),
            ),
            threads=(mapper, unmapper, dma),
            teardown=(unmap, unmap_bar(process), *closes()),
        )
        with expected.dma_faults(edu, perhaps=True):
            (result,) = process.run(program, timeout=TIMEOUT).rounds
    assert all(each.ok for each in result.setup)
    maps, unmaps = (
        [each for op, each in zip(ops, results, strict=True) if isinstance(op, Call)]
        for ops, results in zip((mapper, unmapper), result.threads, strict=False)
    )
    assert {each.errno for each in maps} == {0, EEXIST}, "the map never came second"
    # EBUSY: iopt_unmap_iova_range() has found a mapping that is still being made.
    assert {each.errno for each in unmaps} <= {0, ENOENT, EBUSY}
    removed = [_removed(each) for each in (*unmaps, result.teardown[0])]
    assert set(removed) <= {0, page.length}
    assert sum(removed) == page.length * sum(each.ok for each in maps)
    assert 0 in removed[:-1], "the unmap never came first"
    record_property("mapped", sum(each.ok for each in maps))
    record_property("unmap found none", removed[:-1].count(0))
    record_property("map found one", sum(not each.ok for each in maps))
    _is_as_before(process, edu, mode)


@contract("LIFE-4", Mode.IOMMUFD)
def test_attach_races_with_detach(process: Process, edu: Device) -> None:
    """device_cdev.c: vfio_df_ioctl_attach_pt() and its counterpart under dev_set->lock. Both may be
    repeated, so each succeeds, whoever has attached the device or detached it before."""
    rounds, repeats = 10, 5
    with process.mmap(process.page_size) as page:
        *steps, attach, _ = (step.call for step in way_in(process, edu, Mode.IOMMUFD, IOVA, page))
        detach = way_back(Mode.IOMMUFD, IOVA, page.length)[1].call
        both = (attach, detach) * repeats
        program = Program(
            setup=tuple(steps), threads=(both, both), teardown=closes(), rounds=rounds
        )
        results = process.run(program, timeout=TIMEOUT).rounds
    for each in results:
        assert all(result.ok for thread in (each.setup, *each.threads) for result in thread)
    _is_as_before(process, edu, Mode.IOMMUFD)


@contract("LIFE-4")
def test_unmap_races_with_unmap(
    process: Process, edu: Device, mode: Mode, record_property: Recorder
) -> None:
    """Of two that want the same mapping one removes it, whole, and the other finds none."""
    rounds = 100
    with process.mmap(process.page_size * 16) as pages:
        *steps, last = (step.call for step in way_in(process, edu, mode, IOVA, pages))
        unmap = way_back(mode, IOVA, pages.length)[0].call
        program = Program(
            setup=(*steps, last), threads=((unmap,), (unmap,)), teardown=closes(), rounds=rounds
        )
        results = process.run(program, timeout=TIMEOUT).rounds
    first = []
    for each in results:
        assert all(result.ok for result in each.setup)
        unmaps = [thread[0] for thread in each.threads]
        assert {unmap.errno for unmap in unmaps} <= {0, ENOENT, EBUSY}
        removed = [_removed(unmap) for unmap in unmaps]
        assert sorted(removed) == [0, pages.length]
        first.append(removed[0] > 0)
    record_property("rounds", rounds)
    record_property("the first thread removed it", sum(first))
    _is_as_before(process, edu, mode)


@contract("REG-2")
def test_reads_race_with_decoding_that_goes_off(
    process: Process, edu: Device, mode: Mode, record_property: Recorder
) -> None:
    """Each word of a read is looked at under memory_lock, which a write of the command register
    holds (vfio_pci_rdwr.c, vfio_pci_config.c): a read is whole, or EIO."""
    reads, turns, words = 1500, 200, 16
    decoding = PciCommand.MEMORY | PciCommand.IO
    read = Call(
        Syscall.PREAD64,
        (Reg(Place.DEVICE), Buf(size=8 * words), Imm(8 * words), Imm(BAR + Register.SOURCE)),
    )

    def command(value: int) -> Call:
        place = Buf(value.to_bytes(2, "little"), returned=False), Imm(2), Imm(CONFIG + PCI_COMMAND)
        return Call(Syscall.PWRITE64, (Reg(Place.DEVICE), *place))

    turn = (command(0), Delay(200 * MICROSECOND), command(decoding), Delay(400 * MICROSECOND))
    with process.mmap(process.page_size) as page:
        program = Program(
            setup=(
                *(step.call for step in way_in(process, edu, mode, IOVA, page)),
                command(decoding),
                read,
            ),
            # An error is quick: without delays all reads fit into one turn of a late writer.
            threads=((read, Delay(80 * MICROSECOND)) * reads, turn * turns),
            teardown=(read, *closes()),
        )
        (result,) = process.run(program, timeout=TIMEOUT).rounds
    before, found, after = result.setup[-1], result.threads[0][::2], result.teardown[0]
    assert all(each.ok for each in (*result.setup, *result.threads[1], after))
    assert {each.errno for each in found} <= {0, EIO}
    assert {each.data for each in (*found, after) if each.ok} == {before.data}
    record_property("came through", sum(each.ok for each in found))
    record_property("found decoding off", sum(not each.ok for each in found))
    assert len({each.ok for each in found}) == 2, "always the same came first"
