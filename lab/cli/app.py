# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab`: the command line as a whole.

A command imports what it needs when it is called: `vfio-lab run` has QEMU started before most of
Python's packages are loaded, and `--help` loads none of them.
"""

from typing import Any

import typer
from typer.core import TyperGroup

from lab.errors import LabError


class Commands(TyperGroup):
    """All commands. Of one that is interrupted typer would make a status of its own, by its version
    that of a broken rule."""

    def invoke(self, ctx: Any) -> Any:
        """Run one. Raises what it raises."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise LabError("interrupted") from None


app = typer.Typer(
    cls=Commands,
    help="A QEMU-backed end-to-end lab for Linux VFIO and IOMMUFD.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
