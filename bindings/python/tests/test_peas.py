"""Peas: made, described, trusted, refused."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import peas
from conftest import CONTENT_BYTES, Published, local_engine
from peas._values import duration, owner, quantity, share_policy


def test_a_pea_says_what_was_put_into_it(tree: Path, tmp_path: Path) -> None:
    pea = tmp_path / "tree.peas"
    made = peas.create(
        tree,
        pea,
        name="A tree",
        owners=["example.org:7000", "ab" * 32 + "@192.0.2.1:7001"],
        web=["https://example.org/tree/"],
        piece_size="64K",
        channel="stable",
        release=7,
        expires=int(time.time()) + 3600,
    )
    assert made == peas.describe(pea) == peas.describe(pea.read_bytes())
    assert (made.name, made.channel, made.release, made.piece_bytes) == ("A tree", "stable", 7, 65536)
    assert made.owners == (peas.Owner("example.org:7000", None), peas.Owner("192.0.2.1:7001", "ab" * 32))
    entries = {entry.path: entry for entry in made.entries}
    assert set(entries) == {"a.bin", "deep/er/b.bin", "run.sh", "empty.txt", "hollow", "link"}
    assert (entries["a.bin"].bytes, entries["run.sh"].executable) == (700_000, True)
    assert (entries["link"].kind, entries["link"].target, entries["hollow"].kind) == ("symlink", "deep/er/b.bin", "directory")
    # BLAKE3 of nothing, as b3sum prints it.
    assert entries["empty.txt"].blake3 == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


def test_the_engine_names_itself_as_owner(published: Published) -> None:
    (place,) = peas.describe(published.pea).owners
    assert place == peas.Owner(published.engine.listen_addr or "", published.engine.peer_id)


def test_progress_of_making_is_told_and_can_be_stopped(tmp_path: Path) -> None:
    big = tmp_path / "big.bin"
    with big.open("wb") as file:
        file.truncate(4 << 30)

    def stop(_done: int, total: int) -> None:
        assert total in (0, 4 << 30)
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        peas.create(big, tmp_path / "big.peas", on_bytes=stop)
    assert not (tmp_path / "big.peas").exists()


def test_trust_is_asked(published: Published, tmp_path: Path) -> None:
    what = peas.describe(published.pea)
    with local_engine() as engine:
        with pytest.raises(peas.RefusedError):
            engine.install(published.pea, tmp_path / "no", trust="0" * 64)
        with pytest.raises(peas.ManifestError):
            engine.install(published.pea, tmp_path / "no", trust=peas.Trust.keys([b"k" * 32]))
        with pytest.raises(peas.InvalidError):
            engine.install(published.pea, tmp_path / "no", trust="yes please")
        assert not (tmp_path / "no").exists()
        engine.install(published.pea, tmp_path / "copy.bin", trust=what.id).wait(60)


def test_an_expired_pea_is_refused(content: Path, tmp_path: Path) -> None:
    pea = tmp_path / "old.peas"
    peas.create(content, pea, expires=1_000_000_000)
    with local_engine() as engine, pytest.raises(peas.RefusedError):
        engine.install(pea, tmp_path / "copy", trust="file")
    assert peas.describe(pea).expires == 1_000_000_000


def test_errors_are_also_the_built_in_ones(content: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        peas.describe(tmp_path / "nothing.peas")
    assert isinstance(missing.value, peas.NotFoundError)
    assert (missing.value.errno, missing.value.filename, missing.value.code) == (2, str(tmp_path / "nothing.peas"), 3)
    with pytest.raises(FileNotFoundError):
        peas.create(tmp_path / "nothing", tmp_path / "x.peas")
    for junk in (b"", b"junk", content.read_bytes()[:100_000]):
        with pytest.raises(ValueError) as damaged:
            peas.describe(junk)
        assert isinstance(damaged.value, peas.ManifestError) and damaged.value.code == 2
    with pytest.raises(ValueError):
        peas.Engine(listen="not an address")
    with pytest.raises(ValueError):
        peas.Engine(identity=b"short")
    with pytest.raises(peas.DiskError):
        local_engine_twice()


def local_engine_twice() -> None:
    with local_engine() as first:
        address = first.listen_addr
        assert address is not None
        peas.Engine(listen=address)


def test_a_damaged_pea_never_passes(published: Published) -> None:
    good = published.pea.read_bytes()
    assert peas.describe(good).bytes_total == CONTENT_BYTES
    for at in range(0, len(good), 97):
        bad = bytearray(good)
        bad[at] ^= 0x40
        try:
            what = peas.describe(bytes(bad))
        except peas.ManifestError:
            continue
        # What no hash of the content covers (a name, a date) may differ in an unsigned pea; the bytes to install may not,
        # unless the content has another id.
        assert what.id != peas.describe(good).id or what.bytes_total == CONTENT_BYTES


def test_what_is_in_the_way_is_refused(published: Published, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "precious").write_text("mine")
    with local_engine() as engine, pytest.raises((peas.ContentError, peas.DiskError, peas.InvalidError)):
        engine.install(published.pea, tmp_path / "folder", trust="file").wait(30)
    assert (tmp_path / "folder" / "precious").read_text() == "mine"


def test_quantities() -> None:
    assert [quantity(text, "x") for text in ("20M", "512k", "1.5 GiB", "7", "10MB/s")] == [
        20 << 20,
        512 << 10,
        3 << 29,
        7,
        10 << 20,
    ]
    assert quantity(5, "x") == 5
    for bad in ("", "M", "-1", "1X"):
        with pytest.raises(peas.InvalidError):
            quantity(bad, "x")
    with pytest.raises(peas.InvalidError):
        quantity(-1, "x")
    assert [duration(text) for text in ("250ms", "90", "10m", "1.5h", "1d")] == [0.25, 90, 600, 5400, 86400]
    assert [share_policy(value) for value in (False, True, "10m", "1.5x")] == [
        ("leave", 0),
        ("forever", 0),
        ("for", 600),
        ("ratio", 1.5),
    ]
    with pytest.raises(peas.InvalidError):
        share_policy("often")
    assert owner("example.org:7000") == ("example.org:7000", None)
    with pytest.raises(peas.InvalidError):
        owner("example.org")
