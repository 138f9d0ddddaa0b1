"""The extension. Private: the package around it is the API."""

import os
from collections.abc import Callable
from typing import Literal, final

_Path = str | os.PathLike[str]
_OnBytes = Callable[[int, int], object] | None

__all__ = ["Engine", "Job", "Pea", "Watch", "__version__", "admit", "command", "create", "read_pea", "verify"]

__version__: str

@final
class Pea:
    def __new__(
        cls,
        data: bytes,
        pin: str | None,
        keys: list[bytes],
        threshold: int,
        now_unix_s: int | None,
        channel: str | None,
        release_at_least: tuple[int, str] | None,
    ) -> Pea: ...
    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def single_file(self) -> bool: ...
    @property
    def sizes(self) -> tuple[int, int, int]: ...
    @property
    def entries(self) -> list[tuple[str, Literal["file", "directory", "symlink"], int, bool, str]]: ...
    @property
    def owners(self) -> list[tuple[str, str | None]]: ...
    @property
    def web(self) -> list[str]: ...
    @property
    def access(self) -> tuple[Literal["open", "secret", "members"], str | None]: ...
    @property
    def release(self) -> tuple[str, int]: ...
    @property
    def times(self) -> tuple[int, int]: ...
    @property
    def key_ids(self) -> list[str]: ...

@final
class Watch:
    def abort(self) -> None: ...

@final
class Job:
    def progress(
        self,
    ) -> tuple[
        tuple[int, str | None, int, int, int, int, int],
        tuple[int, int, int, int, int, int, int],
        tuple[float | None, int, int, int, int, bool],
    ]: ...
    def try_event(self) -> tuple[str, int, str] | None: ...
    def wait(self, timeout_s: float | None) -> bool: ...
    def wait_ended(self, timeout_s: float | None) -> bool: ...
    def when_changed(self, function: Callable[[], object]) -> Watch: ...
    def when_done(self, function: Callable[[], object]) -> Watch: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def cancel(self) -> None: ...
    def set_limits(self, upload: int, download: int) -> None: ...
    def add_peers(self, peers: list[str]) -> None: ...
    def stats_json(self) -> str: ...
    def refreshed_pea(self) -> bytes: ...
    def leave(self, grace_s: float) -> tuple[bool, int]: ...

@final
class Engine:
    def __new__(
        cls,
        listen: str | None,
        no_listen: bool,
        identity: bytes | None,
        upload: int,
        download: int,
        threads: int,
        disk_threads: int,
        plain: bool,
        scope: str,
        web_authorities: list[bytes],
        state_dir: _Path | None,
    ) -> Engine: ...
    @property
    def peer_id(self) -> str: ...
    @property
    def listen_addr(self) -> str | None: ...
    def install(
        self,
        pea: Pea,
        dest: _Path,
        peers: list[str],
        seed: str,
        seed_value: float,
        from_web: str,
        secret: bytes | None,
        certificate: bytes | None,
        region: int,
        paused: bool,
        chance: int | None,
    ) -> Job: ...
    def share(
        self,
        pea: Pea,
        source: _Path,
        peers: list[str],
        origin: bool,
        check_first: bool,
        secret: bytes | None,
        certificate: bytes | None,
        region: int,
        chance: int | None,
    ) -> Job: ...
    def set_limits(self, upload: int, download: int) -> None: ...
    def limits(self) -> tuple[int, int]: ...
    def close(self, timeout_s: float) -> bool: ...

def admit(
    authority: bytes,
    peer: str,
    roles: list[str],
    content: str | None,
    not_before_unix_s: int,
    not_after_unix_s: int,
) -> bytes: ...
def create(
    source: _Path,
    path: _Path,
    name: str | None,
    piece_bytes: int | None,
    owners: list[tuple[str, str | None]],
    web: list[str],
    access: str,
    authority: bytes | None,
    channel: str,
    release: int,
    expires_unix_s: int,
    sign_with: list[bytes],
    threads: int,
    on_bytes: _OnBytes,
) -> Pea: ...
def verify(pea: Pea, place: _Path, on_bytes: _OnBytes) -> tuple[int, int, list[str]]: ...
def read_pea(path: _Path) -> bytes: ...
def command(words: list[str], program: list[str]) -> int: ...
