"""Every example of the README runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import peas
from conftest import local_engine

README = Path(__file__).parent.parent / "README.md"
QUICKSTART, *OTHERS = re.findall(r"^```python\n(.*?)^```", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
PATIENCE_S = 60


def run(example: str, folder: Path) -> str:
    ended = subprocess.run([sys.executable, "-c", example], cwd=folder, timeout=PATIENCE_S, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_quickstart_is_short_and_works(tmp_path: Path) -> None:
    assert len(QUICKSTART.splitlines()) <= 15
    assert "10240000 bytes came from the publisher, 0 from others" in run(QUICKSTART, tmp_path)
    assert (tmp_path / "copy.bin").read_bytes() == (tmp_path / "base.bin").read_bytes()


@pytest.mark.parametrize("example", OTHERS, ids=["asyncio", "progress bars", "members"])
def test_the_other_examples_work(example: str, content: Path, tmp_path: Path) -> None:
    with local_engine() as engine:
        peas.create(content, tmp_path / "base.peas", engine=engine)
        engine.share(tmp_path / "base.peas", content)
        (tmp_path / "base.bin").write_bytes(content.read_bytes())
        run(example, tmp_path)
    installed = re.findall(r'"(\w+\.bin)"', example)
    assert len(installed) > installed.count("base.bin")
    for name in installed:
        assert (tmp_path / name).read_bytes() == content.read_bytes()
