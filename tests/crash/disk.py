"""A disk that is full, over quota or failing under a real installation.

The installation stands still with the reason, does next to nothing while it does, and goes on by itself within a second after the cause
has ended. Disks are file systems in memory (tmpfs) that others fill, ext4 in files, and an ext4 below which writes fail.

    python3 disk.py [--mib 24]
    python3 disk.py --control        a planted bug, which must be found
"""

import argparse
import contextlib
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import rig

# Share of a core that a waiting installation may use, and the time in which it must go on. A busy machine gets a little more: it is a process
# like others.
CPU_MAX, RESUME_MAX_S, WATCHED_S = 0.05, 1.0, 1.5


class Tmpfs:
    def __init__(self, at, size):
        os.makedirs(at, exist_ok=True)
        run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", at)
        self.at = at

    def resize(self, size):
        run("mount", "-o", f"remount,size={size}", self.at)

    def fill(self, path):
        """Takes all that is free, at once."""
        free = os.statvfs(self.at)
        with open(path, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize)
        if os.statvfs(self.at).f_bavail != 0:
            raise RuntimeError(f"{self.at} has room left")

    def close(self):
        subprocess.run(["umount", "--lazy", self.at], stderr=subprocess.DEVNULL)


run = rig.run


def used(folder):
    """What files take of the disk."""
    return sum(os.stat(os.path.join(dir, name)).st_blocks * 512 for dir, _dirs, names in os.walk(folder) for name in names)


