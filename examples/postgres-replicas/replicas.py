"""Brings up PostgreSQL standbys from one base backup, whatever their number: each standby that receives also helps the others.

On the primary, as the user of the server:

    python replicas.py publish --socket /run/postgresql --folder /var/backups/replicas --listen 192.0.2.1:7000 --slots s1,s2,s3

On each standby, with the pea that `publish` wrote (a few hundred kilobytes, copied by any means):

    python replicas.py standby --pea base.peas --data /var/lib/postgresql/15/main --slot s1 \\
        --primary "host=192.0.2.1 user=replicator"

A primary that has no room for a copy of itself lets another host publish, such as the first standby: there `publish` with
`--primary "host=192.0.2.1 user=replicator"` in the place of `--socket` takes the backup over the network, once. The primary sends
one copy and holds none.

Both may be stopped or killed at any point and started again: every step looks first whether it is done. A replication slot
per standby is made before the backup, so the primary keeps all log that any of them will need. A new data directory appears
under its name only when every byte is verified; `pg_verifybackup` then says the same in PostgreSQL's own words.

A standby that fell behind or is damaged: `publish --fresh` takes a new backup, and `standby --refresh` with its pea stops the
old server, keeps every piece of its files that is still right, and fetches the rest.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import peas

BINARIES = Path(os.environ.get("PG_BINARIES", "/usr/lib/postgresql/15/bin"))
MARK = "# added by replicas.py"
PIECE_BYTES_MIN = 64 << 10
"""Eight pages: what one changed page costs when a standby is refreshed."""
PIECES_MAX = 1 << 16
"""Half of what a pea may have: 2 MB of hashes. Backups above 4 GiB get larger pieces."""
REPORT_S = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description="PostgreSQL standbys from one base backup.")
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("publish")
    where = one.add_mutually_exclusive_group(required=True)
    where.add_argument("--socket", help="folder of the primary's socket, if it runs on this host")
    where.add_argument("--primary", help="connection string of the primary, if it runs on another host")
    one.add_argument("--folder", type=Path, required=True, help="where the backup and its pea are kept")
    one.add_argument("--listen", required=True, metavar="IP:PORT", help="where to serve; standbys must be able to dial it")
    one.add_argument("--slots", required=True, help="names of the standbys, with commas")
    one.add_argument("--upload-limit", default="0", help="bytes per second to send at most, such as 20M")
    one.add_argument(
        "--backup-limit", metavar="RATE", help="--max-rate of pg_basebackup: bytes per second that it reads, such as 20M"
    )
    one.add_argument("--fresh", action="store_true", help="take a new backup though there is one")
    one.set_defaults(run=publish)
    one = commands.add_parser("standby")
    one.add_argument("--pea", type=Path, required=True)
    one.add_argument("--data", type=Path, required=True)
    one.add_argument("--slot", required=True)
    one.add_argument("--primary", required=True, help="connection string of the primary")
    one.add_argument("--refresh", action="store_true", help="make a data directory that is there what the pea says")
    one.add_argument("--options", default="", help="more options for the server")
    one.set_defaults(run=standby)
    args = parser.parse_args()
    # A data directory is nobody's but the server's.
    os.umask(0o077)
    try:
        args.run(args)
    except (peas.Error, BlockingIOError, subprocess.CalledProcessError) as error:
        sys.exit(f"replicas.py: {error}")


# On the primary, or on another host for it.


def publish(args: argparse.Namespace) -> None:
    backup, pea = args.folder / "base", args.folder / "base.peas"
    primary = args.primary or f"host={args.socket}"
    args.folder.mkdir(parents=True, exist_ok=True)
    with alone(args.folder / "lock"):
        missing = slots_missing(primary, args.slots.split(","))
        if missing or args.fresh:
            # The old backup is none before the first slot is made: a slot that is younger cannot promise the log since then.
            pea.unlink(missing_ok=True)
            if backup.exists():
                backup.rename(part_of(backup))
            sync(args.folder)
        for slot in missing:
            query(primary, f"SELECT pg_create_physical_replication_slot('{slot}', true)")
        if not backup.exists():
            take_backup(primary, backup, args.backup_limit)
        me = identity(args.folder / "identity")
        with peas.Engine(listen=args.listen, upload_limit=args.upload_limit, identity=me) as engine:
            if not pea.exists():
                tell("describing")
                made = peas.create(backup, pea, engine=engine, name="base backup", piece_size=piece_bytes(backup))
                tell(f"{made.bytes_total} bytes in {len(made.entries)} entries, id {made.id}")
            job = engine.share(pea, backup)
            tell(f"serving {backup} at {engine.listen_addr}")
            report_sent(job)


def identity(path: Path) -> bytes:
    """The pea names this publisher by its key: started again it must be the same one."""
    if not path.exists():
        part = path.with_name("identity.part")
        part.write_bytes(os.urandom(32))
        sync(part)
        part.rename(path)
        sync(path.parent)
    return path.read_bytes()


def take_backup(primary: str, backup: Path, limit: str | None) -> None:
    """Appears under its name when it is whole. One that was killed may still be written to by its orphan: it has another name."""
    for old in backup.parent.glob("base.part-*"):
        shutil.rmtree(old, ignore_errors=True)
    part = part_of(backup)
    tell("backing up")
    words = [f"--max-rate={limit}"] if limit else []
    postgres("pg_basebackup", "--dbname", primary, "--pgdata", part, "--checkpoint=fast", "--wal-method=stream", *words)
    if any((part / "pg_tblspc").iterdir()):
        sys.exit("replicas.py: tablespaces outside of the data directory are not supported")
    part.rename(backup)
    sync(backup.parent)


def part_of(backup: Path) -> Path:
    return backup.with_name(f"base.part-{os.getpid()}")


def piece_bytes(backup: Path) -> int:
    total = sum(path.stat().st_size for path in backup.rglob("*") if path.is_file())
    chosen = PIECE_BYTES_MIN
    while chosen * PIECES_MAX < total:
        chosen *= 2
    return chosen


def report_sent(job: peas.Job) -> None:
    """Until it is told to stop."""
    said = -1
    while True:
        try:
            job.wait_ended(REPORT_S)
            return
        except peas.WaitTimeoutError:
            if (sent := job.latest.bytes_sent) != said:
                said = sent
                tell(f"sent {sent} bytes")


def slots_missing(primary: str, slots: list[str]) -> list[str]:
    listing = query(primary, "SELECT slot_name FROM pg_replication_slots WHERE wal_status IS DISTINCT FROM 'lost'").split()
    lost = set(query(primary, "SELECT slot_name FROM pg_replication_slots WHERE wal_status = 'lost'").split())
    for slot in lost & set(slots):
        # Its log is gone: it can promise nothing any more, and a new one takes its place.
        query(primary, f"SELECT pg_drop_replication_slot('{slot}')")
    return [slot for slot in slots if slot not in listing]


# On a standby.


def standby(args: argparse.Namespace) -> None:
    wanted = peas.describe(args.pea).id
    data, begun = args.data, args.data.with_name(args.data.name + ".receiving")
    signal = data / "standby.signal"
    made_from = signal.read_text().strip() if signal.exists() else None
    done = made_from is not None and not begun.exists() and (made_from == wanted or not args.refresh)
    if not done:
        if (data / "PG_VERSION").exists() and not begun.exists() and not args.refresh:
            sys.exit(f"replicas.py: {data} holds a server that is no standby; --refresh replaces its data")
        make_data(args, wanted, begun)
    if not is_running(data):
        tell("starting")
        log = data.with_name(data.name + ".log")
        postgres("pg_ctl", "start", "--pgdata", data, "--log", log, "--wait", "-o", f"{args.options} -c hot_standby=on")
    tell("running")


def make_data(args: argparse.Namespace, wanted: str, begun: Path) -> None:
    """From nothing, from a part, from an old or damaged version: to a configured standby that may be started."""
    # While this file is there nothing that looks like a standby is one.
    begun.touch()
    sync(begun)
    sync(begun.parent)
    if is_running(args.data):
        tell("stopping the old server")
        postgres("pg_ctl", "stop", "--pgdata", args.data, "--mode", "fast", "--wait")
    tell("receiving")
    with peas.Engine() as engine:
        # Leaves the swarm when whole: a server that runs changes its files and has nothing to share any more.
        job = engine.install(args.pea, args.data, trust=wanted)
        done = job.wait()
        tell(
            f"{done.bytes_total} bytes: {done.bytes_from_origin} from the primary, {done.bytes_from_peers} from standbys, "
            f"{done.bytes_reused} were here"
        )
        job.wait_ended()
    args.data.chmod(0o700)
    tell("removing what the backup does not have")
    remove_others(args.data, peas.describe(args.pea))
    tell("verifying")
    postgres("pg_verifybackup", "--quiet", args.data)
    tell("configuring")
    lines = f"primary_conninfo = '{args.primary} application_name={args.slot}'\nprimary_slot_name = '{args.slot}'\n"
    with (args.data / "postgresql.auto.conf").open("a") as file:
        file.write(f"{MARK}\n{lines}")
    (args.data / "standby.signal").write_text(f"{wanted}\n")
    for name in ("postgresql.auto.conf", "standby.signal", "."):
        sync(args.data / name)
    begun.unlink()
    sync(begun.parent)


def remove_others(data: Path, backup: peas.Description) -> None:
    """Files of an old server: its log, its locks, its relations that are no more. peas never deletes what it does not know."""
    kept = {data / entry.path for entry in backup.entries}
    kept |= {folder for path in kept for folder in path.parents}
    for folder, folders, files in os.walk(data, topdown=False):
        for path in (Path(folder, name) for name in (*files, *folders)):
            if path in kept:
                continue
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()


def is_running(data: Path) -> bool:
    return subprocess.run([BINARIES / "pg_ctl", "status", "-D", data], capture_output=True, check=False).returncode == 0


# On both.


def query(primary: str, text: str) -> str:
    return postgres("psql", "--dbname", f"{primary} dbname=postgres", "-AtXqc", text)


def postgres(program: str, *argv: str | Path) -> str:
    # pg_ctl's server inherits its output, so nobody may wait for the end of a pipe there.
    if program == "pg_ctl":
        subprocess.run([BINARIES / program, *argv], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
        return ""
    # When this process is killed nobody needs the answer: a backup that goes on would take the primary's link for nothing. If it
    # was killed before the signal was asked for none will come, so the shell looks whose child it is.
    orphans_end = ["setpriv", "--pdeathsig", "TERM", "sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"', str(os.getpid())]
    return subprocess.run([*orphans_end, BINARIES / program, *argv], stdout=subprocess.PIPE, text=True, check=True).stdout


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """One publisher per folder. The system lets go of it when the process ends, however it ends."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
