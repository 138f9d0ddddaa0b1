"""The block log of qemu's blklogwrites driver (the format of Linux' dm-log-writes): what a disk was told, in order.

A crash state is made from it: everything before the last flush that was done is on the disk; what was written after it is there, is not
there, or is there in part, in units of 4 KiB, as the seed says. Nothing here knows what a file system is.
"""

import struct

MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
TORN = 4096


class Entry:
    __slots__ = ("at", "length", "flags", "where", "end")

    def __init__(self, at, length, flags, where, end):
        self.at, self.length, self.flags, self.where, self.end = at, length, flags, where, end


class BlockLog:
    def __init__(self, path):
        with open(path, "rb") as file:
            self.bytes = file.read()
        magic, version, _count, self.sector = struct.unpack_from("<QQQI", self.bytes)
        assert (magic, version) == (MAGIC, 1), "not a block log"
        self.entries = []
        where = self.sector
        while where + 32 <= len(self.bytes):
            sector, sectors, flags, data = struct.unpack_from("<QQQQ", self.bytes, where)
            if (sector, sectors, flags, data) == (0, 0, 0, 0):
                break
            assert flags < 16, f"the log is damaged at byte {where}"
            body = where + self.sector
            length = sectors * self.sector
            held = 0 if flags & DISCARD else length
            end = body + held
            if end > len(self.bytes):
                break
            self.entries.append(Entry(sector * self.sector, length, flags, body, end))
            where = end

    def index_at(self, log_bytes):
        """How many entries a log of this length holds whole."""
        low, high = 0, len(self.entries)
        while low < high:
            middle = (low + high) // 2
            if self.entries[middle].end <= log_bytes:
                low = middle + 1
            else:
                high = middle
        return low

    def flushes(self):
        return [at for at, entry in enumerate(self.entries) if entry.flags & FLUSH]

    def apply(self, disk, at):
        entry = self.entries[at]
        if entry.flags & DISCARD:
            disk.seek(entry.at)
            disk.write(bytes(entry.length))
        elif entry.length:
            disk.seek(entry.at)
            disk.write(self.bytes[entry.where : entry.end])

    def tear(self, disk, at, rng):
        """A part of a write: some of its 4 KiB blocks."""
        entry = self.entries[at]
        if entry.flags & DISCARD:
            return
        for start in range(0, entry.length, TORN):
            if rng.random() < 0.5:
                disk.seek(entry.at + start)
                disk.write(self.bytes[entry.where + start : min(entry.where + start + TORN, entry.end)])

    def crash(self, disk, point, rng):
        """Makes the disk of a crash after `point` entries. How much of the unflushed survives is part of the state, too."""
        flushed = 0
        for at in range(point - 1, -1, -1):
            if self.entries[at].flags & FLUSH:
                flushed = at + 1
                break
        for at in range(flushed):
            self.apply(disk, at)
        kept, torn = rng.choice([(0.5, 0.1), (0.5, 0.1), (0.5, 0.1), (0.0, 0.0), (0.9, 0.05), (0.1, 0.1)])
        for at in range(flushed, point):
            chance = rng.random()
            if self.entries[at].flags & FUA or chance < kept:
                self.apply(disk, at)
            elif chance < kept + torn:
                self.tear(disk, at, rng)
