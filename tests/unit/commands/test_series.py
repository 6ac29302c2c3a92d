# SPDX-License-Identifier: GPL-2.0-only
"""What a series broke and mended, and by which patch; kernels and runs are pretended."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from lab.cell import Choice
from lab.commands import series as command
from lab.commands.runner import Selection
from lab.commands.series import Order, try_series
from lab.config import Lab
from lab.contract import concerned
from lab.errors import BuildError, ConfigurationError, GuestLost, LabError
from lab.kernel import Kernel
from lab.kernel.incremental import Base
from lab.kernel.series import Series

LAB = """
debian: {mirror: "http://mirror.test/debian", suites: [bookworm]}
kernels: {v6: {source: {tarball: linux.tar}, fragments: [base]}}
images: {minimal: {recipe: images/minimal}}
machines: {vtd: {}, wide: {}}
suites: {contract: {tests: tests}, programs: {tests: tests, machine: wide}}
run: {kernel: v6, machine: vtd, suites: [contract]}
"""
PATCH = """\
From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: A Developer <dev@kernel.test>
Date: Sun, 22 Nov 2026 12:00:0{number} +0000
Subject: [PATCH {number}/{total}] vfio: {word}
Message-Id: <{number}@kernel.test>

{word}.
---
diff --git a/drivers/vfio/group.c b/drivers/vfio/group.c
--- a/drivers/vfio/group.c
+++ b/drivers/vfio/group.c
@@ -{number} +{number} @@
-before
+{word}
"""
# A run of the patches that are named in the subjects of its mail; "breaks" breaks OWN-1, "mends"
# mends OWN-2, which is broken without it, "loses" loses a guest; so does "hides" until it "breaks".
# "flakes" breaks OWN-1 in the first run only, "halts" does not boot, "sticks" does not on one
# machine, and with "reports" there is a report of the kernel's own, which every kernel brings where
# tests run again. With "vexes" as the last of them the lab fails. The base "shaky" breaks OWN-3 but
# not again, "fickle" breaks OWN-1 only then.
RUN = """#!{python} -IS
import json, re, sys
from pathlib import Path
words = sys.argv[1:]
option = lambda name: [b for a, b in zip(words, words[1:]) if a == name]
mail = Path(option("--series")[0]).read_text() if option("--series") else ""
patches = re.findall(r"^Subject: .* (.+)$", mail, re.MULTILINE)
patches = patches[: int(*option("--patches") or [len(patches)])]
again = "--repeat" in words
with (Path(__file__).parent / ("again" if again else "runs")).open("a") as file:
    print(*patches or ["base"], file=file)
runs = [] if again else (Path(__file__).parent / "runs").read_text().splitlines()
flakes = "flakes" in patches and runs.count(" ".join(patches)) == 1
verdicts = dict(
    [("OWN-1", "broken" if "breaks" in patches or flakes or
      (option("--kernel") == ["fickle"] and not patches and again) else
      "guest-lost" if "hides" in patches else "kept"),
     ("OWN-2", "kept" if "mends" in patches else "broken"),
     ("OWN-3", "guest-lost" if "loses" in patches + option("--kernel") else
      "broken" if option("--kernel") == ["shaky"] and not patches and not again else "kept")])
splats = ["[    1.0] WARNING: CPU: 0 PID: 1 at fs/x.c:3 f+0x1/0x2"]
splats = splats if "reports" in patches or option("--repeat") else []
wanted = option("--rule") or list(verdicts)
tests = [
    dict(id=f"tests/test_x.py::test_{{rule}}", rule=rule, duration=0.5,
         suite="test_new.py" if option("--tests") and rule == "OWN-2" else "contract",
         verdict=verdicts[rule], message=f"{{rule}} is {{verdicts[rule]}}", splats=splats)
    for rule in wanted if rule in verdicts
] * int(*option("--repeat") or [1])
out = Path(option("--out")[0])
out.mkdir(parents=True)
record = dict(schema=1, version="1", started="2026-11-22T00:00:00Z", seconds=2.0, tests=tests)
record["figures"] = dict(guests=1)
(machine,) = option("--machine") or ["wide" if "programs" in option("--suite") else "vtd"]
record["machine"] = dict(name=machine)
sticks = machine == "wide" and "sticks" in patches
if sticks or "halts" in patches or {{"halts"}} & set(option("--kernel")):
    lost = dict(message="no guest boots", verdict="guest-lost")
    record |= dict(tests=[], figures={{}}, trouble=[lost], finished=False)
