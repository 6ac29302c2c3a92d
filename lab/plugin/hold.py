# SPDX-License-Identifier: GPL-2.0-only
"""`--hold`: a test that fails is stopped there, before anything of it is put away.

| what failed                          | what is still there                              |
|--------------------------------------|--------------------------------------------------|
| the test's own code                  | all: its frames, processes, files and mappings   |
| its fixtures, or a program           | the guest, and the processes                     |
| the look at what it has left behind  | the guest                                        |

The prompt is pytest's own pdb.
"""

import inspect
from collections.abc import Callable, Generator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from _pytest.debugging import pytestPDB
from _pytest.outcomes import Exit, Skipped, XFailed

import lab
from lab.debug import fatal
from lab.debug.hold import also_known, hold, on_terminal, somebody_is_there
from lab.plugin.items import SUITE, id_of, mode_of, rule_of
from lab.plugin.options import SESSION
from lab.testbed import Testbed
from lab.text import one_line

_HELD = pytest.StashKey[bool]()
_LONGEST = 200  # characters of why
_PACKAGE = Path(lab.__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    if config.option.hold and getattr(config.option, "numprocesses", None):
        raise pytest.UsageError("--hold is about one test at a time: it goes without -n")


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    testbed = _to_be_held(pyfuncitem)
    if not testbed or _is_known(pyfuncitem, testbed):
        return (yield)

    def stop(frame: FrameType, raised: fatal.Raised) -> None:
        if not isinstance(raised[1], Skipped | XFailed | Exit):
            words = f"{raised[0].__name__}: {raised[1]}"
            _stop(pyfuncitem, testbed, words, _test_of(frame))

    def _test_of(frame: FrameType) -> FrameType:
        """The frame of the test's own module that is the nearest to what was raised."""
        walking: FrameType | None = frame
        while walking and walking.f_code.co_filename != str(pyfuncitem.path):
            walking = walking.f_back
        return walking or frame

    roots = (_PACKAGE, pyfuncitem.path.parent)
    with fatal.told(pyfuncitem.obj.__code__, roots, stop):
        return (yield)


def pytest_exception_interact(node: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Raised by what is no test function, or in a way that only its end has shown."""
    if not isinstance(node, pytest.Item) or call.excinfo is None:
        return
    testbed = _to_be_held(node)
    if testbed and not _is_known(node, testbed):
        traceback = call.excinfo.tb
        while traceback.tb_next:
            traceback = traceback.tb_next
        _stop(node, testbed, call.excinfo.exconly(), traceback.tb_frame)


def stop_afterwards(item: pytest.Item) -> Callable[[Testbed, str], None] | None:
    """For the look at what a test has left behind: called with what was found; None where nothing
    is held."""
    if not item.config.option.hold:
        return None

    def stop(testbed: Testbed, found: str) -> None:
        if _HELD not in item.stash:
            _stop(item, testbed, found, None)

    return stop


def _to_be_held(item: pytest.Item) -> Testbed | None:
    """The guest of a test of the lab's that was not held before."""
    if not item.config.option.hold or SUITE not in item.stash or _HELD in item.stash:
        return None
    run = item.config.stash.get(SESSION, None)
    return run.cell.current if run and run.cell else None


def _is_known(item: pytest.Item, testbed: Testbed) -> bool:
    """Whether kernels/known.yaml says that it fails: nobody is to be called for that."""
    rule = rule_of(item)
    name = getattr(item, "originalname", None) or item.name
    run = item.config.stash[SESSION]
    return bool(rule and run.known(rule, mode_of(item), name, testbed.machine_name))


def _stop(item: pytest.Item, testbed: Testbed, why: str, frame: FrameType | None) -> None:
    item.stash[_HELD] = True
    run = item.config.stash[SESSION]
    words = f"{id_of(item)}: {one_line(why.partition(chr(10))[0])[:_LONGEST]}"
    names = {
        "guest": testbed.guest,
        "hands": testbed.hands,
        "devices": testbed.devices,
        **testbed.devices,
    }

    def prompt() -> None:
        place = frame or inspect.currentframe()
        assert place
        with on_terminal(), also_known(place, names):
            words = "c: the test goes on to fail, and the run to the next; q: the run ends"
            debugger: Any = pytestPDB._init_pdb(  # type: ignore[no-untyped-call]  # noqa: SLF001
                "hold", header=words
            )
            debugger.reset()
            debugger.interaction(place, None)
        if debugger.quitting:
            pytest.exit("left while a test was held")

    capture = item.config.pluginmanager.getplugin("capturemanager")
    capture.suspend(in_=True)
    try:
        with run.progress.paused():
            hold(testbed.guest.pid, words, prompt if somebody_is_there() else None)
    finally:
        capture.resume()
