# SPDX-License-Identifier: GPL-2.0-only
"""Every slip in lab.yaml is one message: file, line, place, and what was expected."""

from pathlib import Path

import pytest

from lab.config import DeviceModel, GitSource, Lab, PackageSource, Variant, known
from lab.errors import ConfigurationError

GOOD = """\
debian: {mirror: auto, suites: [bookworm, trixie]}
kernels:
  v6.12:
    source: {package: linux-source-6.12, suite: bookworm}
    fragments: [boot, vfio]
  mine: {source: {git: linux}, fragments: [boot], compiler: clang}
images:
  minimal: {recipe: images/minimal}
machines:
  vtd:
    memory: 1G
    cpus: 2
    iommu: {model: intel, scalable: true}
    devices:
      port0: {model: pcie-root-port}
      edu0: {model: edu, bus: port0}
suites:
  contract: {tests: tests/contract}
run: {kernel: v6.12+kasan, machine: vtd, suites: [contract]}
"""
MACHINE = "    devices:\n      port0: {model: pcie-root-port}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fragments = tmp_path / "kernels" / "fragments"
    fragments.mkdir(parents=True)
    for name in ("boot", "vfio", "kasan"):
        (fragments / f"{name}.config").touch()
    (tmp_path / "lab.yaml").write_text(GOOD)
    return tmp_path


