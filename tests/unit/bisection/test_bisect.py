# SPDX-License-Identifier: GPL-2.0-only
"""Looking for the first bad one: in a row, in a git tree, with verdicts that are kept."""

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from lab.bisect import line
from lab.bisect.commits import Commits
from lab.bisect.judge import Candidate, Judge
from lab.bisect.memory import FILE, Judgement, Memory, Verdict
from lab.cache import Cache
from lab.cell import Choice
from lab.config import Lab
from lab.errors import BuildError, ConfigurationError, InfrastructureError
from lab.kernel import versions
from lab.kernel.versions import Kind as Of
from lab.kernel.versions import Offer, Offers
from lab.progress import Progress
from lab.repro.attempt import Attempt
from lab.repro.order import Limits, Order
from lab.repro.reproduction import Reproduction
from lab.repro.sign import Kind, Sign

ROOT = Path(__file__).parents[3]
SIGN = Sign(Kind.STATUS, "it exited with status 1")
GOOD, BAD, SKIP = Verdict.GOOD, Verdict.BAD, Verdict.SKIP


class FakeJudge(Judge):
    """Whose attempts are made up: `shows` says of a kernel's name in which of them it shows."""

    shows: Callable[[str, int], bool]
    asked: list[str]

    def _attempted(self, candidate: Candidate, limits: Limits) -> tuple[Reproduction, Path]:
        self.asked.append(candidate.name)
        made: list[Attempt] = []
        for number in range(1, (limits.times or 100) + 1):
            shown = (SIGN,) if self.shows(candidate.name, number) else ()
            made.append(Attempt(number, 0.1, shown))
            if sum(bool(each.shown) for each in made) == limits.shown:
                break
        return Reproduction(self.order, candidate.name, "vtd", tuple(made), (), 1.0, 1), Path("run")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VFIO_LAB_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def judge_of(
    shows: Callable[[str, int], bool], question: Mapping[str, str] | None = None
) -> FakeJudge:
    memory = Memory.of(question or {"what": "x"})
    quiet = Progress(quiet=True)
    judge = FakeJudge(Lab.load(ROOT), Order("repro.c"), memory, quiet, 0.99, 60.0)
    object.__setattr__(judge, "shows", shows)
    object.__setattr__(judge, "asked", [])
    return judge


def row(total: int) -> list[Candidate]:
    return [Candidate(str(place), f"kernel {place}", Choice()) for place in range(total + 1)]


def test_a_sure_sign_asks_for_few_quiet_attempts(state: Path) -> None:
    del state
    judge = judge_of(lambda name, _: int(name) >= 3)
    culprit = line.bisect(row(5), judge)
    assert (culprit.first, culprit.last, culprit.subject) == (3, 3, "kernel 3")
    assert judge.needed == 6  # 5 of 5: at least 55 %, and 0.45 ** 6 < 0.01
    assert judge.memory.judged["2"] == Judgement(GOOD, 0, 6, run="run")
    assert judge.memory.judged["3"] == Judgement(BAD, 1, 1, run="run")


def test_a_rare_one_asks_for_many(state: Path) -> None:
    """One attempt in ten shows it: 5 of 50 say that at least one in 25 does."""
    del state
    judge = judge_of(lambda name, number: int(name) >= 3 and number % 10 == 0)
    assert line.bisect(row(5), judge).last == 3
    assert judge.needed == 113
    assert judge.memory.judged["2"].of == 113


def test_what_does_not_build_is_skipped(state: Path) -> None:
    del state

    def shows(name: str, _: int) -> bool:
        if name == "3":
            raise BuildError("it does not compile:\nline 1")
        return int(name) >= 4

    judge = judge_of(shows)
    culprit = line.bisect(row(5), judge)
    assert (culprit.first, culprit.last) == (3, 4)
    assert not culprit.is_known
    assert judge.memory.judged["3"] == Judgement(SKIP, why="it does not compile:")


def test_a_lab_that_fails_judges_nothing(state: Path) -> None:
    del state

    def shows(name: str, _: int) -> bool:
        if name == "2":
            raise InfrastructureError("the disk is full")
        return name == "5"

    judge = judge_of(shows)
    with pytest.raises(InfrastructureError):
        line.bisect(row(5), judge)
    assert "2" not in judge.memory.judged


def test_it_goes_on_where_it_was(state: Path) -> None:
    first = judge_of(lambda name, _: int(name) >= 3)
    line.bisect(row(5), first)
    again = judge_of(lambda name, _: pytest.fail(f"{name} is known"))
    assert line.bisect(row(5), again).last == 3
    assert not again.asked
    assert len(list(state.glob(f"bisect/*/{FILE}"))) == 1
    other = judge_of(lambda name, _: int(name) >= 4, {"what": "y"})
    assert line.bisect(row(5), other).last == 4


