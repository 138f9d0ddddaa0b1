"""A publisher and a content, on loopback."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import peas

CONTENT_BYTES = 5_000_001

# A script's background job begins with Ctrl-C ignored, and Python leaves it so; the tests that send it would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Published:
    """A content that is being served."""

    source: Path
    pea: Path
    engine: peas.Engine
    job: peas.Job


def local_engine(**options: object) -> peas.Engine:
    """An engine that stays on this machine."""
    return peas.Engine(listen="127.0.0.1:0", scope="any", **options)  # type: ignore[arg-type]


def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition that nobody announces; fails after a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def content(tmp_path: Path) -> Path:
    path = tmp_path / "content.bin"
    path.write_bytes(random.Random(7).randbytes(CONTENT_BYTES))
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    chance = random.Random(8)
    for name, size in (("a.bin", 700_000), ("deep/er/b.bin", 1_300_000), ("run.sh", 20), ("empty.txt", 0)):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(size))
    (root / "run.sh").chmod(0o755)
    (root / "hollow").mkdir()
    (root / "link").symlink_to("deep/er/b.bin")
    return root


@pytest.fixture
def published(content: Path, tmp_path: Path) -> Iterator[Published]:
    with local_engine() as engine:
        pea = tmp_path / "content.peas"
        peas.create(content, pea, engine=engine)
        yield Published(content, pea, engine, engine.share(pea, content))


@pytest.fixture
def unreachable(content: Path, tmp_path: Path) -> Path:
    """A pea whose only owner does not answer."""
    pea = tmp_path / "lonely.peas"
    peas.create(content, pea, owners=["127.0.0.1:9"])
    return pea
