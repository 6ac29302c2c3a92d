# SPDX-License-Identifier: GPL-2.0-only
"""What is to be attempted, in the words of the command line."""

from pathlib import Path

import pytest

from lab.config import Lab
from lab.contract import Mode
from lab.errors import ConfigurationError
from lab.repro.faults import injected
from lab.repro.order import Faults, Limits, Order, Stress, stress_of
from lab.repro.sign import Expectation

LAB = """
debian: {suites: [bookworm]}
kernels: {k: {source: {tarball: linux.tar}, fragments: [base]}}
images: {minimal: {recipe: images/minimal}}
machines: {plain: {devices: {edu0: {model: edu}}}}
suites: {contract: {tests: tests}}
run: {kernel: k, machine: plain, suites: [contract]}
"""


def test_faults() -> None:
    rising = Faults.read("nth")
    assert [rising.of_attempt(number).nth for number in (1, 2)] == [1, 2]
    assert Faults.read("nth=12").of_attempt(2) == Faults(nth=12)
    assert Faults.read("5%") == Faults(percent=5)
    assert [str(Faults.read(text)) for text in ("nth", "nth=3", "5%")] == ["nth", "nth=3", "5%"]


@pytest.mark.parametrize("text", ["5", "0%", "101%", "nth=0", "all"])
def test_no_faults(text: str) -> None:
    with pytest.raises(ConfigurationError, match="expected nth, nth=12 or 5%"):
        Faults.read(text)


def test_stress() -> None:
    assert stress_of(["noise", "pin"]) == (Stress.PIN, Stress.NOISE)
    assert stress_of(["all"]) == tuple(Stress)
    with pytest.raises(ConfigurationError, match=r"'noisy' .*did you mean 'noise'"):
        stress_of(["noisy"])


def test_ten_minutes_where_nothing_is_said() -> None:
    assert Limits().most_seconds == 600
    assert Limits(times=5).most_seconds is None


def test_its_words(tmp_path: Path) -> None:
    order = Order(
        str(tmp_path / "repro.c"),
        arguments=("-v",),
        devices=("edu0",),
        mode=Mode.IOMMUFD,
        expected=Expectation("KASAN"),
        limits=Limits(times=5, shown=None),
        stress=(Stress.PIN,),
        faults=Faults(percent=5),
        jobs=2,
    )
    assert " ".join(order.words()) == (
        "--device edu0 --mode iommufd --timeout 30 --seed 5 --expect KASAN --stress pin "
        f"--fault-injection 5% --times 5 --keep-going -j 2 -- {tmp_path}/repro.c -v"
    )


def test_what_is_for_programs_alone() -> None:
    order = Order("tests/contract/test_x.py::test_y", devices=("edu0",), stress=(Stress.PIN,))
    with pytest.raises(ConfigurationError, match=r"--stress and --device: .* is a test"):
        order.check()


def test_nothing_to_attempt() -> None:
    with pytest.raises(ConfigurationError, match=r"gone\.c is no file; expected C"):
        Order("gone.c").check()


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (Order("tests/test_gone.py::test_y"), r"::test_y: there is no .*/tests/test_gone\.py"),
        (Order("repro.c", devices=("edu9",)), "unknown device: 'edu9'.*expected one of edu0"),
    ],
)
def test_names_that_the_lab_does_not_have(tmp_path: Path, order: Order, said: str) -> None:
    (tmp_path / "kernels" / "fragments").mkdir(parents=True)
    (tmp_path / "kernels" / "fragments" / "base.config").touch()
    (tmp_path / "lab.yaml").write_text(LAB)
    lab = Lab.load(tmp_path)
    with pytest.raises(ConfigurationError, match=said):
        order.check_names(lab, "plain")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_there.py").touch()
    Order("tests/test_there.py::test_y").check_names(lab, "plain")
    Order("repro.c", devices=("edu0",)).check_names(lab, "plain")


def test_whose_allocation_failed() -> None:
    printed = """\
[    7.1][   T80] FAULT_INJECTION: forcing a failure.
[    7.1][   T80] name failslab, interval 1, probability 0, space 0, times -1
[    7.1][   T80] CPU: 0 UID: 0 PID: 80 Comm: alloc Not tainted 6.12.117 #1
[    7.1][   T80] Call Trace:
[    7.1][   T80]  <TASK>
[    7.1][   T80]  dump_stack_lvl+0x1a/0x60
[    7.1][   T80]  should_fail_ex+0x1a/0x60
[    7.1][   T80]  should_failslab+0x1a/0x60
[    7.1][   T80]  kmem_cache_alloc_noprof+0x1a/0x60
[    7.1][   T80]  vm_area_alloc+0x1a/0x60
[    7.2][   T80] FAULT_INJECTION: forcing a failure.
"""
    assert injected(printed) == ("vm_area_alloc", "")
