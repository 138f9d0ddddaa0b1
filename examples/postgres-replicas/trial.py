"""Kills `replicas.py` at every step, on both sides, and starts it again; then refreshes a standby that is old and damaged.

Asserts facts: after all kills both standbys stream and answer what the primary answers; what had arrived was not fetched again;
a refresh fetches the part that differs. And the control: the comparison does notice the damaged standby before it is mended.
"""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from cluster import PATIENCE_S, Cluster
from lab import LabError, say, until

PUBLISHER_STEPS = ("backing up", "describing", "serving")
STANDBY_STEPS = ("removing", "verifying", "configuring", "starting")


class Watched:
    """A process of the tool, and what it says."""

    def __init__(self, start: Callable[[], subprocess.Popen[str]]) -> None:
        self.said: list[str] = []
        self.child = start()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.child.stderr is not None
        for line in self.child.stderr:
            self.said.append(line.rstrip())

    def says(self, word: str) -> str:
        """Waits until it said a line that begins so."""

        def heard() -> str | None:
            if line := next((line for line in self.said if line.startswith(word)), None):
                return line
            if self.child.poll() is not None and not self._reader.is_alive():
                raise LabError(f"ended with code {self.child.returncode} before it said {word!r}: {self.said}")
            return None

        line: str = until(repr(word), heard, PATIENCE_S, 0.01)
        return line

    def kill(self) -> None:
        self.child.kill()
        self.child.wait(60)

    def ends_well(self) -> None:
        if self.child.wait(PATIENCE_S):
            raise LabError(f"ended with code {self.child.returncode}: {self.said}")


def kills_and_refresh(work: Path, python: str, mbit: float) -> None:
    with Cluster(work, python, mbit, 2) as cluster:
        publisher = kill_at_every_step(cluster)
        answers = cluster.check()
        say(f"  both stream and answer {answers}")
        publisher.kill()
        fall_behind(cluster)
        refresh(cluster)


def kills_while_staged(work: Path, python: str, mbit: float) -> None:
    """The first standby takes the backup for all, and is killed at each step of that: the primary sends it once. The first kill
    comes before the backup's program has begun, which must not go on alone then."""
    with Cluster(work, python, mbit, 2, staged=True, late=True) as cluster:
        publisher = kill_publisher_at_every_step(cluster)
        copy, sent = cluster.backup_bytes(), cluster.lab.traffic("primary").sent
        standbys = [standby(cluster, name) for name in cluster.names]
        for made in standbys:
            made.ends_well()
        until("both stream", cluster.streaming, 60, 0.2)
        more = cluster.lab.traffic("primary").sent - sent
        answers = cluster.check()
        publisher.kill()
        say(f"  the primary sent {sent / copy:.2f} copies until s1 served, then {more / copy:.2f}; both answer {answers}")
        if sent > 1.2 * copy:
            raise LabError("a backup went on though its publisher had been killed")
        if more > copy / 10:
            raise LabError("the primary was asked for what the publisher has")


def publish(cluster: Cluster, *more: str) -> Watched:
    return Watched(lambda: cluster.publish(*more, stderr=subprocess.PIPE))


def standby(cluster: Cluster, name: str, *more: str) -> Watched:
    return Watched(lambda: cluster.standby(name, *more, stderr=subprocess.PIPE))


def standby_at(cluster: Cluster, name: str, step: str) -> Watched:
    """A standby being made that has come to this step. If the kill before came after its server was started, that is stopped."""
    for last in (False, False, True):
        watched = standby(cluster, name)
        try:
            watched.says(step)
            break
        except LabError:
            if last or watched.said[-1:] != ["running"]:
                raise
            cluster.postgres(name, "pg_ctl", "stop", "-w", "-m", "fast", "-D", cluster.data(name))
    return watched


def kill_publisher_at_every_step(cluster: Cluster) -> Watched:
    """It serves in the end."""
    for step in PUBLISHER_STEPS:
        say(f"kill: the publisher on {cluster.publisher}, {step}")
        publisher = publish(cluster)
        publisher.says(step)
        publisher.kill()
    publisher = publish(cluster)
    publisher.says("serving")
    return publisher


