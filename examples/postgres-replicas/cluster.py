"""A PostgreSQL primary and its standbys, each on a host of its own: what the proof does to them.

Real servers in network namespaces with limited links (see ../python/lab.py); namespaces share one file system, so every host has
a folder of its own below ``work``. Each cluster starts from the same pristine primary.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))

from lab import Argument, Lab, LabError, run, say, until, wait_all

HERE = Path(__file__).resolve().parent
BINARIES = Path(os.environ.get("PG_BINARIES", "/usr/lib/postgresql/15/bin"))
USER = "postgres"
PATIENCE_S = 900.0
FRAME_BYTES = 66
"""Ethernet, IP and TCP headers with time stamps, per packet."""

TABLES = ("pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history")


class Cluster:
    """Use it in ``with``: the hosts are there inside, and everything that runs on them ends with it."""

    def __init__(
        self,
        work: Path,
        python: str,
        mbit: float,
        standbys: int,
        *,
        apart: bool = False,
        staged: bool = False,
        late: bool = False,
    ) -> None:
        """`staged`: the first standby takes the backup over the network and publishes it. `apart`: hosts disturb each other's
        processors and disks as little as one machine allows, as if each had its own. The primary, with everything that runs on
        its host, has the first core for itself; the others share the last one, standbys at the lowest priority and their data in
        memory. A publisher on the primary gives way to the server: it runs at the lowest priority, as it should there. `late`:
        programs that the publisher starts begin a while after it, as on a busy host, so that a kill can come before they do."""
        self.work, self.python = work, python
        self.standby_work = Path("/dev/shm/peas-standbys") if apart else work
        self.apart = apart
        self.publisher = "s1" if staged else "primary"
        self.names = [f"s{at}" for at in range(1, standbys + 1)]
        self.lab = Lab(dict.fromkeys(["primary", "app", *self.names], mbit))
        self.primary = work / "primary"
        self.published = work / "published"
        self.late = work / "late" if late else None

    def __enter__(self) -> Cluster:
        self.lab.__enter__()
        self._clean()
        self.standby_work.mkdir(exist_ok=True)
        shutil.chown(self.standby_work, USER, USER)
        if self.late:
            self.late.mkdir()
            (self.late / "setpriv").write_text('#!/bin/sh\nsleep 0.3\nexec /usr/bin/setpriv "$@"\n')
            (self.late / "setpriv").chmod(0o755)
        try:
            run("cp", "-a", "--reflink=auto", self.work / "pristine", self.primary)
            options = f"-c listen_addresses={self.lab.address('primary')} -c unix_socket_directories={self.socket('primary')}"
            self.postgres("primary", "pg_ctl", "start", "-w", "-D", self.primary, "-l", self.work / "primary.log", "-o", options)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        # Servers are killed with their hosts: nobody needs their data any more.
        self.lab.__exit__()
        self._clean()
        if self.standby_work != self.work:
            shutil.rmtree(self.standby_work, ignore_errors=True)

    def _clean(self) -> None:
        # The sockets, too: a lock file beside one names a killed server, and counts as long as its process is not reaped.
        for name in ("primary", "published", "socket-", "late", *self.names):
            for path in self.work.glob(f"{name}*"):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
        for path in self.standby_work.glob(".peas-*"):
            shutil.rmtree(path, ignore_errors=True)

    # Commands and questions.

    def placed(self, host: str) -> list[Argument]:
        """What puts a command onto the host's core and tells its priority."""
        if not self.apart:
            return []
        core: list[Argument] = ["taskset", "-c", "0" if host == "primary" else str((os.cpu_count() or 1) - 1)]
        return [*core, "nice", "-n", "19"] if host in self.names else core

    def postgres(self, host: str, program: str, *argv: str | Path, **more: Any) -> str:
        if program == "pg_ctl":
            words = [*self.placed(host), BINARIES / program, *argv]
            child = self.lab.start(host, *words, user=USER, stdin=subprocess.DEVNULL, **more)
            wait_all({f"pg_ctl on {host}": child}, 120)
            return ""
        return self.lab.run(host, BINARIES / program, *argv, user=USER, **more)

    def sql(self, host: str, *queries: str) -> str:
        words = [word for query in queries for word in ("-c", query)]
        return self.postgres(host, "psql", "--host", self.socket(host), "-AtXq", *words, "postgres").strip()

    def socket(self, host: str) -> Path:
        folder = self.work / f"socket-{host}"
        folder.mkdir(exist_ok=True)
        shutil.chown(folder, USER, USER)
        return folder

    def data(self, standby: str) -> Path:
        return self.standby_work / standby

    def server_options(self, standby: str) -> str:
        return f"-c listen_addresses={self.lab.address(standby)} -c unix_socket_directories={self.socket(standby)}"

    def conninfo(self) -> str:
        return f"host={self.lab.address('primary')} user=replicator"

    # The tool next door.

    @property
    def pea(self) -> Path:
        return self.published / "base.peas"

    def publish(self, *more: str, stderr: IO[str] | int | None = None) -> subprocess.Popen[str]:
        words: list[Argument] = [
            "publish",
            *(["--socket", self.socket("primary")] if self.publisher == "primary" else ["--primary", self.conninfo()]),
            "--folder",
            self.published,
            "--slots",
            ",".join(self.names),
        ]
        words += ["--listen", f"{self.lab.address(self.publisher)}:7000", *more]
        prefix: list[Argument] = ["env", f"PATH={self.late}:{os.environ['PATH']}"] if self.late else []
        return self._tool(self.publisher, prefix, *words, stderr=stderr)

    def standby(self, name: str, *more: str, stderr: IO[str] | int | None = None) -> subprocess.Popen[str]:
        words: list[Argument] = [
            "standby",
            "--pea",
            self.pea,
            "--data",
            self.data(name),
            "--slot",
            name,
            "--primary",
            self.conninfo(),
        ]
        return self._tool(name, [], *words, "--options", self.server_options(name), *more, stderr=stderr)

    def _tool(self, host: str, prefix: list[Argument], *words: Argument, stderr: IO[str] | int | None) -> subprocess.Popen[str]:
        prefix = prefix + self.placed(host) + (["nice", "-n", "19"] if self.apart and host == "primary" else [])
        return self.lab.start(host, *prefix, self.python, HERE / "replicas.py", *words, user=USER, stderr=stderr)

    # What is true of the standbys.

    def streaming(self) -> bool:
        query = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND application_name ~ '^s[0-9]+$'"
        return int(self.sql("primary", query)) == len(self.names)

    def caught_up(self, name: str) -> bool:
        query = f"SELECT replay_lsn = pg_current_wal_lsn() FROM pg_stat_replication WHERE application_name = '{name}'"
        return self.sql("primary", query) == "t"

    def answers(self, host: str) -> str:
        """Rows and a checksum of every table, as this server reads them."""
        counts = [f"(SELECT count(*) || ':' || coalesce(sum(hashtext(t::text)::bigint), 0) FROM {table} t)" for table in TABLES]
        return self.sql(host, f"SELECT concat_ws(' ', {', '.join(counts)}, (SELECT max(at) FROM proof))")

    def check(self) -> str:
        """Every standby answers what the primary answers, about a new transaction too. Raises if one does not."""
        self.sql("primary", "CREATE TABLE IF NOT EXISTS proof(at timestamptz)", "INSERT INTO proof VALUES (clock_timestamp())")
        written = self.sql("primary", "SELECT pg_current_wal_lsn()")
        expected = self.answers("primary")
        for name in self.names:
            replayed = f"SELECT pg_last_wal_replay_lsn() >= '{written}'::pg_lsn"
            until(f"{name} replays", lambda name=name, replayed=replayed: self.sql(name, replayed) == "t", 120, 0.2)
            if (found := self.answers(name)) != expected:
                raise LabError(f"{name} differs: {found} instead of {expected}")
        return expected

    def backup_bytes(self) -> int:
        """One copy: what `pg_basebackup` puts into a folder, its log included."""
        return sum(path.stat().st_size for path in (self.published / "base").rglob("*") if path.is_file())

    def log_position(self) -> int:
        return int(self.sql("primary", "SELECT pg_current_wal_lsn() - '0/0'"))

    def log_sent(self) -> int:
        """Bytes on the primary's link for the streaming of its log, by connections that are open now."""
        listing = self.lab.run("primary", "ss", "-HtinO", "sport = :5432")
        payload, packets = (sum(map(int, re.findall(rf"\b{field}:(\d+)", listing))) for field in ("bytes_sent", "segs_out"))
        return payload + packets * FRAME_BYTES


