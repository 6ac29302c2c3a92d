# SPDX-License-Identifier: GPL-2.0-only
"""The coordinator's connection to a scheduler, which may go and come again."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any

from distributed import Client, KilledWorker

from lab.errors import ConfigurationError, InfrastructureError
from lab.progress import Progress

_LOOK = 0.2  # seconds between two looks at whether something is done
_PATIENCE = 20.0  # seconds for one answer of the scheduler's
_CANCEL = 5.0  # seconds in which it is told that nobody waits any more


class Link:
    """To the scheduler of this address. Once `stopped` is set, nobody waits for it any more."""

    def __init__(self, scheduler: str, stopped: threading.Event, progress: Progress) -> None:
        self.scheduler = scheduler
        self._stopped = stopped
        self._progress = progress
        self._alone = threading.Lock()
        self._client: Client | None = None

    def reach(self) -> None:
        """Connect, if there is somebody. Raises ConfigurationError for what is no address."""
        with self._alone:
            self._connect()

    def client(self) -> Client:
        """The connection, once there is one again. Raises CancelledError where nobody waits any
        more, and ConfigurationError for what is no address."""
        with self._alone:
            while not self._stopped.is_set():
                known = self._client
                if known and known.status == "running":
                    return known
                if not known or known.status != "connecting":
                    self._connect()
                else:
                    self._stopped.wait(_LOOK)
        raise CancelledError

    def workers(self) -> list[Mapping[str, Any]]:
        """Those that it has, none while it is not there."""
        known = self._client
        if not known or known.status != "running":
            return []
        try:
            # what it says unasked is five of them
            return list(known.scheduler_info(n_workers=-1)["workers"].values())
        except (OSError, TimeoutError):
            return []

    def ask(
        self,
        what: Callable[[dict[str, Any]], dict[str, Any]],
        words: dict[str, Any],
        *,
        key: str,
        resources: Mapping[str, float],
    ) -> dict[str, Any] | None:
        """What a worker with these resources returns; None where that was lost, or it died.

        Raises InfrastructureError for what it raises, and CancelledError where nobody waits any
        more.
        """
        client = self.client()
        promise = client.submit(what, words, key=key, resources=dict(resources), pure=False)
        while promise.status in ("pending", "lost"):
            if self._stopped.wait(_LOOK):
                with suppress(OSError, TimeoutError):
                    client.cancel([promise], force=True)
                raise CancelledError
        try:
            said: dict[str, Any] = promise.result(timeout=_PATIENCE)
        except (CancelledError, KilledWorker, TimeoutError, OSError):
            return None  # with the scheduler, or with its worker
        except Exception as error:
            raise InfrastructureError(
                f"a worker failed: {type(error).__name__}: {error}"
            ) from error
        return said

    def close(self) -> None:
        """No more of it. What still runs there is cancelled."""
        if self._client:
            self._client.close(timeout=_CANCEL)

    def _connect(self) -> None:
        try:
            self._client = Client(self.scheduler, set_as_default=False, timeout=_PATIENCE)
        except ValueError as error:
            raise ConfigurationError(
                f"--scheduler {self.scheduler}: {error}", hint="expected tcp://HOST:8786"
            ) from error
        except OSError as error:
            self._progress.say_once(f"waiting for the scheduler at {self.scheduler}: {error}")
            self._stopped.wait(_LOOK)