def kill_at_every_step(cluster: Cluster) -> Watched:
    """Both standbys stream in the end; the publisher still serves."""
    publisher = kill_publisher_at_every_step(cluster)
    copy, before = cluster.backup_bytes(), cluster.lab.traffic("s1").received
    other = standby(cluster, "s2")

    say("kill: standby s1 and the publisher, when a third has arrived")
    victim = standby(cluster, "s1")
    until("a third of it", lambda: cluster.lab.traffic("s1").received - before > copy / 3, PATIENCE_S, 0.01)
    victim.kill()
    publisher.kill()
    publisher = publish(cluster)
    publisher.says("serving")
    for at, step in enumerate(STANDBY_STEPS):
        say(f"kill: standby s1, {step}")
        victim = standby_at(cluster, "s1", step)
        if at == 0:
            line = victim.says(f"{copy} bytes")
        victim.kill()
    victim = standby(cluster, "s1")
    victim.ends_well()
    other.ends_well()
    until("both stream", cluster.streaming, 60, 0.2)
    again = standby(cluster, "s1")
    again.ends_well()
    if again.said != ["running"]:
        raise LabError(f"a standby that runs was not left alone: {again.said}")

    reused = int(re.findall(r"(\d+) were here", line)[0])
    received = cluster.lab.traffic("s1").received - before
    say(f"  s1 found {reused / copy:.0%} of it after the kill; its link carried {received / copy:.2f} copies in all")
    if reused < copy / 6:
        raise LabError("what had arrived was not taken up")
    if received > 1.5 * copy:
        raise LabError("what had arrived was fetched again")
    return publisher


def fall_behind(cluster: Cluster) -> None:
    """s2 stops and is damaged; meanwhile the primary changes a part of a table and forgets the log that s2 would need."""
    say("s2 is damaged and falls behind")
    relation = cluster.sql("s2", "SELECT pg_relation_filepath('pgbench_accounts')")
    cluster.postgres("s2", "pg_ctl", "stop", "-w", "-m", "fast", "-D", cluster.data("s2"))
    with (cluster.data("s2") / relation).open("r+b") as file:
        for page in (10, 20, 30):
            file.seek(page * 8192 + 4000)
            file.write(b"damage")
    until(
        "the primary notices",
        lambda: not cluster.sql("primary", "SELECT active_pid FROM pg_replication_slots WHERE slot_name = 's2'"),
        60,
    )
    cluster.sql("primary", "SELECT pg_drop_replication_slot('s2')")
    for _ in range(3):
        cluster.sql("primary", "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid <= 20000", "SELECT pg_switch_wal()")
    until("s1 has it", lambda: cluster.caught_up("s1"), 60, 0.2)
    cluster.sql("primary", "CHECKPOINT")


def refresh(cluster: Cluster) -> None:
    # The control: an old and damaged standby does not pass for a good one.
    options = cluster.server_options("s2")
    cluster.postgres("s2", "pg_ctl", "start", "-w", "-D", cluster.data("s2"), "-l", cluster.work / "s2.log", "-o", options)
    try:
        answers = cluster.answers("s2")
    except LabError as error:
        answers = f"an error: {str(error).splitlines()[-1]}"
    if answers == cluster.answers("primary"):
        raise LabError("the control failed: a damaged standby gave the right answers")
    say(f"  control: the damaged s2 answers {answers}")

    say("s2 is refreshed, with a kill on the way")
    publisher = publish(cluster, "--fresh")
    publisher.says("serving")
    copy, before = cluster.backup_bytes(), cluster.lab.traffic("s2").received
    for step in ("receiving", "verifying"):
        victim = standby(cluster, "s2", "--refresh")
        victim.says(step)
        victim.kill()
    mended = standby(cluster, "s2", "--refresh")
    mended.ends_well()
    until("both stream", cluster.streaming, 60, 0.2)
    received = cluster.lab.traffic("s2").received - before
    answers = cluster.check()
    say(f"  its link carried {received / 1e6:.1f} MB of {copy / 1e6:.1f}; both stream and answer {answers}")
    if received > 0.5 * copy:
        raise LabError("the refresh fetched more than what differs")
    again = standby(cluster, "s2", "--refresh")
    again.ends_well()
    if again.said != ["running"]:
        raise LabError(f"a standby that is as the backup says was not left alone: {again.said}")
