# SPDX-License-Identifier: GPL-2.0-only
"""LIFE-1 where the driver is a module: what is open holds it, and what was closed lets it go.

Source: drivers/vfio/vfio_main.c, vfio_df_device_first_open() takes the driver's module;
drivers/vfio/container.c, vfio_ioctl_set_iommu() takes type1's; the files' own is their fops'.
kernel/module/main.c, delete_module(2): EAGAIN while a module is held.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from errno import EAGAIN, EEXIST, ENODEV
from os import O_NONBLOCK, O_RDONLY

import pytest

from lab.agent.calls import path_bytes
from lab.agent.errors import RemoteError
from lab.agent.process import Process
from lab.agent.program import Buf, Call, Imm, Program
from lab.agent.syscalls import Syscall
from lab.contract import Mode
from lab.kernel.modules import dependencies, name_of
from lab.testing import contract, not_applicable, raises_errno
from lab.vfio.device import CDEVS, Device
from lab.vfio.edu import edu_of
from lab.vfio.files import Container, Iommufd
from lab.vfio.modes import (
    CONTAINER_MODES,
    IOMMU_TYPES,
    container_path,
    open_container,
    open_device,
)

DRIVER, TYPE1, CORE, IOMMUFD = "vfio_pci", "vfio_iommu_type1", "vfio", "iommufd"
UNLOADING_TAKES = 30.0  # seconds at the most: it unbinds every device


@dataclass(frozen=True)
class Modules:
    """The modules of VFIO in a guest, each with the file that it comes from."""

    hands: Process
    files: dict[str, str]
    """By name, in the order in which they can be loaded."""

    @classmethod
    def of(cls, hands: Process) -> "Modules":
        folder = f"/lib/modules/{hands.read_text('/proc/sys/kernel/osrelease').strip()}"
        depends = dependencies(hands.read_text(f"{folder}/modules.dep"))
        paths = {name_of(path): path for path in depends}
        wanted = [paths[name] for name in (DRIVER, TYPE1) if name in paths]
        order = [path for top in wanted for path in (*reversed(depends[top]), top)]
        return cls(hands, {name_of(path): f"{folder}/{path}" for path in order})

    def users(self, name: str) -> int:
        """How often it is held."""
        return int(self.hands.read_text(f"/sys/module/{name}/refcnt"))

    def load(self, names: Sequence[str] = ()) -> None:
        """These, or all of them; one that is there already stays as it is."""
        for name in names or self.files:
            with self.hands.open(self.files[name], O_RDONLY) as file:
                try:
                    self.hands.syscall(Syscall.FINIT_MODULE, file.fd, b"\0", 0, what=name)
                except RemoteError as error:
                    if error.errno != EEXIST:
                        raise

    def unload(self, name: str) -> None:
        """Raises RemoteError with EAGAIN while it is held."""
        arguments = (path_bytes(name), O_NONBLOCK)
        self.hands.syscall(Syscall.DELETE_MODULE, *arguments, what=name, timeout=UNLOADING_TAKES)

    def unload_all(self, *, but: str | None = None) -> None:
        """Those that need others first; stops before `but`."""
        for name in reversed(self.files):
            if name == but:
                return
            self.unload(name)


@pytest.fixture
def modules(hands: Process, edu: Device) -> Iterator[Modules]:
    """All are loaded again after the test, and the drivers have their devices back."""
    if not hands.exists(f"/sys/module/{DRIVER}/refcnt"):
        raise not_applicable("this kernel has vfio-pci built in")
    found = Modules.of(hands)
    yield found
    found.load()
    assert edu.driver(hands) == "vfio-pci"


def _steps(process: Process, device: Device, mode: Mode) -> Generator[str | None, None, None]:
    """The flow of a mode, step by step: which module's own count each raises."""
    if mode is Mode.IOMMUFD:
        with Iommufd.open(process, Iommufd.PATH) as iommufd:
            yield IOMMUFD
            with device.open_cdev(process) as cdev:
                yield CORE
                cdev.bind(iommufd)
                yield DRIVER
                cdev.attach(iommufd.ioas_alloc())
                yield None
        return
    with Container.open(process, container_path(process, mode)) as container:
        yield CORE if mode in CONTAINER_MODES else IOMMUFD
        with device.open_group(process) as group:
            yield CORE
            group.set_container(container)
            yield None
            container.set_iommu(IOMMU_TYPES[mode])
            yield TYPE1 if mode in CONTAINER_MODES else None
            with group.get_device(device.address):
                yield DRIVER


