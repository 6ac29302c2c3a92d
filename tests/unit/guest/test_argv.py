# SPDX-License-Identifier: GPL-2.0-only
"""From a machine in neutral words to QEMU's."""

import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from lab.config import Device, DeviceModel, Iommu, Machine
from lab.errors import ConfigurationError, InfrastructureError
from lab.guest import COMMAND_LINE, Accelerator, Boot, Qemu
from lab.guest.argv import INITRAMFS, arguments, check, present, script
from lab.guest.keys import ARCHIVE

EDU = Device(model=DeviceModel.EDU)
PORT = Device(model=DeviceModel.ROOT_PORT)
BRIDGE = Device(model=DeviceModel.PCI_BRIDGE)


def plugged(device: Device, bus: str) -> Device:
    return device.model_copy(update={"bus": bus})


def optional(device: Device) -> Device:
    return device.model_copy(update={"optional": True})


def order(devices: Mapping[str, Device] | None = None, iommu: Iommu | None = None) -> Boot:
    machine = Machine(memory="512M", cpus=3, iommu=iommu, devices=dict(devices or {}))
    return Boot(machine, Path("/kernel/bzImage"), Path("/image/initramfs"))


def argv(boot: Boot, qemu: Qemu, accelerator: Accelerator = Accelerator.TCG) -> list[str]:
    return arguments(boot, qemu, accelerator)


def values(words: list[str], option: str) -> list[str]:
    """What stands behind each use of an option."""
    return [words[index + 1] for index, word in enumerate(words) if word == option]


def devices(words: list[str]) -> dict[str, str]:
    """QEMU's words for each device that has an id."""
    found = (word for word in values(words, "-device") if ",id=" in word)
    return {word.split(",id=")[1].split(",")[0]: word for word in found}


def without(qemu: Qemu, *models: str) -> Qemu:
    return replace(qemu, devices=qemu.devices - set(models))


def test_the_machine_is_what_lab_yaml_says(qemu: Qemu) -> None:
    words = argv(order(), qemu)
    assert values(words, "-m") == ["512M"]
    assert values(words, "-smp") == ["3"]
    assert values(words, "-kernel") == ["/kernel/bzImage"]
    assert values(words, "-initrd") == [INITRAMFS]
    assert values(words, "-append")[0].startswith(" ".join(COMMAND_LINE))


def test_the_machines_words_for_the_kernel_come_after_the_labs(qemu: Qemu) -> None:
    boot = order()
    machine = boot.machine.model_copy(update={"command_line": ("loglevel=5", "hugepages=1")})
    (line,) = values(argv(replace(boot, machine=machine), qemu), "-append")
    assert line.startswith(" ".join((*COMMAND_LINE, "loglevel=5", "hugepages=1")))


def test_a_panic_ends_the_guest(qemu: Qemu) -> None:
    words = argv(order(), qemu)
    assert "-no-reboot" in words
    assert "pvpanic" in values(words, "-device")
    assert {"panic=-1", "oops=panic"} <= set(values(words, "-append")[0].split())


def test_a_machine_without_iommu_has_none(qemu: Qemu) -> None:
    words = argv(order({"edu0": EDU}), qemu)
    assert not [word for word in words if "iommu" in word]
    assert "-trace" not in words


def test_the_iommu_stands_before_every_device_of_the_machine(qemu: Qemu) -> None:
    words = values(argv(order({"edu0": EDU, "port0": PORT}, Iommu()), qemu), "-device")
    place = words.index("intel-iommu,intremap=on,caching-mode=on,aw-bits=48,eim=on")
    assert all(words.index(word) > place for word in words if ",id=" in word)


def test_the_iommus_knobs_are_turned(qemu: Qemu) -> None:
    iommu = Iommu(interrupt_remapping=False, caching_mode=False, address_width=39)
    words = values(argv(order(iommu=iommu), qemu), "-device")
    assert "intel-iommu,intremap=off,caching-mode=off,aw-bits=39" in words


