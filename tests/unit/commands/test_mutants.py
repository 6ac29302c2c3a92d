# SPDX-License-Identifier: GPL-2.0-only
"""Which mutants are killed, by whom, and what is no kill; kernels and runs are pretended."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from lab.cell import Choice
from lab.commands import mutants
from lab.commands.mutants import Fate, Mutant, hunt, killer
from lab.config import Lab
from lab.errors import BuildError, ConfigurationError, LabError
from lab.kernel import Kernel
from lab.kernel.incremental import Base
from lab.kernel.series import Series
from lab.results.record import RunRecord, TestRecord
from lab.results.verdict import Verdict

MAIL = """From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: vfio-lab <lab@vfio-lab.invalid>
Subject: [PATCH] vfio: Break it

Break it.

A mutant that breaks {rule} of the contract, to show that a test notices.

Signed-off-by: somebody
{trailers}---
"""
LAB = """
debian: {mirror: "http://mirror.test/debian", suites: [bookworm]}
kernels: {v6: {source: {tarball: linux.tar}, fragments: [base]}}
images: {minimal: {recipe: images/minimal}}
machines: {vtd: {}}
suites: {contract: {tests: tests}}
run: {kernel: v6, machine: vtd, suites: [contract]}
"""
# A run of a kernel whose file says what is wrong with it: "RULE VERDICT" a line, or "lost".
RUN = """#!{python} -IS
import json, sys
from pathlib import Path
words = sys.argv[1:]
option = lambda name: [b for a, b in zip(words, words[1:]) if a == name]
wrong = dict(line.split() for line in Path(option("--kernel")[0]).read_text().splitlines())
tests = [
    dict(id=f"tests/test_x.py::test_{{rule}}[iommufd]", suite="contract", rule=rule, duration=0.5,
         verdict=wrong.get(rule, "kept"), message="it is broken" if rule in wrong else "")
    for rule in option("--rule")
]
out = Path(option("--out")[0])
out.mkdir(parents=True)
record = dict(schema=1, version="1", started="2026-11-22T00:00:00Z", seconds=2.0, tests=tests)
(out / "results.json").write_text(json.dumps(record))
"""


class Write(Protocol):
    """Writes a mutant: its name, its rule, what its kernel will be like, and, where it names a
    variant, what it will be like there."""

    def __call__(
        self, name: str, rule: str, what: str, variant: str = "", there: str = "", /
    ) -> None: ...


@dataclass(frozen=True)
class PretendedBase:
    """Builds a kernel whose file is what `wrong` says of the series."""

    folder: Path
    wrong: dict[str, str]
    variant: str

    @property
    def kernel(self) -> Kernel:
        return self._kernel("unpatched")

    def build(self, series: Series, *, symbols: bool) -> Kernel:
        assert not symbols, "170 kernels with symbols are 20 GB"
        if self.wrong[series.name] == "does not compile":
            raise BuildError(f"{series.name} does not compile")
        return self._kernel(series.name)

    def _kernel(self, name: str) -> Kernel:
        file = self.folder / f"{name}{self.variant}"
        file.write_text(self.wrong.get(file.name, ""))
        return Kernel(f"v6{self.variant}", file, None, None, None, None, None, name, {})


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    (tmp_path / "lab" / "kernels" / "mutants").mkdir(parents=True)
    (tmp_path / "lab" / "kernels" / "fragments").mkdir()
    (tmp_path / "lab" / "kernels" / "fragments" / "base.config").touch()
    (tmp_path / "lab" / "lab.yaml").write_text(LAB)
    return Lab.load(tmp_path / "lab")


@pytest.fixture
def wrong(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What is wrong with which kernel; to be filled by the test."""
    assert lab.root.is_dir()
    found: dict[str, str] = {}
    (tmp_path / "images").mkdir()
    program = tmp_path / "python"
    program.write_text(RUN.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))

    def prepare(spec: str, *_: Any) -> PretendedBase:
        return PretendedBase(tmp_path / "images", found, spec.removeprefix("v6"))

    monkeypatch.setattr(Base, "prepare", prepare)
    return found


@pytest.fixture
def write(lab: Lab, wrong: dict[str, str]) -> Write:
    def one(name: str, rule: str, what: str, variant: str = "", there: str = "") -> None:
        trailers = f"Variant: {variant}\n" if variant else ""
        text = MAIL.format(rule=rule, trailers=trailers)
        (lab.root / "kernels" / "mutants" / f"{name}.mbox").write_text(text)
        wrong[name], wrong[f"{name}+{variant}"] = what, there

    return one


def run(lab: Lab, tmp_path: Path, *names: str) -> tuple[int, list[dict[str, Any]]]:
    out = tmp_path / "out"
    status = hunt(lab, Choice(), names, out=out, as_json=False)
    return status, json.loads((out / "mutants.json").read_text())["findings"]


