"""Installs several peas at once in asyncio, within one bandwidth budget.

python several.py downloads/ one.peas two.peas three.peas
"""

import asyncio
import sys
from pathlib import Path

import peas


async def main(folder: str, *names: str) -> None:
    async with peas.Engine(download_limit="40M") as engine:
        jobs = [engine.install(name, Path(folder) / peas.describe(name).name, trust="file") for name in names]
        for name, done in zip(names, await asyncio.gather(*map(finished, jobs)), strict=True):
            print(f"{name}: {done.bytes_total} bytes, {done.bytes_from_peers} of them from peers")


async def finished(job: peas.Job) -> peas.Progress:
    return await job


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
