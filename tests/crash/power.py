"""Power loss: `peas install` on a real file system, and the power goes.

Each recorded installation is replayed up to a crash state, mounted, judged, and the installation is resumed to its end.
Half of the crash points are chance, half lie right at acknowledgements: at the "complete" line, and at the flushes by which the
journal's records became durable.

    python3 power.py [--fs ext4] [--states 200] [--seed 1] [--jobs 4]
    python3 power.py --control               two planted bugs, which must be found
    python3 power.py --replay FOLDER SEED     one state of a recording that was kept because it broke a rule
"""

import argparse
import collections
import os
import pickle
import random
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import rig
from journal import Journal
from record import Recording, scenarios

RULES = ("lie", "corrupt final", "lost acknowledgement", "lost progress", "lost user file", "not resumed", "fetched again", "unmountable", "left over")


class State:
    """One crash state of a recording: all of it follows from the seed."""

    def __init__(self, recording, seed, kinds=None):
        self.recording, self.seed = recording, seed
        self.rng = random.Random(f"{recording.label} {seed}")
        log = recording.log
        first, last, complete = log.index_at(recording.begun_bytes), len(log.entries), recording.complete_at()
        kind = self.rng.choice(kinds) if kinds else self.rng.choice(["chance", "chance", "complete", "flush", "before flush", "before flush"] if seed // 4 % 4 else ["complete"])
        if kind == "chance":
            self.point = self.rng.randint(first, last)
        elif kind == "complete":
            self.point = complete
        else:
            flushes = [at for at in log.flushes() if at >= first] or [last - 1]
            at = self.rng.choice(flushes)
            self.point = at + 1 if kind == "flush" else max(first, at - self.rng.randint(0, 2))
        self.kind = kind
        self.acknowledged = self.point >= complete


class Worker:
    """Judges states, one at a time, on a disk and with a server of its own."""

    def __init__(self, place, number):
        self.place, self.number, self.seeds = place, number, {}

    def close(self):
        for seed in self.seeds.values():
            seed.close()

    def seed_of(self, content):
        if content.pea not in self.seeds:
            self.seeds[content.pea] = rig.Seed(content)
        return self.seeds[content.pea]

    def judge(self, state):
        """The broken rules of a state, as (rule, words)."""
        recording = state.recording
        disk = os.path.join(self.place, f"worker{self.number}.img")
        rig.copy_sparse(recording.base, disk)
        with open(disk, "r+b", buffering=0) as file:
            recording.log.crash(file, state.point, state.rng)
        try:
            try:
                mount = rig.Mount(disk, recording.kind, os.path.join(self.place, f"worker{self.number}.mnt"))
            except RuntimeError as error:
                return [("unmountable", str(error))], {}
            try:
                return self.examine(state, mount.at)
            finally:
                mount.close()
        finally:
            os.unlink(disk)

    def examine(self, state, root):
        recording, scenario = state.recording, state.recording.scenario
        dest, new, old = os.path.join(root, "dest"), scenario.new, scenario.old
        broken, facts = [], {}
        is_new = new.is_at(dest)
        is_old = old is not None and old.is_at(dest)
        there = os.path.lexists(dest)
        if state.acknowledged and not is_new:
            broken.append(("lost acknowledgement", "said complete, and the content is not there"))
        if there and not is_new and not is_old:
            broken.append(("corrupt final", f"neither the new content nor the old: {sorted(rig.listing(dest))[:5]}"))
        if old is not None and not there:
            broken.append(("corrupt final", "neither the new content nor the old one is there"))
        right = self.staged(root, new, broken, facts)
        right |= self.right_at(dest, new)
        missing = sum(len(new.piece(at)) for at in range(new.piece_count) if at not in right)

        peas = rig.install(new, dest, self.seed_of(new))
        code = peas.finish()
        complete = peas.named("complete")
        if code != 0 or not complete or not new.is_at(dest):
            broken.append(("not resumed", f"exit {code}: {peas.said()}"))
        else:
            got, reused = rig.fetched(complete[0]), complete[0]["bytes_reused"]
            facts["fetched"] = got
            if got > missing:
                broken.append(("fetched again", f"{got} bytes fetched, and only {missing} were not right on the disk"))
            owed = recording.owed_at(state.point)
            if reused < owed:
                broken.append(("lost progress", f"{owed} bytes were owed, {reused} are used again"))
            if rig.leftovers(root):
                broken.append(("left over", f"{rig.leftovers(root)}"))
            names = set(rig.listing(dest)) - set(new.files) - set(scenario.mine)
            if names:
                broken.append(("left over", f"of the old version: {sorted(names)[:5]}"))
        for path, data in scenario.mine.items():
            try:
                if open(os.path.join(dest, path), "rb").read() != data:
                    raise OSError("changed")
            except OSError as error:
                broken.append(("lost user file", f"{path}: {error}"))
        peas.close()
        return broken, facts

    def right_at(self, base, content):
        cache = {}
        return {at for at in range(content.piece_count) if content.piece_at(base, at, cache) == content.piece(at)}

    def staged(self, root, content, broken, facts):
        """Checks what the journal claims; gives the pieces that are right in the staging directory."""
        right = set()
        for name in rig.leftovers(root):
            staging, data = os.path.join(root, name), os.path.join(root, name, "data")
            if not os.path.isdir(staging):
                continue
            right |= self.right_at(data, content)
            try:
                raw = open(os.path.join(staging, "journal"), "rb").read()
            except OSError:
                continue
            journal = Journal(raw)
            facts["claimed"] = len(journal.pieces)
            stat = os.stat(data) if os.path.exists(data) else None
            switched = journal.complete and (stat is None or (not content.single and stat.st_ino != journal.data_inode))
            if not switched:
                self.lies(journal, data, content, right, broken)
            # The disk has another number here than where it was recorded; a real one keeps its own.
            if stat:
                with open(os.path.join(staging, "journal"), "r+b") as file:
                    file.write(journal.on_device(raw, stat.st_dev))
        return right

    def lies(self, journal, data, content, right, broken):
        inodes = {}
        for piece in sorted(journal.pieces - right):
            for number, path, _offset, _count in content.segments(piece):
                full = os.path.join(data, path) if path else data
                if number not in inodes:
                    inodes[number] = os.lstat(full).st_ino if os.path.lexists(full) else None
                if journal.files.get(number, (0, -1))[1] != inodes[number]:
                    break
            else:
                broken.append(("lie", f"piece {piece} is in the journal, and its bytes are wrong"))
                return


def judge_all(place, recordings, states, first_seed, jobs, stop_after=None, kinds=None):
    """Judges states of all recordings in turn; gives counts by rule, and the failures."""
    counts, failures, facts = collections.Counter(), [], collections.Counter()
    free, lock = [Worker(place, number) for number in range(jobs)], threading.Lock()
    workers = list(free)
    begun = time.monotonic()

    def one(seed):
        if stop_after and time.monotonic() - begun > stop_after:
            return
        state = State(recordings[seed % len(recordings)], seed, kinds)
        with lock:
            worker = free.pop()
        try:
            broken, found = worker.judge(state)
        finally:
            with lock:
                free.append(worker)
        with lock:
            counts["states"] += 1
            counts[f"at {state.kind}"] += 1
            for rule in {rule for rule, _words in broken}:
                counts[rule] += 1
            failures.extend((state, rule, words) for rule, words in broken)
            facts["fetched"] += found.get("fetched", 0)

    try:
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(one, range(first_seed, first_seed + states)))
    finally:
        for worker in workers:
            worker.close()
    counts["seconds"] = round(time.monotonic() - begun)
    return counts, failures


