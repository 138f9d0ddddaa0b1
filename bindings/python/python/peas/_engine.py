"""The engine, and the calls that need none."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import time
import weakref
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Literal, final

from peas import _peas
from peas._errors import ClosedError, InvalidError
from peas._job import Job
from peas._values import (
    Description,
    Entry,
    Owner,
    Progress,
    Rate,
    State,
    Trust,
    Verified,
    duration,
    key,
    owner,
    quantity,
    share_policy,
)

Path = str | os.PathLike[str]
Pea = bytes | str | os.PathLike[str]
"""A pea file, or the bytes of one."""
OnBytes = Callable[[int, int], object]
"""Called now and then with (bytes done, bytes total), on the thread that made the call."""

_CLOSE_S = 3.0
_SLOW_CLOCK_S = 300


@final
class Engine:
    """Threads, sockets, one identity, one bandwidth budget; any number per process. Use it in ``with`` or ``async with``.

    Any thread may use it. It does not survive a fork: in the child every call raises :class:`ClosedError`.

    ``listen``: where links are accepted, ``"IP:PORT"``; True: an unused port; False: nowhere. ``identity``: 32 secret bytes;
    without them a new one. ``scope``: which addresses learnt from peers are dialled: ``"auto"``, ``"public"``, ``"any"``.
    ``plain``: payload in clear between peers that both say so (it is verified either way). ``threads``, ``disk_threads``: 0
    is a good choice. ``web_authorities``: certificates (DER; ``ssl.PEM_cert_to_DER_cert`` makes it of PEM) of authorities that
    web servers may be certified by, besides those that browsers trust. ``state_dir``: where rollback protection and
    remembered peers live.
    """

    def __init__(
        self,
        *,
        listen: str | bool = True,
        upload_limit: Rate = 0,
        download_limit: Rate = 0,
        identity: bytes | None = None,
        scope: str = "auto",
        plain: bool = False,
        threads: int = 0,
        disk_threads: int = 0,
        web_authorities: Sequence[bytes] = (),
        state_dir: Path | None = None,
    ) -> None:
        secret = key(identity, "identity")
        self._limits = quantity(upload_limit, "upload_limit"), quantity(download_limit, "download_limit")
        address = listen if isinstance(listen, str) else None
        self._raw = _peas.Engine(
            address,
            listen is False,
            secret,
            *self._limits,
            threads,
            disk_threads,
            plain,
            scope,
            list(web_authorities),
            state_dir,
        )
        # At the end of the process, too: the threads must be gone before the interpreter is.
        self._jobs: set[Job] = set()
        self._finalizer = weakref.finalize(self, _close_quietly, self._raw)

    @property
    def peer_id(self) -> str:
        """This peer's public key, in hexadecimal."""
        return self._raw.peer_id

    @property
    def listen_addr(self) -> str | None:
        """``IP:PORT`` where links are accepted."""
        return self._raw.listen_addr

    @property
    def limits(self) -> tuple[int, int]:
        """(upload, download) in force, bytes per second."""
        return self._raw.limits()

    def set_limits(self, *, upload_limit: Rate | None = None, download_limit: Rate | None = None) -> None:
        """Changes limits while running; None: as it is, 0: no limit."""
        upload, download = self._raw.limits()
        self._raw.set_limits(
            upload if upload_limit is None else quantity(upload_limit, "upload_limit"),
            download if download_limit is None else quantity(download_limit, "download_limit"),
        )

    def install(
        self,
        pea: Pea,
        dest: Path,
        *,
        trust: Trust | str,
        peers: Sequence[str] = (),
        share: bool | str = False,
        from_web: Literal["starved", "always", "never"] = "starved",
        secret: bytes | None = None,
        certificate: bytes | None = None,
        upload_limit: Rate = 0,
        download_limit: Rate = 0,
        region: int = 0,
        paused: bool = False,
        chance: int | None = None,
    ) -> Job:
        """Makes ``dest`` what the pea says: resumes, repairs, receives. Returns at once.

        ``trust``: ``"file"`` (whoever gave me the file answers for it), a content id, or a :class:`Trust` with keys.
        ``share``: how long to serve afterwards: False (until pieces that nobody else has are passed on), True (for ever), a
        time such as ``"10m"``, a ratio such as ``"1.5x"``. ``from_web``: when the web servers that the pea names are asked:
        ``"starved"`` (while peers bring next to nothing), ``"always"``, ``"never"``. ``secret``, ``certificate``: what lets us
        into a swarm that is not open (see :func:`create`, :func:`admit`); :class:`InvalidError` without. Nothing appears under
        its final name before all is verified and durable.
        """
        seed, value = share_policy(share)
        rates = quantity(upload_limit, "upload_limit"), quantity(download_limit, "download_limit")
        pass_in = key(secret, "secret"), certificate
        job = self._raw.install(_load(pea, trust), dest, list(peers), seed, value, from_web, *pass_in, region, paused, chance)
        return self._keep(Job(job), *rates)

    def share(
        self,
        pea: Pea,
        source: Path,
        *,
        trust: Trust | str = "file",
        peers: Sequence[str] = (),
        origin: bool = True,
        check_first: bool = False,
        secret: bytes | None = None,
        certificate: bytes | None = None,
        upload_limit: Rate = 0,
        download_limit: Rate = 0,
        region: int = 0,
        chance: int | None = None,
    ) -> Job:
        """Serves what lies at ``source``, which must be what the pea says. Returns at once; goes on until cancelled.

        ``origin``: hand out each piece once before serving like anybody else. ``check_first``: hash everything before the
        first byte is served, instead of each piece when it is first read. ``secret``, ``certificate``: as in :meth:`install`.
        """
        rates = quantity(upload_limit, "upload_limit"), quantity(download_limit, "download_limit")
        pass_in = key(secret, "secret"), certificate
        job = self._raw.share(_load(pea, trust), source, list(peers), origin, check_first, *pass_in, region, chance)
        return self._keep(Job(job), *rates)

    def close(self, timeout: float = _CLOSE_S) -> bool:
        """Ends all jobs and threads, from any state, within ``timeout`` seconds. Whether all was done in time."""
        if self._finalizer.detach() is None:
            return True
        return self._raw.close(timeout)

    def _keep(self, job: Job, upload: int, download: int) -> Job:
        """A job goes on though nobody holds it: the engine does, until it is over."""
        if upload or download:
            job.set_limits(upload_limit=upload, download_limit=download)
        self._jobs = {kept for kept in self._jobs if kept.latest.state is not State.ENDED} | {job}
        return job

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()

    async def __aenter__(self) -> Engine:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await asyncio.to_thread(self.close)


