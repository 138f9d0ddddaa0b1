"""The program around peas stays the master: interpreter, signals, event loop, forks, the end of the process."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import peas
from conftest import CONTENT_BYTES, Published, local_engine

PATIENCE_S = 60


def test_the_interpreter_is_free_during_a_wait(unreachable: Path, tmp_path: Path) -> None:
    ticks, stop = 0, threading.Event()

    def spin() -> None:
        nonlocal ticks
        while not stop.wait(0.001):
            ticks += 1

    with local_engine() as engine:
        job = engine.install(unreachable, tmp_path / "copy.bin", trust="file")
        thread = threading.Thread(target=spin)
        thread.start()
        with pytest.raises(peas.WaitTimeoutError):
            job.wait(0.5)
        stop.set()
        thread.join()
    assert ticks > 10


def test_ctrl_c_ends_the_wait_and_not_the_job(published: Published, tmp_path: Path) -> None:
    with local_engine() as engine:
        job = engine.install(published.pea, tmp_path / "copy.bin", trust="file", paused=True)
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            job.wait()
        timer.join()
        job.resume()
        assert job.wait(PATIENCE_S).bytes_done == CONTENT_BYTES


def test_asyncio(published: Published, tmp_path: Path) -> None:
    published.engine.set_limits(upload_limit="2M")

    async def run() -> tuple[list[int], int, int]:
        async with local_engine() as one, local_engine() as two:
            first = one.install(published.pea, tmp_path / "one.bin", trust="file")
            second = two.install(published.pea, tmp_path / "two.bin", trust="file")
            seen = [p.bytes_done async for p in first.progress()]
            return seen, (await first).bytes_done, (await second).bytes_done

    seen, first, second = asyncio.run(asyncio.wait_for(run(), PATIENCE_S))
    assert seen == sorted(seen) and len(seen) > 2
    assert (first, second) == (CONTENT_BYTES, CONTENT_BYTES)
    assert (tmp_path / "one.bin").read_bytes() == (tmp_path / "two.bin").read_bytes() == published.source.read_bytes()


def test_a_cancelled_task_leaves_the_job_alone(published: Published, tmp_path: Path) -> None:
    async def run() -> int:
        async with local_engine() as engine:
            job = engine.install(published.pea, tmp_path / "copy.bin", trust="file", paused=True)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(_finished(job), 0.2)
            job.resume()
            return (await job).bytes_done

    assert asyncio.run(run()) == CONTENT_BYTES


def test_closing_wakes_who_awaits(unreachable: Path, tmp_path: Path) -> None:
    async def run() -> None:
        engine = local_engine()
        task = asyncio.create_task(_finished(engine.install(unreachable, tmp_path / "copy.bin", trust="file")))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(engine.close)
        with pytest.raises(peas.Error):
            await asyncio.wait_for(task, 10)

    asyncio.run(run())


async def _finished(job: peas.Job) -> peas.Progress:
    return await job


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_is_refused_and_harms_nobody(published: Published, tmp_path: Path) -> None:
    with local_engine() as engine:
        job = engine.install(published.pea, tmp_path / "copy.bin", trust="file", paused=True)
        child = os.fork()
        if child == 0:
            os._exit(_in_the_child(engine, job, published.pea))
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        job.resume()
        assert job.wait(PATIENCE_S).bytes_done == CONTENT_BYTES


def _in_the_child(engine: peas.Engine, job: peas.Job, pea: Path) -> int:
    calls: tuple[Callable[[], object], ...] = (
        lambda: job.latest,
        lambda: job.wait(1),
        job.cancel,
        engine.close,
        lambda: engine.share(pea, pea),
    )
    for at, call in enumerate(calls):
        try:
            call()
        except peas.ClosedError:
            continue
        except BaseException:
            return 100 + at
        return 10 + at
    return 0


FORGETFUL = """
import sys, peas
engine = peas.Engine(listen="127.0.0.1:0", scope="any")
job = engine.install(sys.argv[1], sys.argv[2], trust="file")
"""


def test_a_process_that_forgets_to_close_ends(unreachable: Path, tmp_path: Path) -> None:
    argv: list[str | Path] = [sys.executable, "-c", FORGETFUL, unreachable, tmp_path / "copy.bin"]
    ended = subprocess.run(argv, timeout=PATIENCE_S, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_events_are_kept_and_logged(published: Published, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="peas")
    with local_engine() as engine:
        job = engine.install(published.pea, tmp_path / "copy.bin", trust="file")
        job.wait(PATIENCE_S)
        job.wait_ended(PATIENCE_S)
        kinds = [event.kind for event in job.events()]
    assert kinds[0] == "started" and "installed" in kinds
    assert job.events() == []
    assert any(record.name == "peas" and "installed" in record.getMessage() for record in caplog.records)


def test_limits_hold_and_change(published: Published, tmp_path: Path) -> None:
    with local_engine(download_limit="1M") as engine:
        assert engine.limits == (0, 1 << 20)
        begun = time.monotonic()
        job = engine.install(published.pea, tmp_path / "copy.bin", trust="file")
        with pytest.raises(peas.WaitTimeoutError):
            job.wait(1)
        assert job.latest.bytes_done < 3 << 20
        engine.set_limits(download_limit=0)
        job.wait(PATIENCE_S)
        assert time.monotonic() - begun < PATIENCE_S
        assert engine.limits == (0, 0)
        assert job.stats()