def keep(place, failures):
    """Keeps the recordings that failures came from, for --replay."""
    folder = tempfile.mkdtemp(prefix="peas-power-", dir=os.environ.get("PEAS_CRASH_KEEP", "/tmp"))
    for recording in {state.recording for state, _rule, _words in failures}:
        for path in (recording.base, recording.log_path):
            rig.copy_sparse(path, os.path.join(folder, os.path.basename(path)))
        with open(os.path.join(folder, f"{recording.label}.pickle"), "wb") as file:
            pickle.dump((recording.scenario.name, recording.kind, recording.begun_bytes, recording.complete_bytes, recording.told), file)
    return folder


def replay(folder, label, seed):
    place = rig.scratch()
    try:
        with open(os.path.join(folder, f"{label}.pickle"), "rb") as file:
            name, kind, begun, complete, told = pickle.load(file)
        recording = Recording.__new__(Recording)
        recording.scenario = next(one for one in scenarios(place) if one.name == name)
        recording.kind, recording.label, recording.place = kind, label, place
        recording.base, recording.log_path = (os.path.join(folder, f"{label}.{end}") for end in ("base", "log"))
        recording.begun_bytes, recording.complete_bytes, recording.told = begun, complete, told
        recording.log = __import__("blocklog").BlockLog(recording.log_path)
        worker = Worker(place, 0)
        try:
            state = State(recording, seed)
            print(f"state {seed}: {state.kind}, after {state.point} of {len(recording.log.entries)} writes, acknowledged: {state.acknowledged}")
            for rule, words in worker.judge(state)[0]:
                print(f"  {rule}: {words}")
        finally:
            worker.close()
    finally:
        rig.remove(place)