def test_ends_that_are_not_what_they_are_said_to_be(state: Path) -> None:
    del state
    with pytest.raises(ConfigurationError, match="kernel 5 is not bad: it did not show in 100"):
        line.bisect(row(5), judge_of(lambda *_: False))
    with pytest.raises(ConfigurationError, match="kernel 0 is not good: it showed in attempt 1"):
        line.bisect(row(5), judge_of(lambda *_: True, {"what": "y"}))


def test_all_versions_of_a_package_between_two(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = ["6.1.90-1", "6.1.112-1", "6.1.119-1", "6.1.119-2", "6.12.9-1", "6.17.1-1"]
    all_ = [Offer(Of.BUILT, "linux-image", version, "trixie") for version in listed]
    all_ += [Offer(Of.SOURCE, "linux", "6.1.100-1", "trixie")]
    monkeypatch.setattr(versions, "known", lambda *_: Offers(tuple(all_), 0.0))
    lab, cache = Lab.load(ROOT), Cache(Path("nowhere"))
    found = line.of_kernels(lab, Choice(), ("deb:6.12.9", "deb:6.1.90"), (), cache)
    names = [each.name for each in found]
    assert names == ["deb:6.12.9", "deb:6.1.119", "deb:6.1.112", "deb:6.1.90"]
    named = line.of_kernels(lab, Choice(), ("deb:6.12.9", "deb:6.1.90"), ["v6.12"], cache)
    assert [each.choice.kernel for each in named] == ["deb:6.12.9", "v6.12", "deb:6.1.90"]


# Commits


def git(tree: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", tree, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Eight commits, the sixth of which is bad."""
    tree = tmp_path / "tree"
    tree.mkdir()
    git(tree, "init", "-q", "-b", "main")
    git(tree, "config", "user.name", "a")
    git(tree, "config", "user.email", "a@b")
    for number in range(8):
        (tree / "file.c").write_text(f"line {number}\n" + ("bad\n" if number >= 5 else ""))
        git(tree, "add", "file.c")
        git(tree, "commit", "-qm", f"Number {number}")
    return tree


def walk(commits: Commits, judged: Callable[[str], Verdict]) -> list[str]:
    seen = []
    while commit := commits.current:
        subject = git(commits.tree, "show", "-s", "--format=%s", commit)
        seen.append(subject)
        commits.mark(commit, judged(subject))
    return seen


def number(subject: str) -> int:
    return int(subject.rsplit(maxsplit=1)[-1])


def test_a_range_by_gits_own_rules(tree: Path, tmp_path: Path) -> None:
    before = {name: git(tree, *name.split()) for name in ("for-each-ref", "status --porcelain")}
    commits = Commits.between(tree, "main~7", "main", tmp_path / "git")
    seen = walk(commits, lambda subject: BAD if number(subject) >= 5 else GOOD)
    assert [commits.title(commit).partition(" ")[2] for commit in commits.possible] == ["Number 5"]
    assert len(seen) <= 3
    assert before == {name: git(tree, *name.split()) for name in before}, "the tree is only read"
    log = tmp_path / "log"
    log.write_text(commits.log)
    git(tree, "bisect", "replay", str(log))
    assert "Number 5" in git(tree, "bisect", "log").splitlines()[-1]


def test_commits_that_cannot_be_judged(tree: Path, tmp_path: Path) -> None:
    def judged(subject: str) -> Verdict:
        if number(subject) in (4, 5):
            return SKIP
        return BAD if number(subject) >= 5 else GOOD

    commits = Commits.between(tree, "main~7", "main", tmp_path / "git")
    walk(commits, judged)
    subjects = sorted(commits.title(commit).partition(" ")[2] for commit in commits.possible)
    assert subjects == ["Number 4", "Number 5", "Number 6"]


def test_a_range_goes_on_where_it_was(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "git" / "refs").mkdir(parents=True)  # a clone that was killed
    first = Commits.between(tree, "main~7", "main", tmp_path / "git")
    commit = first.current
    assert commit
    first.mark(commit, GOOD)
    again = Commits.between(tree, "main~7", "main", tmp_path / "git")
    assert again.current != commit
    assert again.left() < 5


def test_a_commit_is_one_patch_on_the_good_end(tree: Path, tmp_path: Path) -> None:
    commits = Commits.between(tree, "main~7", "main", tmp_path / "git")
    candidate = commits.candidate(git(tree, "rev-parse", "main~2"), Choice(), "+kasan")
    assert candidate.choice.kernel == f"{tree}@{commits.good}+kasan"
    series = candidate.choice.series
    assert series
    assert series.files == ("file.c",)
    git(tree, "checkout", "-q", commits.good)
    (tmp_path / "mail").write_bytes(series.content)
    git(tree, "am", "-q", str(tmp_path / "mail"))
    assert git(tree, "diff", "main~2") == ""
    own = commits.candidate(commits.good, Choice(), "")
    assert own.choice.series is None


def test_ends_that_git_does_not_know(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nothing"):
        Commits.between(tree, "nothing", "main", tmp_path / "git")
    with pytest.raises(ConfigurationError, match="git cannot bisect"):
        Commits.between(tree, "main", "main~7", tmp_path / "git")
