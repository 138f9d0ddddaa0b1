"""``peas`` as a command: create, inspect, seed, install, verify, with the words and exit codes of the native program.

A small example of an embedder, too: it uses nothing but the package's public face.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import peas
from peas._values import duration, quantity

DONE, USAGE, PEA, DISK, BUSY, UNREACHABLE, VERIFY, BUG, INTERRUPTED = 0, 2, 3, 4, 5, 6, 7, 70, 130

_EXITS: tuple[tuple[type[peas.Error], int], ...] = (
    (peas.InvalidError, USAGE),
    (peas.ManifestError, PEA),
    (peas.DiskError, DISK),
    (peas.ContentError, DISK),
    (peas.BusyError, BUSY),
    (peas.UnreachableError, UNREACHABLE),
    (peas.WaitTimeoutError, UNREACHABLE),
    (peas.CancelledError, INTERRUPTED),
)

_EPILOG = """exit codes: 0 done, 2 the command line is wrong, 3 the pea is refused, 4 a disk or file problem, 5 busy,
6 nobody reachable, 7 verification failed, 70 a bug in peas, 130 interrupted (the same command resumes)"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    args = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        print("peas: interrupted; what is verified is kept: the same command resumes", file=sys.stderr)
        return INTERRUPTED
    except peas.Error as error:
        print(f"peas: {error}", file=sys.stderr)
        return next((code for kind, code in _EXITS if isinstance(error, kind)), BUG)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="peas", description="Peer-assisted downloads.", epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"peas {peas.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    create = commands.add_parser("create", help="describe a file or folder in a pea")
    create.add_argument("source", type=Path, metavar="FILE")
    create.add_argument("--output", "-o", type=Path, metavar="PEA")
    create.add_argument("--owner", dest="owners", action="append", default=[], metavar="[KEY@]HOST:PORT")
    create.add_argument("--sign", dest="sign_with", action="append", default=[], type=Path, metavar="KEYFILE")
    create.add_argument("--web", action="append", default=[], metavar="URL")
    create.add_argument("--name")
    create.add_argument("--piece-size", metavar="SIZE")
    create.add_argument("--channel", default="")
    create.add_argument("--release", type=int, default=0)
    create.add_argument("--expires", metavar="TIME", help="refused after this time from now, e.g. 30d")
    create.set_defaults(run=_create)

    inspect = commands.add_parser("inspect", help="print what a pea says")
    _pea_arguments(inspect)
    inspect.add_argument("--files", action="store_true")
    inspect.add_argument("--json", action="store_true")
    inspect.set_defaults(run=_inspect)

    seed = commands.add_parser("seed", help="serve a file or folder that is on this disk")
    _pea_arguments(seed)
    seed.add_argument("--file", "--source", dest="source", type=Path, metavar="PATH")
    seed.add_argument("--no-origin", action="store_true")
    seed.add_argument("--check-first", action="store_true")
    _net_arguments(seed)
    seed.set_defaults(run=_seed)

    install = commands.add_parser("install", help="download, resume or repair what a pea describes")
    _pea_arguments(install)
    install.add_argument("--output", "-o", type=Path, metavar="PATH")
    stay = install.add_mutually_exclusive_group()
    stay.add_argument("--keep-seeding", action="store_true")
    stay.add_argument("--seed-time", metavar="TIME")
    stay.add_argument("--seed-ratio", type=float, metavar="RATIO")
    install.add_argument("--give-up", metavar="TIME", help="exit 6 when nothing arrived for this long")
    _net_arguments(install)
    install.set_defaults(run=_install)

    verify = commands.add_parser("verify", help="compare what lies on the disk with a pea")
    _pea_arguments(verify)
    verify.add_argument("path", type=Path, nargs="?", metavar="PATH")
    verify.set_defaults(run=_verify)
    return parser


def _pea_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pea", type=Path, metavar="PEA")
    parser.add_argument("--trust-key", dest="trust_keys", action="append", default=[], metavar="HEX")
    parser.add_argument("--threshold", type=int, default=1, metavar="N")
    parser.add_argument("--pin", metavar="ID")


def _net_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--listen", metavar="ADDR")
    parser.add_argument("--no-listen", action="store_true")
    parser.add_argument("--peer", dest="peers", action="append", default=[], metavar="ADDR")
    parser.add_argument("--upload-limit", default="0", metavar="RATE")
    parser.add_argument("--download-limit", default="0", metavar="RATE")
    parser.add_argument("--region", type=int, default=0)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--scope", choices=("auto", "public", "any"), default="auto")
    parser.add_argument("--state-dir", type=Path)
    parser.add_argument("--identity", type=Path, metavar="FILE")
    parser.add_argument("--progress-every", default="1s", metavar="TIME")


def _create(args: argparse.Namespace) -> int:
    output = args.output or Path(f"{args.name or args.source.resolve().name}.peas")
    made = peas.create(
        args.source,
        output,
        owners=args.owners,
        sign_with=[_secret(path) for path in args.sign_with],
        web=args.web,
        name=args.name,
        piece_size=args.piece_size,
        channel=args.channel,
        release=args.release,
        expires=int(time.time() + duration(args.expires)) if args.expires else 0,
    )
    print(f"{output}: {made.bytes_total} bytes in {made.pieces} pieces, id {made.id}")
    return DONE


