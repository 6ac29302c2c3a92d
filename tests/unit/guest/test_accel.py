# SPDX-License-Identifier: GPL-2.0-only
"""KVM is believed in where a guest has booted with it."""

import os
import platform
from dataclasses import replace
from pathlib import Path

import pytest

from lab.cache import Cache
from lab.guest import Accelerator, AcceleratorMemory, Qemu, accel

KVM, TCG = Accelerator.KVM, Accelerator.TCG


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /dev/kvm that can be opened."""
    path = tmp_path / "kvm"
    path.touch()
    monkeypatch.setattr(accel, "KVM_NODE", path)
    return path


@pytest.fixture
def memory(cache: Cache, qemu: Qemu, node: Path) -> AcceleratorMemory:
    assert node.exists()
    return AcceleratorMemory(cache, qemu)


def test_a_node_says_nothing_so_kvm_is_tried_and_tcg_is_at_hand(memory: AcceleratorMemory) -> None:
    assert memory.known() is None
    assert memory.candidates() == [KVM, TCG]


def test_what_a_guest_learnt_is_not_tried_again(memory: AcceleratorMemory) -> None:
    memory.learn(kvm=False, why="internal-error")
    assert memory.candidates() == [TCG]
    assert memory.known() == {"kvm": False, "why": "internal-error"}


def test_where_kvm_worked_its_failure_is_not_hidden_by_tcg(memory: AcceleratorMemory) -> None:
    memory.learn(kvm=True, why="a guest booted")
    assert memory.candidates() == [KVM]


def test_another_session_remembers(memory: AcceleratorMemory, cache: Cache, qemu: Qemu) -> None:
    memory.learn(kvm=False, why="internal-error")
    assert AcceleratorMemory(cache, qemu).candidates() == [TCG]


def test_another_qemu_tries_anew(memory: AcceleratorMemory, cache: Cache, qemu: Qemu) -> None:
    memory.learn(kvm=False, why="internal-error")
    newer = replace(qemu, description="QEMU emulator version 11.1.0")
    assert AcceleratorMemory(cache, newer).candidates() == [KVM, TCG]


def test_another_host_kernel_tries_anew(
    memory: AcceleratorMemory, cache: Cache, qemu: Qemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.learn(kvm=False, why="internal-error")
    monkeypatch.setattr(platform, "release", lambda: "7.3.0")
    assert AcceleratorMemory(cache, qemu).candidates() == [KVM, TCG]


def test_what_is_forgotten_is_tried_anew(memory: AcceleratorMemory) -> None:
    memory.learn(kvm=False, why="internal-error")
    memory.forget()
    assert memory.candidates() == [KVM, TCG]
    memory.forget()


def test_without_a_node_there_is_nothing_to_try(memory: AcceleratorMemory, node: Path) -> None:
    node.unlink()
    assert accel.kvm_obstacle() == f"{node} does not exist"
    assert memory.candidates() == [TCG]


def test_a_node_of_others_is_an_obstacle(
    memory: AcceleratorMemory, node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert accel.kvm_obstacle() == f"{node} may not be opened by this user"
    assert memory.candidates() == [TCG]
