"""Proof: K standbys from one primary over limited links, with peas and with K parallel pg_basebackups.

    sudo python prove.py            small form: K = 1 and 4, then kills at every step and a refresh; about two minutes
    sudo python prove.py --full     K = 1, 2, 4, 8, and what pgbench on another host feels of it, three times; then the same

"peas, staged": the first standby takes the backup over the network and publishes it; the primary holds no copy.

Real PostgreSQL servers, each on a host of its own (a network namespace with a limited link, see ../python/lab.py). Time runs
from the first command until pg_stat_replication on the primary shows the last standby streaming; it includes the backup, its
hashing and pg_verifybackup on every standby. Bytes are those on the primary's link, all of them: payload, headers, the peas
handed out, the log that standbys stream. A copy is the base backup as pg_basebackup lays it down, its log included. At the end
of each case every standby answers with the same rows and checksums as the primary, about a transaction too that was made when
they were all up.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster import BINARIES, PATIENCE_S, USER, Cluster, Load, make_pristine
from lab import LabError, chart, say, table, until, wait_all
from trial import kills_and_refresh, kills_while_staged

METHODS = ("peas", "staged", "pg_basebackup")
NAMES = {"staged": "peas, staged"}
LOADS = ("nothing", "peas", "pg_basebackup")
ROOM = 0.5
"""Share of the primary's link that copying may take: pgbench's answers need it, too."""


@dataclass
class Outcome:
    """One case."""

    method: str
    standbys: int
    seconds: float = 0.0
    """Until the last standby streams."""
    sent: int = 0
    """Bytes on the primary's link until then, the peas handed out included."""
    log_sent: int = 0
    """Of these, the log streamed to standbys; only known for peas."""
    log_written: int = 0
    """Log that the primary wrote meanwhile."""
    copy: int = 0
    """Bytes of the base backup."""
    rows: str = ""
    alone_tps: float = 0.0
    """Transactions per second of pgbench just before the copying, and meanwhile."""
    tps: float = 0.0
    alone_p99_ms: float = 0.0
    p99_ms: float = 0.0

    @property
    def copies(self) -> float:
        """0: not known, because no case with peas has told the size of a copy yet."""
        return self.sent / self.copy if self.copy else 0.0


# The two ways. Each starts everything; standbys end by themselves when their servers are up.


def begin_peas(cluster: Cluster, limit: float | None) -> dict[str, subprocess.Popen[str]]:
    """Staged or not: as the cluster is made."""
    more = ["--upload-limit", str(int(limit))] if limit else []
    publisher = cluster.publish(*more)
    until("the pea", lambda: cluster.pea.exists() or publisher.poll() is not None, PATIENCE_S)
    return {name: cluster.standby(name) for name in cluster.names}


def begin_pg_basebackup(cluster: Cluster, limit: float | None) -> dict[str, subprocess.Popen[str]]:
    children = {}
    rate = f"--max-rate={int(limit / len(cluster.names) / 1024)}k" if limit else ""
    for name in cluster.names:
        data, log = cluster.data(name), cluster.work / f"{name}.log"
        # Made beforehand, as replicas.py does: pg_basebackup's own -C reserves no log until it begins to stream.
        cluster.sql("primary", f"SELECT pg_create_physical_replication_slot('{name}', true)")
        script = (
            f"pg_basebackup -d '{cluster.conninfo()} application_name={name}' -D {data} -c fast -X stream -R -S {name} {rate} && "
            f"pg_verifybackup --quiet {data} && touch {arrived(cluster, name)} && "
            f"pg_ctl start -w -D {data} -l {log} -o '{cluster.server_options(name)}' >/dev/null"
        )
        environment = {**os.environ, "PATH": f"{BINARIES}:{os.environ['PATH']}"}
        children[name] = cluster.lab.start(name, *cluster.placed(name), "sh", "-c", script, user=USER, env=environment)
    return children


BEGIN = {"peas": begin_peas, "staged": begin_peas, "pg_basebackup": begin_pg_basebackup}


def signal(cluster: Cluster, name: str) -> Path:
    """The whole data is on the standby and verified: replicas.py writes standby.signal last."""
    return cluster.data(name) / "standby.signal"


def arrived(cluster: Cluster, name: str) -> Path:
    """The whole data is on the standby and verified: pg_basebackup -R writes standby.signal before the data."""
    return cluster.work / f"{name}.arrived"


