"""kill -9 at any instant of a real installation over loopback, and the same command again.

After every kill: no final name with wrong bytes; no piece that the journal vouches for is wrong on the disk; and what the next run
fetches is only what was not right on the disk when the kill came - so never more than what was in flight is fetched twice.
Half of the kills are drawn near changes of state (start, "complete", the first journal record, publishing), half anywhere.

    python3 kill.py [--kills 200] [--mib 256] [--seed 1] [--jobs 2]
    python3 kill.py --control        a planted bug, which must be found
"""

import argparse
import collections
import os
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import rig
from journal import Journal

# What may be on its way when the kill comes: the session's budget for bytes received and not yet written.
WINDOW = 8 << 20


class Scene:
    """One kind of installation that is killed."""

    def __init__(self, name, new, old=None, mine=None, repair=False):
        self.name, self.new, self.old, self.mine, self.repair = name, new, old, mine or {}, repair


def scenes(place, mib):
    """A large folder, an update over an older tree, a repair, and many small files, where publishing takes long."""
    piece = 262_144 if mib >= 64 else 65_536
    make = lambda name, files: rig.Content(place, name, files, piece)
    large = [(mib << 20) * 3 // 4, (mib << 20) // 4 - 700_000]
    files = rig.tree("kill", 40, large, 30_000)
    small = rig.tree("small", 400, [2 << 20], 12_000)
    older = {path: data for path, data in small.items() if not path.endswith("7")} | {"gone/file": rig.noise("gone", 9000)}
    for at in range(0, 400, 3):
        older[f"part{at % 5}/deep{at % 3}/f{at}"] = rig.noise(f"older {at}", 3000)
    older["data/pak0.bin"] = older["data/pak0.bin"][: 1 << 20] + rig.noise("older pak", 1 << 20)
    newer, mine = make("small", small), {"saves/one": b"mine", "part1/settings": b"mine, too"}
    return [
        Scene("large", make("large", files)),
        Scene("update", newer, make("older", older), mine),
        Scene("repair", newer, newer, mine, repair=True),
        Scene("small", newer),
    ]


class Victim:
    """A destination at which a scene is killed again and again until it is whole."""

    def __init__(self, place, scene, number, planted=""):
        self.scene, self.planted = scene, planted
        self.root = os.path.join(place, f"victim{number}")
        self.dest = os.path.join(self.root, "dest")
        self.seed = rig.Seed(scene.new)
        self.reset()

    def close(self):
        self.seed.close()
        rig.remove(self.root)

    def reset(self):
        rig.remove(self.root)
        os.makedirs(self.root)
        self.began_whole = False
        if self.scene.old:
            with rig.Seed(self.scene.old) as seed:
                peas = rig.install(self.scene.old, self.dest, seed)
                assert peas.finish() == 0, peas.said()
                peas.close()
            for path, data in self.scene.mine.items():
                os.makedirs(os.path.dirname(os.path.join(self.dest, path)), exist_ok=True)
                with open(os.path.join(self.dest, path), "wb") as file:
                    file.write(data)
        if self.scene.repair:
            rng = random.Random(self.root)
            for path in rng.sample(sorted(self.scene.new.files), 60):
                if self.scene.new.files[path]:
                    with open(os.path.join(self.dest, path), "r+b") as file:
                        file.write(b"rotten")

    def start(self, planted=""):
        scene = self.scene
        profile = "debug" if planted else "release"
        if scene.repair:
            command = ["verify", scene.new.pea, self.dest, "--repair", "--peer", self.seed.addr, "--no-listen", "--scope", "any", "--progress-every", "20ms"]
            return rig.Peas(command, profile=profile, planted=planted)
        more = ["--progress-every", "20ms"]
        return rig.install(scene.new, self.dest, self.seed, *more, profile=profile, planted=planted)

    def round(self, rng, whole_s):
        """Starts, kills, judges; gives the kind of instant, the broken rules, and whether the content is whole now."""
        right = self.right_now()
        missing = sum(len(self.scene.new.piece(at)) for at in range(self.scene.new.piece_count) if at not in right)
        peas = self.start(self.planted)
        kind = rng.choice(["any", "any", "start", "near the end", "publish"])
        self.wait(peas, kind, rng, whole_s)
        alive = peas.process.poll() is None
        peas.kill()
        while peas.read(0.5):
            pass
        broken, complete = [], peas.named("complete")
        last = (peas.named("progress") or [None])[-1]
        seen = complete[-1] if complete else last
        got = rig.fetched(seen) if seen and seen["event"] in ("complete", "progress") and "bytes_from_origin" in seen else 0
        if got > missing:
            broken.append(f"fetched {got} bytes, and only {missing} were not right on the disk")
        if not alive and not complete and peas.process.returncode != 0 and not self.scene.repair:
            broken.append(f"ended with {peas.process.returncode}: {peas.said()}")
        whole = self.scene.new.is_at(self.dest)
        broken += self.judge(bool(complete), whole)
        if last and not whole:
            # What was verified and told is there after the kill: at most what was in flight is lost.
            lost = last["bytes_done"] - sum(len(self.scene.new.piece(at)) for at in self.right_now())
            if lost > 0:
                broken.append(f"{lost} verified bytes are not on the disk any more")
        peas.close()
        return kind, broken, whole

    def wait(self, peas, kind, rng, whole_s):
        if kind == "start":
            peas.read(rng.random() * 0.05)
        elif kind == "any":
            end = time.monotonic() + rng.random() * whole_s
            while time.monotonic() < end and not peas.ended:
                peas.read(end - time.monotonic())
        else:
            total = self.scene.new.total
            near = lambda event: event["event"] == "complete" or (event["event"] == "progress" and event["state"] != "checking" and event["bytes_done"] > total * 0.9)
            if peas.until(near, "nearly the end") is not None:
                peas.read(rng.random() * (0.1 if kind == "publish" else 0.03))

    def right_now(self):
        """Pieces that are right on the disk, staged or in place."""
        content, right = self.scene.new, set()
        bases = [os.path.join(self.root, name, "data") for name in rig.leftovers(self.root)] + [self.dest]
        for base in bases:
            cache = {}
            right |= {at for at in range(content.piece_count) if at not in right and content.piece_at(base, at, cache) == content.piece(at)}
        return right

    def judge(self, complete, whole):
        broken, scene = [], self.scene
        there = os.path.lexists(self.dest)
        if complete and not whole:
            broken.append("said complete, and the content is not there")
        if there and not whole and not (scene.old and (scene.repair or scene.old.is_at(self.dest))):
            broken.append("the final name shows neither the old content nor the new one")
        if scene.old and not there:
            broken.append("the final name is gone")
        for path, data in scene.mine.items():
            try:
                if open(os.path.join(self.dest, path), "rb").read() != data:
                    broken.append(f"the user's {path} was changed")
            except OSError as error:
                broken.append(f"the user's {path} is lost: {error}")
        for name in rig.leftovers(self.root):
            broken += self.lies(os.path.join(self.root, name))
        return broken

    def lies(self, staging):
        try:
            journal = Journal(open(os.path.join(staging, "journal"), "rb").read())
        except OSError:
            return []
        data, content, cache = os.path.join(staging, "data"), self.scene.new, {}
        if journal.complete:
            return []
        for piece in sorted(journal.pieces):
            inodes = [(journal.files.get(number, (0, -1))[1], os.path.join(data, path)) for number, path, _offset, _count in content.segments(piece)]
            if any(not os.path.exists(full) or os.stat(full).st_ino != inode for inode, full in inodes):
                continue
            if content.piece_at(data, piece, cache) != content.piece(piece):
                return [f"piece {piece} is in the journal, and its bytes are wrong"]
        return []

    def end(self):
        """The same command to its end, undisturbed."""
        right = self.right_now()
        missing = sum(len(self.scene.new.piece(at)) for at in range(self.scene.new.piece_count) if at not in right)
        peas = self.start()
        code = peas.finish()
        broken = []
        if code != 0 or not self.scene.new.is_at(self.dest):
            broken.append(f"cannot be finished: exit {code}, {peas.said()}")
        got = sum(rig.fetched(event) for event in peas.named("complete"))
        if got > missing:
            broken.append(f"fetched {got} bytes at the end, and only {missing} were not right on the disk")
        if rig.leftovers(self.root):
            broken.append(f"left over: {rig.leftovers(self.root)}")
        extra = set(rig.listing(self.dest)) - set(self.scene.new.files) - set(self.scene.mine)
        if extra:
            broken.append(f"left over of the old version: {sorted(extra)[:5]}")
        peas.close()
        return broken + self.judge(True, self.scene.new.is_at(self.dest))


def campaign(place, scene, kills, seed, number, planted=""):
    """This many kills of one scene; gives counts and what broke."""
    counts, broken = collections.Counter(), []
    victim = Victim(place, scene, number, planted)
    try:
        begun = time.monotonic()
        broken += [(scene.name, seed, -1, words) for words in victim.end()]
        whole_s = time.monotonic() - begun
        victim.reset()
        for kill in range(kills):
            rng = random.Random(f"{scene.name} {seed} {kill}")
            kind, found, whole = victim.round(rng, whole_s)
            counts["kills"] += 1
            counts[f"at {kind}"] += 1
            broken += [(scene.name, seed, kill, words) for words in found]
            if whole:
                counts["completed"] += 1
                broken += [(scene.name, seed, kill, words) for words in victim.end()]
                victim.reset()
        broken += [(scene.name, seed, kills, words) for words in victim.end()]
    finally:
        victim.close()
    return counts, broken


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--control", action="store_true")
    args = parser.parse_args()
    place = rig.scratch()
    try:
        if args.control:
            return control(place, args.seed)
        begun, counts, broken = time.monotonic(), collections.Counter(), []
        found = scenes(place, args.mib)
        # A quarter of the kills each; two at a time, as the processes mostly wait for each other.
        with ThreadPoolExecutor(2) as pool:
            for more, bad in pool.map(lambda at: campaign(place, found[at], args.kills // len(found), args.seed, at), range(len(found))):
                counts += more
                broken += bad
        print(f"kill -9: {counts['kills']} kills in {time.monotonic() - begun:.0f} s, {counts['completed']} installations completed between them, {len(broken)} rules broken")
        print("  instants: " + ", ".join(f"{count} {name}" for name, count in sorted(counts.items()) if name.startswith("at ")))
        for name, seed, kill, words in broken[:20]:
            print(f"  {name}, seed {seed}, kill {kill}: {words}")
        if broken or counts["completed"] == 0:
            sys.exit(1)
    finally:
        rig.remove(place)


def control(place, seed):
    """The old content is removed before the new one comes, and there it waits: kills at the end must show it."""
    scene = next(one for one in scenes(place, 16) if one.name == "update")
    _counts, broken = campaign(place, scene, 24, seed, 0, "remove-before-rename")
    found = [words for _name, _seed, _kill, words in broken if "final name" in words]
    print(f"control remove-before-rename: {len(found)} of 24 kills show it")
    if not found:
        print("the planted bug was not found: this test proves nothing")
        sys.exit(1)


if __name__ == "__main__":
    main()
