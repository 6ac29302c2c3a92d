# SPDX-License-Identifier: GPL-2.0-only
"""What there is, in words and as JSON, without building, booting or asking the network."""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from lab.commands import catalogue
from lab.commands.catalogue import collect, show, show_rule
from lab.config import Lab
from lab.contract import rules
from lab.errors import ConfigurationError, InfrastructureError
from lab.kernel import Kernel, State

LAB = """
debian: {mirror: "http://mirror.test/debian", suites: [bookworm]}
kernels:
  v6.12: {source: {package: linux-source-6.12, suite: bookworm}, fragments: [boot, vfio]}
  mine: {source: {git: no-such-tree}, fragments: [boot], compiler: clang}
  ball: {source: {tarball: linux.tar.xz}, fragments: [boot]}
  debian: {source: {deb: linux-image-amd64}}
variants: {kasan: {slower: 3}}
images: {minimal: {recipe: images/minimal}}
machines:
  vtd:
    memory: 2G
    iommu: {scalable: true, caching_mode: false}
    devices:
      edu0: {model: edu}
      port0: {model: pcie-root-port}
      igb0: {model: igb, bus: port0, optional: true}
  plain: {}
  masked:
    command_line: [vfio_pci.nointxmask=1]
    devices:
      edu0: {model: edu}
      port0: {model: pcie-root-port}
      igb0: {model: igb, bus: port0, optional: true}
suites: {contract: {tests: tests}, later: {tests: tests/later}}
run: {kernel: v6.12, machine: vtd, suites: [contract]}
"""
KASAN = "# SPDX-License-Identifier: GPL-2.0-only\n# memory errors\n\n# what else\nCONFIG_KASAN=y\n"
RECIPE = "{suites: [bookworm], packages: [busybox-static]}"
TESTS = """
import pytest
from lab.contract import Mode
from lab.testing import contract

print("a module that is loud")

@contract("OWN-3")
def test_in_every_mode(mode): ...

@contract("OWN-3", Mode.IOMMUFD)
def test_in_one(): raise AssertionError("it must not run")

@contract("DMA-1")
@pytest.mark.parametrize("width", [1, 2])
def test_widths(width): ...

def test_that_cites_nothing(): ...
"""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setenv("VFIO_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")
    root = tmp_path / "lab"
    for folder in ("kernels/fragments", "images/minimal", "tests"):
        (root / folder).mkdir(parents=True)
    (root / "lab.yaml").write_text(LAB)
    (root / "images/minimal/recipe.yaml").write_text(RECIPE)
    (root / "images/minimal/init").touch()
    for name in ("boot", "vfio"):
        (root / f"kernels/fragments/{name}.config").touch()
    (root / "kernels/fragments/kasan.config").write_text(KASAN)
    # pytest keeps modules by name: each lab has its own
    (root / f"tests/test_{uuid.uuid4().hex}.py").write_text(TESTS)
    return Lab.load(root)