def message_of(folder: Path, text: str) -> str:
    """What is said of a lab.yaml, without the folder in front."""
    (folder / "lab.yaml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        Lab.load(folder)
    return caught.value.message.removeprefix(f"{folder}/")


def test_a_lab_is_read_with_its_defaults(folder: Path) -> None:
    lab = Lab.load(folder)
    assert lab.kernels["v6.12"].source == PackageSource(
        package="linux-source-6.12", suite="bookworm"
    )
    assert lab.kernels["v6.12"].compiler == "gcc"
    assert lab.kernels["mine"].source == GitSource(git=Path("linux"), ref="HEAD")
    assert list(lab.machine("vtd").devices) == ["port0", "edu0"]
    assert lab.machine("vtd").devices["edu0"].model is DeviceModel.EDU
    assert lab.run.image == "minimal"
    assert lab.fragments() == ["boot", "kasan", "vfio"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(
            "    memory: 1G", "    memroy: 1G",
            "lab.yaml:11: machines.vtd.memroy: no such key (did you mean 'memory'?)",
            id="wrong key",
        ),
        pytest.param(
            "    cpus: 2", "    cpus: many",
            "lab.yaml:12: machines.vtd.cpus: expected a whole number",
            id="wrong type",
        ),
        pytest.param(
            "    cpus: 2", "    cpus: 0",
            "lab.yaml:12: machines.vtd.cpus: Input should be greater than or equal to 1",
            id="no CPU",
        ),
        pytest.param(
            "memory: 1G", "memory: lots",
            "lab.yaml:11: machines.vtd.memory: expected memory such as 512M or 1G",
            id="memory without a unit",
        ),
        pytest.param(
            "fragments: [boot, vfio]", "fragments: boot",
            "lab.yaml:5: kernels.v6.12.fragments: expected a list",
            id="a word for a list",
        ),
        pytest.param(
            "fragments: [boot, vfio]", "fragments: []",
            "lab.yaml:5: kernels.v6.12.fragments: expected one fragment at least",
            id="no fragment",
        ),
        pytest.param(
            "    fragments: [boot, vfio]\n", "",
            "lab.yaml:3: kernels.v6.12: expected one fragment at least",
            id="missing key",
        ),
        pytest.param(
            "debian: {", "variants: {kasan: {slower: 0.5}}\ndebian: {",
            "lab.yaml:1: variants.kasan.slower: Input should be greater than or equal to 1",
            id="a variant that is faster",
        ),
        pytest.param(
            "debian: {", "variants: {kassan: {slower: 2}}\ndebian: {",
            "lab.yaml:1: variants.kassan: 'kassan' is not known; expected one of "
            "boot, kasan, vfio (did you mean 'kasan'?)",
            id="a variant without a fragment",
        ),
        pytest.param(
            "compiler: clang", "compiler: tcc",
            "lab.yaml:6: kernels.mine.compiler: Input should be 'gcc' or 'clang'",
            id="unknown compiler",
        ),
        pytest.param(
            "source: {git: linux}", "source: {svn: linux}",
            "lab.yaml:6: kernels.mine.source: expected one of {package, suite}, {git, ref}, "
            "{tarball}, {version}, {deb, suite}",
            id="unknown source",
        ),
        pytest.param(
            "suite: bookworm}", "suite: bookwrm}",
            "lab.yaml:4: kernels.v6.12.source.suite: 'bookwrm' is not known; expected one of "
            "bookworm, trixie (did you mean 'bookworm'?)",
            id="unknown Debian suite",
        ),
        pytest.param(
            "[boot, vfio]", "[boot, vfoi]",
            "lab.yaml:5: kernels.v6.12.fragments.1: 'vfoi' is not known; expected one of "
            "boot, kasan, vfio (did you mean 'vfio'?)",
            id="unknown fragment",
        ),
        pytest.param(
            "kernel: v6.12+kasan", "kernel: v6.13",
            "lab.yaml:19: run.kernel: 'v6.13' is not known; expected one of v6.12, mine "
            "(did you mean 'v6.12'?)",
            id="unknown kernel",
        ),
        pytest.param(
            "machine: vtd", "machine: amd",
            "lab.yaml:19: run.machine: 'amd' is not known; expected one of vtd",
            id="unknown machine",
        ),
        pytest.param(
            "machine: vtd", "image: tiny, machine: vtd",
            "lab.yaml:19: run.image: 'tiny' is not known; expected one of minimal",
            id="unknown image",
        ),
        pytest.param(
            "suites: [contract]", "suites: [contract, bugs]",
            "lab.yaml:19: run.suites.1: 'bugs' is not known; expected one of contract",
            id="unknown suite",
        ),
        pytest.param(
            "{tests: tests/contract}", "{tests: tests/contract, machine: vdt}",
            "lab.yaml:18: suites.contract.machine: 'vdt' is not known; expected one of vtd "
            "(did you mean 'vtd'?)",
            id="unknown machine of a suite",
        ),
        pytest.param(
            "model: edu, bus", "model: edo, bus",
            "lab.yaml:16: machines.vtd.devices.edu0.model: Input should be 'edu', 'e1000', 'igb', "
            "'virtio-rng-pci', 'pcie-root-port' or 'pcie-pci-bridge'",
            id="unknown device",
        ),
        pytest.param(
            "{model: intel,", "{model: amd,",
            "lab.yaml:13: machines.vtd.iommu.model: Input should be 'intel'",
            id="unknown IOMMU",
        ),
        pytest.param(
            "scalable: true", "address_width: 40",
            "lab.yaml:13: machines.vtd.iommu.address_width: Input should be 39 or 48",
            id="unknown width",
        ),
        pytest.param(
            "scalable: true", "first_stage: true",
            "lab.yaml:13: machines.vtd.iommu.first_stage: expected `scalable: true` with it",
            id="first stage without scalable mode",
        ),
        pytest.param(
            "      edu0:", "      port0:",
            "lab.yaml:16: machines.vtd.devices.port0: given twice; the first stands in line 15",
            id="two devices of one name",
        ),
        pytest.param(
            "      edu0:", "      edu,0:",
            "lab.yaml:16: machines.vtd.devices.edu,0: expected a role of "
            "small letters, digits, _ and -",
            id="a name that QEMU would split",
        ),
        pytest.param(
            "bus: port0", "bus: port1",
            "lab.yaml:16: machines.vtd.devices.edu0.bus: 'port1' is no port or bridge that stands "
            "above it; expected one of port0",
            id="unknown bus",
        ),
        pytest.param(
            "bus: port0}", "}\n      edu1: {model: edu, bus: edu0}",
            "lab.yaml:17: machines.vtd.devices.edu1.bus: 'edu0' is no port or bridge that stands "
            "above it; expected one of port0",
            id="a device is no bus",
        ),
        pytest.param(
            MACHINE, f"    devices:\n      early: {{model: edu, bus: port0}}\n{MACHINE[13:]}",
            "lab.yaml:15: machines.vtd.devices.early.bus: 'port0' is no port or bridge that stands "
            "above it; expected one of (there is none)",
            id="a bus that comes later",
        ),
        pytest.param(
            "run: {", "run: [",
            "lab.yaml:19: not YAML: expected ',' or ']', but got '}'",
            id="not YAML",
        ),
        pytest.param(
            "    cpus: 2", "\tcpus: 2",
            "lab.yaml:12: not YAML: found character '\\t' that cannot start any token",
            id="a tab",
        ),
        pytest.param(
            GOOD, "", "lab.yaml:1: expected keys and values",
            id="empty",
        ),
        pytest.param(
            "{recipe: images/minimal}", "images/minimal",
            "lab.yaml:8: images.minimal: expected keys and values",
            id="a path for an image",
        ),
        pytest.param(
            "run: {", "rum: {",
            "lab.yaml:19: rum: no such key (did you mean 'run'?)",
            id="a misspelt section",
        ),
        pytest.param(
            "fragments: [boot, vfio]", "fragmnts: [boot, vfio]",
            "lab.yaml:5: kernels.v6.12.fragmnts: no such key (did you mean 'fragments'?)",
            id="a misspelt key that must be there",
        ),
    ],
)  # fmt: skip
def test_a_slip_is_named_with_its_line(folder: Path, old: str, new: str, expected: str) -> None:
    assert GOOD.count(old) == 1
    assert message_of(folder, GOOD.replace(old, new)) == expected


