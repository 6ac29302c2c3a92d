# SPDX-License-Identifier: GPL-2.0-only
"""Memory: copies, accesses of a width, faults."""

import mmap
import signal

import pytest

from lab.agent.calls import close
from lab.agent.errors import RemoteFault
from lab.agent.process import Process
from lab.agent.program import Call, Imm, Load, Program, Read, Reg, Store, Write
from lab.agent.syscalls import Syscall

SEGV_MAPERR, SEGV_ACCERR, BUS_ADRERR = 1, 2, 2


def test_memory_is_written_and_read(process: Process) -> None:
    with process.mmap(8192) as memory:
        memory.write(4090, b"across a page")
        assert memory.read(4090, 13) == b"across a page"
        assert memory.read()[:4090] == bytes(4090)


def test_an_access_outside_the_mapping_is_the_test_s_own_mistake(process: Process) -> None:
    with process.mmap(4096) as memory:
        with pytest.raises(ValueError, match="not within"):
            memory.read(4090, 10)
        with pytest.raises(ValueError, match="not within"):
            memory.load(-1, 1)
    with pytest.raises(ValueError, match="unmapped"):
        memory.load(0, 1)


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_a_store_has_exactly_its_width(process: Process, width: int) -> None:
    with process.mmap(4096) as memory:
        memory.write(0, b"\xaa" * 24)
        memory.store(8, width, 0x1122334455667788)
        stored = (0x1122334455667788).to_bytes(8, "little")[:width]
        assert memory.read(0, 24) == b"\xaa" * 8 + stored + b"\xaa" * (16 - width)


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_a_load_is_unsigned_and_of_its_width(process: Process, width: int) -> None:
    with process.mmap(4096) as memory:
        memory.write(8, b"\xff" * 16)
        assert memory.load(8, width) == (1 << 8 * width) - 1


def test_addresses_and_values_may_come_from_registers(process: Process) -> None:
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    args = tuple(map(Imm, (0, 4096, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)))
    results = process.batch(
        [
            Call(Syscall.MMAP, args, register=0),
            Store(Reg(0, 8), 4, Imm(0x1234)),
            Load(Reg(0, 8), 4, register=1),
            Store(Reg(0, 16), 8, Reg(1)),
            Read(Reg(0), 24),
            Call(Syscall.MUNMAP, (Reg(0), Imm(4096))),
        ]
    )
    assert all(result.ok for result in results)
    assert results[4].data == bytes(8) + b"\x34\x12" + bytes(6) + b"\x34\x12" + bytes(6)


def test_an_access_to_unmapped_memory_is_a_result(process: Process) -> None:
    with process.mmap(8192) as memory:
        process.syscall(Syscall.MUNMAP, memory.address + 4096, 4096)
        for access in (
            Read(Imm(memory.address + 4090), 10),
            Write(Imm(memory.address + 4090), b"0123456789"),
            Load(Imm(memory.address + 4096), 4),
            Store(Imm(memory.address + 4096), 4, Imm(0)),
        ):
            result = process.batch([access])[0]
            assert result.fault
            assert result.value == -1
            assert result.fault.signal == signal.SIGSEGV
            assert result.fault.code == SEGV_MAPERR
            assert memory.address + 4096 <= result.fault.address < memory.address + 4100
        with pytest.raises(
            RemoteFault, match=f"load at 0x1000 .*SIGSEGV.*{memory.address + 4096:x}"
        ):
            memory.load(4096, 4)
    assert process.syscall(Syscall.GETPID) == process.pid


def test_a_store_to_read_only_memory_faults(process: Process) -> None:
    with process.mmap(4096, mmap.PROT_READ) as memory:
        with pytest.raises(RemoteFault) as caught:
            memory.store(0, 8, 1)
        assert caught.value.fault.code == SEGV_ACCERR
        assert memory.load(0, 8) == 0


def test_an_access_past_the_end_of_a_file_is_a_bus_error(process: Process) -> None:
    with process.memfd(8192) as file, file.mmap(8192) as memory:
        memory.store(4096, 1, 1)
        process.syscall(Syscall.FTRUNCATE, file.fd, 4096)
        with pytest.raises(RemoteFault) as caught:
            memory.load(4096, 1)
        assert caught.value.fault.signal == signal.SIGBUS
        assert caught.value.fault.code == BUS_ADRERR
        assert caught.value.fault.address == memory.address + 4096
        assert memory.load(0, 1) == 0


def test_a_fault_leaves_minus_one_in_its_register(process: Process) -> None:
    faulted, closed = process.batch([Load(Imm(0), 4, register=3), close(3)])
    assert faulted.fault
    assert not closed.ok


def test_faults_are_told_apart_by_thread(process: Process) -> None:
    threads = tuple((Load(Imm(address), 1),) for address in (0x10, 0x20, 0x30, 0x40))
    for each in process.run(Program(threads=threads, rounds=50)).rounds:
        faults = [thread[0].fault for thread in each.threads]
        assert [fault.address for fault in faults if fault] == [0x10, 0x20, 0x30, 0x40]