def words(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def as_json(lab: Lab, capsys: pytest.CaptureFixture[str]) -> Any:
    show(lab, as_json=True)
    return json.loads(capsys.readouterr().out)


def test_tests_are_collected_and_not_run(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    found = collect(lab)
    names = [test.partition("::")[2] for test in found.suites["contract"]]
    assert len(names) == 5 + 1 + 2 + 1
    assert "test_in_every_mode[vfio_type1_iommu]" in names
    assert [len(found.rules[rule]) for rule in ("OWN-3", "DMA-1")] == [6, 2]
    assert found.suites["later"] == []
    assert found.trouble == {}
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


def test_a_file_that_cannot_be_read_hides_no_other(lab: Lab) -> None:
    (lab.root / "tests" / f"test_{uuid.uuid4().hex}.py").write_text("import no_such_module\n")
    found = collect(lab)
    assert len(found.suites["contract"]) == 9
    ((where, why),) = found.trouble.items()
    assert where.startswith("tests/test_")
    assert "no_such_module" in why


def test_pytests_own_trouble_is_one_error(lab: Lab) -> None:
    (lab.root / "tests" / "conftest.py").write_text("raise RuntimeError('at the door')\n")
    with pytest.raises(InfrastructureError, match=r"(?s)cannot collect the tests.*at the door"):
        collect(lab)


def test_a_lab_without_any_test_is_no_trouble(lab: Lab) -> None:
    for file in (lab.root / "tests").iterdir():
        file.unlink()
    (lab.root / "tests").rmdir()
    assert collect(lab).suites == {"contract": [], "later": []}


def test_everything_of_the_lab_is_shown(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    show(lab, as_json=False)
    said = words(capsys)
    for part in (
        "v6.12 *",
        "boot (clang)",
        "mine no-such-tree at HEAD",
        "linux.tar.xz",
        "not fetched yet",
        "debian linux-image-amd64",
        "built by Debian",
        "+kasan memory errors 3 ",
        "+vfio ",
        "deb:VERSION or src:VERSION",
        "machine vtd * 2G, 2 CPUs, intel IOMMU (48 bits, interrupt remapping, scalable)",
        "igb0 igb, if QEMU has it",
        "machine plain 1G, 2 CPUs, no IOMMU",
        "minimal * images/minimal not made yet",
        "contract * tests 9",
        "later tests/later there is no such folder",
        "OWN-3 a second bind fails and disturbs nobody all 6",
    ):
        assert part in said


def test_a_device_stands_under_its_bus(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    show(lab, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert "  port0   pcie-root-port" in lines
    assert "    igb0  igb, if QEMU has it" in lines


def test_a_kernel_that_cannot_be_says_why(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(lab, capsys)["kernels"]
    assert "no-such-tree is no folder" in found["mine"]["trouble"]
    assert "linux.tar.xz: No such file" in found["ball"]["trouble"]
    assert found["v6.12"]["trouble"] is None


def test_a_kernel_that_is_built_is_shown_with_its_release(
    lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    built = Kernel("v6.12", Path("b"), None, None, None, "6.12.57", None, "abc", {})
    state = State("linux-source-6.12 6.12.57-1", built)
    monkeypatch.setattr("lab.kernel.look", lambda *_: state)
    found = as_json(lab, capsys)["kernels"]["v6.12"]
    assert (found["built"], found["release"], found["key"]) == (True, "6.12.57", "abc")
    assert found["version"] == "linux-source-6.12 6.12.57-1"
    show(lab, as_json=False)
    assert "6.12.57, built" in words(capsys)


def test_json_has_what_the_tables_have(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(lab, capsys)
    assert list(found["kernels"]) == ["v6.12", "mine", "ball", "debian"]
    assert found["kernels"]["mine"]["source"] == {"git": "no-such-tree", "ref": "HEAD"}
    assert found["machines"]["vtd"]["devices"]["igb0"]["bus"] == "port0"
    assert len(found["suites"]["contract"]["tests"]) == 9
    assert list(found["rules"]) == list(rules())
    assert len(found["rules"]["OWN-3"]["tests"]) == 6
    assert found["run"]["kernel"] == "v6.12"


def test_a_rule_is_explained_with_its_tests(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    show_rule(lab, "own-3")
    said = capsys.readouterr().out
    assert said.startswith("OWN-3  a second bind fails and disturbs nobody\n")
    assert "::test_in_one\n" in said
    assert "::test_in_every_mode[iommufd]\n" in said
    assert "test_widths" not in said


def test_an_unknown_rule_names_near_ones(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "collect", lambda _: pytest.fail("nothing is to be collected"))
    with pytest.raises(ConfigurationError, match=r"unknown rule: 'OWN-99' .*did you mean 'OWN-9'"):
        show_rule(lab, "OWN-99")


def test_looking_builds_and_makes_nothing(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    as_json(lab, capsys)
    kinds = {path.name for path in (tmp_path / "cache").glob("*")}
    assert kinds <= {"facts"}


def test_a_machine_says_what_sets_it_apart(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    show(lab, as_json=False)
    said = words(capsys)
    assert "its kernel is told vfio_pci.nointxmask=1 the devices of vtd" in said
    assert said.count("igb0 igb, if QEMU has it") == 1