def test_machines_share_their_devices_by_an_alias(folder: Path) -> None:
    """YAML's own: an error in what is shared points at where it is written."""
    shared = GOOD.replace("devices:", "devices: &all").replace(
        "suites:\n", "  bare: {devices: *all}\nsuites:\n", 1
    )
    (folder / "lab.yaml").write_text(shared)
    lab = Lab.load(folder)
    assert lab.machine("bare").devices == lab.machine("vtd").devices
    assert lab.machine("bare").iommu is None
    assert message_of(folder, shared.replace("bus: port0", "bus: port1")).startswith(
        "lab.yaml:16: machines.vtd.devices.edu0.bus: "
    )


def test_an_alias_within_its_own_anchor_is_one_message(folder: Path) -> None:
    said = message_of(folder, "# one\nmachines: &all\n  vtd: {devices: *all}\n")
    assert said == "lab.yaml:2: not YAML: an alias stands within its own anchor"


def test_bytes_that_are_no_text_are_one_message(folder: Path) -> None:
    (folder / "lab.yaml").write_bytes(b"# one\nrun: \xff\n")
    with pytest.raises(ConfigurationError, match=r"lab\.yaml:2: not YAML: it is not UTF-8"):
        Lab.load(folder)


def test_a_control_character_is_one_message(folder: Path) -> None:
    said = message_of(folder, "# one\nrun: \x1b\n")
    assert said == "lab.yaml:2: not YAML: special characters are not allowed"


def test_a_key_that_is_a_list_is_one_message(folder: Path) -> None:
    assert message_of(folder, "[a, b]: c\n").startswith("lab.yaml:1: not YAML: ")


@pytest.mark.parametrize("what", ["machine", "image", "suite"])
def test_an_unknown_name_on_the_command_line_lists_what_there_is(folder: Path, what: str) -> None:
    lab = Lab.load(folder)
    there = {"machine": "vtd", "image": "minimal", "suite": "contract"}[what]
    expected = f"unknown {what}: 'other' is not known; expected one of {there}"
    with pytest.raises(ConfigurationError) as caught:
        getattr(lab, what)("other")
    assert caught.value.message == expected


