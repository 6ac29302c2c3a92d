# SPDX-License-Identifier: GPL-2.0-only
"""How a guest is compared with how it was; what detectors say. No guest answers here."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import cast

import pytest

from lab.agent.errors import RemoteError
from lab.agent.process import Process
from lab.condition import Condition, condition, kernel, needs
from lab.condition.allocations import ALLOCATIONS, sites
from lab.condition.asking import Question, ask
from lab.condition.detector import Detector, Seen
from lab.condition.kernel import KCSAN, LOCKDEP, MODULES, TAINT
from lab.condition.processes import PROCESSES
from lab.errors import InfrastructureError
from lab.vfio.device import Device

See = Callable[..., Condition]
NOBODY = cast(Process, None)  # is not asked, as no detector here has a question


class Scripted:
    """A detector that sees these things, one after the other; the last for good."""

    def __init__(self, *seen: Seen | Exception | None, patience: float = 0.0) -> None:
        self._seen = list(seen)
        self.detector = Detector("things", self._look, self._tell, patience)

    def _look(self, known: Seen | None) -> Question[Seen | None]:
        del known
        yield from ()
        seen = self._seen.pop(0) if len(self._seen) > 1 else self._seen[0]
        if isinstance(seen, Exception):
            raise seen
        return seen

    @staticmethod
    def _tell(thing: str, before: str | None, now: str | None) -> str:
        return f"{thing}: {before} -> {now}" if now != "nobody's fault" else ""


@pytest.fixture
def see(monkeypatch: pytest.MonkeyPatch) -> See:
    def see(*seen: Seen | Exception | None, patience: float = 0.0) -> Condition:
        """A guest that was like the first of these; what is left is asked of the others."""
        scripted = Scripted(*seen, patience=patience)
        monkeypatch.setattr(condition, "DETECTORS", (scripted.detector,))
        return Condition.of(NOBODY, {"edu0": Device("edu0", "0000:00:01.0")})

    return see


def test_what_is_new_gone_and_other_is_told(see: See) -> None:
    before = see({"a": "1", "b": "2", "0000:00:01.0": "x"}, {"b": "3", "c": "4"})
    assert before.leftovers(NOBODY) == [
        "a: 1 -> None",
        "b: 2 -> 3",
        "edu0: x -> None",
        "c: None -> 4",
    ]


def test_nothing_is_told_of_what_is_nobodys_fault(see: See) -> None:
    assert see({"a": "1"}, {"a": "nobody's fault"}).leftovers(NOBODY) == []


def test_what_comes_right_within_its_time_is_not_told(see: See) -> None:
    transient = ({"a": "1"}, {"a": "2"}, {"a": "2"}, {"a": "1"})
    assert see(*transient, patience=5.0).leftovers(NOBODY) == []
    assert see(*transient).leftovers(NOBODY) == ["a: 1 -> 2"]
    assert see(*transient, patience=5.0).leftovers(NOBODY, stretch=0.0) == ["a: 1 -> 2"]


def test_a_detector_without_anything_to_look_at_does_not_count(see: See) -> None:
    before = see(None, {"a": "1"})
    assert before.detectors == ()
    assert before.leftovers(NOBODY) == []


@pytest.mark.parametrize("first", [{"a": "1"}, {}])
def test_a_detector_that_saw_and_does_not_is_an_error(see: See, first: Seen) -> None:
    before = see(first, None)
    with pytest.raises(InfrastructureError, match="does not tell any more: things"):
        before.leftovers(NOBODY)


@pytest.mark.parametrize("first", [{"a": "off"}, {"a": "on"}])
def test_a_detector_that_was_off_from_the_start_is_none(
    monkeypatch: pytest.MonkeyPatch, first: Seen
) -> None:
    def off(seen: Seen) -> str:
        return "it is off" if seen["a"] == "off" else ""

    detector = replace(Scripted(first).detector, off=off)
    monkeypatch.setattr(condition, "DETECTORS", (detector,))
    before = Condition.of(NOBODY, {})
    assert before.off == ({"things": "it is off"} if first == {"a": "off"} else {})
    assert before.detectors == (() if before.off else ("things",))
    assert before.leftovers(NOBODY) == []


@pytest.mark.parametrize(
    ("stats", "seen"),
    [
        (" lock-classes:        587 [max: 8192]\n debug_locks:          1\n\n", "1"),
        (" lock-classes:        587 [max: 8192]\n debug_locks:          0\n", "0"),
        (None, None),
    ],
)
def test_what_lockdep_says_of_itself(
    monkeypatch: pytest.MonkeyPatch, stats: str | None, seen: str | None
) -> None:
    """kernel/locking/lockdep_proc.c: lockdep_stats_show()."""
    monkeypatch.setattr(kernel, "stream", partial(_answer, stats))
    assert ask(NOBODY, LOCKDEP.look(None)) == ({"lockdep": seen} if seen else None)


@pytest.mark.parametrize(
    ("counters", "seen"),
    [("enabled: 1\nused_watchpoints: 0\n", "1"), ("enabled: 0\n", "0"), (None, None)],
)
def test_what_kcsan_says_of_itself(
    monkeypatch: pytest.MonkeyPatch, counters: str | None, seen: str | None
) -> None:
    """kernel/kcsan/debugfs.c: show_info(). One that was built and is off has been taken for one
    that sees."""
    monkeypatch.setattr(kernel, "stream", partial(_answer, counters))
    assert ask(NOBODY, KCSAN.look(None)) == ({"kcsan": seen} if seen else None)
    assert bool(KCSAN.off({"kcsan": seen or "1"})) is (seen == "0")


@pytest.mark.parametrize("detector", [LOCKDEP, KCSAN], ids=lambda each: str(each.name))
def test_who_does_not_say_whether_he_sees_is_an_error(
    monkeypatch: pytest.MonkeyPatch, detector: Detector
) -> None:
    monkeypatch.setattr(kernel, "stream", partial(_answer, " lock-classes: 587\n"))
    with pytest.raises(InfrastructureError, match=f"does not tell whether {detector.name} is on"):
        ask(NOBODY, detector.look(None))


def _answer(answer: str | None, *_: object) -> Question[str | None]:
    yield from ()
    return answer


def test_every_detector_says_what_it_needs() -> None:
    found = needs()
    assert found["processes"] == ""
    assert found["lockdep"] == "CONFIG_PROVE_LOCKING"
    assert found["kmemleak"] == "CONFIG_DEBUG_KMEMLEAK"


def test_a_detector_that_is_refused_is_an_error(see: See) -> None:
    before = see({}, RemoteError(13, "openat /proc/modules"))
    with pytest.raises(InfrastructureError, match=r"the look at things: .*modules.*EACCES"):
        before.leftovers(NOBODY)


@pytest.mark.parametrize(
    ("detector", "change", "words"),
    [
        (TAINT, ("taint", "0", "512"), "the kernel is tainted: W (a warning)"),
        (TAINT, ("taint", "512", "640"), "the kernel is tainted: D (an oops or a BUG)"),
        (TAINT, ("taint", "0", "64"), ""),
        (TAINT, ("taint", "0", str(1 << 40)), "the kernel is tainted: bit 40"),
        (LOCKDEP, ("lockdep", "1", "0"), "lockdep is off: it sees nothing any more"),
        (KCSAN, ("kcsan", "1", "0"), "kcsan is off: it sees nothing any more"),
        (MODULES, ("vfio", "2", "3"), "module vfio is held 3 times, not 2"),
        (MODULES, ("vfio", "2", None), "module vfio has been unloaded"),
        (MODULES, ("vfio", None, "0"), "module vfio has been loaded"),
        (
            ALLOCATIONS,
            ("f() in f.c:1", "96 1", "192 2"),
            "1 allocations of f() in f.c:1, 96 bytes in all",
        ),
        (
            ALLOCATIONS,
            ("f() in f.c:1", None, "96 1"),
            "1 allocations of f() in f.c:1, 96 bytes in all",
        ),
        (ALLOCATIONS, ("f() in f.c:1", "192 2", "96 1"), ""),
        (PROCESSES, ("7", None, "agent"), "process 7 lives on: agent"),
        (PROCESSES, ("7", "init", None), "process 7 is gone: init"),
        (PROCESSES, ("7", None, ""), ""),  # threads of the kernel come and go
        (PROCESSES, ("7", "", None), ""),
    ],
)
def test_words(detector: Detector, change: tuple[str, str | None, str | None], words: str) -> None:
    assert detector.tell(*change) == words


def test_sites_of_allocinfo() -> None:
    """lib/alloc_tag.c: alloc_tag_to_text(), lib/codetag.c: codetag_to_text()."""
    assert sites(_ALLOCINFO) == {
        "vfio_df_open() in drivers/vfio/vfio_main.c:501": "96 1",
        "iommufd_fops_open() in drivers/iommu/iommufd/main.c:228": "0 0",
        "irq_bypass_register_producer() in virt/lib/irqbypass.c:90": "1234567890123 12345678",
    }


_ALLOCINFO = """\
allocinfo - version: 1.0
#     <size>  <calls> <tag info>
        4096        1 init/main.c:1307 func:do_initcalls
          96        1 drivers/vfio/vfio_main.c:501 [vfio] func:vfio_df_open
           0        0 drivers/iommu/iommufd/main.c:228 func:iommufd_fops_open
1234567890123 12345678 virt/lib/irqbypass.c:90 func:irq_bypass_register_producer
         512        2 drivers/virtio/virtio_ring.c:1 func:drivers/vfio/no
"""
