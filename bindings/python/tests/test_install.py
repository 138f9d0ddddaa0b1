"""A content gets from one engine to others, whole."""

from __future__ import annotations

import filecmp
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import peas
from conftest import CONTENT_BYTES, Published, local_engine, until

PATIENCE_S = 60


def test_a_file_arrives(published: Published, tmp_path: Path) -> None:
    dest = tmp_path / "copy.bin"
    with local_engine() as engine:
        done = engine.install(published.pea, dest, trust="file").wait(PATIENCE_S)
    assert dest.read_bytes() == published.source.read_bytes()
    assert (done.bytes_done, done.bytes_total, done.pieces_done) == (CONTENT_BYTES, CONTENT_BYTES, done.pieces_total)
    assert done.bytes_from_origin >= CONTENT_BYTES
    # The sender's own count is renewed ten times a second.
    until(lambda: published.job.latest.bytes_sent >= CONTENT_BYTES)


def test_a_tree_arrives(tree: Path, tmp_path: Path) -> None:
    pea, dest = tmp_path / "tree.peas", tmp_path / "installed"
    with local_engine() as publisher, local_engine() as engine:
        peas.create(tree, pea, engine=publisher)
        publisher.share(pea, tree)
        engine.install(pea, dest, trust="file").wait(PATIENCE_S)
    for path in (path for path in tree.rglob("*") if path.is_file()):
        assert filecmp.cmp(path, dest / path.relative_to(tree), shallow=False), path
    assert (dest / "hollow").is_dir()
    assert os.readlink(dest / "link") == "deep/er/b.bin"
    assert os.access(dest / "run.sh", os.X_OK) and not os.access(dest / "a.bin", os.X_OK)
    assert peas.verify(pea, dest)


def test_clients_help_each_other(published: Published, tmp_path: Path) -> None:
    published.engine.set_limits(upload_limit="8M")
    engines = [local_engine() for _ in range(3)]
    jobs = [engine.install(published.pea, tmp_path / f"{at}.bin", trust="file", share=True) for at, engine in enumerate(engines)]
    done = [job.wait(PATIENCE_S) for job in jobs]
    assert all((tmp_path / f"{at}.bin").read_bytes() == published.source.read_bytes() for at in range(3))
    assert sum(p.bytes_from_peers for p in done) > 0
    assert all([engine.close() for engine in engines])


def test_progress_rises_to_the_end(published: Published, tmp_path: Path) -> None:
    published.engine.set_limits(upload_limit="2M")
    with local_engine() as engine:
        seen = list(engine.install(published.pea, tmp_path / "copy.bin", trust="file").progress())
    assert [p.bytes_done for p in seen] == sorted(p.bytes_done for p in seen)
    assert seen[-1].bytes_done == CONTENT_BYTES
    assert any(0 < p.bytes_done < CONTENT_BYTES for p in seen), "5 MB at 2 MiB/s are seen on their way"
    assert max(p.peers for p in seen) == 1


def test_a_wait_has_an_end_and_the_job_goes_on(published: Published, tmp_path: Path) -> None:
    with local_engine() as engine:
        job = engine.install(published.pea, tmp_path / "copy.bin", trust="file", paused=True)
        with pytest.raises(peas.WaitTimeoutError) as caught:
            job.wait(0.3)
        assert isinstance(caught.value, TimeoutError)
        job.resume()
        job.wait(PATIENCE_S)


KILLED = """
import sys, peas
engine = peas.Engine(listen="127.0.0.1:0", scope="any")
job = engine.install(sys.argv[1], sys.argv[2], trust="file", download_limit="1M")
for p in job.progress():
    print(p.bytes_done, flush=True)
"""


def test_a_killed_process_resumes(published: Published, tmp_path: Path) -> None:
    dest = tmp_path / "copy.bin"
    with subprocess.Popen([sys.executable, "-c", KILLED, published.pea, dest], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        at_kill = next(int(line) for line in child.stdout if int(line) > CONTENT_BYTES // 2)
        child.send_signal(signal.SIGKILL)
    assert not dest.exists()
    with local_engine() as engine:
        done = engine.install(published.pea, dest, trust="file").wait(PATIENCE_S)
    assert dest.read_bytes() == published.source.read_bytes()
    assert done.bytes_reused >= at_kill - 1_000_000, "what was written is taken up"
    assert done.bytes_from_origin < CONTENT_BYTES


def test_damage_is_found_and_repaired(published: Published, tmp_path: Path) -> None:
    dest = tmp_path / "copy.bin"
    with local_engine() as engine:
        job = engine.install(published.pea, dest, trust="file")
        job.wait(PATIENCE_S)
        job.wait_ended(PATIENCE_S)
        assert peas.verify(published.pea, dest)
        with dest.open("r+b") as file:
            file.seek(1_000_000)
            file.write(b"damage")
        found = peas.verify(published.pea, dest)
        assert not found and found.pieces_bad == 1
        repaired = engine.install(published.pea, dest, trust="file").wait(PATIENCE_S)
    assert dest.read_bytes() == published.source.read_bytes()
    assert 0 < repaired.bytes_from_origin < CONTENT_BYTES // 10, "only what was damaged is fetched"


def test_a_cancelled_job_ends_soon(unreachable: Path, tmp_path: Path) -> None:
    with local_engine() as engine:
        job = engine.install(unreachable, tmp_path / "copy.bin", trust="file")
        job.cancel()
        with pytest.raises(peas.CancelledError):
            job.wait(PATIENCE_S)
        job.wait_ended(PATIENCE_S)
        assert job.latest.state is peas.State.ENDED


def test_an_engine_closes_in_time_over_a_job_that_cannot_end(unreachable: Path, tmp_path: Path) -> None:
    engine = local_engine()
    job = engine.install(unreachable, tmp_path / "copy.bin", trust="file")
    begun = time.monotonic()
    assert engine.close(2.0)
    assert engine.close(), "a second time does nothing"
    assert time.monotonic() - begun < 2.2
    with pytest.raises((peas.CancelledError, peas.ClosedError)):
        job.wait(5)
    with pytest.raises(peas.ClosedError):
        engine.install(unreachable, tmp_path / "other.bin", trust="file")


def test_leaving_a_share_is_polite(published: Published) -> None:
    assert published.job.leave(2.0)
    assert published.job.latest.state is peas.State.ENDED