@pytest.mark.parametrize(
    ("version", "properties", "scalable", "first_stage"),
    [
        ("10.0", {"x-scalable-mode", "x-flts"}, "x-scalable-mode=on", "x-flts=on"),
        ("11.1", {"scalable-mode", "fsts", "svm"}, "scalable-mode=on", "fsts=on"),
    ],
)
def test_a_knob_has_the_name_of_this_qemu(
    qemu: Qemu, version: str, properties: set[str], scalable: str, first_stage: str
) -> None:
    other = replace(qemu, description=version, iommu_properties=frozenset(properties))
    plain = values(argv(order(iommu=Iommu(scalable=True)), other), "-device")
    assert f"intel-iommu,intremap=on,caching-mode=on,aw-bits=48,eim=on,{scalable}" in plain
    both = values(argv(order(iommu=Iommu(scalable=True, first_stage=True)), other), "-device")
    assert any(word.endswith(f",{scalable},{first_stage}") for word in both)


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        (set(), r"iommu\.scalable: QEMU .* has no scalable mode\n.*--qemu"),
        ({"x-scalable-mode"}, r"iommu\.first_stage: QEMU .* has no first stage"),
    ],
)
def test_a_knob_that_this_qemu_lacks_is_one_message(
    qemu: Qemu, properties: set[str], message: str
) -> None:
    old = replace(qemu, iommu_properties=frozenset(properties))
    boot = order(iommu=Iommu(scalable=True, first_stage=True))
    for ask in (lambda: argv(boot, old), lambda: check(boot.machine, old)):
        with pytest.raises(ConfigurationError, match=message):
            ask()


def test_a_machine_that_this_qemu_can_do_passes_the_check(qemu: Qemu) -> None:
    check(order({"edu0": EDU}, Iommu(scalable=True, first_stage=True)).machine, qemu)


def test_devices_keep_their_order_roles_and_buses(qemu: Qemu) -> None:
    nic = plugged(Device(model=DeviceModel.E1000), "bridge0")
    boot = order(
        {"edu0": EDU, "port0": PORT, "bridge0": plugged(BRIDGE, "port0"), "nic0": nic}, Iommu()
    )
    found = devices(argv(boot, qemu))
    assert list(found) == ["edu0", "port0", "bridge0", "nic0", "lab-net"]
    assert found["bridge0"] == "pcie-pci-bridge,id=bridge0,bus=port0"
    assert found["nic0"] == "e1000,id=nic0,bus=bridge0,addr=1,romfile="


def test_a_random_number_generator_is_translated_for(qemu: Qemu) -> None:
    has = replace(qemu, devices=qemu.devices | {"virtio-rng-pci"})
    found = devices(argv(order({"rng0": Device(model=DeviceModel.RNG)}), has))
    assert found["rng0"] == "virtio-rng-pci,id=rng0,iommu_platform=on,disable-legacy=on"


def test_an_edu_reaches_all_addresses(qemu: Qemu) -> None:
    assert devices(argv(order({"edu0": EDU}), qemu))["edu0"].endswith("dma_mask=0xffffffffffffffff")


def test_every_root_port_has_a_slot_of_its_own(qemu: Qemu) -> None:
    found = devices(argv(order({"edu0": EDU, "a": PORT, "b": PORT}), qemu))
    assert found["a"] == "pcie-root-port,id=a,chassis=2,slot=2"
    assert found["b"] == "pcie-root-port,id=b,chassis=3,slot=3"


def test_the_labs_own_card_moves_no_device_and_reaches_no_network(qemu: Qemu) -> None:
    words = argv(order({"edu0": EDU}), qemu)
    assert list(devices(words))[-1] == "lab-net"
    assert values(words, "-netdev") == ["user,id=lab,restrict=on,hostfwd=tcp:127.0.0.1:0-:22"]


