"""A job: wait for it, await it, or iterate over its progress."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any, final

from peas import _peas
from peas._errors import ClosedError, WaitTimeoutError
from peas._values import Event, Progress, Rate, State, quantity

_log = logging.getLogger("peas")

_EVENTS_KEPT = 1024
"""Events that nobody took: a job makes few, so this is a wall, not a budget."""

_SLICE_S = 0.1
"""The core renews progress ten times a second."""

_LOGGED_S = 1.0
"""Between two looks at what there is to log, while somebody waits."""

_LEVELS = {"failed": logging.ERROR, **dict.fromkeys(("peer-banned", "web-failed", "damaged", "paused"), logging.WARNING)}


@final
class Job:
    """Work on one pea, on the engine's threads. Any thread may use it. It goes on until it is over or its engine is closed.

    An install job is done when everything is verified, durable and under its final name; a share job when it is over.
    """

    def __init__(self, raw: _peas.Job) -> None:
        """Made by :meth:`Engine.install` and :meth:`Engine.share`."""
        self._raw = raw
        self._events: deque[Event] = deque(maxlen=_EVENTS_KEPT)
        self._drain = threading.Lock()

    @property
    def latest(self) -> Progress:
        """How it is now. Never blocks."""
        sizes, moved, view = self._raw.progress()
        return Progress(State(sizes[0]), *sizes[1:], *moved, *view)

    def progress(self) -> ProgressStream:
        """``for`` and ``async for``: the latest progress each time it changed, until done; raises why it failed."""
        return ProgressStream(self)

    def wait(self, timeout: float | None = None) -> Progress:
        """Waits until done. The interpreter is free meanwhile; Ctrl-C ends the wait, not the job.

        Raises :class:`WaitTimeoutError` when ``timeout`` seconds are over first, or why the job failed.
        """
        return self._waited(self._raw.wait, timeout)

    def wait_ended(self, timeout: float | None = None) -> Progress:
        """Waits until the job is over: an install job may go on sharing after it is done."""
        return self._waited(self._raw.wait_ended, timeout)

    def __await__(self) -> Generator[Any, None, Progress]:
        """The same as :meth:`wait`, for asyncio. Cancelling the task does not cancel the job."""
        return self._done().__await__()

    def events(self) -> list[Event]:
        """What happened since the last call; also handed to ``logging.getLogger("peas")``."""
        self._take_events()
        taken = []
        while self._events:
            taken.append(self._events.popleft())
        return taken

    def pause(self) -> None:
        """Stands still; links stay."""
        self._raw.pause()

    def resume(self) -> None:
        """Goes on."""
        self._raw.resume()

    def cancel(self) -> None:
        """Asks the job to end, without waiting. What is verified stays on disk, and a later install takes it up."""
        self._raw.cancel()

    def leave(self, grace: float = 3.0) -> bool:
        """Ends politely: what was being sent is sent, the journal is written. Waits at most ``grace`` seconds.

        Whether all was done.
        """
        drained, aborted = self._raw.leave(grace)
        return drained and not aborted

    def set_limits(self, *, upload_limit: Rate = 0, download_limit: Rate = 0) -> None:
        """Own limits within the engine's; 0: only the engine's."""
        self._raw.set_limits(quantity(upload_limit, "upload_limit"), quantity(download_limit, "download_limit"))

    def add_peers(self, *peers: str) -> None:
        """More addresses (``IP:PORT``) to try."""
        self._raw.add_peers(list(peers))

    def stats(self) -> dict[str, Any]:
        """Statistics; fields are only ever added."""
        fields: dict[str, Any] = json.loads(self._raw.stats_json())
        return fields

    def refreshed_pea(self) -> bytes:
        """The pea file with the members of now in its unsigned tail: a newcomer with it needs the origin less."""
        return bytes(self._raw.refreshed_pea())

    def _waited(self, wait: Callable[[float | None], bool], timeout: float | None) -> Progress:
        ends = None if timeout is None else time.monotonic() + timeout
        left = timeout
        try:
            # In parts, so that what happens meanwhile is in the log when it happens.
            while not wait(_LOGGED_S if left is None else min(left, _LOGGED_S)):
                left = None if ends is None else ends - time.monotonic()
                if left is not None and left <= 0:
                    raise WaitTimeoutError(f"not done within {timeout} s; the job goes on")
                self._take_events()
        finally:
            self._take_events()
        return self.latest

    async def _done(self) -> Progress:
        await _called(self._raw.when_done)
        return self._conclude()

    def _conclude(self) -> Progress:
        """After a wake-up that may also mean that the engine is gone."""
        if not self._raw.wait(0):
            raise ClosedError("the engine is closed")
        self._take_events()
        return self.latest

    def _take_events(self) -> None:
        with self._drain:
            while (fact := self._raw.try_event()) is not None:
                event = Event(*fact)
                self._events.append(event)
                _log.log(_LEVELS.get(event.kind, logging.INFO), "%s %s %s", event.kind, event.number, event.text)


@final
class ProgressStream:
    """Progress of a job: the latest each time, never a backlog."""

    def __init__(self, job: Job) -> None:
        """Made by :meth:`Job.progress`."""
        self._job = job

    def __iter__(self) -> Iterator[Progress]:
        job = self._job
        shown = job.latest
        yield shown
        while not job._raw.wait(_SLICE_S):
            job._take_events()
            if (latest := job.latest) != shown:
                shown = latest
                yield shown
        job._take_events()
        yield job.latest

    async def __aiter__(self) -> AsyncIterator[Progress]:
        job = self._job
        shown = job.latest
        yield shown
        while not job._raw.wait(0):
            await _called(job._raw.when_changed)
            job._take_events()
            if (latest := job.latest) != shown:
                shown = latest
                yield shown
            elif latest.state is State.ENDED:
                break
        yield job._conclude()


async def _called(register: Callable[[Callable[[], object]], _peas.Watch]) -> None:
    """Waits until an engine thread calls back. Takes the promise back when the waiting task is cancelled."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def settle() -> None:
        if not future.done():
            future.set_result(None)

    def wake() -> None:
        # The loop may be closed by the time the engine's thread gets here: then nobody waits.
        if not loop.is_closed():
            try:
                loop.call_soon_threadsafe(settle)
            except RuntimeError:
                _log.debug("the event loop closed while a job was called back")

    watch = register(wake)
    try:
        await future
    finally:
        watch.abort()
