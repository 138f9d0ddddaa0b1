"""Peer-assisted downloads: receive from an origin and from everybody else who receives the same.

import peas

with peas.Engine(upload_limit="20M") as engine:
    job = engine.install("base.tar.peas", "base.tar", trust="file")
    for p in job.progress():
        print(p.bytes_done, p.rate_received, p.peers)
"""

from peas._engine import Engine, admit, create, describe, install, verify
from peas._errors import (
    BusyError,
    CancelledError,
    ClosedError,
    ContentError,
    DeniedError,
    DiskError,
    DiskFullError,
    Error,
    InternalError,
    InvalidError,
    ManifestError,
    NotFoundError,
    RefusedError,
    UnreachableError,
    WaitTimeoutError,
)
from peas._job import Job, ProgressStream
from peas._peas import __version__
from peas._values import Description, Entry, Event, Owner, Progress, State, Trust, Verified

__all__ = [
    "BusyError",
    "CancelledError",
    "ClosedError",
    "ContentError",
    "DeniedError",
    "Description",
    "DiskError",
    "DiskFullError",
    "Engine",
    "Entry",
    "Error",
    "Event",
    "InternalError",
    "InvalidError",
    "Job",
    "ManifestError",
    "NotFoundError",
    "Owner",
    "Progress",
    "ProgressStream",
    "RefusedError",
    "State",
    "Trust",
    "UnreachableError",
    "Verified",
    "WaitTimeoutError",
    "__version__",
    "admit",
    "create",
    "describe",
    "install",
    "verify",
]