moved = Path(__file__).parent / "moved"
if moved.exists():
    record["kernel"] = dict(key="moved", provenance=dict(base=dict(key="one")) if patches else {{}})
if patches and patches[-1] == "vexes":
    record |= dict(trouble=[dict(message="the host is full", verdict="lab-error")])
(out / "results.json").write_text(json.dumps(record))
"""


@dataclass(frozen=True)
class PretendedBase:
    """Builds a kernel whose file holds the words of its patches."""

    folder: Path
    key: list[str] = field(default_factory=lambda: ["one"])
    warnings: list[dict[str, Any]] = field(default_factory=list)

    @property
    def plan(self) -> SimpleNamespace:
        return SimpleNamespace(identity=None)

    @property
    def kernel(self) -> Kernel:
        return self._kernel("")

    def build(self, series: Series) -> Kernel:
        if _word(series.patches[-1]) == "garbles":
            raise BuildError("garbles does not compile")
        return self._kernel(" ".join(_word(patch) for patch in series.patches))

    def _kernel(self, words: str) -> Kernel:
        file = self.folder / f"kernel-{words.replace(' ', '-')}"
        file.write_text(words)
        return Kernel(
            words,
            file,
            None,
            None,
            None,
            None,
            None,
            self.key[-1] + words,
            {"warnings": self.warnings},
        )


def _word(patch: bytes) -> str:
    lines = patch.decode().splitlines()
    return next(line.rpartition(" ")[2] for line in lines if line.startswith("Subject: "))


@dataclass(frozen=True)
class Bench:
    """A lab with a pretended base."""

    lab: Lab
    folder: Path
    base: PretendedBase

    def try_(self, *words: str, **order: Any) -> tuple[int, dict[str, Any]]:
        """Try a series of patches with these words."""
        mails = [
            PATCH.format(number=number, total=len(words), word=word)
            for number, word in enumerate(words, 1)
        ]
        file = self.folder / "series.mbox"
        file.write_text("".join(mails))
        out = self.folder / f"out-{len(list(self.folder.iterdir()))}"
        order = {"selection": Selection(suites=("contract",)), "speed": False, **order}
        choice = Choice(kernel=order.pop("kernel", None))
        status = try_series(self.lab, choice, Order(str(file), **order), out=out, as_json=False)
        return status, json.loads((out / command.SUMMARY).read_text())

    @property
    def runs(self) -> list[str]:
        """The kernels of the runs, but those in which tests ran again."""
        return (self.folder / "runs").read_text().splitlines()

    @property
    def again(self) -> list[str]:
        return (self.folder / "again").read_text().splitlines()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    root = tmp_path / "lab"
    (root / "kernels" / "fragments").mkdir(parents=True)
    (root / "kernels" / "fragments" / "base.config").touch()
    (root / "lab.yaml").write_text(LAB)
    program = tmp_path / "python"
    program.write_text(RUN.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setenv("VFIO_LAB_CACHE", str(tmp_path / "cache"))
    base = PretendedBase(tmp_path)
    monkeypatch.setattr(Base, "prepare", lambda *_, **__: base)
    monkeypatch.setattr(command, "_platform_of", lambda *_: {"qemu": "of a test"})
    return Bench(Lab.load(root), tmp_path, base)


def ids(pairs: list[dict[str, Any]]) -> list[str]:
    return [pair["rule"] for pair in pairs]


def test_a_series_that_changes_nothing(bench: Bench) -> None:
    status, found = bench.try_("cleans", "tidies")
    assert status == 0
    assert (found["broken"], found["mended"], found["unchanged"]) == ([], [], 3)
    assert found["culprit"] is None
    assert found["series"]["patches"] == ["[PATCH 1/2] vfio: cleans", "[PATCH 2/2] vfio: tidies"]
    assert bench.runs == ["base", "cleans tidies"]


def test_what_it_mends(bench: Bench) -> None:
    status, found = bench.try_("mends")
    assert status == 0
    assert ids(found["mended"]) == ["OWN-2"]


@pytest.mark.parametrize("place", range(5))
def test_the_first_patch_that_breaks_it(
    bench: Bench, capsys: pytest.CaptureFixture[str], place: int
) -> None:
    words = ["cleans", "tidies", "renames", "moves", "documents"]
    words[place] = "breaks"
    status, found = bench.try_(*words)
    assert status == 1
    assert ids(found["broken"]) == ["OWN-1"]
    assert found["broken"][0]["again"] == [0, 2, 2]
    assert found["culprit"] == [place + 1, f"[PATCH {place + 1}/5] vfio: breaks"]
    assert len(bench.runs) <= 2 + 2 + 3
    printed = " ".join(capsys.readouterr().out.split())
    assert f"broken by patch {place + 1}, [PATCH {place + 1}/5] vfio: breaks (5 in all)" in printed
    assert "again: 2 of 2 failed, 0 on the base" in printed
    assert "1 broken, 2 unchanged" in printed


def test_a_single_patch_is_the_culprit_without_a_search(bench: Bench) -> None:
    _, found = bench.try_("breaks")
    assert found["culprit"] == [1, "[PATCH 1/1] vfio: breaks"]
    assert bench.runs == ["base", "breaks"]
    assert bench.again == ["base", "breaks", "base"]


def test_no_patch_is_blamed_for_a_lost_guest(bench: Bench) -> None:
    """What cannot be judged is passed over, as git bisect does; where it matters that is said."""
    _, found = bench.try_("cleans", "hides", "tidies", "breaks")
    assert found["suspects"] == [2, 4]


def test_what_does_not_compile_on_the_way_is_passed_over(bench: Bench) -> None:
    _, found = bench.try_("cleans", "garbles", "breaks", "corrects")
    assert found["suspects"] == [2, 3]
    assert found["status"] == 1


def test_a_lab_that_fails_on_the_way_takes_no_verdict_away(bench: Bench) -> None:
    status, found = bench.try_("cleans", "vexes", "breaks", "tidies", each=True)
    assert status == 2
    assert ids(found["broken"]) == ["OWN-1"]
    assert found["suspects"] == [2, 3]
    assert "the host is full" in found["steps"][1]["said"]


def test_a_guest_that_is_lost_while_it_is_measured_takes_no_verdict_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def lost(*_: object, **__: object) -> None:
        raise GuestLost("it does not answer")

    monkeypatch.setattr(command, "compare_speed", lost)
    status, found = bench.try_("breaks", speed=True)
    assert (status, ids(found["broken"]), found["speed"]) == (1, ["OWN-1"], None)
    said = capfd.readouterr()
    assert "cannot be measured: it does not answer" in said.err
    assert "what is slower or faster is not known" in said.out


def test_what_fails_once_is_told_so(bench: Bench) -> None:
    status, found = bench.try_("cleans", "flakes", "tidies")
    assert status == 1
    assert found["broken"][0]["again"] == [0, 0, 2]
    assert found["culprit"] is None


def test_what_the_base_breaks_once_is_not_kept_as_broken(bench: Bench) -> None:
    """Else what a series does about it would be taken for a mending, or for nothing."""
    _, found = bench.try_("cleans", kernel="shaky")
    assert (ids(found["mended"]), found["unchanged"]) == ([], 3)


def test_what_the_base_breaks_now_and_then_is_no_fault_of_the_series(bench: Bench) -> None:
    status, found = bench.try_("cleans", "breaks", kernel="fickle")
    assert (status, ids(found["broken"]), ids(found["undecided"])) == (2, [], ["OWN-1"])
    assert found["undecided"][0]["again"] == [2, 2, 2]


def test_each_patch_is_blamed_for_what_it_does_again(bench: Bench) -> None:
    _, found = bench.try_("flakes", "tidies", each=True)
    assert [step["said"] for step in found["steps"]] == ["1 tests undecided"]
    assert found["culprit"] is None


def test_each_patch(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = bench.try_("cleans", "breaks", "garbles", "restores", each=True)
    assert status == 2
    assert [(step["patch"], step["said"]) for step in found["steps"]] == [
        (1, "good"),
        (2, "breaks OWN-1"),
        (3, "garbles does not compile"),
    ]
    assert "patch 2 of 4, [PATCH 2/4] vfio: breaks: breaks OWN-1" in capsys.readouterr().out


def test_a_kernel_that_does_not_boot(bench: Bench) -> None:
    status, found = bench.try_("cleans", "halts", "tidies")
    assert status == 1
    assert found["crash"] == "no guest boots"
    assert found["culprit"] == [2, "[PATCH 2/3] vfio: halts"]


def test_a_kernel_that_does_not_boot_on_the_machine_of_a_suite(bench: Bench) -> None:
    selection = Selection(suites=("programs",))
    status, found = bench.try_("cleans", "sticks", "tidies", selection=selection)
    assert status == 1
    assert found["culprit"] == [2, "[PATCH 2/3] vfio: sticks"]


def test_a_base_that_does_not_boot_either(bench: Bench) -> None:
    bench.try_("cleans")
    with pytest.raises(LabError, match="the base does not boot either"):
        bench.try_("halts", kernel="halts")


def test_new_warnings_are_told(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    said = {"file": "drivers/vfio/group.c", "line": 3, "text": "unused variable 'x'"}
    bench.base.warnings.append(said)
    status, found = bench.try_("cleans")
    assert status == 0
    assert found["warnings"] == [said]
    words = "new warning drivers/vfio/group.c:3: unused variable 'x'"
    assert words in " ".join(capsys.readouterr().out.split())


def test_its_script_tries_it_again(bench: Bench) -> None:
    """The mail that was read then is what it takes, not what the file holds now."""
    bench.try_("breaks", selection=Selection(suites=("contract",), rules=("OWN-1",)))
    (script,) = bench.folder.glob("out-*/replay.sh")
    (bench.folder / "series.mbox").unlink()
    (bench.folder / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\npwd\n')
    done = subprocess.run(
        [script.relative_to(bench.folder), "--json"],
        capture_output=True,
        text=True,
        check=True,
        cwd=bench.folder,
        env={**os.environ, "CDPATH": str(bench.folder)},  # with it `cd` prints where it went
    )
    words = done.stdout.split()
    # without -P a lab.py in the current folder would be run
    assert words[:5] == ["-P", "-m", "lab", "series", str(script.parent / "series.mbox")]
    assert Path(words[4]).is_file()
    assert words[-4:] == ["OWN-1", "--no-speed", "--json", str(Path.cwd())]


def test_junit_blames_the_series_for_nothing_that_the_base_breaks(bench: Bench) -> None:
    bench.try_("breaks")
    (file,) = bench.folder.glob("out-*/junit.xml")
    cases = {case.get("name"): case for case in ET.parse(file).iter("testcase")}
    assert cases["test_OWN-1"].find("failure") is not None
    known = cases["test_OWN-2"].find("skipped")
    assert known is not None
    assert "the base, breaks it, too" in known.get("message", "")


@pytest.mark.parametrize(
    ("word", "kernel", "element"),
    [("reports", None, "failure"), ("loses", None, "error"), ("cleans", "loses", "error")],
)
def test_junit_says_what_the_exit_status_says(
    bench: Bench, word: str, kernel: str | None, element: str
) -> None:
    status, _ = bench.try_(word, kernel=kernel)
    (file,) = bench.folder.glob("out-*/junit.xml")
    assert status == {"failure": 1, "error": 2}[element]
    assert [found.tag for found in ET.parse(file).iter() if found.tag in ("failure", "error")] == [
        element
    ]


def test_a_new_report_of_the_kernel(bench: Bench) -> None:
    status, found = bench.try_("reports")
    assert status == 1
    assert found["splats"] == ["WARNING in f"]


def test_a_report_that_the_base_brings_later_is_not_new(bench: Bench) -> None:
    _, found = bench.try_("reports", "breaks")
    assert ids(found["broken"]) == ["OWN-1"]
    assert found["splats"] == []


def test_what_it_touches_is_tested_first(bench: Bench) -> None:
    bench.try_("cleans", selection=Selection(suites=()))
    assert bench.runs == ["base", "cleans"] * 2


def test_what_does_not_boot_is_not_said_to_break_nothing(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    status, _ = bench.try_("halts", selection=Selection(suites=()))
    assert status == 1
    said = capfd.readouterr().err
    assert "breaks nothing" not in said
    assert "it does not boot; now once more" in said


def test_a_lost_guest_is_no_verdict(bench: Bench) -> None:
    status, found = bench.try_("loses")
    assert status == 2
    assert ids(found["undecided"]) == ["OWN-3"]


def test_the_base_is_tested_once(bench: Bench) -> None:
    bench.try_("cleans")
    bench.try_("tidies")
    assert bench.runs == ["base", "cleans", "tidies"]
    bench.base.key.append("another")
    bench.try_("moves")
    (bench.lab.root / "tests").mkdir()
    (bench.lab.root / "tests" / "test_new.py").touch()
    bench.try_("moves")
    (bench.lab.root / "kernels" / "known.yaml").touch()
    (bench.lab.root / "kernels" / "known.yaml").write_text("# of none")
    bench.try_("moves")
    assert bench.runs[3:] == ["base", "moves"] * 3


def test_a_base_that_lost_a_guest_is_tested_anew(bench: Bench) -> None:
    for _ in range(2):
        status, found = bench.try_("cleans", kernel="loses")
        assert (status, ids(found["undecided"])) == (2, ["OWN-3"])
    assert bench.runs == ["base", "cleans"] * 2


def test_a_base_that_moves_is_no_base(bench: Bench) -> None:
    """A tree's HEAD is asked for by each run."""
    (bench.folder / "moved").touch()
    with pytest.raises(LabError, match="has become another kernel"):
        bench.try_("cleans")
    (bench.folder / "moved").unlink()
    bench.try_("cleans")
    assert bench.runs == ["base", "base", "cleans"]


