"""Proof: K standbys from one primary over limited links, with peas and with K parallel pg_basebackups.

    sudo python prove.py            small form: K = 1 and 4, about a minute
    sudo python prove.py --full     K = 1, 2, 4, 8, and what pgbench on the primary feels of it

Real PostgreSQL servers, each on a host of its own (a network namespace with a limited link, see ../python/lab.py). Time runs
from the first command until pg_stat_replication on the primary shows the last standby streaming; it includes the backup, its
hashing and pg_verifybackup on every standby. Bytes are those on the primary's link. At the end of each case every standby
answers the same query as the primary, after a transaction that was made when they were all up.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))

from lab import Lab, LabError, chart, run, say, table, until, wait_all

HERE = Path(__file__).resolve().parent
BINARIES = Path("/usr/lib/postgresql/15/bin")
USER = "postgres"
METHODS = ("peas", "pg_basebackup")
PATIENCE_S = 900.0


@dataclass
class Outcome:
    """One case."""

    method: str
    standbys: int
    seconds: float | None
    """Until the last standby streams."""
    sent: int | None
    """Bytes on the primary's link until then."""
    data: int
    """Bytes of the data directory."""
    loaded: bool
    tps: float | None = None
    rows: str = ""


class Case:
    """A primary, its standbys, their links."""

    def __init__(self, args: argparse.Namespace, standbys: int) -> None:
        self.args = args
        self.names = [f"s{at}" for at in range(1, standbys + 1)]
        self.lab = Lab(dict.fromkeys(["primary", *self.names], args.mbit))
        self.primary = args.work / "primary"
        self.load: subprocess.Popen[str] | None = None

    def start_primary(self) -> None:
        options = f"-c listen_addresses={self.lab.address('primary')} -c unix_socket_directories={self.socket('primary')}"
        self.postgres("primary", "pg_ctl", "start", "-w", "-D", self.primary, "-l", self.args.work / "primary.log", "-o", options)
        slots = self.sql("primary", "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
        say(f"  primary is up{', old slots dropped' if slots else ''}")

    def postgres(self, host: str, program: str, *argv: str | Path, **more: object) -> str:
        if program == "pg_ctl":
            more |= {"stdin": subprocess.DEVNULL}
            child = self.lab.start(host, BINARIES / program, *argv, user=USER, **more)
            wait_all({f"pg_ctl on {host}": child}, 120)
            return ""
        return self.lab.run(host, BINARIES / program, *argv, user=USER, **more)

    def sql(self, host: str, query: str) -> str:
        return self.postgres(host, "psql", "--host", self.socket(host), "-AtXqc", query, "postgres").strip()

    def socket(self, host: str) -> Path:
        """Namespaces have a network each, but one file system."""
        folder = self.args.work / f"socket-{host}"
        folder.mkdir(exist_ok=True)
        shutil.chown(folder, USER, USER)
        return folder

    def data(self, standby: str) -> Path:
        return self.args.work / standby

    def server_options(self, standby: str) -> str:
        return f"-c listen_addresses={self.lab.address(standby)} -c unix_socket_directories={self.socket(standby)}"

    def conninfo(self) -> str:
        return f"host={self.lab.address('primary')} user=replicator"

    def begin_load(self) -> None:
        argv = [BINARIES / "pgbench", "--host", self.socket("primary"), "-c", "4", "-P", "1", "-T", "3600", "postgres"]
        self.load = self.lab.start("primary", *argv, user=USER, stderr=(self.args.work / "pgbench.log").open("w"))
        time.sleep(self.args.warm_s)

    def end_load(self, begun: float, ended: float, load_begun: float) -> float:
        """Transactions per second between two moments, from pgbench's own line per second."""
        assert self.load is not None
        self.load.send_signal(signal.SIGTERM)
        self.load.wait(30)
        lines = re.findall(r"progress: ([\d.]+) s, ([\d.]+) tps", (self.args.work / "pgbench.log").read_text())
        inside = [float(tps) for at, tps in lines if begun + 1 <= load_begun + float(at) <= ended]
        if not inside:
            raise LabError("too short to measure transactions")
        return sum(inside) / len(inside)

    # The two ways. Each starts everything and returns when the data is on all standbys; `finish` then starts servers.

    def peas(self) -> list[subprocess.Popen[str]]:
        folder = self.args.work / "published"
        tool = HERE / "replicas.py"
        address = f"{self.lab.address('primary')}:7000"
        publisher = [
            "publish",
            "--socket",
            self.socket("primary"),
            "--folder",
            folder,
            "--listen",
            address,
            "--slots",
            ",".join(self.names),
        ]
        children = [self.lab.start("primary", self.args.python, tool, *publisher, user=USER)]
        pea = folder / "base.peas"
        until("the pea", lambda: pea.exists() or children[0].poll() is not None, PATIENCE_S)
        for name in self.names:
            argv = ["standby", "--pea", pea, "--data", self.data(name), "--slot", name, "--primary", self.conninfo()]
            argv += ["--options", self.server_options(name)]
            children.append(self.lab.start(name, self.args.python, tool, *argv, user=USER))
        return children

    def pg_basebackup(self) -> list[subprocess.Popen[str]]:
        children = []
        for name in self.names:
            data, log = self.data(name), self.args.work / f"{name}.log"
            # Made beforehand, as replicas.py does: pg_basebackup's own -C reserves no log until it begins to stream.
            self.sql("primary", f"SELECT pg_create_physical_replication_slot('{name}', true)")
            script = (
                f"pg_basebackup -d '{self.conninfo()} application_name={name}' -D {data} -c fast -X stream -R -S {name} && "
                f"pg_verifybackup --quiet {data} && touch {self.mark(name)} && "
                f"pg_ctl start -w -D {data} -l {log} -o '{self.server_options(name)}' >/dev/null"
            )
            environment = {**os.environ, "PATH": f"{BINARIES}:{os.environ['PATH']}"}
            children.append(self.lab.start(name, "sh", "-c", script, user=USER, env=environment))
        return children

    def streaming(self) -> bool:
        query = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND application_name ~ '^s[0-9]+$'"
        return int(self.sql("primary", query)) == len(self.names)

    def arrived(self, method: str) -> bool:
        """Whether every standby has the whole data, verified. `pg_basebackup -R` writes standby.signal before the data."""
        if method == "peas":
            return all((self.data(name) / "standby.signal").exists() for name in self.names)
        return all(self.mark(name).exists() for name in self.names)

    def mark(self, standby: str) -> Path:
        return self.args.work / f"{standby}.arrived"

    def check(self) -> str:
        """Every standby says what the primary says, a new transaction included."""
        self.sql("primary", "CREATE TABLE IF NOT EXISTS proof(at timestamptz); INSERT INTO proof VALUES (clock_timestamp())")
        written = self.sql("primary", "SELECT pg_current_wal_lsn()")
        query = (
            "SELECT (SELECT count(*) || ' rows, sum of hashes ' || sum(hashtext(a::text)::bigint) FROM pgbench_accounts a)"
            " || ', proof ' || (SELECT max(at) FROM proof)"
        )
        expected = self.sql("primary", query)
        for name in self.names:
            until(f"{name} replays", lambda name=name: self._replayed(name, written), 60)
            if (found := self.sql(name, query)) != expected:
                raise LabError(f"{name} differs: {found} instead of {expected}")
        return expected

    def _replayed(self, name: str, written: str) -> bool:
        return self.sql(name, f"SELECT pg_last_wal_replay_lsn() >= '{written}'::pg_lsn") == "t"

    def clean(self) -> None:
        for name in ["published", *self.names]:
            shutil.rmtree(self.args.work / name, ignore_errors=True)
            self.mark(name).unlink(missing_ok=True)


def one(args: argparse.Namespace, method: str, standbys: int, loaded: bool) -> Outcome:
    """One case, from nothing to streaming standbys, or with `loaded` until the data is there."""
    say(f"{method}, {standbys} standbys{', pgbench running' if loaded else ''}")
    case = Case(args, standbys)
    case.clean()
    with case.lab:
        case.start_primary()
        try:
            return _measure(case, method, standbys, loaded)
        finally:
            case.postgres("primary", "pg_ctl", "stop", "-m", "fast", "-w", "-D", case.primary)
            case.clean()


def _measure(case: Case, method: str, standbys: int, loaded: bool) -> Outcome:
    data = int(case.sql("primary", "SELECT sum(pg_database_size(oid)) FROM pg_database"))
    load_begun = time.monotonic()
    if loaded:
        case.begin_load()
    before, begun = case.lab.traffic("primary"), time.monotonic()
    children = case.peas() if method == "peas" else case.pg_basebackup()
    standing = {f"standby {name}": child for name, child in zip(case.names, children[-standbys:], strict=True)}
    until("the data is there", lambda: case.arrived(method) or _failed(standing), PATIENCE_S)
    if loaded:
        tps = case.end_load(begun, time.monotonic(), load_begun)
        wait_all(standing, PATIENCE_S)
        return Outcome(method, standbys, None, None, data, loaded, tps)
    wait_all(standing, PATIENCE_S)
    until("all stream", case.streaming, 60)
    seconds, moved = time.monotonic() - begun, case.lab.traffic("primary") - before
    peas_bytes = (case.args.work / "published/base.peas").stat().st_size * standbys if method == "peas" else 0
    outcome = Outcome(method, standbys, seconds, moved.sent + peas_bytes, data, loaded, rows=case.check())
    say(f"  {outcome.seconds:.1f} s, {outcome.sent / 1e6:.0f} MB sent; all standbys answer: {outcome.rows}")
    return outcome


def _failed(children: dict[str, subprocess.Popen[str]]) -> bool:
    return any(child.poll() not in (None, 0) for child in children.values())


def quiet(args: argparse.Namespace) -> Outcome:
    """What pgbench reaches when nobody copies."""
    say("pgbench alone")
    case = Case(args, 0)
    with case.lab:
        case.start_primary()
        try:
            load_begun = time.monotonic()
            case.begin_load()
            begun = time.monotonic()
            time.sleep(args.quiet_s)
            return Outcome("nobody copies", 0, None, None, 0, True, case.end_load(begun, time.monotonic(), load_begun))
        finally:
            case.postgres("primary", "pg_ctl", "stop", "-m", "fast", "-w", "-D", case.primary)


def prepare(args: argparse.Namespace) -> None:
    """The primary's cluster, once for all cases."""
    args.work.mkdir(parents=True, exist_ok=True)
    shutil.chown(args.work, USER, USER)
    done = args.work / f"scale-{args.scale}"
    if done.exists():
        return
    say(f"making a database with pgbench, scale {args.scale}")
    primary = args.work / "primary"
    shutil.rmtree(primary, ignore_errors=True)

    def as_user(*argv: str | Path) -> None:
        run("setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", "--", *argv, stdin=subprocess.DEVNULL)

    as_user(BINARIES / "initdb", "-D", primary, "--auth=trust", "--no-sync", "--data-checksums")
    with (primary / "pg_hba.conf").open("a") as file:
        file.write("host all all 10.94.0.0/16 trust\nhost replication all 10.94.0.0/16 trust\n")
    with (primary / "postgresql.conf").open("a") as file:
        file.write("max_wal_senders = 40\nmax_replication_slots = 40\nwal_level = replica\nport = 5432\nshared_buffers = 128MB\n")
    with Lab({"primary": 1000}) as lab:
        options = f"-c listen_addresses= -c unix_socket_directories={primary}"
        start = [BINARIES / "pg_ctl", "start", "-w", "-D", primary, "-l", args.work / "primary.log", "-o", options]
        wait_all({"pg_ctl": lab.start("primary", *start, user=USER)}, 60)
        lab.run(
            "primary", BINARIES / "psql", "-h", primary, "-c", "CREATE ROLE replicator LOGIN REPLICATION", "postgres", user=USER
        )
        lab.run("primary", BINARIES / "pgbench", "-h", primary, "-i", "-q", "-s", str(args.scale), "postgres", user=USER)
        lab.run("primary", BINARIES / "pg_ctl", "stop", "-w", "-D", primary, user=USER)
    done.touch()


def report(args: argparse.Namespace, outcomes: list[Outcome]) -> None:
    plain = sorted((o for o in outcomes if not o.loaded), key=lambda o: (o.standbys, o.method))
    rows = [(o.standbys, o.method, o.seconds, o.sent / 1e6, o.sent / o.data, "same answers") for o in plain]
    print(f"PostgreSQL 15, database of {plain[0].data / 1e6:.0f} MB, every host behind a link of {args.mbit:g} Mbit/s both ways,")
    print(f"all hosts share the {os.cpu_count()} cores of this machine.\n")
    print(table(["standbys", "method", "s until the last streams", "MB sent by primary", "databases sent", "check"], rows))
    loaded = [o for o in outcomes if o.loaded]
    if loaded:
        print(f"\npgbench (read and write, 4 clients) on the primary while {args.load_standbys} standbys are made:\n")
        print(table(["meanwhile", "transactions/s"], [(o.method, o.tps) for o in loaded]))
    if args.svg:
        series = {method: [(o.standbys, o.seconds) for o in plain if o.method == method] for method in METHODS}
        args.svg.write_text(chart("PostgreSQL: time until the last standby streams", "standbys", "seconds", series))
        print(f"\nchart: {args.svg}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--standbys", help="numbers with commas")
    parser.add_argument("--scale", type=int, help="of pgbench, about 15 MB each")
    parser.add_argument("--mbit", type=float, help="of every link")
    parser.add_argument("--load-standbys", type=int, default=4)
    parser.add_argument("--warm-s", type=float, default=5.0, help="pgbench before the copying")
    parser.add_argument("--quiet-s", type=float, default=15.0, help="pgbench alone")
    parser.add_argument("--work", type=Path, help="folder for data; kept, and finished cases are taken from it")
    parser.add_argument("--case", help="only this one: peas:4, pg_basebackup:4, load:peas, load:pg_basebackup, load:none")
    parser.add_argument("--svg", type=Path, help="write a chart")
    parser.add_argument("--python", default=sys.executable, help="with peas; the user postgres must be able to run it")
    args = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("needs root: it builds a network")
    args.scale = args.scale or (20 if args.full else 5)
    args.mbit = args.mbit or (100.0 if args.full else 200.0)
    counts = [int(text) for text in (args.standbys or ("1,2,4,8" if args.full else "1,4")).split(",")]
    cases = [f"{method}:{count}" for count in counts for method in METHODS]
    if args.full:
        cases += ["load:none", *[f"load:{method}" for method in METHODS]]
    temporary = None if args.work else tempfile.TemporaryDirectory(prefix="peas-postgres-")
    args.work = args.work or Path(temporary.name if temporary else "")
    prepare(args)
    outcomes = []
    for name in [args.case] if args.case else cases:
        kept = args.work / f"result-{args.scale}-{args.mbit:g}-{name.replace(':', '-')}.json"
        if not kept.exists():
            outcome = perform(args, name)
            kept.write_text(json.dumps(asdict(outcome)))
        outcomes.append(Outcome(**json.loads(kept.read_text())))
    if any(not o.loaded for o in outcomes):
        report(args, outcomes)


def perform(args: argparse.Namespace, name: str) -> Outcome:
    kind, _, what = name.partition(":")
    if name == "load:none":
        return quiet(args)
    if kind == "load":
        return one(args, what, args.load_standbys, True)
    return one(args, kind, int(what), False)


if __name__ == "__main__":
    main()
