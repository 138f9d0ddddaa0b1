"""Plain values of the API: what a job looks like, what happened to it, what a pea says, what is asked of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from peas._errors import InvalidError

Rate = int | str
"""Bytes per second, or a text such as ``"20M"`` (K, M, G, T: powers of 1024). 0: no limit."""


class State(IntEnum):
    """What a job is doing."""

    CHECKING = 1
    RECEIVING = 2
    PUBLISHING = 3
    SHARING = 4
    ENDED = 5


@dataclass(frozen=True)
class Progress:
    """A job at one moment: always whole, always the latest. Fields are only ever added."""

    state: State
    paused: str | None
    """Why it stands still: ``"host"``, ``"disk-full"``, ``"disk-error"``; ``None``: it does not."""
    pieces_done: int
    pieces_total: int
    bytes_done: int
    bytes_total: int
    bytes_reused: int
    """Found on this machine: resumed, or taken from files that were there."""
    bytes_from_origin: int
    bytes_from_peers: int
    bytes_from_web: int
    """Received from web servers that the pea names."""
    bytes_wasted: int
    bytes_sent: int
    rate_received: int
    """Bytes per second, over the last seconds."""
    rate_sent: int
    remaining: float | None
    """Seconds to go at this rate."""
    peers: int
    web_sources: int
    """Web servers that are asked, or stand ready."""
    members: int
    pieces_unavailable: int
    origin_linked: bool


@dataclass(frozen=True)
class Event:
    """A fact. ``kind`` is one of ``started``, ``installed``, ``origin-lost``, ``origin-back``, ``peer-banned``,
    ``web-failed``, ``unavailable``, ``paused``, ``resumed``, ``damaged``, ``failed``, ``left``, ``lagged``."""

    kind: str
    number: int
    """Bytes reused, pieces missing, the damaged piece, the error's code, events missed: as the kind says."""
    text: str
    """The banned peer, the web server's address and why, the reason of the pause, the error's message."""


@dataclass(frozen=True)
class Entry:
    """A file, an empty directory or a symbolic link of the content."""

    path: str
    kind: Literal["file", "directory", "symlink"]
    bytes: int = 0
    executable: bool = False
    blake3: str = ""
    """What ``b3sum`` prints for the file."""
    target: str = ""
    """Where the link points."""


@dataclass(frozen=True)
class Owner:
    """Where the content is served."""

    addr: str
    peer: str | None


@dataclass(frozen=True)
class Description:
    """What a pea says."""

    id: str
    name: str
    single_file: bool
    bytes_total: int
    piece_bytes: int
    pieces: int
    entries: tuple[Entry, ...]
    owners: tuple[Owner, ...]
    web: tuple[str, ...]
    channel: str
    release: int
    created: int
    """Seconds since 1970."""
    expires: int
    """Seconds since 1970; 0: never."""
    access: Literal["open", "secret", "members"]
    """Who may join the swarm."""
    authority: str | None
    """Whose certificates admit members: a public key in hexadecimal."""
    key_ids: tuple[str, ...]
    """First eight bytes of the BLAKE3 of each key that is said to have signed. Unchecked: ``trust=`` checks."""


@dataclass(frozen=True)
class Verified:
    """What is on disk, against a pea."""

    pieces_good: int
    pieces_bad: int
    bad_files: tuple[str, ...]
    """Files that are missing or damaged, at most 1,000."""

    def __bool__(self) -> bool:
        """Whether everything is as the pea says."""
        return not self.pieces_bad and not self.bad_files


@dataclass(frozen=True)
class Trust:
    """What makes a pea the one that is wanted. Made by :meth:`file`, :meth:`pin` or :meth:`keys`."""

    content: str | None = None
    public_keys: tuple[bytes, ...] = ()
    threshold: int = 0
    channel: str | None = None
    release_at_least: tuple[int, str] | None = None

    @classmethod
    def file(cls) -> Trust:
        """Whoever gave me this file answers for it."""
        return cls()

    @classmethod
    def pin(cls, content: str) -> Trust:
        """The content must be this one: 64 hexadecimal digits."""
        return cls(content=content)

    @classmethod
    def keys(
        cls,
        keys: Sequence[bytes],
        threshold: int = 1,
        *,
        channel: str | None = None,
        release_at_least: tuple[int, str] | None = None,
    ) -> Trust:
        """At least ``threshold`` of these Ed25519 public keys signed it, in this channel, and it is no older than a
        release (its number, and the content that this very release had)."""
        if not keys or not 1 <= threshold <= len(keys):
            raise InvalidError(f"a threshold of {threshold} cannot be met by {len(keys)} keys")
        return cls(public_keys=tuple(keys), threshold=threshold, channel=channel, release_at_least=release_at_least)

    @classmethod
    def parse(cls, text: Trust | str) -> Trust:
        """``"file"``, or the content id as 64 hexadecimal digits."""
        if isinstance(text, Trust):
            return text
        if text == "file":
            return cls.file()
        if re.fullmatch("[0-9a-fA-F]{64}", text):
            return cls.pin(text)
        raise InvalidError(f"trust {text!r}: expected 'file', a content id (64 hexadecimal digits) or a peas.Trust")


def key(value: bytes | None, what: str) -> bytes | None:
    """A secret or a public key: 32 bytes. The message never repeats it."""
    if value is not None and (not isinstance(value, bytes) or len(value) != 32):
        found = f"{len(value)} bytes" if isinstance(value, bytes) else type(value).__name__
        raise InvalidError(f"{what}: expected 32 bytes, got {found}")
    return value


_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?(?:/s)?\s*", re.IGNORECASE)
_FACTORS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def quantity(value: Rate, what: str) -> int:
    """Bytes, or bytes per second."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise InvalidError(f"{what}: expected a number or a text such as '20M', got {value!r}")
    if isinstance(value, int):
        if value < 0:
            raise InvalidError(f"{what}: {value} is below zero")
        return value
    match = _QUANTITY.fullmatch(value)
    if match is None:
        raise InvalidError(f"{what}: {value!r} is no quantity; expected something like '20M' or '512K'")
    return int(float(match[1]) * _FACTORS[match[2].lower()])


_NUMBER_UNIT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|min|s|m|h|d|x|)\s*")
_SECONDS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def duration(text: str) -> float:
    """``"250ms"``, ``"90s"``, ``"10m"``, ``"2h"``, ``"1d"``, ``"3600"``: seconds."""
    match = _NUMBER_UNIT.fullmatch(text)
    if match is None or match[2] == "x":
        raise InvalidError(f"{text!r} is no time; expected something like '90s' or '10m'")
    return float(match[1]) * _SECONDS[match[2]]


def share_policy(share: bool | str) -> tuple[str, float]:
    """How long to serve after the content is whole, as the extension takes it."""
    if share is False:
        return "leave", 0.0
    if share is True:
        return "forever", 0.0
    match = _NUMBER_UNIT.fullmatch(share) if isinstance(share, str) else None
    if match is None:
        raise InvalidError(f"share {share!r}: expected True, False, a time such as '10m' or a ratio such as '1.5x'")
    return ("ratio", float(match[1])) if match[2] == "x" else ("for", duration(match[0]))


def owner(text: str) -> tuple[str, str | None]:
    """``host:port``, or ``PEER@host:port`` with the server's key in hexadecimal."""
    peer, at, addr = text.rpartition("@")
    if not re.fullmatch(r".+:\d{1,5}", addr):
        raise InvalidError(f"owner {text!r}: expected HOST:PORT or PEER@HOST:PORT")
    return addr, (peer if at else None)
