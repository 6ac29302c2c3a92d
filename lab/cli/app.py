# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab`: the command line as a whole.

A command imports what it needs when it is called: `vfio-lab run` has QEMU started before most of
Python's packages are loaded, and `--help` loads none of them.
"""

import typer

app = typer.Typer(
    help="A QEMU-backed end-to-end lab for Linux VFIO and IOMMUFD.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