def test_one_that_its_own_rule_notices_is_killed(
    lab: Lab, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("own3-open", "OWN-3", "OWN-3 broken")
    status, (found,) = run(lab, tmp_path)
    assert status == 0
    assert (found["fate"], found["killed_by"]) == ("killed", "tests/test_x.py::test_OWN-3[iommufd]")
    assert found["message"] == "it is broken"
    assert found["folder"] == "own3-open/own"
    assert "test_x.py::test_OWN-3[iommufd]" in capsys.readouterr().out


def test_one_that_only_another_rule_notices_is_not_its_own_rules(
    lab: Lab, write: Write, tmp_path: Path
) -> None:
    write("own3-open", "OWN-3", "OWN-4 broken")
    status, (found,) = run(lab, tmp_path)
    assert status == 1
    assert (found["fate"], found["killed_by_rule"]) == (Fate.ELSEWHERE, "OWN-4")


def test_one_that_nobody_notices_survives(lab: Lab, write: Write, tmp_path: Path) -> None:
    write("own3-open", "OWN-3", "")
    status, (found,) = run(lab, tmp_path)
    assert (status, found["fate"]) == (1, Fate.SURVIVED)
    assert found["message"] == "1 tests of OWN-3 did not notice"


def test_a_lost_guest_kills_nobody(lab: Lab, write: Write, tmp_path: Path) -> None:
    write("own3-open", "OWN-3", "OWN-3 guest-lost")
    write("own4-lock", "OWN-4", "OWN-4 broken")
    status, found = run(lab, tmp_path)
    assert status == 2
    assert [each["fate"] for each in found] == [Fate.TROUBLE, Fate.KILLED]
    assert found[0]["folder"] == "own3-open/own-2"  # it was tried again


def test_one_that_does_not_compile_is_said_to_and_the_next_one_is_tested(
    lab: Lab, write: Write, tmp_path: Path
) -> None:
    write("own3-open", "OWN-3", "does not compile")
    write("own4-lock", "OWN-4", "OWN-4 broken")
    status, found = run(lab, tmp_path)
    assert status == 2
    assert [each["fate"] for each in found] == [Fate.TROUBLE, Fate.KILLED]
    assert found[0]["message"] == "own3-open does not compile"


def test_nothing_is_proven_when_the_unpatched_kernel_fails(
    lab: Lab, write: Write, wrong: dict[str, str], tmp_path: Path
) -> None:
    write("own3-open", "OWN-3", "OWN-3 broken")
    wrong["unpatched"] = "OWN-3 broken"
    with pytest.raises(LabError, match=r"the unpatched v6 does not pass .*test_OWN-3"):
        run(lab, tmp_path)
    assert json.loads((tmp_path / "out" / "mutants.json").read_text())["status"] == 2


def test_one_that_wants_a_variant_is_killed_there_and_passes_without(
    lab: Lab, write: Write, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write("own3-freed", "OWN-3", "", "kasan", "OWN-3 broken")
    write("own4-lock", "OWN-4", "OWN-4 broken")
    status, found = run(lab, tmp_path)
    assert status == 0
    assert [each["mutant"] for each in found] == ["own4-lock", "own3-freed"]
    assert [each["folder"] for each in found] == ["own4-lock/own", "kasan/own3-freed/own"]
    assert "own3-freed: nothing shows on v6" in capfd.readouterr().err
    assert (tmp_path / "out/kasan/unpatched").is_dir()
    assert not (tmp_path / "out/own3-freed/rest").exists()  # nothing is to notice: who, is all one


def test_one_that_any_kernel_notices_wants_no_variant(
    lab: Lab, write: Write, tmp_path: Path
) -> None:
    write("own3-freed", "OWN-3", "OWN-3 broken", "kasan", "OWN-3 broken")
    status, (found,) = run(lab, tmp_path)
    assert (status, found["fate"]) == (1, Fate.WITHOUT)
    assert not (tmp_path / "out/kasan").exists()


def test_one_that_its_variant_does_not_see_survives(lab: Lab, write: Write, tmp_path: Path) -> None:
    write("own3-freed", "OWN-3", "", "kasan", "")
    status, (found,) = run(lab, tmp_path)
    assert (status, found["fate"]) == (1, Fate.SURVIVED)
    assert found["folder"] == "kasan/own3-freed/rest"


def test_only_those_that_are_named_are_tested(lab: Lab, write: Write, tmp_path: Path) -> None:
    write("own3-open", "OWN-3", "OWN-3 broken")
    write("own4-lock", "OWN-4", "")
    status, found = run(lab, tmp_path, "own3-open")
    assert status == 0
    assert [each["mutant"] for each in found] == ["own3-open"]


def test_an_unknown_name_is_refused(lab: Lab, write: Write, tmp_path: Path) -> None:
    write("own3-open", "OWN-3", "")
    with pytest.raises(ConfigurationError, match="'own3' is not known; expected one of own3-open"):
        run(lab, tmp_path, "own3")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Subject: fix\n", "does not say what it breaks"),
        (MAIL.format(rule="OWN-99", trailers=""), r"own\.mbox: unknown rule: 'OWN-99'"),
    ],
)
def test_a_mail_names_a_rule_of_the_contract(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "own.mbox").write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        Mutant.read(tmp_path / "own.mbox")


@pytest.mark.parametrize(
    ("verdict", "splats", "kills"),
    [
        (Verdict.BROKEN, (), True),
        (Verdict.GUEST_LOST, ("BUG: …",), True),
        (Verdict.GUEST_LOST, (), False),
        (Verdict.LAB_ERROR, (), False),
        (Verdict.SKIPPED, (), False),
        (Verdict.KEPT, (), False),
    ],
)
def test_what_kills(verdict: Verdict, splats: tuple[str, ...], kills: bool) -> None:
    test = TestRecord("test", "contract", verdict, 1.0, rule="OWN-3", splats=splats)
    record = RunRecord("1", "now", 1.0, tests=(test,))
    assert (killer(record, ["OWN-3"]) is test) == kills
    assert killer(record, ["OWN-4"]) is None


def test_the_lab_ships_mutants_that_say_what_they_break() -> None:
    folder = Path(__file__).parents[3] / mutants.FOLDER
    found = [Mutant.read(file) for file in folder.glob("*.mbox")]
    assert len(found) > 30
    for each in found:
        assert each.name.startswith(each.rule.replace("-", "").lower() + "-")
