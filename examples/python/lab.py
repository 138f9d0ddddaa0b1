"""A network of hosts on one Linux machine, for the proofs: each host is a network namespace with one limited link.

    namespace peas-lab-NAME            namespace peas-lab-hub
      eth0 (tbf: what it may send) <-- veth --> pN (tbf: what it may receive) -- bridge

Everything is called ``peas-lab-*`` and removed at the end, also after a crash, by the next run. Needs root and iproute2;
touches no other network of the machine. Bytes are counted by the link itself: nobody who takes part is asked.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

PREFIX = "peas-lab-"
HUB = PREFIX + "hub"
LOCK = Path("/run/lock/peas-lab")

GSO_BYTES = 16_000
"""Largest packet train handed to a limited link at once: it has to fit into the bucket."""

BUCKET_MS = 10
"""What a late timer may make up for on busy cores."""

QUEUE_MS = 50
"""Depth of a link's queue: a good router of today."""

Argument = str | os.PathLike[str]


class LabError(RuntimeError):
    """A command of the lab failed."""


@dataclass(frozen=True)
class Traffic:
    """Bytes on the link, frames and all."""

    sent: int
    received: int

    def __sub__(self, earlier: Traffic) -> Traffic:
        return Traffic(self.sent - earlier.sent, self.received - earlier.received)


class Lab:
    """Hosts by name, each with the megabits per second that its link takes in each direction."""

    def __init__(self, hosts: Mapping[str, float]) -> None:
        self._hosts = dict(hosts)
        self._index = {name: at for at, name in enumerate(hosts, start=1)}

    def __enter__(self) -> Lab:
        if os.geteuid() != 0:
            raise LabError("network namespaces need root")
        self._turn = LOCK.open("w")
        # A second lab waits for the first: they have the same names. The system lets go when the process ends.
        fcntl.flock(self._turn, fcntl.LOCK_EX)
        remove_leftovers()
        try:
            _ip("netns", "add", HUB)
            _ip("-n", HUB, "link", "add", "bridge", "type", "bridge", "forward_delay", "0", "mcast_snooping", "0")
            _ip("-n", HUB, "link", "set", "bridge", "up")
            for name, mbit in self._hosts.items():
                self._add(name, mbit)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        remove_leftovers()
        self._turn.close()

    def address(self, host: str) -> str:
        """The host's IPv4 address."""
        return f"10.94.{self._index[host] // 250}.{self._index[host] % 250 + 1}"

    def traffic(self, host: str) -> Traffic:
        """What went through the host's link so far."""
        return Traffic(sent=_bytes_out(PREFIX + host, "eth0"), received=_bytes_out(HUB, self._port(host)))

    def cut(self, host: str) -> None:
        """Pulls the cable: packets vanish and nobody is told."""
        _ip("-n", HUB, "link", "set", self._port(host), "down")

    def mend(self, host: str) -> None:
        """Puts the cable back."""
        _ip("-n", HUB, "link", "set", self._port(host), "up")

    def command(self, host: str, *argv: Argument, user: str | None = None) -> list[str]:
        """What to run so that ``argv`` runs on the host."""
        drop = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--"] if user else []
        return ["ip", "netns", "exec", PREFIX + host, *drop, *(os.fspath(word) for word in argv)]

    def run(self, host: str, *argv: Argument, user: str | None = None, **more: Any) -> str:
        """Runs a command on a host; its output. Raises with what it complained about."""
        return run(*self.command(host, *argv, user=user), **more)

    def start(
        self, host: str, *argv: Argument, user: str | None = None, output: IO[str] | int = subprocess.DEVNULL, **more: Any
    ) -> subprocess.Popen[str]:
        """Starts a command on a host. What still runs when the lab is taken down is killed."""
        return subprocess.Popen(self.command(host, *argv, user=user), stdout=output, text=True, **more)

    def _port(self, host: str) -> str:
        return f"p{self._index[host]}"

    def _add(self, name: str, mbit: float) -> None:
        space, port = PREFIX + name, self._port(name)
        _ip("netns", "add", space)
        _ip("link", "add", "eth0", "netns", space, "type", "veth", "peer", "name", port, "netns", HUB)
        _ip("-n", space, "addr", "add", f"{self.address(name)}/16", "dev", "eth0")
        _ip("-n", space, "link", "set", "lo", "up")
        _ip("-n", space, "link", "set", "eth0", "up", "gso_max_size", str(GSO_BYTES))
        _ip("-n", HUB, "link", "set", port, "master", "bridge", "up", "gso_max_size", str(GSO_BYTES))
        for at, device in ((space, "eth0"), (HUB, port)):
            bucket = max(GSO_BYTES + 1500, int(mbit * 125 * BUCKET_MS))
            queue = max(4 * GSO_BYTES, int(mbit * 125 * QUEUE_MS))
            shape = ["tbf", "rate", f"{mbit}mbit", "burst", str(bucket), "limit", str(queue)]
            run("tc", "-n", at, "qdisc", "add", "dev", device, "root", *shape)


