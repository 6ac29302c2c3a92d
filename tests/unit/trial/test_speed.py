# SPDX-License-Identifier: GPL-2.0-only
"""When a figure has changed, and when it only differs."""

import json
import random
import subprocess
from pathlib import Path

import pytest

from lab.trial import speed
from lab.trial.speed import FEWEST, PAIRS, Change, compared, figure_of, figures_of

PROGRAM = Path(speed.__file__).parents[1] / "programs" / "speed.c"


def pairs_of(*differences: float, before: float = 0.001) -> list[tuple[float, float]]:
    return [(before, before + difference) for difference in differences]


SLOWER = [0.0002, 0.00019, 0.00025, 0.00012, 0.0001, 0.0002, 0.0003, 0.0002, 0.00021]


def test_what_all_pairs_have_is_a_change() -> None:
    change = Change.of("group bind", pairs_of(*SLOWER))
    assert change.verdict == "slower"
    assert change.before == pytest.approx(0.001)
    assert change.after == pytest.approx(0.0012)
    assert change.noise == pytest.approx(0.00009)
    assert str(change) == "group bind: slower, from 1 to 1.2 ms, noise 0.09 ms"


def test_a_change_for_the_better() -> None:
    assert Change.of("map", pairs_of(*(-each for each in SLOWER))).verdict == "faster"


@pytest.mark.parametrize("odd", [(-0.00013,), (-0.01,), (-0.00001, -0.00001)])
def test_what_some_pairs_have_not_is_none(odd: tuple[float, ...]) -> None:
    change = Change.of("map", pairs_of(*SLOWER, *odd))
    assert change.verdict == "same"
    assert change.noise >= 0.0002


def test_one_pair_that_all_but_has_it_hides_no_change() -> None:
    assert Change.of("map", pairs_of(*SLOWER, -0.00005)).verdict == "slower"


def test_one_pair_that_was_disturbed_hides_no_change() -> None:
    assert Change.of("map", pairs_of(*SLOWER, 0.5)).verdict == "slower"


def test_a_change_larger_than_the_noise_would_have_shown() -> None:
    differences = [-0.00005, 0.0001, 0.00002, -0.00008, 0.00006, 0.0, 0.00003, 0.00004, 0.0]
    noise = Change.of("map", pairs_of(*differences)).noise
    change = Change.of("map", pairs_of(*differences)).after - 0.001
    more = noise - change + 1e-9
    assert Change.of("map", pairs_of(*(each + more for each in differences))).verdict == "slower"
    less = noise - change - 1e-9
    assert Change.of("map", pairs_of(*(each + less for each in differences))).verdict == "same"


@pytest.mark.parametrize("sign", [1, -1])
def test_it_would_have_shown_either_way(sign: int) -> None:
    """Two guests that were disturbed hide what is faster more than what is slower."""
    differences = [sign * each for each in (*[0.00001] * 8, 0.0004, 0.0005)]
    change = Change.of("map", pairs_of(*differences))
    assert change.verdict == "same"
    for direction, verdict in ((1, "slower"), (-1, "faster")):
        shift = direction * (change.noise + 1e-9) - (change.after - change.before)
        assert Change.of("map", pairs_of(*(d + shift for d in differences))).verdict == verdict


def test_a_change_that_is_nobodys_concern_is_none() -> None:
    change = Change.of("map", pairs_of(*[0.00002] * FEWEST))
    assert change.verdict == "same"
    assert str(change) == "map: same, 1 ms; 0.03 ms more or less would show"


def test_few_pairs_say_nothing() -> None:
    with pytest.raises(ValueError, match="8 pairs of guests say nothing"):
        Change.of("map", pairs_of(*SLOWER[:8]))


def test_noise_alone_is_seldom_called_a_change() -> None:
    chance = random.Random(1)

    def figure() -> float:
        return 0.001 + chance.paretovariate(1.5) * 0.0005  # a busy host: long delays, all upwards

    verdicts = [
        Change.of("map", [(figure(), figure()) for _ in range(PAIRS)]).verdict for _ in range(2000)
    ]
    assert sum(verdict != "same" for verdict in verdicts) <= 2000 * 2 * 4 / 2**PAIRS


def test_what_the_program_prints() -> None:
    output = "ioctl(x): Invalid argument\ngroup bind 1500 2000\ngroup map 3\ncdev: not measured\n"
    assert figures_of(output) == {
        "group bind": pytest.approx([1.5e-6, 2e-6]),
        "group map": pytest.approx([3e-9]),
    }


def test_a_guest_is_as_fast_as_it_was_when_nothing_disturbed_it() -> None:
    assert figure_of([0.9, 0.003, 0.9, 0.001, 0.002, 0.9, 0.9]) == 0.003
    assert figure_of([0.002, 0.001]) == 0.002


def test_only_what_both_kernels_can_do_is_compared() -> None:
    both, one = {"boot": 2.0, "cdev bind": 0.001}, {"boot": 2.0}
    assert [change.what for change in compared([(both, both)] * FEWEST)] == ["boot", "cdev bind"]
    assert [change.what for change in compared([(both, one)] * FEWEST)] == ["boot"]


def test_json_can_write_it() -> None:
    plain = Change("boot", 2.0, 2.5, 0.1).to_json()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["verdict"] == "slower"


def test_the_program_compiles_without_a_word_and_without_iommufd_too(tmp_path: Path) -> None:
    words = ["gcc", "-Wall", "-Wextra", "-Werror", "-o", str(tmp_path / "speed"), str(PROGRAM)]
    subprocess.run(words, check=True)
    done = subprocess.run([tmp_path / "speed", "3"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")  # no device was named
