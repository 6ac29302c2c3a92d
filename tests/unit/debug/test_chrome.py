# SPDX-License-Identifier: GPL-2.0-only
"""ftrace's text made what Perfetto opens: lines as kernels print them, and what becomes of them."""

import json
from typing import Any

from lab.debug.chrome import from_text

_EVENTS = """\
# tracer: nop
#
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
           agent-66      [001] .....    12.345678: map: IOMMU: iova=0x100000 - 0x101000 size=4096
   kworker/0:1-10      [000] d..2.    12.345700: qi_submit: iotlb_inv dmar0: 0x1 0x0
 sh -c x-y-67      [000] .....    13.000001: sched_switch: prev_comm=a
"""
_GRAPH = """\
# tracer: function_graph
#
#     TIME        CPU  TASK/PID         DURATION                  FUNCTION CALLS
#      |          |     |    |           |   |                     |   |   |   |
   22.000001 |   1)    agent-66    |               |  vfio_df_open [vfio]() {
   22.000002 |   1)    agent-66    |   1.234 us    |    mutex_lock();
   22.000003 |   1)    agent-66    |               |    /* map: IOMMU: iova=0x0 */
   22.000009 |   1)    agent-66    | + 12.345 us   |  } /* vfio_df_open [vfio] */
 ------------------------------------------
   22.000010 |   0)    <idle>-0    |   0.500 us    |  irq_enter_rcu();
"""


def _read(text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(from_text(text))["traceEvents"]
    return found


def _is_event(event: dict[str, Any]) -> bool:
    """What the format asks of each: its phase, its thread, its time in microseconds."""
    if event["ph"] == "M":
        return set(event) == {"ph", "name", "pid", "tid", "args"}
    needed = {"ph", "pid", "tid", "ts"} | ({"name"} if event["ph"] != "E" else set())
    needed |= {"X": {"dur"}, "i": {"s", "args"}}.get(event["ph"], set())
    numbers = [event["pid"], event["tid"], event["ts"], event.get("dur", 0)]
    return set(event) == needed and all(isinstance(each, int | float) for each in numbers)


def test_events_are_instants_of_their_threads() -> None:
    events = _read(_EVENTS)
    assert all(map(_is_event, events))
    first, second, third = (event for event in events if event["ph"] == "i")
    assert (first["name"], first["tid"]) == ("map", 66)
    assert round(first["ts"]) == 12345678
    assert first["args"] == {"text": "IOMMU: iova=0x100000 - 0x101000 size=4096", "cpu": 1}
    assert (second["name"], second["tid"]) == ("qi_submit", 10)
    assert third["tid"] == 67
    names = {event["pid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    assert names == {66: "agent", 10: "kworker/0:1", 67: "sh -c x-y"}


def test_calls_are_spans_that_nest() -> None:
    events = _read(_GRAPH)
    assert all(map(_is_event, events))
    phases = [(event["ph"], event.get("name")) for event in events if event["ph"] != "M"]
    assert phases == [
        ("B", "vfio_df_open"),
        ("X", "mutex_lock"),
        ("i", "map"),
        ("E", None),
        ("X", "irq_enter_rcu"),
    ]
    assert events[1]["dur"] == 1.234
    assert round(events[3]["ts"] - events[0]["ts"]) == 8


def test_nothing_traced_is_an_empty_trace() -> None:
    assert _read("# tracer: nop\n") == []