def record_all(place, kind, planted=""):
    found = [one for one in scenarios(place) if not planted or one.name in ("folder", "file")]
    with ThreadPoolExecutor(len(found)) as pool:
        return list(pool.map(lambda one: Recording(place, one, kind, planted), found))


def rules_of(counts):
    return ", ".join(f"{counts[rule]} {rule}" for rule in RULES)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--fs", default="ext4", choices=list(rig.MKFS))
    parser.add_argument("--states", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--control", action="store_true")
    parser.add_argument("--replay", nargs=3, metavar=("FOLDER", "LABEL", "SEED"))
    args = parser.parse_args()
    if args.replay:
        return replay(args.replay[0], args.replay[1], int(args.replay[2]))
    place = rig.scratch()
    try:
        if args.control:
            return control(place, args)
        recordings = record_all(place, args.fs)
        for one in recordings:
            print(f"recorded {one.label}: {len(one.log.entries)} writes, {len(one.log.flushes())} flushes", flush=True)
        counts, failures = judge_all(place, recordings, args.states, args.seed, args.jobs, args.seconds)
        print(f"power loss on {args.fs}: {counts['states']} states in {counts['seconds']} s: {rules_of(counts)}")
        print("  crash points: " + ", ".join(f"{count} {name}" for name, count in sorted(counts.items()) if name.startswith("at ")))
        if counts["states"] == 0 or failures:
            report(place, failures)
            sys.exit(1)
    finally:
        rig.remove(place)


def report(place, failures):
    if not failures:
        return
    folder = keep(place, failures)
    for state, rule, words in failures[:20]:
        print(f"  {rule}: {words}\n    python3 tests/crash/power.py --replay {folder} {state.recording.label} {state.seed}")


def control(place, args):
    """Builds with a bug on purpose: the same judge must find it."""
    # Where each shows: a journal that lies, at the flushes of its records; a name that is not there, at the word.
    wanted = {"no-data-sync": (["flush"], "lie"), "no-directory-sync": (["complete"], "lost acknowledgement")}
    for planted, (kinds, rule) in wanted.items():
        recordings = record_all(place, args.fs, planted)
        counts, _failures = judge_all(place, recordings, min(args.states, 40), args.seed, args.jobs, None, kinds)
        print(f"control {planted} on {args.fs}: {counts['states']} states: {rules_of(counts)}")
        if counts[rule] == 0:
            print(f"the planted bug {planted} was not found: this test proves nothing")
            sys.exit(1)


if __name__ == "__main__":
    main()