def _inspect(args: argparse.Namespace) -> int:
    what = peas.describe(args.pea)
    if args.json:
        print(json.dumps(_fields(what, args.files)))
        return DONE
    for field, value in _fields(what, False).items():
        if field == "owners":
            print("owners      ", ", ".join(f"{owner['peer'] + '@' if owner['peer'] else ''}{owner['addr']}" for owner in value))
        else:
            print(f"{field:<12}", ", ".join(value) if isinstance(value, tuple) else value)
    if args.files:
        for entry in what.entries:
            print(f"{entry.blake3 or '-' * 64}  {entry.bytes:>14}  {entry.path}")
    return DONE


def _fields(what: peas.Description, with_files: bool) -> dict[str, Any]:
    """Under the names that the native program uses."""
    fields = dataclasses.asdict(what)
    entries = fields.pop("entries")
    fields |= {"bytes": fields.pop("bytes_total"), "entries": len(entries)}
    fields |= {"created_unix_s": fields.pop("created"), "expires_unix_s": fields.pop("expires")}
    return fields | {"files": entries} if with_files else fields


def _seed(args: argparse.Namespace) -> int:
    source = args.source or Path(peas.describe(args.pea).name)
    with _engine(args) as engine:
        job = engine.share(
            args.pea,
            source,
            trust=_trust(args),
            peers=args.peers,
            origin=not args.no_origin,
            check_first=args.check_first,
            region=args.region,
        )
        print(f"serving {source} at {engine.listen_addr}, peer {engine.peer_id}", flush=True)
        try:
            _follow(job, duration(args.progress_every))
        except KeyboardInterrupt:
            job.leave()
    return DONE


def _install(args: argparse.Namespace) -> int:
    output = args.output or Path(peas.describe(args.pea).name)
    share: bool | str = args.keep_seeding
    if args.seed_time is not None:
        share = f"{duration(args.seed_time)}s"
    elif args.seed_ratio is not None:
        share = f"{args.seed_ratio}x"
    with _engine(args) as engine:
        job = engine.install(args.pea, output, trust=_trust(args), peers=args.peers, share=share, region=args.region)
        _follow(job, duration(args.progress_every), duration(args.give_up) if args.give_up else None)
        done = job.wait()
        print(
            f"installed {output}: {done.bytes_total} bytes, {done.bytes_reused} were here, {done.bytes_from_origin} from the "
            f"origin, {done.bytes_from_peers} from peers",
            flush=True,
        )
        try:
            job.wait_ended()
        except KeyboardInterrupt:
            job.leave()
    return DONE


def _verify(args: argparse.Namespace) -> int:
    place = args.path or Path(peas.describe(args.pea).name)
    found = peas.verify(args.pea, place, trust=_trust(args))
    print(f"{place}: {found.pieces_good} pieces good, {found.pieces_bad} bad")
    for name in found.bad_files:
        print(f"bad: {name}")
    return DONE if found else VERIFY


def _engine(args: argparse.Namespace) -> peas.Engine:
    return peas.Engine(
        listen=False if args.no_listen else args.listen or True,
        upload_limit=quantity(args.upload_limit, "--upload-limit"),
        download_limit=quantity(args.download_limit, "--download-limit"),
        identity=_secret(args.identity) if args.identity else None,
        scope=args.scope,
        plain=args.plain,
        state_dir=args.state_dir,
    )


def _trust(args: argparse.Namespace) -> peas.Trust:
    if args.pin:
        return peas.Trust.pin(args.pin)
    if args.trust_keys:
        return peas.Trust.keys([_key(text, "--trust-key") for text in args.trust_keys], args.threshold)
    return peas.Trust.file()


def _follow(job: peas.Job, every_s: float, give_up_s: float | None = None) -> None:
    """Prints a line of progress now and then, on standard error, until the job is done."""
    printed, moved, bytes_seen = 0.0, time.monotonic(), -1
    while True:
        try:
            job.wait(min(every_s, 0.5))
            return
        except peas.WaitTimeoutError:
            now, latest = time.monotonic(), job.latest
        if latest.bytes_done != bytes_seen:
            moved, bytes_seen = now, latest.bytes_done
        elif give_up_s is not None and now - moved > give_up_s:
            raise peas.WaitTimeoutError(f"nothing arrived for {give_up_s:g} s; what is verified is kept")
        if now - printed >= every_s:
            printed = now
            print(
                f"{latest.state.name.lower()} {latest.bytes_done}/{latest.bytes_total} bytes, {latest.peers} peers, "
                f"{latest.rate_received} B/s in, {latest.rate_sent} B/s out",
                file=sys.stderr,
            )


def _secret(path: Path) -> bytes:
    """The key in a file made by ``peas keygen``: 64 hexadecimal digits, and comment lines."""
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines()]
    except OSError as error:
        raise peas.DiskError(error.errno, error.strerror, str(path)) from error
    words = [line for line in lines if line and not line.startswith("#")]
    return _key(words[0] if len(words) == 1 else "", str(path))


def _key(text: str, what: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise peas.InvalidError(f"{what}: expected 64 hexadecimal digits")
    return key


if __name__ == "__main__":
    sys.exit(main())