def case(args: argparse.Namespace, method: str, standbys: int) -> Outcome:
    """From nothing to streaming standbys."""
    say(f"{method}, {standbys} standbys")
    with Cluster(args.work, args.python, args.mbit, standbys, staged=method == "staged") as cluster:
        written, before, begun = cluster.log_position(), cluster.lab.traffic("primary"), time.monotonic()
        wait_all(BEGIN[method](cluster, None), PATIENCE_S)
        until("all stream", cluster.streaming, 60, 0.1)
        seconds, sent = time.monotonic() - begun, (cluster.lab.traffic("primary") - before).sent
        outcome = Outcome(method, standbys, seconds, sent, log_written=cluster.log_position() - written, copy=one_copy(args))
        if method != "pg_basebackup":
            outcome.copy = cluster.backup_bytes()
        if method == "peas":
            outcome.log_sent = cluster.log_sent()
            # The namespaces share one file system, so nothing was sent for this; in life it is.
            outcome.sent += cluster.pea.stat().st_size * standbys
        outcome.rows = cluster.check()
    say(f"  {seconds:.1f} s, {outcome.sent / 1e6:.1f} MB sent = {outcome.copies:.2f} copies; all standbys answer {outcome.rows}")
    return outcome


def one_copy(args: argparse.Namespace) -> int:
    """The same for every case of a run: all start from the same data. Known after the first case with peas."""
    return next((outcome.copy for outcome in kept(args) if outcome.method == "peas" and outcome.copy), 0)


def under_load(args: argparse.Namespace, method: str) -> Outcome:
    """pgbench on another host, over the primary's link: first alone, then while standbys are made, or nothing is: the control."""
    say(f"pgbench meanwhile: {method}")
    with Cluster(args.work, args.python, args.mbit, args.load_standbys, apart=True) as cluster:
        load = Load(cluster)
        time.sleep(args.warm_s)
        alone = time.time()
        time.sleep(args.alone_s)
        begun = time.time()
        children = {}
        if method == "nothing":
            time.sleep(args.nothing_s)
        else:
            children = BEGIN[method](cluster, args.mbit / 8 * 1e6 * ROOM)
            sign = signal if method == "peas" else arrived

            def there() -> bool:
                whole = all(sign(cluster, name).exists() for name in cluster.names)
                return whole or any(child.poll() for child in children.values())

            until("the data is there", there, PATIENCE_S, 0.2)
        ended = time.time()
        load.end(ended)
        alone_tps, alone_p99_ms = load.between(alone, begun)
        tps, p99_ms = load.between(begun, ended)
        if children:
            wait_all(children, PATIENCE_S)
            until("all stream", cluster.streaming, 120, 0.2)
            cluster.check()
    say(f"  {tps:.0f} of {alone_tps:.0f} transactions/s, 99 % below {p99_ms:.0f} ms, before {alone_p99_ms:.0f}")
    return Outcome(
        f"load:{method}",
        args.load_standbys,
        ended - begun,
        alone_tps=alone_tps,
        tps=tps,
        alone_p99_ms=alone_p99_ms,
        p99_ms=p99_ms,
    )


def report(args: argparse.Namespace, outcomes: list[Outcome]) -> None:
    plain = sorted((o for o in outcomes if o.rows), key=lambda o: (o.standbys, o.method))
    copy = one_copy(args)
    for outcome in plain:
        outcome.copy = outcome.copy or copy
    header = ["standbys", "method", "s until the last streams", "MB sent by primary", "copies sent", "MB of log written", "check"]
    rows = [
        (
            o.standbys,
            NAMES.get(o.method, o.method),
            o.seconds,
            o.sent / 1e6,
            f"{o.copies:.2f}",
            o.log_written / 1e6,
            "same rows and checksums",
        )
        for o in plain
    ]
    print(f"PostgreSQL 15, base backup of {copy / 1e6:.1f} MB, every host behind a link of {args.mbit:g} Mbit/s both ways,")
    print(f"all hosts share the {os.cpu_count()} cores of this machine.\n")
    print(table(header, rows))
    logs = ", ".join(f"{o.log_sent / 1e6:.2f} MB to {o.standbys}" for o in plain if o.method == "peas")
    print(f"\nof what was sent with peas, log streamed to standbys: {logs}")
    loaded = [o for o in outcomes if o.tps]
    if loaded:
        names = {"nothing": "nothing", "peas": "peas", "pg_basebackup": f"{args.load_standbys} x pg_basebackup"}
        print(f"\npgbench (reads and writes, 4 clients on another host) just before {args.load_standbys} standbys are made, and")
        print(
            f"meanwhile. Copying is held to {ROOM:.0%} of the primary's link. The primary has one core for itself, its publisher"
        )
        print("of peas included; all other hosts share the other one:\n")
        header = [
            "meanwhile",
            "transactions/s before",
            "meanwhile",
            "share",
            "ms for 99 % before",
            "meanwhile",
            "s until the data is there",
        ]
        felt = [
            (
                names[o.method.removeprefix("load:")],
                o.alone_tps,
                o.tps,
                f"{o.tps / o.alone_tps:.0%}",
                o.alone_p99_ms,
                o.p99_ms,
                o.seconds if o.method != "load:nothing" else None,
            )
            for o in loaded
        ]
        print(table(header, felt))
    if args.svg:
        series = {method: [(o.standbys, o.seconds) for o in plain if o.method == method] for method in METHODS}
        series = {NAMES.get(method, method): points for method, points in series.items() if points}
        args.svg.write_text(chart("PostgreSQL: time until the last standby streams", "standbys", "seconds", series))
        print(f"\nchart: {args.svg}")


