# SPDX-License-Identifier: GPL-2.0-only
"""`pytest -n N`: every worker has guests of its own, and the controller makes one run of it.

The controller builds what guests are made of, once it knows that tests of the lab were collected,
and writes down for the workers what they are to use. They send each test's record with pytest's own
report of it, and with it what else they have seen until then.
"""

import json
import pickle
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from lab import room
from lab.errors import ConfigurationError, LabError
from lab.plugin.items import SUITE, id_of, mode_of, own_machine, program_of, rule_of
from lab.plugin.options import LAB, SESSION, lab_of
from lab.plugin.sessions import Role, look_ahead, session_of, start
from lab.results.record import TestRecord, Written
from lab.results.verdict import Verdict
from lab.tally import Tally
from lab.worker import Orders, Worker

_KEY = "vfio_lab"  # of what both sides add to pytest-xdist's own messages
_ORDERS = "orders"
_NO_ORDERS = b""  # there will be no guests
_AGAIN = 0.02  # seconds
_DESK = pytest.StashKey[TemporaryDirectory[str]]()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """For `-n auto`; where no lab is, pytest-xdist decides."""
    lab = lab_of(config)
    return room.workers(lab.machine(config.option.machine or lab.run.machine)) if lab else None


# The controller


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    config: pytest.Config = node.config
    if _DESK not in config.stash:
        config.stash[_DESK] = TemporaryDirectory(prefix="vfio-lab-")
    node.workerinput[_KEY] = config.stash[_DESK].name
    if lab := lab_of(config):
        node.workerinput[LAB] = str(lab.root)
    if (run := session_of(config)) and run.parts:
        _write(config, pickle.dumps(run.orders(run.parts, node.workerinput["workercount"])))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any) -> None:
    config: pytest.Config = node.config
    if SESSION in config.stash or not lab_of(config):
        return
    collected = _collected(node.workerinput)
    if not collected:
        return
    suites = dict.fromkeys(test.suite for test in collected.values())
    if not start(config, suites, guests=False):
        _write(config, _NO_ORDERS)
        pytest.exit("there is nothing to test", returncode=2)
    run = session_of(config)
    assert run
    assert run.parts
    _write(config, pickle.dumps(run.orders(run.parts, node.workerinput["workercount"])))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A worker's report of one phase of a test; at the end of the last one there is a record."""
    said, node = getattr(report, _KEY, None), getattr(report, "node", None)
    if said and node and (run := session_of(node.config)):
        run.hear(node.gateway.id, _tally(said["tally"]))
        run.add(TestRecord.from_json(json.loads(said["test"])))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    run = session_of(node.config)
    output = getattr(node, "workeroutput", None)
    if run and output and _KEY in output:
        run.hear(node.gateway.id, _tally(output[_KEY]))
    elif run and error:
        run.add_trouble(LabError(f"worker {node.gateway.id} died: {error}"))


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem: str, report: pytest.TestReport) -> None:
    node = getattr(report, "node", None)
    if not node or not (run := session_of(node.config)):
        return
    if test := _collected(node.workerinput).get(crashitem):
        run.add(replace(test, message=f"worker {node.gateway.id} died while it ran this test"))


def _tally(said: str) -> Tally:
    return Tally.from_json(json.loads(said))


def pytest_unconfigure(config: pytest.Config) -> None:
    if desk := config.stash.get(_DESK, None):
        desk.cleanup()


def _collected_file(given: Mapping[str, Any]) -> Path:
    """In which a worker says what it has collected, of which pytest-xdist tells the ids alone: each
    test's record as it is when the worker does not live to tell more."""
    return Path(given[_KEY]) / f"collected-{given['workerid']}"


def _collected(given: Mapping[str, Any]) -> dict[str, TestRecord]:
    said = json.loads(_collected_file(given).read_text())
    return {node_id: TestRecord.from_json(test) for node_id, test in said.items()}


def _write(config: pytest.Config, orders: bytes) -> None:
    place = Path(config.stash[_DESK].name) / _ORDERS
    draft = place.with_suffix(".new")
    draft.write_bytes(orders)
    draft.rename(place)


# A worker


@pytest.hookimpl(tryfirst=True)  # before the controller is told
def pytest_collection_finish(session: pytest.Session) -> None:
    config = session.config
    if Role.of(config).worker:
        ours = [item for item in session.items if SUITE in item.stash]
        given: dict[str, Any] = config.workerinput  # type: ignore[attr-defined]
        said = {item.nodeid: _unfinished(item).to_json() for item in ours}
        _collected_file(given).write_text(json.dumps(said))


def _unfinished(item: pytest.Item) -> TestRecord:
    return TestRecord(
        id=id_of(item),
        suite=item.stash[SUITE],
        verdict=Verdict.LAB_ERROR,
        duration=0.0,
        rule=rule_of(item),
        mode=mode_of(item),
        machine=own_machine(item.config, item),
        program=program_of(item),
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    config = session.config
    if not Role.of(config).worker or not any(SUITE in item.stash for item in session.items):
        return None
    given: dict[str, Any] = config.workerinput  # type: ignore[attr-defined]
    place = Path(given[_KEY]) / _ORDERS
    while not place.exists():
        if not place.parent.exists():
            return True  # the controller has gone
        time.sleep(_AGAIN)
    content = place.read_bytes()
    if content == _NO_ORDERS:
        return True
    orders: Orders = pickle.loads(content)  # of our own parent
    try:
        config.stash[SESSION] = Worker.of(orders, given["workerid"])
    except ConfigurationError as error:
        told = Tally()
        told.note(error)
        config.workeroutput[_KEY] = _ascii(told)  # type: ignore[attr-defined]
        pytest.exit(str(error), returncode=2)
    look_ahead(session)
    return None


def attach(config: pytest.Config, report: pytest.TestReport, record: TestRecord) -> None:
    """Send a test's record with pytest's own report, if this is a worker; and what else it has
    seen, since it may not live to tell of that at its end."""
    if Role.of(config).worker:
        tally = replace(config.stash[SESSION].tally, tests=[])
        setattr(report, _KEY, {"test": _ascii(record), "tally": _ascii(tally)})


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    worker = config.stash.get(SESSION, None)
    if worker and Role.of(config).worker:
        worker.end()
        output: dict[str, Any] = config.workeroutput  # type: ignore[attr-defined]
        output[_KEY] = _ascii(replace(worker.tally, tests=[]))


def _ascii(record: Written) -> str:
    """What a guest said may hold characters that UTF-8 cannot encode, and execnet sends no other
    text."""
    return json.dumps(record.to_json())
