# SPDX-License-Identifier: GPL-2.0-only
"""What the look after a test may find, and whose fault it is when the look itself fails."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab import watch as module
from lab.errors import LabError
from lab.results.judge import Judgement
from lab.results.verdict import Verdict
from lab.watch import Watch
from lab.worker import Worker

_FOUND = Judgement(Verdict.BROKEN, "the kernel reported: WARNING in f", ("its report",))


class Scene:
    """A test that has run, in a guest that lives; `look` is what the look after it does."""

    def __init__(self) -> None:
        guest = SimpleNamespace(
            alive=True,
            heard=0,
            faults_heard=0,
            ssh=SimpleNamespace(run=lambda *_, **__: SimpleNamespace(output="")),
            silent=lambda _: None,
            printed_since=lambda _: "",
        )
        self.testbed = SimpleNamespace(
            guest=guest, machine_name="vtd", trace=SimpleNamespace(take=list)
        )
        self.discarded = 0
        session = SimpleNamespace(
            cell=SimpleNamespace(current=self.testbed),
            discard_guest=self._discard,
            with_lines=lambda splats: splats,
        )
        self.watch = Watch(cast("Worker", session), "test_it", None, last=False)

    def _discard(self) -> None:
        self.discarded += 1

    def raised(self, error: BaseException) -> None:
        """A phase of the test has ended with it."""
        call = SimpleNamespace(duration=0.1, excinfo=SimpleNamespace(value=error))
        self.watch.see(cast(Any, call), cast(Any, SimpleNamespace(longreprtext="its traceback")))

    def ends(self, monkeypatch: pytest.MonkeyPatch, look: Callable[..., Judgement]) -> Judgement:
        monkeypatch.setattr(module.Watch, "_afterwards", look)
        return self.watch.end()


@pytest.fixture
def scene() -> Scene:
    return Scene()


def _finds(*_: object) -> Judgement:
    return _FOUND


def _finds_nothing(_watch: object, _testbed: object, _announced: object, so_far: Judgement) -> Any:
    return so_far


def _breaks(*_: object) -> Judgement:
    raise ValueError("a line that nobody expected")


def test_a_test_that_passed_answers_for_what_is_found(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scene.ends(monkeypatch, _finds) == _FOUND
    assert scene.discarded == 1


@pytest.mark.parametrize("error", [LabError("no room"), ZeroDivisionError("by zero")])
def test_a_lab_error_stays_one_and_says_what_else_is_wrong(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    scene.raised(error)
    ended = scene.ends(monkeypatch, _finds)
    assert (ended.verdict, ended.splats) == (Verdict.LAB_ERROR, ("its report",))
    assert ended.message.endswith(f"{error}; the kernel reported: WARNING in f")
    assert scene.discarded == 1
    assert not scene.watch.found_afterwards


def test_a_lab_error_in_a_guest_that_is_as_it_was(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.raised(LabError("no room"))
    assert scene.ends(monkeypatch, _finds_nothing) == Judgement(Verdict.LAB_ERROR, "no room")
    assert scene.discarded == 1


@pytest.mark.parametrize("error", [None, AssertionError("EINVAL")])
def test_a_look_that_fails_is_that_tests_lab_error(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    if error:
        scene.raised(error)
    ended = scene.ends(monkeypatch, _breaks)
    assert ended.verdict is Verdict.LAB_ERROR
    told = "the look after the test: ValueError: a line that nobody expected"
    assert ended.message == (f"EINVAL; {told}" if error else told)
    assert "_breaks" in scene.watch.detail
    assert scene.discarded == 1
    assert scene.watch.found_afterwards


def test_ctrl_c_is_nobodys_verdict(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> Judgement:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scene.ends(monkeypatch, interrupted)