class Load:
    """pgbench on a host of its own, over the primary's limited link: reads and writes, four clients."""

    def __init__(self, cluster: Cluster) -> None:
        self._prefix = cluster.work / "pgbench-log"
        for old in cluster.work.glob("pgbench-log*"):
            old.unlink()
        argv: list[Argument] = [BINARIES / "pgbench", "-h", cluster.lab.address("primary"), "-U", USER, "-c", "4", "-T", "3600"]
        argv += ["--log", f"--log-prefix={self._prefix}", "postgres"]
        self._child = cluster.lab.start("app", *cluster.placed("app"), *argv, user=USER, stderr=subprocess.DEVNULL)

    def end(self, moment: float) -> None:
        """Ends it when all until this moment of `time.time()` is in its log, which it writes in blocks."""
        until("pgbench's log", lambda: any(at > moment for _, at in self._transactions()), 60, 0.5)
        self._child.kill()
        self._child.wait(60)

    def between(self, begun: float, ended: float) -> tuple[float, float]:
        """(transactions per second, latency in ms that 99 % stay below) between two moments of `time.time()`."""
        inside = sorted(latency for latency, at in self._transactions() if begun <= at <= ended)
        if len(inside) < 100:
            raise LabError(f"{len(inside)} transactions are too few to say anything")
        return len(inside) / (ended - begun), inside[len(inside) * 99 // 100] / 1000

    def _transactions(self) -> list[tuple[int, float]]:
        """(latency in microseconds, end in seconds)."""
        logs = list(self._prefix.parent.glob(f"{self._prefix.name}*"))
        # Behind the last line end there is half a line.
        rows = [line.split() for log in logs for line in log.read_text().rpartition("\n")[0].splitlines()]
        return [(int(row[2]), int(row[4]) + int(row[5]) / 1e6) for row in rows]


def make_pristine(work: Path, scale: int) -> None:
    """The primary's data, once for all clusters."""
    work.mkdir(parents=True, exist_ok=True)
    shutil.chown(work, USER, USER)
    done, pristine = work / f"scale-{scale}", work / "pristine"
    if done.exists():
        return
    say(f"making a database with pgbench, scale {scale}")
    shutil.rmtree(pristine, ignore_errors=True)

    def as_user(*argv: str | Path) -> None:
        run("setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", "--", *argv, stdin=subprocess.DEVNULL, cwd=work)

    as_user(BINARIES / "initdb", "-D", pristine, "--auth=trust", "--no-sync", "--data-checksums")
    with (pristine / "pg_hba.conf").open("a") as file:
        file.write("host all all 10.94.0.0/16 trust\nhost replication all 10.94.0.0/16 trust\n")
    with (pristine / "postgresql.conf").open("a") as file:
        file.write("max_wal_senders = 40\nmax_replication_slots = 40\nwal_level = replica\nport = 5432\nshared_buffers = 128MB\n")
    with Lab({"primary": 1000}) as lab:
        options = f"-c listen_addresses= -c unix_socket_directories={pristine}"
        start: list[Argument] = [BINARIES / "pg_ctl", "start", "-w", "-D", pristine, "-l", work / "primary.log", "-o", options]
        wait_all({"pg_ctl": lab.start("primary", *start, user=USER, stdin=subprocess.DEVNULL)}, 60)
        role = "CREATE ROLE replicator LOGIN REPLICATION"
        lab.run("primary", BINARIES / "psql", "-h", pristine, "-c", role, "postgres", user=USER)
        lab.run("primary", BINARIES / "pgbench", "-h", pristine, "-i", "-q", "-s", str(scale), "postgres", user=USER)
        lab.run("primary", BINARIES / "pg_ctl", "stop", "-w", "-D", pristine, user=USER)
    done.touch()