def test_the_base_is_tested_with_what_the_series_brings(bench: Bench) -> None:
    brought = bench.folder / "brought"
    brought.mkdir()
    selection = Selection(suites=("contract",), tests=brought)
    for text in ("", "", "# more"):
        (brought / "test_new.py").write_text(text)
        bench.try_("cleans", selection=selection)
    assert bench.runs == ["base", "cleans", "cleans", "base", "cleans"]


def test_what_it_brings_must_pass_with_it(bench: Bench) -> None:
    """OWN-2 is broken on the base; here its test is the series' own."""
    (bench.folder / "brought").mkdir()
    selection = Selection(suites=("contract",), tests=bench.folder / "brought")
    status, found = bench.try_("mends", selection=selection)
    assert (status, ids(found["mended"])) == (0, ["OWN-2"])
    status, found = bench.try_("cleans", selection=selection)
    assert (status, ids(found["broken"]), found["culprit"]) == (1, ["OWN-2"], None)


def test_quick_is_about_what_the_series_touches(bench: Bench) -> None:
    _, found = bench.try_("cleans", quick=True)
    wanted = set(concerned(["drivers/vfio/group.c"]))
    assert {"OWN-2"} <= wanted
    assert "MAP-1" not in wanted
    assert found["unchanged"] == len(wanted & {"OWN-1", "OWN-2", "OWN-3"})


def test_quick_without_a_rule_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "concerned", lambda _: [])
    with pytest.raises(ConfigurationError, match="no rule of the contract"):
        bench.try_("cleans", quick=True)


def test_a_run_that_left_nothing(bench: Bench) -> None:
    (bench.folder / "python").write_text("#!/bin/sh\nexit 2\n")
    with pytest.raises(LabError, match="left no results"):
        bench.try_("cleans")


@pytest.mark.parametrize(
    ("choice", "selection"),
    [
        (Choice(machine="vtdd"), Selection(("contract",))),
        (Choice(image="minmal"), Selection(("contract",))),
        (Choice(), Selection(("contact",))),
        (Choice(), Selection(("contract",), rules=("OWN-33",))),
    ],
)
def test_names_that_there_are_not_are_told_before_anything_is_built(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, choice: Choice, selection: Selection
) -> None:
    monkeypatch.setattr(Base, "prepare", lambda *_, **__: pytest.fail("a base was prepared"))
    mail = bench.folder / "series.mbox"
    mail.write_text(PATCH.format(number=1, total=1, word="tidies"))
    with pytest.raises(ConfigurationError, match="is not known"):
        try_series(bench.lab, choice, Order(str(mail), selection), out=None, as_json=False)
