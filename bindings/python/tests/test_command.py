"""``python -m peas``: that the wheel's command is the native program, started and stopped by Python's interpreter."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import peas

# As the README of the project promises them.
DONE, USAGE, PEA, DISK, UNREACHABLE, VERIFY, INTERRUPTED = 0, 2, 3, 4, 6, 7, 130
PATIENCE_S = 60
PEAS = [sys.executable, "-m", "peas"]


def run(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PEAS, *argv], timeout=PATIENCE_S, capture_output=True, text=True, check=False)


def test_from_a_publisher_to_a_client(content: Path, tmp_path: Path) -> None:
    pea, copy = tmp_path / "c.peas", tmp_path / "copy.bin"
    assert run("create", content, "--output", pea, "--name", "content.bin").returncode == DONE
    what = json.loads(run("inspect", pea, "--json").stdout)
    words: list[str | Path] = [
        *PEAS,
        "seed",
        pea,
        "--file",
        content,
        "--listen",
        "127.0.0.1:0",
        "--scope",
        "any",
        "--json",
        "--no-refresh",
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as seed:
        assert seed.stdout is not None
        said = (json.loads(line) for line in seed.stdout)
        address = next(event["addr"] for event in said if event["event"] == "listening")
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


def test_the_installed_command_is_the_same(content: Path) -> None:
    installed = Path(sys.executable).with_name("peas")
    said = subprocess.run([installed, "--version"], timeout=PATIENCE_S, capture_output=True, text=True, check=True).stdout
    assert said == run("--version").stdout == f"peas {peas.__version__}\n"
    assert subprocess.run([installed, "inspect", content], capture_output=True, timeout=PATIENCE_S).returncode == PEA


def test_ctrl_c_ends_it_in_its_own_way(unreachable: Path, tmp_path: Path) -> None:
    words: list[str | Path] = [
        *PEAS,
        "install",
        unreachable,
        "--output",
        tmp_path / "copy",
        "--no-listen",
        "--scope",
        "any",
        "--json",
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stderr is not None
        next(line for line in child.stdout if json.loads(line)["event"] == "started")
        child.send_signal(signal.SIGINT)
        assert child.wait(PATIENCE_S) == INTERRUPTED
        complaint = child.stderr.read()
    assert "interrupted" in complaint and "Traceback" not in complaint


def test_the_demo_starts_this_command_again() -> None:
    shown = run("demo", "--size-mib", "1", "--clients", "2")
    assert shown.returncode == DONE, shown.stderr
    assert "all 2 copies are what the pea says" in shown.stdout
