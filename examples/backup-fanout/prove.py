"""Proof: one snapshot to several servers over limited links, with peas and with rsync to each.

    sudo python prove.py            small form: 3 servers, about a minute
    sudo python prove.py --full     5 servers, a larger snapshot

Three rounds: the first snapshot, a changed one over it, and with peas the first again while one server dies half-way and comes
back. Every host has a limited link (a network namespace, see ../python/lab.py). After each round b3sum (Debian's own program)
reads every file on every server and must print what it prints for the source.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))

from lab import Lab, LabError, run, say, table, until, wait_all

HERE = Path(__file__).resolve().parent
PATIENCE_S = 600.0
FIRST, CHANGED = "first snapshot", "changed snapshot over it"
Row = tuple[str, str, float, float, str, str]


def make_snapshot(root: Path, megabytes: int) -> None:
    """Files as backups have them: some large, many small."""
    chance = random.Random(1)
    for at in range(8):
        write(root / f"volumes/volume-{at}.img", chance.randbytes(megabytes * 100_000))
    for at in range(200):
        write(root / f"documents/{at % 10}/{at:03}.dat", chance.randbytes(megabytes * 1_000))
    (root / "latest").symlink_to("volumes/volume-7.img")
    # rsync skips a file of the same size and second: let a day lie between the snapshots, as in life.
    yesterday = time.time() - 86_400
    for path in root.rglob("*"):
        os.utime(path, (yesterday, yesterday), follow_symlinks=False)


def change_snapshot(old: Path, new: Path) -> None:
    """A day later: some blocks of two volumes, some documents, one more volume, one less."""
    shutil.copytree(old, new, symlinks=True)
    chance = random.Random(2)
    for at in (1, 4):
        with (new / f"volumes/volume-{at}.img").open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            for _ in range(5):
                file.seek(chance.randrange(size - 200_000))
                file.write(chance.randbytes(200_000))
    for at in range(0, 200, 20):
        write(new / f"documents/{at % 10}/{at:03}.dat", chance.randbytes(20_000))
    write(new / "volumes/volume-8.img", chance.randbytes(2_000_000))
    (new / "volumes/volume-0.img").unlink()


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def checksums(root: Path) -> str:
    """What b3sum says about every file below, and where the links point."""
    files = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    links = sorted(f"{path.relative_to(root)} -> {os.readlink(path)}" for path in root.rglob("*") if path.is_symlink())
    return run("b3sum", *files, cwd=root) + "\n".join(links)


class Proof:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.names = [f"server{at}" for at in range(1, args.servers + 1)]
        self.old, self.new = args.work / "monday", args.work / "tuesday"
        self.rows: list[Row] = []
        self.done = 0.0
        """When the last server of the round had everything: `time.monotonic()`. What is stopped afterwards is no part of it."""

    def round(self, lab: Lab, method: str, what: str, source: Path, work: Callable[[Lab, Path], str]) -> None:
        say(f"{method}: {what}")
        before, begun = lab.traffic("sender"), time.monotonic()
        remark = work(lab, source)
        seconds, sent = self.done - begun, (lab.traffic("sender") - before).sent
        expected = checksums(source)
        for name in self.names:
            if checksums(self.dest(method, name)) != expected:
                raise LabError(f"{method}: {name} holds something else than {source}")
        size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file() and not path.is_symlink())
        self.rows.append((method, what, seconds, sent / 1e6, f"{sent / size:.2f}", remark or f"{len(self.names)} x b3sum equal"))

    def dest(self, method: str, name: str) -> Path:
        return Path(self.args.work, f"{method}-{name}")

    def clear(self, method: str) -> None:
        for name in self.names:
            shutil.rmtree(self.dest(method, name), ignore_errors=True)

    # With rsync, from a daemon on the sender: no ssh to pay for.

    def rsync(self, lab: Lab, source: Path) -> str:
        config = self.args.work / "rsyncd.conf"
        config.write_text(f"use chroot = no\nport = 8730\nuid = root\ngid = root\n[snapshot]\npath = {source}\nread only = yes\n")
        daemon = lab.start("sender", "rsync", "--daemon", "--no-detach", f"--config={config}", "--log-file=/dev/null")
        url = f"rsync://{lab.address('sender')}:8730/snapshot/"
        until("the rsync daemon", lambda: self._answers(lab, url), 60)
        argv = ["rsync", "-a", "--delete", url]
        wait_all({name: lab.start(name, *argv, f"{self.dest('rsync', name)}/") for name in self.names}, PATIENCE_S)
        self.done = time.monotonic()
        daemon.terminate()
        daemon.wait(60)
        return ""

    def _answers(self, lab: Lab, url: str) -> bool:
        probe = lab.start("sender", "rsync", "--list-only", url, stderr=subprocess.DEVNULL)
        return probe.wait(60) == 0

    # With peas.

    def peas(self, lab: Lab, source: Path) -> str:
        publisher, pea = self._publish(lab, source)
        receivers = {name: self._receive(lab, pea, name) for name in self.names}
        self._until_installed(receivers)
        self._stop(publisher, *receivers.values())
        reused = min(json.loads(self._said(name).read_text())["reused"] for name in self.names)
        return f"{len(self.names)} x b3sum equal" + (f", {reused / 1e6:.0f} MB of the old one reused" if reused else "")

    def peas_with_a_death(self, lab: Lab, source: Path) -> str:
        publisher, pea = self._publish(lab, source)
        receivers = {name: self._receive(lab, pea, name) for name in self.names}
        victim = self.names[0]
        at = self._half_way(lab, victim, source)
        lab.cut(victim)
        died = time.monotonic()
        # The command's own process is the one that `ip netns exec` became: no shell in between.
        receivers[victim].kill()
        receivers[victim].wait(60)
        others = {name: child for name, child in receivers.items() if name != victim}
        self._until_installed(others)
        alone = time.monotonic() - died
        lab.mend(victim)
        begun = time.monotonic()
        receivers[victim] = self._receive(lab, pea, victim)
        self._until_installed(receivers)
        back = time.monotonic() - begun
        facts = json.loads(self._said(victim).read_text())
        self._stop(publisher, *receivers.values())
        return (
            f"cable and process cut at {at / 1e6:.0f} MB, the others took {alone:.1f} s more; "
            f"back, it reused {facts['reused'] / 1e6:.0f} MB and took {back:.1f} s; "
            f"{len(self.names)} x b3sum equal"
        )

    def _publish(self, lab: Lab, source: Path) -> tuple[subprocess.Popen[str], Path]:
        pea = self.args.work / f"{source.name}.peas"
        pea.unlink(missing_ok=True)
        argv = ["publish", source, pea, "--listen", f"{lab.address('sender')}:7000"]
        publisher = lab.start("sender", self.args.python, HERE / "fanout.py", *argv)
        until("the pea", lambda: pea.exists() or publisher.poll() is not None, 120)
        return publisher, pea

    def _said(self, name: str) -> Path:
        return Path(self.args.work, f"{name}.json")

    def _receive(self, lab: Lab, pea: Path, name: str) -> subprocess.Popen[str]:
        argv = [self.args.python, HERE / "fanout.py", "receive", pea, self.dest("peas", name)]
        with self._said(name).open("w") as output:
            return lab.start(name, *argv, output=output)

    def _until_installed(self, receivers: dict[str, subprocess.Popen[str]]) -> None:
        for name, child in receivers.items():
            until(f"{name} installs", lambda name=name, child=child: self._installed(name, child), PATIENCE_S)
        self.done = time.monotonic()

    def _installed(self, name: str, child: subprocess.Popen[str]) -> bool:
        if self._said(name).read_text().endswith("\n"):
            return True
        if child.poll() is not None:
            raise LabError(f"{name} ended with code {child.returncode}")
        return False

    def _half_way(self, lab: Lab, name: str, source: Path) -> int:
        size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file() and not path.is_symlink())
        start = lab.traffic(name).received
        until("half of it", lambda: lab.traffic(name).received - start > size // 2, PATIENCE_S)
        return lab.traffic(name).received - start

    def _stop(self, *children: subprocess.Popen[str]) -> None:
        for child in children:
            child.terminate()
        wait_all({f"process {child.pid}": child for child in children}, 60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--servers", type=int)
    parser.add_argument("--megabytes", type=int, help="size of the snapshot")
    parser.add_argument("--mbit", type=float, default=100.0, help="of every link")
    parser.add_argument("--copies-max", type=float, default=1.5, help="fail when peas sends more of the first snapshot")
    parser.add_argument("--python", default=sys.executable, help="with peas")
    parser.add_argument("--only", choices=("peas", "rsync"))
    args = parser.parse_args()
    args.servers = args.servers or (5 if args.full else 3)
    args.megabytes = args.megabytes or (100 if args.full else 60)
    if os.geteuid() != 0:
        sys.exit("needs root: it builds a network")
    with tempfile.TemporaryDirectory(prefix="peas-fanout-", dir="/var/tmp") as work:
        args.work = Path(work)
        proof = Proof(args)
        make_snapshot(proof.old, args.megabytes)
        change_snapshot(proof.old, proof.new)
        for method in (args.only,) if args.only else ("rsync", "peas"):
            with Lab(dict.fromkeys(["sender", *proof.names], args.mbit)) as lab:
                work_with = proof.peas if method == "peas" else proof.rsync
                proof.round(lab, method, FIRST, proof.old, work_with)
                proof.round(lab, method, CHANGED, proof.new, work_with)
                if method == "peas":
                    proof.clear(method)
                    proof.round(lab, method, "one server dies and returns", proof.old, proof.peas_with_a_death)
        print(f"snapshot of {args.megabytes} MB to {args.servers} servers, every host behind {args.mbit:g} Mbit/s both ways,")
        print(f"all hosts share the {os.cpu_count()} cores of this machine.\n")
        print(table(["method", "what", "s until all have it", "MB sent", "snapshots sent", "check"], proof.rows))
        judge(args, proof.rows)


def judge(args: argparse.Namespace, rows: list[Row]) -> None:
    """What must be so however busy the machine is: that every server holds what it should was compared already."""
    copies = {(method, what): float(share) for method, what, _, _, share, _ in rows}
    if ("peas", FIRST) in copies and not 1 <= copies["peas", FIRST] <= args.copies_max:
        sys.exit(f"not as it should be: the sender sent {copies['peas', FIRST]:.2f} snapshots")
    if ("peas", CHANGED) in copies and copies["peas", CHANGED] > copies["peas", FIRST] / 2:
        sys.exit("not as it should be: over the old snapshot more was sent than what differs")


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        sys.exit(f"failed: {error}")
