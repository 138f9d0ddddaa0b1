"""``python -m peas``."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from peas.__main__ import DISK, DONE, PEA, UNREACHABLE, USAGE, VERIFY

PATIENCE_S = 60
PEAS = [sys.executable, "-m", "peas"]


def run(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PEAS, *argv], timeout=PATIENCE_S, capture_output=True, text=True, check=False)


def test_from_a_publisher_to_a_client(content: Path, tmp_path: Path) -> None:
    pea, copy = tmp_path / "c.peas", tmp_path / "copy.bin"
    assert run("create", content, "--output", pea, "--name", "content.bin").returncode == DONE
    what = json.loads(run("inspect", pea, "--json").stdout)
    seed = subprocess.Popen(
        [*PEAS, "seed", pea, "--file", content, "--listen", "127.0.0.1:0", "--scope", "any"], stdout=subprocess.PIPE, text=True
    )
    with seed:
        assert seed.stdout is not None
        address = seed.stdout.readline().split(" at ")[1].split(",")[0]
        args = ("install", pea, "--output", copy, "--peer", address, "--listen", "127.0.0.1:0", "--scope", "any")
        installed = run(*args, "--pin", what["id"])
        seed.send_signal(signal.SIGTERM)
        assert seed.wait(PATIENCE_S) == DONE, "a server that was told to stop is done"
    assert installed.returncode == DONE, installed.stderr
    assert copy.read_bytes() == content.read_bytes()

    assert run("verify", pea, copy).returncode == DONE
    with copy.open("r+b") as file:
        file.write(b"damage")
    assert run("verify", pea, copy).returncode == VERIFY


def test_exit_codes(unreachable: Path, content: Path, tmp_path: Path) -> None:
    assert run("install").returncode == USAGE
    assert run("inspect", tmp_path / "nothing.peas").returncode == DISK
    assert run("inspect", content).returncode == PEA
    lonely = ("install", unreachable, "--output", tmp_path / "copy", "--no-listen", "--scope", "any")
    assert run(*lonely, "--pin", "0" * 64).returncode == PEA
    assert run(*lonely, "--upload-limit", "much").returncode == USAGE
    assert run(*lonely, "--give-up", "500ms").returncode == UNREACHABLE