def cpu_s(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def paused(event):
    return event["event"] == "paused"


def stands_still(peas, reason):
    """Waits for the pause, then watches it; gives what is wrong."""
    event = peas.until(paused, "a pause")
    if event is None:
        return [f"ended instead of waiting: {peas.said()}"]
    wrong = [] if event["reason"] == reason else [f"the reason is {event['reason']}"]
    # A queue of writes that were under way ends first.
    peas.read(0.3)
    before = cpu_s(peas.process.pid)
    time.sleep(WATCHED_S)
    share = (cpu_s(peas.process.pid) - before) / WATCHED_S
    if share > CPU_MAX:
        wrong.append(f"uses {share:.0%} of a core while it waits")
    return wrong


def goes_on(peas, content, dest, ended_at):
    resumed = peas.until(lambda event: event["event"] == "resumed", "going on")
    if resumed is None:
        return [f"ended: {peas.said()}"], None
    took = next(now for now, event in peas.events if event["event"] == "resumed") - ended_at
    wrong = [] if took <= RESUME_MAX_S + 0.5 * os.getloadavg()[0] / os.cpu_count() else [f"went on after {took:.1f} s"]
    code = peas.finish()
    if code != 0 or not content.is_at(dest):
        wrong.append(f"exit {code}: {peas.said()}")
    fetched = sum(rig.fetched(event) for event in peas.named("complete"))
    if fetched > content.total:
        wrong.append(f"{fetched - content.total} bytes were fetched twice")
    return wrong, took


def small_from_the_start(place, content, seed, mib):
    """A file system with too little room in all, which is then made larger."""
    disk = Tmpfs(os.path.join(place, f"small{mib}"), f"{mib}m")
    with contextlib.closing(disk):
        dest = os.path.join(disk.at, "dest")
        peas = rig.install(content, dest, seed)
        with contextlib.closing(peas):
            wrong = stands_still(peas, "disk_full")
            if used(disk.at) > 1 << 20:
                wrong.append(f"wrote {used(disk.at)} bytes to a disk on which the content has no room")
            disk.resize("200m")
            more, took = goes_on(peas, content, dest, time.monotonic())
    return f"room for {mib} MiB", wrong + more, took


def filled_midway(place, content, seed, mib, **how):
    """Somebody else fills the disk after this many MiB."""
    for limit in ("12M", "6M", "3M", "1M"):
        disk = Tmpfs(os.path.join(place, f"filled{mib}"), "96m")
        with contextlib.closing(disk):
            dest, ballast = os.path.join(disk.at, "dest"), os.path.join(disk.at, "ballast")
            peas = rig.install(content, dest, seed, "--download-limit", limit, "--progress-every", "20ms", **how)
            with contextlib.closing(peas):
                reached = lambda event: event["event"] == "progress" and event["bytes_done"] >= mib << 20
                if peas.until(reached, "some progress") is None:
                    return f"filled after {mib} MiB", [f"ended: {peas.said()}"], None
                with peas.stopped():
                    # All had arrived before it was stopped: once more, slower.
                    if used(disk.at) >= content.total:
                        continue
                    disk.fill(ballast)
                wrong = stands_still(peas, "disk_full")
                os.unlink(ballast)
                more, took = goes_on(peas, content, dest, time.monotonic())
                return f"filled after {mib} MiB", wrong + more, took
    raise RuntimeError(f"the content is always there before its disk can be filled after {mib} MiB")


def ext4_filled(place, content, seed):
    """The same on a real file system, full before the start but for a little."""
    path = os.path.join(place, "ext4.img")
    rig.make_disk("ext4", path)
    mount = rig.Mount(path, "ext4", os.path.join(place, "ext4"))
    try:
        dest, ballast = os.path.join(mount.at, "dest"), os.path.join(mount.at, "ballast")
        free = os.statvfs(mount.at).f_bavail * 4096
        run("fallocate", "-l", str(free - (4 << 20)), ballast)
        peas = rig.install(content, dest, seed)
        with contextlib.closing(peas):
            wrong = stands_still(peas, "disk_full")
            os.unlink(ballast)
            more, took = goes_on(peas, content, dest, time.monotonic())
    finally:
        mount.close()
    return "ext4 full", wrong + more, took


def quota(place, content, _seed):
    """A quota: the file system says that it has room, and takes no more (EDQUOT). That of btrfs, as every kernel has it, and it binds root."""
    path = os.path.join(place, "quota.img")
    rig.make_disk("btrfs", path)
    mount = rig.Mount(path, "btrfs", os.path.join(place, "quota"))
    try:
        bound = os.path.join(mount.at, "bound")
        run("btrfs", "quota", "enable", mount.at)
        run("btrfs", "subvolume", "create", bound)
        run("btrfs", "qgroup", "limit", "8M", bound)
        number = run("btrfs", "inspect-internal", "rootid", bound).strip()
        dest = os.path.join(bound, "dest")
        with rig.Seed(content) as server:
            peas = rig.install(content, dest, server)
            with contextlib.closing(peas):
                wrong = stands_still(peas, "disk_full")
                # Asked for through the volume around it: what changes a volume's limit through itself may find no room under that limit.
                run("btrfs", "qgroup", "limit", "150M", f"0/{number}", mount.at)
                more, took = goes_on(peas, content, dest, time.monotonic())
    finally:
        mount.close()
    return "over quota", wrong + more, took


def failing(place, content, seed):
    """Writes below the file system fail for a while (EIO), then the disk is well again. ext4 that has seen this stays read-only until it is mounted
    anew: the installation waits, and the same command goes on afterwards."""
    path, exported = os.path.join(place, "failing.img"), os.path.join(place, "failing.dev")
    rig.make_disk("ext4", path)
    open(exported, "wb").close()
    # Counts down: once the file system has written so much, each write fails.
    config = os.path.join(place, "failing.conf")
    with open(config, "w") as file:
        file.write('[set-state]\nstate = "1"\nevent = "write_aio"\nnew_state = "2"\n')
        file.writelines(f'[set-state]\nstate = "{at}"\nevent = "write_aio"\nnew_state = "{at + 1}"\n' for at in range(2, 24))
        file.write('[inject-error]\nstate = "24"\nevent = "write_aio"\nerrno = "5"\nimmediately = "off"\nonce = "off"\n')
    daemon = subprocess.Popen([
        "qemu-storage-daemon", "--blockdev", f"driver=file,node-name=file,filename={path}",
        "--blockdev", f"driver=blkdebug,node-name=bad,image=file,config={config}",
        "--blockdev", "driver=raw,node-name=top,file=bad",
        "--export", f"type=fuse,id=out,node-name=top,mountpoint={exported},writable=on",
    ], stdin=subprocess.DEVNULL)
    wrong, at = [], os.path.join(place, "failing")
    try:
        end = time.monotonic() + rig.PATIENCE
        while os.stat(exported).st_size == 0 and daemon.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        rig.Mount(exported, "ext4", at, ",errors=remount-ro")
        dest = os.path.join(at, "dest")
        peas = rig.install(content, dest, seed, "--download-limit", "6M", "--progress-every", "50ms")
        with contextlib.closing(peas):
            event = peas.until(lambda event: event["event"] in ("paused", "complete"), "a failing disk")
            if event is None or event["event"] != "paused" or event["reason"] != "disk_error":
                wrong.append(f"{event}: a failing disk is not named: {peas.said()}")
            else:
                wrong += stands_still(peas, "disk_error")
        subprocess.run(["umount", "--force", at], stderr=subprocess.DEVNULL)
    finally:
        subprocess.run(["umount", "--lazy", at], stderr=subprocess.DEVNULL)
        daemon.terminate()
        daemon.wait(rig.PATIENCE)
    return "writes fail", wrong + resumed_elsewhere(place, path, content, seed), None


def resumed_elsewhere(place, path, content, seed):
    """The disk, healthy again: what it holds is used, what it lost is fetched."""
    mount = rig.Mount(path, "ext4", os.path.join(place, "healed"))
    try:
        dest = os.path.join(mount.at, "dest")
        if os.path.exists(dest):
            return ["the final name is there, and it was never complete"]
        peas = rig.install(content, dest, seed)
        with contextlib.closing(peas):
            code = peas.finish()
            return [] if code == 0 and content.is_at(dest) else [f"exit {code} on the healed disk: {peas.said()}"]
    finally:
        mount.close()


def control(place, content):
    """A write that fails counts as done: the installation must be seen not to wait, or to wait because its journal finds no room, either, and
    then to fetch again what it had."""
    tries = range(2, 20, 3)
    with rig.Seed(content) as seed:
        shows = lambda mib: bool(filled_midway(place, content, seed, mib, profile="debug", planted="swallow-write-errors")[1])
        # Up to three times: if the journal is due before any other write, it waits as it should.
        found = [any(shows(mib) for _ in range(3)) for mib in tries]
    print(f"control swallow-write-errors: {sum(found)} of {len(tries)} fillings show it")
    if not all(found):
        print("the planted bug was not found: this test proves nothing")
        sys.exit(1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--control", action="store_true")
    parser.add_argument("--mib", type=int, default=24)
    args = parser.parse_args()
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        place = rig.scratch()
        stack.callback(rig.remove, place)
        content = rig.Content(place, "content", rig.tree("disk", 20, [(args.mib - 1) << 20], 40_000), 262_144)
        if args.control:
            return control(place, content)
        seeds = [stack.enter_context(rig.Seed(content)) for _ in range(4)]
        jobs = [(small_from_the_start, mib) for mib in range(1, args.mib, 2)] + [(filled_midway, mib) for mib in range(0, args.mib - 2)]
        jobs += [(ext4_filled,), (quota,), (failing,)]
        with ThreadPoolExecutor(len(seeds)) as pool:
            # Each thread its own server: installations of one swarm would help each other.
            free = list(seeds)

            def one(job):
                seed = free.pop()
                try:
                    return job[0](place, content, seed, *job[1:])
                finally:
                    free.append(seed)

            found = list(pool.map(one, jobs))
        wrong = [f"{name}: {words}" for name, words_of, _took in found for words in words_of]
        times = [took for _name, _words, took in found if took is not None]
        print(f"full and failing disks: {len(found)} cases in {time.monotonic() - begun:.0f} s, {len(wrong)} rules broken; went on after {sorted(times)[len(times) // 2]:.2f} s (median), {max(times):.2f} s (longest)")
        for words in wrong:
            print(f"  {words}")
        if wrong:
            sys.exit(1)


if __name__ == "__main__":
    main()
