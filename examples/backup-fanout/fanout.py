"""Sends a snapshot to several servers at once: they help each other, so the sender's link carries little more than one copy.

On the sender:       python fanout.py publish /backups/monday monday.peas --listen 192.0.2.1:7000
On every server:     python fanout.py receive monday.peas /backups/current

`receive` prints one line of JSON when everything is verified and in place, and goes on helping others until it is told to
stop. Killed and started again, it takes up what it has. Over an older snapshot it fetches only the pieces that differ.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from pathlib import Path

import peas


def publish(args: argparse.Namespace) -> None:
    with peas.Engine(listen=args.listen) as engine:
        peas.create(args.source, args.pea, engine=engine)
        engine.share(args.pea, args.source).wait_ended()


def receive(args: argparse.Namespace) -> None:
    begun = time.monotonic()
    with peas.Engine() as engine:
        job = engine.install(args.pea, args.dest, trust="file", share=True)
        done = job.wait()
        prune(args.dest, peas.describe(args.pea))
        facts = {
            "seconds": time.monotonic() - begun,
            "bytes": done.bytes_total,
            "reused": done.bytes_reused,
            "from_origin": done.bytes_from_origin,
            "from_peers": done.bytes_from_peers,
        }
        print(json.dumps(facts), flush=True)
        job.wait_ended()


def prune(dest: Path, snapshot: peas.Description) -> None:
    """Removes what an older snapshot left: peas itself never deletes a file that the pea does not name."""
    kept = {dest / entry.path for entry in snapshot.entries}
    kept |= {folder for path in kept for folder in path.parents}
    for folder, folders, files in os.walk(dest, topdown=False):
        for name in (*files, *folders):
            path = Path(folder, name)
            if path in kept or ".peas-" in str(path):
                continue
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description="One snapshot to several servers.")
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("publish")
    one.add_argument("source", type=Path)
    one.add_argument("pea", type=Path)
    one.add_argument("--listen", required=True, metavar="IP:PORT")
    one.set_defaults(run=publish)
    one = commands.add_parser("receive")
    one.add_argument("pea", type=Path)
    one.add_argument("dest", type=Path)
    one.set_defaults(run=receive)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        args.run(args)
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
