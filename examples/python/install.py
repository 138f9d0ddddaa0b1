"""Installs a pea and draws its progress: what a launcher or an updater does.

python install.py game.peas /opt/game
"""

import sys

import peas


def main(pea: str, dest: str) -> None:
    with peas.Engine() as engine:
        job = engine.install(pea, dest, trust="file")
        for p in job.progress():
            share = p.bytes_done / max(p.bytes_total, 1)
            print(f"\r{share:6.1%}  {p.rate_received / 1e6:6.1f} MB/s from {p.peers} peers ", end="", flush=True)
        print(f"\n{p.bytes_from_peers} of {p.bytes_total} bytes came from peers; the publisher's uplink sent the rest")


if __name__ == "__main__":
    main(*sys.argv[1:])