@contract("LIFE-1")
def test_each_step_holds_the_module_that_serves_it(
    process: Process, edu: Device, modules: Modules, mode: Mode
) -> None:
    """What a step takes is held until the last close, and nothing of it later."""
    before = {name: modules.users(name) for name in modules.files}
    taken: set[str] = set()
    with closing(_steps(process, edu, mode)) as steps:
        for step in steps:
            if step in modules.files:
                assert modules.users(step) > before[step], f"nothing holds {step}"
                taken.add(step)
            for name in taken:
                with raises_errno(EAGAIN):
                    modules.unload(name)
    assert {name: modules.users(name) for name in modules.files} == before


@contract("LIFE-1")
def test_modules_can_go_and_come_back_after_the_last_close(
    process: Process, hands: Process, edu: Device, modules: Modules, mode: Mode
) -> None:
    """All of them, with the nodes under /dev; and then the flow works as it did before."""
    with open_device(process, edu, mode):
        pass
    modules.unload_all()
    assert edu.driver(hands) is None
    assert not any(hands.exists(path) for path in (Container.PATH, CDEVS))
    assert IOMMUFD not in modules.files or not hands.exists(Iommufd.PATH)
    modules.load()
    with open_device(process, edu, mode) as opened, edu_of(opened.device) as registers:
        assert registers.inverted(0) == 0xFFFF_FFFF


def _unload(name: str) -> Program:
    arguments = Buf(path_bytes(name), returned=False), Imm(O_NONBLOCK)
    return Program(setup=(Call(Syscall.DELETE_MODULE, arguments),))


@contract("LIFE-1")
def test_the_driver_can_be_unloaded_until_somebody_has_a_device(
    process: Process,
    new_process: Callable[[], Process],
    hands: Process,
    edu: Device,
    modules: Modules,
    mode: Mode,
) -> None:
    """After each step of the flow: at once, or with the close of a parked file, or not at all.

    vfio_main.c: vfio_unregister_group_dev() waits for a parked cdev, which holds the device and
    not yet its module; a group's file or a container holds neither.
    """
    reached: list[str | None] = []
    unloader = new_process()
    for number in range(1, 1 + len(list(_steps(process, edu, mode)))):
        with closing(_steps(process, edu, mode)) as steps:
            reached = [next(steps) for _ in range(number)]
            parked = mode is Mode.IOMMUFD and CORE in reached and DRIVER not in reached
            going = unloader.start(_unload(DRIVER), timeout=UNLOADING_TAKES)
            if parked:
                assert not going.done(within=0.2)
                steps.close()
            (result,) = going.wait().rounds[0].setup
        assert result.errno == (EAGAIN if DRIVER in reached else 0)
        assert edu.driver(hands) == ("vfio-pci" if DRIVER in reached else None)
        modules.load([DRIVER])
        with open_device(process, edu, mode) as opened:
            opened.device.info()
    assert DRIVER in reached


@contract("LIFE-1", *CONTAINER_MODES)
def test_type1_may_come_late(process: Process, edu: Device, modules: Modules, mode: Mode) -> None:
    """vfio_ioctl_set_iommu(): ENODEV without a driver; the same container takes it later."""
    modules.unload(TYPE1)
    with open_container(process, mode) as container, edu.open_group(process) as group:
        group.set_container(container)
        with raises_errno(ENODEV):
            container.set_iommu(IOMMU_TYPES[mode])
        modules.load([TYPE1])
        container.set_iommu(IOMMU_TYPES[mode])
        group.get_device(edu.address).close()


@contract("LIFE-1", *CONTAINER_MODES)
def test_an_open_container_holds_vfio_alone(process: Process, modules: Modules, mode: Mode) -> None:
    """container.c: vfio_fops.owner. Everything above it can go."""
    with open_container(process, mode):
        modules.unload_all(but=CORE)
        with raises_errno(EAGAIN):
            modules.unload(CORE)
    modules.unload(CORE)


@contract("LIFE-1", Mode.IOMMUFD)
def test_an_open_iommufd_holds_its_module_alone(process: Process, modules: Modules) -> None:
    """iommufd/main.c: iommufd_fops.owner."""
    if IOMMUFD not in modules.files:
        raise not_applicable("this kernel has iommufd built in")
    with Iommufd.open(process, Iommufd.PATH):
        modules.unload_all(but=IOMMUFD)
        with raises_errno(EAGAIN):
            modules.unload(IOMMUFD)
    modules.unload(IOMMUFD)