def run(*argv: Argument, **more: Any) -> str:
    """Runs a command; its output. Raises with what it complained about."""
    words = [os.fspath(word) for word in argv]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, **more)
    if ended.returncode:
        complaint = ended.stderr.strip() or ended.stdout.strip()
        raise LabError(f"{' '.join(words)}\nexit code {ended.returncode}: {complaint[-2000:]}")
    return str(ended.stdout)


def wait_all(children: Mapping[str, subprocess.Popen[str]], timeout_s: float) -> None:
    """Waits until all ended well; says which did not."""
    deadline = time.monotonic() + timeout_s
    for name, child in children.items():
        try:
            code = child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise LabError(f"{name}: not done after {timeout_s:g} s") from None
        if code:
            raise LabError(f"{name}: exit code {code}")


def until(what: str, condition: Any, timeout_s: float, every_s: float = 0.05) -> Any:
    """Asks again and again until the answer is true; the answer."""
    deadline = time.monotonic() + timeout_s
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not within {timeout_s:g} s")
        time.sleep(every_s)
    return answer


def remove_leftovers() -> None:
    """Ends what runs in namespaces of the lab and removes them, with all their devices."""
    listing = run("ip", "-j", "netns", "list").strip()
    spaces = [entry["name"] for entry in json.loads(listing or "[]") if entry["name"].startswith(PREFIX)]
    for space in spaces:
        with contextlib.suppress(LabError):
            until(f"processes in {space} end", lambda space=space: not _kill(space), 60)
        _ip("netns", "delete", space)


def _kill(space: str) -> list[int]:
    alive = [int(pid) for pid in run("ip", "netns", "pids", space).split() if not _is_over(int(pid))]
    for pid in alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return alive


def _is_over(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def _bytes_out(space: str, device: str) -> int:
    listing = json.loads(run("tc", "-n", space, "-s", "-j", "qdisc", "show", "dev", device))
    return sum(int(entry["bytes"]) for entry in listing if entry.get("root"))


def _ip(*argv: str) -> None:
    run("ip", *argv)


# What the proofs print.


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns aligned: text to the left, numbers to the right."""
    cells = [list(header), *[[_cell(value) for value in row] for row in rows]]
    widths = [max(len(row[at]) for row in cells) for at in range(len(header))]
    right = [all(re.fullmatch(r"[\d,.]+%?|-", row[at]) for row in cells[1:]) for at in range(len(header))]

    def line(row: Sequence[str]) -> str:
        return "  ".join(
            text.rjust(width) if to_right else text.ljust(width) for text, width, to_right in zip(row, widths, right, strict=True)
        )

    return "\n".join([line(cells[0]), "  ".join("-" * width for width in widths), *map(line, cells[1:])])


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


COLOURS = ("#1a7f37", "#8250df", "#bf3989", "#0969da")


def chart(title: str, x_label: str, y_label: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Lines through points, as an SVG picture."""
    width, height, left, top, right, bottom = 640, 400, 70, 50, 20, 60
    points = [point for line in series.values() for point in line]
    x_max, y_max = max(x for x, _ in points), max(y for _, y in points) * 1.1

    def place(x: float, y: float) -> tuple[float, float]:
        return left + x / x_max * (width - left - right), height - bottom - y / y_max * (height - top - bottom)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="24" font-size="16">{title}</text>',
        f'<text x="{(left + width) / 2}" y="{height - 14}" text-anchor="middle">{x_label}</text>',
        f'<text transform="translate(18 {height / 2}) rotate(-90)" text-anchor="middle">{y_label}</text>',
    ]
    for at in range(6):
        x, y = place(0, y_max * at / 5)
        parts.append(f'<path d="M{x:.0f} {y:.1f}H{width - right}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{y_max * at / 5:.0f}</text>')
    for x_value in sorted({x for x, _ in points}):
        x, y = place(x_value, 0)
        parts.append(f'<text x="{x:.1f}" y="{y + 20:.1f}" text-anchor="middle">{x_value:g}</text>')
    for at, (name, line) in enumerate(series.items()):
        colour = COLOURS[at % len(COLOURS)]
        places = [place(*point) for point in line]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in places]
        parts.append(f'<text x="{left + 14}" y="{top + 16 + 18 * at}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])


@contextlib.contextmanager
def stopwatch() -> Iterator[list[float]]:
    """``with stopwatch() as took: ...``, then ``took[0]`` are seconds."""
    took: list[float] = []
    begun = time.monotonic()
    yield took
    took.append(time.monotonic() - begun)


def say(text: str) -> None:
    """Progress of a proof, beside its results."""
    print(text, file=sys.stderr, flush=True)
