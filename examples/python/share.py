"""Publishes a file or folder: makes its pea and serves it until told to stop.

python share.py game/ game.peas 192.0.2.1:7000
"""

import logging
import sys

import peas


def main(source: str, pea: str, address: str) -> None:
    logging.basicConfig(level=logging.INFO)
    with peas.Engine(listen=address) as engine:
        made = peas.create(source, pea, engine=engine)
        print(f"{pea}: {made.bytes_total} bytes, id {made.id}")
        engine.share(pea, source).wait_ended()


if __name__ == "__main__":
    main(*sys.argv[1:])
