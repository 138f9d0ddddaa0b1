"""Records the block writes of a real `peas install` on a real file system.

    peas install -> file system -> loop device -> FUSE file of qemu-storage-daemon -> blklogwrites -> disk and log

Device mapper is not needed, and no block device but a loop device.
"""

import os
import subprocess
import threading
import time

import rig
from blocklog import BlockLog


class Scenario:
    """What is installed over what: `old` is there, durable, before the recording begins."""

    def __init__(self, name, new, old=None, mine=None):
        self.name, self.new, self.old, self.mine = name, new, old, mine or {}


def scenarios(place):
    """The four that are recorded: a folder, many small files, one file over another, an update over an older tree."""
    large = [3 << 20, 2 << 20, 70_000]
    folder = rig.tree("new", 60, large, 60_000)
    old = dict(folder)
    for at in range(0, 60, 2):
        path = f"part{at % 5}/deep{at % 3}/f{at}"
        old[path] = rig.noise(f"old {at}", len(folder[path]) + at)
    old["data/pak0.bin"] = rig.noise("old pak", 3 << 20)
    old["gone/with-the-old"] = rig.noise("gone", 5000)
    many = rig.tree("many", 500, [], 12_000)
    make = rig.Content
    return [
        Scenario("folder", make(place, "folder", folder)),
        Scenario("many", make(place, "many", many)),
        Scenario("file", make(place, "file", {"": rig.noise("file", 6 << 20)}), make(place, "oldfile", {"": rig.noise("oldfile", 5 << 20)})),
        Scenario("update", make(place, "update", folder), make(place, "oldtree", old), {"saves/game1": b"mine", "data/settings": b"mine, too"}),
    ]


class Recording:
    """A disk before, the log of what it was told, and what the program had said when."""

    def __init__(self, place, scenario, kind, planted="", limit="3M"):
        self.scenario, self.kind, self.place = scenario, kind, place
        self.label = f"{kind}-{scenario.name}{'-' + planted if planted else ''}"
        self.base = os.path.join(place, f"{self.label}.base")
        self.log_path = os.path.join(place, f"{self.label}.log")
        rig.make_disk(kind, self.base)
        if scenario.old:
            self._install_old()
        self._record(planted, limit)
        self.log = BlockLog(self.log_path)

    def _install_old(self):
        mount = rig.Mount(self.base, self.kind, os.path.join(self.place, f"{self.label}.mnt"))
        try:
            dest = os.path.join(mount.at, "dest")
            with rig.Seed(self.scenario.old) as seed:
                peas = rig.install(self.scenario.old, dest, seed)
                if peas.finish() != 0:
                    raise RuntimeError(f"the older version cannot be installed: {peas.said()}")
                peas.close()
            for path, data in self.scenario.mine.items():
                os.makedirs(os.path.dirname(os.path.join(dest, path)), exist_ok=True)
                with open(os.path.join(dest, path), "wb") as file:
                    file.write(data)
            os.sync()
        finally:
            mount.close()

    def _record(self, planted, limit):
        disk, exported = self.base + ".rec", os.path.join(self.place, f"{self.label}.dev")
        rig.copy_sparse(self.base, disk)
        for path in (self.log_path, exported):
            open(path, "wb").close()
        daemon = subprocess.Popen([
            "qemu-storage-daemon",
            "--blockdev", f"driver=file,node-name=diskfile,filename={disk}",
            "--blockdev", "driver=raw,node-name=disk,file=diskfile",
            "--blockdev", f"driver=file,node-name=log,filename={self.log_path}",
            "--blockdev", "driver=blklogwrites,node-name=logged,file=disk,log=log,log-sector-size=512",
            "--export", f"type=fuse,id=out,node-name=logged,mountpoint={exported},writable=on",
        ], stdin=subprocess.DEVNULL)
        mount = None
        try:
            end = time.monotonic() + rig.PATIENCE
            while os.stat(exported).st_size == 0:
                if daemon.poll() is not None or time.monotonic() > end:
                    raise RuntimeError("qemu-storage-daemon does not export the disk")
                time.sleep(0.01)
            mount = rig.Mount(exported, self.kind, os.path.join(self.place, f"{self.label}.mnt"))
            self._watch(os.path.join(mount.at, "dest"), planted, limit)
        finally:
            if mount:
                mount.close()
            daemon.terminate()
            daemon.wait(rig.PATIENCE)
            os.unlink(disk)

    def _watch(self, dest, planted, limit):
        """Installs, and keeps how long the log was at each word of the program: (time, log bytes, bytes done), and at "complete"."""
        self.begun_bytes = os.stat(self.log_path).st_size
        self.told, self.complete_bytes = [], None
        sizes, stop = [], threading.Event()

        def sample():
            while not stop.is_set():
                sizes.append((time.monotonic(), os.stat(self.log_path).st_size))
                time.sleep(0.002)

        sampler = threading.Thread(target=sample)
        sampler.start()
        try:
            with rig.Seed(self.scenario.new) as seed:
                more = ["--download-limit", limit, "--progress-every", "20ms"]
                peas = rig.install(self.scenario.new, dest, seed, *more, profile="debug" if planted else "release", planted=planted)
                done = peas.until(lambda event: event["event"] == "complete", "a recorded installation")
                self.complete_bytes = os.stat(self.log_path).st_size
                if done is None or peas.finish() != 0:
                    raise RuntimeError(f"the installation to be recorded failed: {peas.said()}")
                peas.close()
        finally:
            stop.set()
            sampler.join()
        at = 0
        for now, event in peas.events:
            if event["event"] != "progress":
                continue
            while at + 1 < len(sizes) and sizes[at + 1][0] <= now:
                at += 1
            self.told.append((now, sizes[at][1], event["bytes_done"]))

    def complete_at(self):
        return self.log.index_at(self.complete_bytes)

    def owed_at(self, point):
        """Bytes that must not be lost by a crash here: what was verified 2 s before, or all but 64 MiB - less what one turn of the
        program's display and a slow sync may hide."""
        log_bytes = self.log.entries[point - 1].end if point else 0
        before = [(now, done) for now, size, done in self.told if size <= log_bytes]
        if not before:
            return 0
        now, done = before[-1]
        by_time = [bytes_done for then, bytes_done in before if then <= now - 2.0 - SLACK_S]
        return max(by_time[-1] if by_time else 0, done - (64 << 20))


# The journal is due after 2 s; the sync that it waits for takes its time, the more so while other processes keep the disk busy.
SLACK_S = 1.0