def judge(args: argparse.Namespace, outcomes: list[Outcome]) -> None:
    """What must be so however busy the machine is; `--goals` asks for all that this proof is meant to show."""
    by_peas = [o for o in outcomes if o.rows and o.method == "peas"]
    staged = [o for o in outcomes if o.rows and o.method == "staged"]
    wrong = [f"{o.copies:.2f} copies sent to {o.standbys} standbys" for o in by_peas + staged if o.copies > args.copies_max]
    if args.goals:
        one = next(o for o in by_peas if o.standbys == 1)
        wrong += [f"{o.seconds:.1f} s for {o.standbys} standbys" for o in by_peas if o.seconds > 1.25 * one.seconds]
        loaded = [o for o in outcomes if o.method == "load:peas"]
        wrong += [f"pgbench fell to {o.tps:.0f} from {o.alone_tps:.0f}" for o in loaded if o.tps < 0.8 * o.alone_tps]
    if wrong:
        sys.exit("not as it should be: " + "; ".join(wrong))


def kept_path(args: argparse.Namespace, name: str) -> Path:
    return Path(args.work, f"result-{args.scale}-{args.mbit:g}-{name.replace(':', '-')}.json")


def kept(args: argparse.Namespace) -> list[Outcome]:
    names = [name for name in args.cases if kept_path(args, name).exists()]
    return [Outcome(**json.loads(kept_path(args, name).read_text())) for name in names]


def perform(args: argparse.Namespace, name: str) -> Outcome:
    kind, _, what = name.partition(":")
    # The rounds of a load are told apart by a number behind it.
    return under_load(args, what.partition(":")[0]) if kind == "load" else case(args, kind, int(what))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument(
        "--cases", help="with commas: peas:4, staged:4, pg_basebackup:4, load:peas:1 (the round), load:nothing:1, trial"
    )
    parser.add_argument("--scale", type=int, help="of pgbench, about 15 MB each")
    parser.add_argument("--mbit", type=float, help="of every link")
    parser.add_argument("--load-standbys", type=int, default=4)
    parser.add_argument("--warm-s", type=float, default=10.0, help="pgbench before anything is measured")
    parser.add_argument("--alone-s", type=float, default=20.0, help="pgbench before the copying")
    parser.add_argument("--nothing-s", type=float, default=40.0, help="pgbench while nothing is copied, the control")
    parser.add_argument("--rounds", type=int, default=3, help="of pgbench with each method, one after the other")
    parser.add_argument("--copies-max", type=float, default=1.5, help="fail when peas sends more than this")
    parser.add_argument("--goals", action="store_true", help="fail, too, when it takes longer or disturbs more than it should")
    parser.add_argument("--work", type=Path, help="folder for data; kept, and finished cases are taken from it")
    parser.add_argument("--only", help="run just this case now")
    parser.add_argument("--svg", type=Path, help="write a chart")
    parser.add_argument("--python", default=sys.executable, help="with peas; the user postgres must be able to run it")
    args = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("needs root: it builds a network")
    args.scale = args.scale or (10 if args.full else 5)
    args.mbit = args.mbit or (100.0 if args.full else 200.0)
    counts = (1, 2, 4, 8) if args.full else (1, 4)
    loads = [f"load:{what}:{at}" for at in range(1, args.rounds + 1) for what in LOADS] if args.full else []
    plain = [f"{method}:{count}" for count in counts for method in METHODS if args.full or method != "staged"]
    default = plain + loads + ["trial"]
    args.cases = args.cases.split(",") if args.cases else default
    temporary = None if args.work else tempfile.TemporaryDirectory(prefix="peas-postgres-", dir="/var/tmp")
    args.work = args.work or Path(temporary.name if temporary else "")
    shutil.chown(args.work, USER, USER) if temporary else None
    make_pristine(args.work, args.scale)
    for name in [args.only] if args.only else args.cases:
        if name == "trial":
            if not args.only or args.only == name:
                kills_and_refresh(args.work, args.python, args.mbit)
                kills_while_staged(args.work, args.python, args.mbit)
        elif not kept_path(args, name).exists():
            kept_path(args, name).write_text(json.dumps(asdict(perform(args, name))))
    if not args.only:
        outcomes = kept(args)
        report(args, outcomes)
        judge(args, outcomes)


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        sys.exit(f"failed: {error}")