def create(
    source: Path,
    pea: Path,
    *,
    engine: Engine | None = None,
    owners: Sequence[str] = (),
    web: Sequence[str] = (),
    access: Literal["open", "secret", "members"] = "open",
    authority: bytes | None = None,
    name: str | None = None,
    piece_size: int | str | None = None,
    channel: str = "",
    release: int = 0,
    expires: int = 0,
    sign_with: Sequence[bytes] = (),
    threads: int = 0,
    on_bytes: OnBytes | None = None,
) -> Description:
    """Reads a file or folder, writes the pea that describes it.

    ``owners``: where the content will be served: ``HOST:PORT``, or ``PEER@HOST:PORT`` with the server's key. With ``engine``,
    owners without a key get the engine's, and without any owner the engine's own address is taken if it names a host.
    ``web``: HTTP(S) addresses of the same file or tree, on servers with byte ranges. ``access``: who may join: ``"open"``;
    ``"secret"``: whoever has a secret that does not travel with the pea; ``"members"``: whose key has a certificate of
    ``authority`` (its public key, 32 bytes; :func:`admit`). ``expires``: seconds since 1970; 0: never. ``sign_with``: Ed25519
    secrets of 32 bytes. Blocks; Ctrl-C stops it.
    """
    places = [owner(text) for text in owners] or _place_of(engine)
    if engine is not None:
        places = [(addr, peer or engine.peer_id) for addr, peer in places]
    piece_bytes = None if piece_size is None else quantity(piece_size, "piece_size")
    made = _peas.create(
        source,
        pea,
        name,
        piece_bytes,
        places,
        list(web),
        access,
        key(authority, "authority"),
        channel,
        release,
        expires,
        list(sign_with),
        threads,
        on_bytes,
    )
    return _described(made)


