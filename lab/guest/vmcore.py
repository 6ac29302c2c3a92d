# SPDX-License-Identifier: GPL-2.0-only
"""A guest's memory as a file, `vmcore` in its folder, which `vfio-lab crash` opens.

QEMU writes it as makedumpfile would, compressed and without the pages of zeros (format
kdump-zlib): a guest of 1 GiB that has just booted makes 17 MB.
"""

import shutil
import time
from typing import Any

from lab.deadline import Deadline
from lab.errors import GuestLost, InfrastructureError
from lab.guest.launch import Running

VMCORE = "vmcore"
DUMPING = 60.0  # seconds; 1 GiB takes 2, or 8 where others have the CPUs
_DONE = "DUMP_COMPLETED"


def dump(running: Running, deadline: Deadline) -> str:
    """Write the guest's memory, and say so; or say why there is no such file."""
    path = running.log.parent / VMCORE
    started = time.monotonic()
    try:
        memory = running.monitor.execute("query-memory-size-summary")["base-memory"]
        free = shutil.disk_usage(path.parent).free
        if free < memory:
            return (
                f"its memory is not kept: {_size(memory)}, and {_size(free)} are free "
                f"in {path.parent}"
            )
        running.monitor.execute(
            "dump-guest-memory",
            {
                "protocol": f"file:{VMCORE}",  # QEMU stands in the guest's folder
                "format": "kdump-zlib",
                "paging": False,
                "detach": True,
            },
        )
        running.console.wait_until(lambda: running.monitor.saw(_DONE), deadline)
        failure = _failure(running)
    except (GuestLost, InfrastructureError) as error:
        failure = error.message
    if failure:
        path.unlink(missing_ok=True)
        return f"its memory is not kept: {failure}"
    seconds = time.monotonic() - started
    return f"its memory is {path.name} ({_size(path.stat().st_size)}, {seconds:.1f} s)"


def _failure(running: Running) -> str | None:
    for event in running.monitor.events:
        if event["event"] == _DONE:
            data: Any = event["data"]
            error: str | None = data.get("error")
            return error
    return "QEMU did not write it in time"


def _size(count: int) -> str:
    """Bytes in a unit that suits them."""
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"
