"""What the crash tests share: contents, the `peas` program as a process, disks in files.

Standard library only. Everything is bounded: a process that does not end in time is killed by its id and the test fails.
"""

import contextlib
import hashlib
import json
import os
import random
import select
import shutil
import signal
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Only a failing test waits this long.
PATIENCE = 120.0


def program(profile):
    """Path of `peas`; `profile` is "release", or "debug" for the build with bugs to plant."""
    told = os.environ.get("PEAS_BIN" if profile == "release" else "PEAS_PLANTED_BIN")
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    return told or os.path.join(target, profile, "peas")


def scratch():
    """A folder of our own, in memory if there is such a place."""
    return tempfile.mkdtemp(prefix="peas-crash-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)


def noise(seed, count):
    return random.Random(f"content {seed}").randbytes(count)


def run(*command, **more):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE, **more)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout.decode(errors='replace')}")
    return done.stdout.decode()


# ---- contents -------------------------------------------------------------------------------------------------------


class Content:
    """Files in a folder (or one file, under the name ""), and the pea."""

    def __init__(self, place, name, files, piece_bytes=65536):
        self.files = dict(sorted(files.items()))
        self.single = list(self.files) == [""]
        self.piece_bytes = piece_bytes
        self.source = os.path.join(place, name)
        for path, data in self.files.items():
            full = os.path.join(self.source, path) if path else self.source
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "wb") as file:
                file.write(data)
        self.pea = os.path.join(place, f"{name}.peas")
        run(program("release"), "create", self.source, "-o", self.pea, "--piece-size", str(piece_bytes), "--force")
        # The pea's order of files is that of their paths' bytes.
        order = sorted(self.files, key=lambda path: path.encode())
        self.order, self.offsets, at = order, {}, 0
        for path in order:
            self.offsets[path] = at
            at += len(self.files[path])
        self.total = at
        self.whole = b"".join(self.files[path] for path in order)
        self.piece_count = max(1, -(-self.total // piece_bytes))

    def piece(self, index):
        return self.whole[index * self.piece_bytes : (index + 1) * self.piece_bytes]

    def segments(self, index):
        """(file number, path, offset in it, bytes) of a piece."""
        start, end = index * self.piece_bytes, min((index + 1) * self.piece_bytes, self.total)
        found = []
        for number, path in enumerate(self.order):
            first = self.offsets[path]
            low, high = max(start, first), min(end, first + len(self.files[path]))
            if low < high:
                found.append((number, path, low - first, high - low))
        return found

    def piece_at(self, base, index, cache):
        """What a tree holds of a piece; `None` if a file is missing or short."""
        parts = []
        for _number, path, offset, count in self.segments(index):
            full = os.path.join(base, path) if path else base
            if full not in cache:
                try:
                    cache[full] = None if os.path.islink(full) else open(full, "rb").read()
                except OSError:
                    cache[full] = None
            data = cache[full]
            if data is None or len(data) < offset + count:
                return None
            parts.append(data[offset : offset + count])
        return b"".join(parts)

    def is_at(self, base):
        """Whether every file of the content is there, whole."""
        for path, data in self.files.items():
            full = os.path.join(base, path) if path else base
            try:
                if os.path.islink(full) or open(full, "rb").read() != data:
                    return False
            except OSError:
                return False
        return True


def tree(seed, count, large, small_max):
    """A folder's files: some large ones, many small ones, an empty one."""
    rng = random.Random(f"tree {seed}")
    files = {"empty": b""}
    for at, size in enumerate(large):
        files[f"data/pak{at}.bin"] = noise(f"{seed} large {at}", size)
    for at in range(count):
        files[f"part{at % 5}/deep{at % 3}/f{at}"] = noise(f"{seed} small {at}", rng.randrange(small_max))
    return files


def listing(base):
    """Relative path -> hash of the bytes, or what else it is."""
    if os.path.isfile(base):
        return {"": hashlib.sha256(open(base, "rb").read()).hexdigest()}
    found = {}
    for dir, dirs, files in os.walk(base):
        for name in files + [name for name in dirs if os.path.islink(os.path.join(dir, name))]:
            full = os.path.join(dir, name)
            path = os.path.relpath(full, base)
            found[path] = f"link to {os.readlink(full)}" if os.path.islink(full) else hashlib.sha256(open(full, "rb").read()).hexdigest()
    return found


def leftovers(parent):
    return [name for name in os.listdir(parent) if name.startswith(".peas-")]


# ---- the program ----------------------------------------------------------------------------------------------------


class Peas:
    """A `peas` process that tells events as JSON lines, with the time at which each was read."""

    def __init__(self, command, profile="release", planted="", prefix=()):
        env = dict(os.environ)
        env.pop("PEAS_PLANTED", None)
        if planted:
            env["PEAS_PLANTED"] = planted
        self.noise = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [*prefix, program(profile), *command, "--json", "--no-refresh"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.noise, env=env)
        self.rest, self.events, self.ended = b"", [], False

    def read(self, seconds):
        """Takes what comes within this time; true if anything came."""
        if self.ended or not select.select([self.process.stdout], [], [], max(0, seconds))[0]:
            return False
        got = os.read(self.process.stdout.fileno(), 1 << 16)
        now = time.monotonic()
        self.ended = not got
        *lines, self.rest = (self.rest + got).split(b"\n")
        for line in lines:
            self.events.append((now, json.loads(line)))
        return True

    def until(self, wanted, what, patience=PATIENCE):
        """Reads until an event is wanted; gives it, or `None` when the process ended without."""
        end, seen = time.monotonic() + patience, 0
        while True:
            for now, event in self.events[seen:]:
                seen += 1
                if wanted(event):
                    return event
            if self.ended:
                return None
            if time.monotonic() > end:
                self.kill()
                raise RuntimeError(f"{what}: not within {patience} s; {self.said()}")
            self.read(0.5)

    def named(self, name):
        return [event for _now, event in self.events if event.get("event") == name]

    @contextlib.contextmanager
    def stopped(self):
        """None of its threads runs meanwhile, if it has not ended."""
        self.process.send_signal(signal.SIGSTOP)
        if self.process.returncode is None:
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def kill(self):
        self.process.kill()
        self.process.wait(PATIENCE)

    def finish(self, patience=PATIENCE):
        """Waits for the end; gives the exit code."""
        self.until(lambda _event: False, "the end", patience)
        return self.process.wait(patience)

    def said(self):
        self.noise.seek(0)
        return f"{[event for _now, event in self.events if event.get('event') != 'progress'][-8:]} {self.noise.read().decode(errors='replace')[-2000:]}"

    def close(self):
        if self.process.poll() is None:
            self.kill()
        self.process.stdout.close()
        self.noise.close()


class Seed:
    """A server of a content on loopback, for as long as it is used."""

    def __init__(self, content, limit=None, more=()):
        command = ["seed", content.pea, "--file", content.source, "--listen", "127.0.0.1:0", "--scope", "any"]
        self.peas = Peas([*command, *(["--upload-limit", str(limit)] if limit else []), *more])
        heard = self.peas.until(lambda event: event["event"] == "listening", "a server that listens")
        if heard is None:
            raise RuntimeError(f"the server ended: {self.peas.said()}")
        self.addr = heard["addr"]

    def close(self):
        self.peas.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def install(content, dest, seed, *more, **how):
    return Peas(["install", content.pea, "-o", dest, "--peer", seed.addr, "--no-listen", "--scope", "any", *more], **how)


def fetched(event):
    return event["bytes_from_origin"] + event["bytes_from_peers"]


# ---- disks in files -------------------------------------------------------------------------------------------------

MKFS = {
    # Tearing is at 4 KiB: so must be the file system's own smallest writes.
    "ext4": (160 << 20, ["mkfs.ext4", "-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0,discard"]),
    "xfs": (320 << 20, ["mkfs.xfs", "-q", "-f", "-s", "size=4096"]),
    "btrfs": (256 << 20, ["mkfs.btrfs", "-q", "-f"]),
}


def make_disk(kind, path):
    size, command = MKFS[kind]
    with open(path, "wb") as file:
        file.truncate(size)
    run(*command, path)


class Mount:
    """A file as a disk. Its loop device ends with the mount, however that ends."""

    def __init__(self, path, kind, at, more=""):
        os.makedirs(at, exist_ok=True)
        run("mount", "-t", kind, "-o", "loop" + (",nouuid" if kind == "xfs" else "") + more, path, at)
        self.at = at

    def close(self):
        for _ in range(500):
            if subprocess.run(["umount", self.at], stderr=subprocess.DEVNULL).returncode == 0:
                return
            time.sleep(0.02)
        raise RuntimeError(f"{self.at} cannot be unmounted")


def copy_sparse(source, dest):
    """Copies the parts of a file that are not holes."""
    with open(source, "rb") as old, open(dest, "wb") as new:
        size = os.fstat(old.fileno()).st_size
        new.truncate(size)
        at = 0
        while at < size:
            try:
                at = os.lseek(old.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(old.fileno(), at, os.SEEK_HOLE)
            while at < end:
                part = os.pread(old.fileno(), min(end - at, 1 << 22), at)
                os.pwrite(new.fileno(), part, at)
                at += len(part)


def remove(path):
    shutil.rmtree(path, ignore_errors=True)
