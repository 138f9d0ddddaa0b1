"""Reads the journal of an unfinished installation, independently of the code that wrote it."""

import struct
import zlib

MAGIC = b"peas journal 1\n"


class Journal:
    """What it claims: `pieces` (indices), `files` (index -> (device, inode)), `complete`, `data_inode`."""

    def __init__(self, raw):
        self.pieces, self.files, self.complete, self.data_inode, self.started = set(), {}, False, 0, False
        self.spans = []
        at = 0
        while at + 8 <= len(raw):
            length, checksum = struct.unpack_from("<II", raw, at)
            body = raw[at + 8 : at + 8 + length]
            if len(body) < length or not body or zlib.crc32(body) != checksum:
                break
            if not self._record(body):
                break
            self.spans.append((at, length))
            at += 8 + length

    def _record(self, body):
        tag, rest = body[0], body[1:]
        if tag == 0:
            if self.started or not rest.startswith(MAGIC):
                return False
            self.started, self.data_inode = True, struct.unpack_from("<Q", rest, len(MAGIC) + 32)[0]
        elif not self.started:
            return False
        elif tag == 1:
            for file, device, inode in struct.iter_unpack("<IQQ", rest):
                self.files[file] = (device, inode)
        elif tag == 2:
            for first, count in struct.iter_unpack("<II", rest):
                self.pieces.update(range(first, first + count))
        elif tag == 3:
            self.complete = True
        return True

    def on_device(self, raw, device):
        """The same journal for a disk that came back under another device number: a loop device, here."""
        out = bytearray(raw)
        for at, length in self.spans:
            if raw[at + 8] != 1:
                continue
            for entry in range(at + 9, at + 8 + length, 20):
                struct.pack_into("<Q", out, entry + 4, device)
            struct.pack_into("<I", out, at + 4, zlib.crc32(bytes(out[at + 8 : at + 8 + length])))
        return bytes(out)
