"""What peas raises, and the one place where an error of the core becomes an exception.

Each class is also the built-in that callers already catch for such a thing, where there is one.
"""

from __future__ import annotations

import os

__all__ = [
    "BusyError",
    "CancelledError",
    "ClosedError",
    "ContentError",
    "DeniedError",
    "DiskError",
    "DiskFullError",
    "Error",
    "InternalError",
    "InvalidError",
    "ManifestError",
    "NotFoundError",
    "RefusedError",
    "UnreachableError",
    "WaitTimeoutError",
]


class Error(Exception):
    """Base of what peas raises."""

    code: int = 0
    """Stable number, the same in every language."""

    retryable: bool = False
    """Whether the same call may succeed later without a change by the caller."""

    path: str | None = None
    """The file or folder it is about."""


class InvalidError(Error, ValueError):
    """The caller's code or options: nothing was done."""


class ManifestError(Error, ValueError):
    """The pea is damaged, or (:class:`RefusedError`) not the one that is wanted."""


class RefusedError(ManifestError):
    """The pea is sound, but not the one that is wanted: other content, not signed as asked, expired, too old."""


class DiskError(Error, OSError):
    """The machine: disk, file system, sockets. ``errno`` and ``filename`` as in every OSError."""


class DiskFullError(DiskError):
    """The disk or a quota is full."""


class NotFoundError(DiskError, FileNotFoundError):
    """A file or folder that was named is not there."""


class DeniedError(DiskError, PermissionError):
    """The system does not let this process at a file."""


class ContentError(Error):
    """The bytes at a place are not what the pea says, and may not be replaced."""


class BusyError(Error, BlockingIOError):
    """Another job or process is at work on the same destination."""


class UnreachableError(Error, ConnectionError):
    """Nobody who can be reached has the missing pieces."""


class CancelledError(Error):
    """The caller ended it."""


class WaitTimeoutError(Error, TimeoutError):
    """Not done within the time given; the job goes on."""


class ClosedError(Error):
    """The engine is closed, or this process is a fork of the one that opened it."""


class InternalError(Error):
    """A bug in peas; please report it."""


_KINDS: dict[str, type[Error]] = {
    "invalid": InvalidError,
    "manifest": ManifestError,
    "refused": RefusedError,
    "not-found": NotFoundError,
    "permission": DeniedError,
    "disk": DiskError,
    "content": ContentError,
    "busy": BusyError,
    "unreachable": UnreachableError,
    "cancelled": CancelledError,
    "closed": ClosedError,
    "internal": InternalError,
}

_CODE_DISK_FULL = 4


def from_core(kind: str, code: int, message: str, errno: int | None, path: str | None, retryable: bool) -> Error:
    """Called by the extension."""
    chosen = DiskFullError if code == _CODE_DISK_FULL else _KINDS[kind]
    error = _os_error(chosen, message, errno, path) if issubclass(chosen, DiskError) else chosen(message)
    error.code, error.retryable, error.path = code, retryable, path
    return error


def _os_error(chosen: type[DiskError], message: str, errno: int | None, path: str | None) -> Error:
    if errno is None:
        return chosen(message)
    # The core's message says which operation failed on what; an OSError prints "[Errno n] text: 'path'" by itself.
    operation = message.split(" ", 1)[0]
    return chosen(errno, f"{operation}: {os.strerror(errno)}", path)
