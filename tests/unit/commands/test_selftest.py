# SPDX-License-Identifier: GPL-2.0-only
"""`vfio-lab test` hands over to tox, but for what tox would call by a status of its own."""

from pathlib import Path

import pytest

from lab.commands.selftest import run_tox
from lab.errors import ConfigurationError


def test_an_environment_that_there_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.execv", lambda *_: pytest.fail("tox was started"))
    (tmp_path / "tox.ini").write_text("[tox]\n[testenv]\n[testenv:lint]\n[testenv:unit]\n")
    with pytest.raises(ConfigurationError, match=r"'unti' is not known.*did you mean 'unit'"):
        run_tox(tmp_path, ("lint", "unti"), ())
