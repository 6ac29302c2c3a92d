# SPDX-License-Identifier: GPL-2.0-only
"""ftrace's text as a "Chrome JSON" trace, which ui.perfetto.dev and chrome://tracing open.

The format: "Trace Event Format" of the Chromium project. An event is an instant of its thread, a
function a span; spans of one thread nest as the calls did.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

# "  agent-66  [001] d..1.    12.345678: map: IOMMU: iova=..."
_EVENT = re.compile(
    r"^\s*(?P<name>.+)-(?P<pid>\d+)\s+(?:\(\s*[-\d]+\)\s+)?\[(?P<cpu>\d+)\]\s+\S+\s+"
    r"(?P<seconds>\d+\.\d+): (?P<event>[\w-]+): ?(?P<text>.*)$"
)
# "   12.345678 |   1)   agent-66   |   1.234 us    |  vfio_df_open [vfio]();"
_GRAPH = re.compile(
    r"^\s*(?P<seconds>\d+\.\d+)\s+\|\s+(?P<cpu>\d+)\)\s+(?P<name>\S.*?)-(?P<pid>\d+)\s+\|"
    r"(?:\s+\S+\s+\|)?\s*(?:[$@*#!+]\s*)?(?:(?P<us>\d+\.\d+) us)?\s*\|\s*(?P<call>.*?)\s*$"
)
_ENTRY = re.compile(r"^(?P<function>[\w.]+)(?: \[\w+\])?\(.*\)(?P<ends> \{|;)")
_COMMENT = re.compile(r"^/\* (?P<event>[\w-]+): ?(?P<text>.*) \*/$")


def from_text(text: str) -> str:
    """The JSON of what `trace` in tracefs says."""
    events = list(_events(text))
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ns"}, indent=None) + "\n"


def _events(text: str) -> Iterator[dict[str, Any]]:
    names: dict[int, str] = {}
    for line in text.splitlines():
        found = _EVENT.match(line) or _GRAPH.match(line)
        if not found:
            continue
        pid = int(found["pid"])
        names.setdefault(pid, found["name"].strip())
        begun = {"pid": pid, "tid": pid, "ts": float(found["seconds"]) * 1e6}
        if found.re is _EVENT:
            yield _instant(begun, found["event"], found["text"], found["cpu"])
        else:
            yield from _call(begun, found)
    for pid, name in names.items():
        yield {"ph": "M", "name": "process_name", "pid": pid, "tid": pid, "args": {"name": name}}


def _instant(begun: dict[str, Any], event: str, text: str, cpu: str) -> dict[str, Any]:
    return {**begun, "ph": "i", "s": "t", "name": event, "args": {"text": text, "cpu": int(cpu)}}


def _call(begun: dict[str, Any], found: re.Match[str]) -> Iterator[dict[str, Any]]:
    """The line of a function's beginning or end, or of an event within one."""
    call = found["call"]
    if comment := _COMMENT.match(call):
        yield _instant(begun, comment["event"], comment["text"], found["cpu"])
    elif entry := _ENTRY.match(call):
        if entry["ends"] == ";":
            duration = float(found["us"] or 0)
            yield {**begun, "ph": "X", "name": entry["function"], "dur": duration}
        else:
            yield {**begun, "ph": "B", "name": entry["function"]}
    elif call.startswith("}"):
        yield {**begun, "ph": "E"}
