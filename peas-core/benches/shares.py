#!/usr/bin/env python3
"""Where the processor time of peas goes, from `perf record -e cpu-clock -g`:

    perf script -i perf.data -F ip,sym,dso,period | peas-core/benches/shares.py

A sample in the kernel counts for the system call that it is in: what a send over loopback delivers is the send's.
"""
import collections
import re
import sys

USER = [("hash", "blake3"), ("cipher", "aes|gcm|aws_lc"), ("copies in memory", "memmove|memcpy|memset")]
KERNEL = [
    ("page faults", "exc_page_fault"),
    ("send", "sys_send(to|msg)"),
    ("receive", "sys_recv(from|msg)"),
    ("file read", "sys_pread64"),
    ("file write", "sys_(pwrite64|fdatasync|ftruncate)"),
    ("wake-ups", "futex|epoll_|schedule|sys_write"),
]


def kind(frames):
    table, text = (KERNEL, " ".join(frames)) if "[kernel" in frames[0] else (USER, frames[0])
    return next((name for name, pattern in table if re.search(pattern, text)), "all else")


def main():
    spent = collections.Counter()
    for sample in sys.stdin.read().split("\n\n"):
        period, *frames = sample.strip().splitlines() or [""]
        if frames:
            spent[kind(frames)] += int(period.strip(" :"))
    total = sum(spent.values())
    print(f"{total / 1e9:.2f} CPU s")
    for name, time in spent.most_common():
        print(f"{name:18}{time / total:6.1%}  {time / 1e9:.3f} s")


main()
