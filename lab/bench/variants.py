# SPDX-License-Identifier: GPL-2.0-only
"""What a variant of the kernel costs its guests, beside the same kernel without it: a boot, and a
fixed set of tests. `slower` in lab.yaml has to be more than the greater of both ratios."""

from collections.abc import Sequence

from lab.bench import runs
from lab.bench.figures import Measured
from lab.cell import Choice
from lab.config import Lab
from lab.errors import ConfigurationError

# A few rules of each kind: open and bind, races, maps of all sizes, DMA, interrupts, death.
_RULES = ("OWN-3", "OWN-4", "MAP-1", "MAP-9", "DMA-2", "IRQ-1", "LIFE-3")
_TESTS = (*(word for rule in _RULES for word in ("--rule", rule)), "--mode", "iommufd", "-n", "1")


def measure(lab: Lab, choice: Choice, rounds: int) -> Sequence[Measured]:
    """`rounds` runs of each kernel by turns, by default 3. Raises ConfigurationError for a kernel
    that is no variant, and InfrastructureError where a test fails."""
    spec = choice.kernel or lab.run.kernel
    plain = without_variants(spec, lab)
    boots = _pair("boot", plain, spec)
    tests = _pair("tests", plain, spec)
    for _ in range(rounds or 3):
        for number, kernel in enumerate((plain, spec)):
            record = runs.of(lab, Choice(kernel=kernel, machine=choice.machine), _TESTS)
            figures = record.figures
            boots[number].values.append(figures["login_seconds"])
            waits = figures["first_call_seconds"] + figures["waited_seconds"]
            tests[number].values.append(record.seconds - waits)
    return *boots, *tests


def without_variants(spec: str, lab: Lab) -> str:
    """The same kernel without the fragments that lab.yaml calls variants.

    Raises ConfigurationError where it has none.
    """
    base, *fragments = spec.split("+")
    others = [name for name in fragments if name not in lab.variants]
    if others == fragments:
        raise ConfigurationError(
            f"{spec} is no variant of a kernel",
            hint=f"put one on it: --kernel {spec}+{next(iter(lab.variants), 'FRAGMENT')}",
        )
    return "+".join([base, *others])


def _pair(what: str, plain: str, spec: str) -> tuple[Measured, Measured]:
    floor = Measured(f"{what} on {plain}")
    return floor, Measured(f"{what} on {spec}", floor.name)