def test_what_is_meant_is_not_lost_in_a_long_list() -> None:
    rules = [f"OWN-{number}" for number in range(1, 31)]
    with pytest.raises(ConfigurationError) as caught:
        known("rule", "OWN-300", rules)
    assert "OWN-20, … (30 in all) (did you mean 'OWN-30'?)" in caught.value.message
    assert "OWN-21" not in caught.value.message


def test_paths_start_at_the_lab_and_a_tilde_is_home(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    lab = Lab.load(folder)
    assert lab.path(Path("images/minimal")) == folder / "images/minimal"
    assert lab.path(Path("~/linux")) == Path("/home/somebody/linux")
    assert lab.path(Path("/linux")) == Path("/linux")


def test_the_lab_is_found_from_a_folder_inside(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VFIO_LAB", raising=False)
    monkeypatch.chdir(folder / "kernels" / "fragments")
    assert Lab.find().root == folder


def test_the_environment_names_the_lab_and_an_option_beats_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VFIO_LAB", str(folder))
    monkeypatch.chdir("/")
    assert Lab.find().root == folder
    with pytest.raises(ConfigurationError, match=r"kernels holds no lab\.yaml"):
        Lab.find(tmp_path / "kernels")


def test_no_lab_anywhere_says_how_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VFIO_LAB", raising=False)
    monkeypatch.chdir("/")
    with pytest.raises(ConfigurationError, match=r"(?s)no lab\.yaml in / .*--lab DIR"):
        Lab.find()


def test_a_kernel_can_be_written_as_json(folder: Path) -> None:
    written = Lab.load(folder).kernels["mine"].model_dump(mode="json", warnings="error")
    assert written["source"] == {"git": "linux", "ref": "HEAD"}


def test_what_several_variants_cost_adds_up(folder: Path) -> None:
    (folder / "kernels" / "fragments" / "lockdep.config").touch()
    costs = """\
variants:
  kasan: {slower: 3, memory: 2G, command_line: [kasan_multi_shot]}
  lockdep: {slower: 1.5, command_line: [quiet]}
"""
    (folder / "lab.yaml").write_text(costs + GOOD)
    lab = Lab.load(folder)
    both = lab.variant(["boot", "vfio", "kasan", "lockdep"])
    assert both.slower == 4.5
    machine = lab.machine("vtd").fit_for(both)
    assert machine.memory == "2G"
    assert machine.command_line == ("kasan_multi_shot", "quiet")
    assert machine.devices == lab.machine("vtd").devices


def test_what_no_variant_has_said_costs_nothing(folder: Path) -> None:
    lab = Lab.load(folder)
    assert lab.variant(["boot", "kasan"]) == Variant()
    assert lab.machine("vtd").fit_for(Variant()) == lab.machine("vtd")


def test_a_machine_with_more_memory_than_a_variant_wants_keeps_it(folder: Path) -> None:
    machine = Lab.load(folder).machine("vtd").model_copy(update={"memory": "4G"})
    assert machine.fit_for(Variant(memory="2048M")).memory == "4G"
    assert machine.fit_for(Variant(memory="5000M")).memory == "5000M"


def test_a_suite_may_want_a_machine_of_its_own(folder: Path) -> None:
    large = "  large: {memory: 4G, command_line: [hugepages=1]}\nsuites:\n"
    text = GOOD.replace("suites:\n", large, 1)
    text = text.replace("run:", "  wide: {tests: tests/wide, machine: large}\nrun:")
    (folder / "lab.yaml").write_text(text)
    lab = Lab.load(folder)
    assert lab.machine("large").command_line == ("hugepages=1",)
    assert lab.machine_for([]) == "vtd"
    assert lab.machine_for(["contract"]) == "vtd"
    assert lab.machine_for(["wide"]) == "large"
    with pytest.raises(ConfigurationError, match="contract wants vtd, wide wants large"):
        lab.machine_for(["contract", "wide"])