def test_qemu_filters_its_own_system_calls_where_it_can(qemu: Qemu) -> None:
    (confined,) = values(argv(order(), qemu), "-sandbox")
    assert confined.startswith("on,")
    assert "spawn=deny" in confined
    assert "-sandbox" not in argv(order(), replace(qemu, unconfined="built without"))
    asked = replace(order(), extra=("-sandbox", "off"))
    assert values(argv(asked, qemu), "-sandbox") == ["off"]


def test_the_users_words_come_last(qemu: Qemu) -> None:
    boot = replace(order(), extra=("-m", "2G"))
    assert argv(boot, qemu)[-2:] == ["-m", "2G"]


def test_kvm_splits_the_interrupt_controller_and_tcg_uses_all_cpus(qemu: Qemu) -> None:
    kvm = argv(order(), qemu, Accelerator.KVM)
    assert values(kvm, "-machine") == ["q35,kernel-irqchip=split"]
    assert values(kvm, "-accel") == ["kvm"]
    assert values(kvm, "-append") == [" ".join(COMMAND_LINE)]
    assert values(argv(order(), qemu), "-accel") == ["tcg,thread=multi"]


def test_a_missing_optional_device_is_left_out(qemu: Qemu) -> None:
    igb = optional(Device(model=DeviceModel.IGB))
    machine = order({"edu0": EDU, "igb0": igb}).machine
    assert list(present(machine, qemu)) == ["edu0", "igb0"]
    assert list(present(machine, without(qemu, "igb"))) == ["edu0"]


def test_what_is_plugged_into_a_missing_device_is_left_out_too(qemu: Qemu) -> None:
    machine = order(
        {
            "port0": optional(PORT),
            "bridge0": plugged(BRIDGE, "port0"),
            "child": plugged(EDU, "port0"),
            "grandchild": plugged(EDU, "bridge0"),
            "edu0": EDU,
        }
    ).machine
    assert list(present(machine, without(qemu, "pcie-root-port"))) == ["edu0"]


def test_a_missing_device_that_is_not_optional_is_one_message(qemu: Qemu) -> None:
    machine = order({"nic0": Device(model=DeviceModel.IGB)}).machine
    with pytest.raises(InfrastructureError, match=r"device nic0: QEMU .* has no igb\n.*--qemu"):
        present(machine, without(qemu, "igb"))


@pytest.fixture
def by_hand(tmp_path: Path) -> Path:
    """A guest's folder, with a QEMU that prints one argument a line."""
    program = tmp_path / "a qemu"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    (tmp_path / ARCHIVE).write_text("keys ")
    (tmp_path / "the image").write_text("image")
    return tmp_path


def test_by_hand_qemu_gets_the_same_words(by_hand: Path) -> None:
    words = ["-append", "console=ttyS0 'panic'=$HOME `id`", "-device", "edu,id=edu0", "-nodefaults"]
    (by_hand / "qemu.sh").write_text(
        script([str(by_hand / "a qemu"), *words], by_hand / "the image")
    )
    done = subprocess.run(
        ["sh", by_hand / "qemu.sh", "-s", "one more"],
        cwd="/", capture_output=True, text=True, check=True,
    )  # fmt: skip
    own = ["-qmp", "unix:qmp.sock,server=on,wait=off", "-s", "one more"]
    assert done.stdout.splitlines() == [*words, *own]


def test_by_hand_the_initramfs_is_made_anew(by_hand: Path) -> None:
    (by_hand / "qemu.sh").write_text(script([str(by_hand / "a qemu")], by_hand / "the image"))
    subprocess.run(["sh", by_hand / "qemu.sh"], check=True, stdout=subprocess.DEVNULL)
    assert (by_hand / INITRAMFS).read_text() == "keys image"


def test_by_hand_nothing_starts_without_the_image(by_hand: Path) -> None:
    (by_hand / "qemu.sh").write_text(script([str(by_hand / "a qemu"), "-x"], by_hand / "gone"))
    done = subprocess.run(["sh", by_hand / "qemu.sh"], check=False, capture_output=True)
    assert done.returncode != 0
    assert done.stdout == b""
