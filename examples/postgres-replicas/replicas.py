"""Brings up PostgreSQL standbys from one base backup, whatever their number: each standby that receives also helps the others.

On the primary, as the user of the server:

    python replicas.py publish --socket /run/postgresql --folder /var/backups/replicas --listen 192.0.2.1:7000 --slots s1,s2,s3

On each standby, with the pea that `publish` wrote (a few hundred kilobytes, copied by any means):

    python replicas.py standby --pea base.peas --data /var/lib/postgresql/15/main --slot s1 \\
        --primary "host=192.0.2.1 user=replicator"

Both may be stopped or killed at any point and started again: every step looks first whether it is done. A replication slot
per standby is made before the backup, so the primary keeps all log that any of them will need. The data directory appears
under its name only when every byte is verified; `pg_verifybackup` then says the same in PostgreSQL's own words.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import peas

BINARIES = Path("/usr/lib/postgresql/15/bin")
MARK = "# added by replicas.py"


def main() -> None:
    parser = argparse.ArgumentParser(description="PostgreSQL standbys from one base backup.")
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("publish")
    one.add_argument("--socket", required=True, help="folder of the server's socket")
    one.add_argument("--folder", type=Path, required=True, help="where the backup and its pea are kept")
    one.add_argument("--listen", required=True, metavar="IP:PORT", help="where to serve; standbys must be able to dial it")
    one.add_argument("--slots", required=True, help="names of the standbys, with commas")
    one.set_defaults(run=publish)
    one = commands.add_parser("standby")
    one.add_argument("--pea", type=Path, required=True)
    one.add_argument("--data", type=Path, required=True)
    one.add_argument("--slot", required=True)
    one.add_argument("--primary", required=True, help="connection string of the primary")
    one.add_argument("--options", default="", help="more options for the server")
    one.set_defaults(run=standby)
    args = parser.parse_args()
    # A data directory is nobody's but the server's.
    os.umask(0o077)
    args.run(args)


def publish(args: argparse.Namespace) -> None:
    backup, pea = args.folder / "base", args.folder / "base.peas"
    slots_are_new = reserve(args.socket, args.slots.split(","))
    if slots_are_new or not pea.exists():
        # A slot younger than the backup cannot promise the log since the backup.
        pea.unlink(missing_ok=True)
        shutil.rmtree(backup, ignore_errors=True)
        args.folder.mkdir(parents=True, exist_ok=True)
        tell("taking the backup")
        postgres("pg_basebackup", "--host", args.socket, "--pgdata", backup, "--checkpoint=fast", "--wal-method=stream")
    with peas.Engine(listen=args.listen) as engine:
        if not pea.exists():
            made = peas.create(backup, pea, engine=engine, name="base backup")
            tell(f"{made.bytes_total} bytes in {len(made.entries)} entries, id {made.id}")
        tell(f"serving {backup} at {engine.listen_addr}")
        engine.share(pea, backup).wait_ended()


def reserve(socket: str, slots: list[str]) -> bool:
    """Makes the replication slots that are missing. Whether there were any."""
    listing = postgres("psql", "--host", socket, "-AtXqc", "SELECT slot_name FROM pg_replication_slots", "postgres")
    missing = [slot for slot in slots if slot not in listing.split()]
    for slot in missing:
        reserving = f"SELECT pg_create_physical_replication_slot('{slot}', true)"
        postgres("psql", "--host", socket, "-AtXqc", reserving, "postgres")
    return bool(missing)


def standby(args: argparse.Namespace) -> None:
    if not (args.data / "standby.signal").exists():
        with peas.Engine() as engine:
            # Leaves the swarm when whole: a server that runs changes its files and has nothing to share any more.
            job = engine.install(args.pea, args.data, trust="file")
            done = job.wait()
            tell(f"{done.bytes_total} bytes, {done.bytes_from_origin} from the primary, {done.bytes_from_peers} from standbys")
            job.wait_ended()
        args.data.chmod(0o700)
        postgres("pg_verifybackup", "--quiet", args.data)
        configure(
            args.data, f"primary_conninfo = '{args.primary} application_name={args.slot}'\nprimary_slot_name = '{args.slot}'\n"
        )
    if not is_running(args.data):
        log = args.data.with_name(args.data.name + ".log")
        postgres("pg_ctl", "start", "--pgdata", args.data, "--log", log, "--wait", "-o", f"{args.options} -c hot_standby=on")
    tell("running")


def configure(data: Path, lines: str) -> None:
    """The last step before the server may start; `standby.signal` says that it is done."""
    with (data / "postgresql.auto.conf").open("a") as file:
        file.write(f"{MARK}\n{lines}")
        file.flush()
        os.fsync(file.fileno())
    signal = data / "standby.signal"
    signal.touch()
    for path in (signal, data):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def is_running(data: Path) -> bool:
    return subprocess.run([BINARIES / "pg_ctl", "status", "-D", data], capture_output=True, check=False).returncode == 0


def postgres(program: str, *argv: str | Path) -> str:
    # pg_ctl's server inherits its output, so nobody may wait for the end of a pipe there.
    if program == "pg_ctl":
        subprocess.run([BINARIES / program, *argv], stdout=subprocess.DEVNULL, check=True)
        return ""
    return subprocess.run([BINARIES / program, *argv], stdout=subprocess.PIPE, text=True, check=True).stdout


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