def admit(
    authority: bytes,
    peer: str,
    *,
    valid: str = "30d",
    roles: Sequence[Literal["seed", "fetch", "relay"]] = (),
    content: str | None = None,
) -> bytes:
    """An authority's word that a key may join its swarms: the certificate, to be given to ``certificate=``. No secret.

    ``authority``: its secret, 32 bytes. ``peer``: the member's :attr:`Engine.peer_id`. ``valid``: how long from now (and five
    minutes back, for slow clocks). ``roles``: of ``"seed"`` (serve as an origin), ``"fetch"``, ``"relay"`` (pass on);
    none: all. ``content``: only this content id; None: all peas that name the authority.
    """
    secret = key(authority, "authority")
    if secret is None:
        raise InvalidError("authority: expected 32 bytes")
    now = int(time.time())
    return bytes(_peas.admit(secret, peer, list(roles), content, now - _SLOW_CLOCK_S, now + int(duration(valid))))


def install(
    pea: Pea,
    dest: Path,
    *,
    trust: Trust | str,
    peers: Sequence[str] = (),
    share: bool | str = False,
    upload_limit: Rate = 0,
    download_limit: Rate = 0,
    timeout: float | None = None,
) -> Progress:
    """Installs with an engine of its own, and waits until it is done and, as ``share`` says, has shared."""
    with Engine(upload_limit=upload_limit, download_limit=download_limit) as engine:
        job = engine.install(pea, dest, trust=trust, peers=peers, share=share)
        done = job.wait(timeout)
        job.wait_ended(timeout)
        return done


def verify(pea: Pea, place: Path, *, trust: Trust | str = "file", on_bytes: OnBytes | None = None) -> Verified:
    """Hashes what lies at ``place`` against the pea; changes nothing. Blocks; Ctrl-C stops it."""
    good, bad, files = _peas.verify(_load(pea, trust), place, on_bytes)
    return Verified(good, bad, tuple(files))


def describe(pea: Pea) -> Description:
    """What a pea says. Nobody is asked whether to believe it."""
    return _described(_load(pea, Trust.file(), judge_time=False))


def _close_quietly(raw: _peas.Engine) -> None:
    with contextlib.suppress(ClosedError):
        raw.close(0.5)


def _load(pea: Pea, trust: Trust | str, *, judge_time: bool = True) -> _peas.Pea:
    how = Trust.parse(trust)
    data = pea if isinstance(pea, bytes) else _peas.read_pea(pea)
    now = int(time.time()) if judge_time else None
    return _peas.Pea(data, how.content, list(how.public_keys), how.threshold, now, how.channel, how.release_at_least)


def _place_of(engine: Engine | None) -> list[tuple[str, str | None]]:
    """The engine's own address, if others can dial it: a listener on all addresses names none."""
    address = engine.listen_addr if engine is not None else None
    if address is None:
        return []
    host = address.rpartition(":")[0].strip("[]")
    return [] if ipaddress.ip_address(host).is_unspecified else [(address, None)]


def _described(raw: _peas.Pea) -> Description:
    bytes_total, piece_bytes, pieces = raw.sizes
    channel, release = raw.release
    created, expires = raw.times
    access, authority = raw.access
    return Description(
        id=raw.id,
        name=raw.name,
        single_file=raw.single_file,
        bytes_total=bytes_total,
        piece_bytes=piece_bytes,
        pieces=pieces,
        entries=tuple(_entry(*fields) for fields in raw.entries),
        owners=tuple(Owner(*fields) for fields in raw.owners),
        web=tuple(raw.web),
        channel=channel,
        release=release,
        created=created,
        expires=expires,
        access=access,
        authority=authority,
        key_ids=tuple(raw.key_ids),
    )


def _entry(path: str, kind: str, size: int, executable: bool, text: str) -> Entry:
    if kind == "symlink":
        return Entry(path, "symlink", target=text)
    if kind == "directory":
        return Entry(path, "directory")
    return Entry(path, "file", size, executable, blake3=text)
