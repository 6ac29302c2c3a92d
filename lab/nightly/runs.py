# SPDX-License-Identifier: GPL-2.0-only
"""A run of a cell, as history has it."""

from lab.history.model import CellRun
from lab.kernel.origin import origin_of
from lab.nightly.carrier import CELLS, Order
from lab.results.record import RunRecord


def cell_run(order: Order, record: RunRecord, version: str) -> CellRun:
    """What an order's run was. `version` is that of the lab, which may be another commit of the
    same release."""
    provenance = record.kernel.get("provenance", {})
    try:
        source = origin_of(provenance["source"])
    except KeyError:
        source = str(record.kernel.get("name", ""))
    return CellRun(
        night=order.night,
        cell=order.cell,
        attempt=order.attempt,
        folder=f"{order.night}/{CELLS}/{order.name}",
        started=record.started,
        seconds=record.seconds,
        status=record.status,
        release=str(record.kernel.get("release") or ""),
        kernel_key=str(record.kernel.get("key", "")),
        source=source,
        qemu=str(record.qemu.get("version", "")),
        accel=record.accel,
        host=str(record.host.get("name", "")),
        lab=version,
        figures=record.figures,
    )
