# SPDX-License-Identifier: GPL-2.0-only
"""Looking at a kernel builds nothing, and agrees with what a build would find."""

from collections.abc import Callable

import pytest

from lab.cache import Cache
from lab.config import Lab
from lab.errors import ConfigurationError
from lab.kernel import State, look, prepare
from lab.progress import Progress


@pytest.fixture
def seen(lab: Lab, cache: Cache) -> Callable[[str], State]:
    return lambda spec: look(spec, lab, cache)


def test_nobody_knows_a_source_that_was_never_read(
    seen: Callable[[str], State], cache: Cache
) -> None:
    assert seen("ball") == State(None, None)
    assert not cache.root.exists()


@pytest.mark.usefixtures("make")
def test_what_is_built_is_what_prepare_finds(
    seen: Callable[[str], State], lab: Lab, cache: Cache, progress: Progress
) -> None:
    built = prepare("ball", lab, cache, progress)
    assert seen("ball") == State("linux.tar", built)
    assert seen("ball+less") == State("linux.tar", None)


@pytest.mark.usefixtures("make")
def test_a_change_of_the_fragments_is_seen(
    seen: Callable[[str], State], lab: Lab, cache: Cache, progress: Progress
) -> None:
    prepare("ball", lab, cache, progress)
    lab.fragment("base").write_text("CONFIG_VFIO=n\n")
    assert seen("ball").built is None


@pytest.mark.usefixtures("make")
def test_looking_is_not_using(
    seen: Callable[[str], State], lab: Lab, cache: Cache, progress: Progress
) -> None:
    prepare("ball", lab, cache, progress)
    used = {entry.key: entry.used for entry in cache.entries()}
    seen("ball")
    assert {entry.key: entry.used for entry in cache.entries()} == used


def test_an_unknown_kernel_is_one_message(seen: Callable[[str], State]) -> None:
    with pytest.raises(ConfigurationError, match="'bal' is not known; expected one of ball"):
        seen("bal")
