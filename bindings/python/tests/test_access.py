"""Swarms that not everybody may join, and web servers: who belongs gets in, who does not learns nothing."""

from __future__ import annotations

import base64
import functools
import http.server
import logging
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import peas
from conftest import CONTENT_BYTES, local_engine, until

SECRET, AUTHORITY = b"s" * 32, b"a" * 32
PATIENCE_S = 60
CERTIFICATES = Path(__file__).resolve().parents[3] / "tests/tests/certificates"


def public(secret: bytes) -> bytes:
    with peas.Engine(listen=False, identity=secret) as engine:
        return bytes.fromhex(engine.peer_id)


def test_a_secret_lets_in_who_has_it(content: Path, tmp_path: Path) -> None:
    pea = tmp_path / "closed.peas"
    with local_engine() as server, local_engine() as friend, local_engine() as guesser:
        made = peas.create(content, pea, engine=server, access="secret")
        assert (made.access, made.authority) == ("secret", None)
        server.share(pea, content, secret=SECRET)
        with pytest.raises(peas.InvalidError):
            guesser.install(pea, tmp_path / "none", trust="file")
        wrong = guesser.install(pea, tmp_path / "wrong", trust="file", secret=b"x" * 32)
        friend.install(pea, tmp_path / "right", trust="file", secret=SECRET).wait(PATIENCE_S)
        assert (tmp_path / "right").read_bytes() == content.read_bytes()
        assert (wrong.latest.pieces_done, wrong.latest.peers, wrong.latest.members) == (0, 0, 0)


def test_members_have_a_certificate(content: Path, tmp_path: Path) -> None:
    pea = tmp_path / "members.peas"
    with local_engine() as server, local_engine() as member, local_engine() as other:
        made = peas.create(content, pea, engine=server, access="members", authority=public(AUTHORITY))
        assert (made.access, made.authority) == ("members", public(AUTHORITY).hex())
        server.share(pea, content, certificate=peas.admit(AUTHORITY, server.peer_id))
        ours = peas.admit(AUTHORITY, member.peer_id, valid="1h", roles=["fetch", "relay"], content=made.id)
        # Another's, an impostor's, one for another content, one that allows only to serve, junk, and none.
        for bad in (
            ours,
            peas.admit(b"b" * 32, other.peer_id),
            peas.admit(AUTHORITY, other.peer_id, content="1" * 64),
            peas.admit(AUTHORITY, other.peer_id, roles=["seed"]),
            b"junk",
            None,
        ):
            with pytest.raises(peas.InvalidError):
                other.install(pea, tmp_path / "no", trust="file", certificate=bad)
        member.install(pea, tmp_path / "copy", trust="file", certificate=ours).wait(PATIENCE_S)
        assert (tmp_path / "copy").read_bytes() == content.read_bytes()
        assert not (tmp_path / "no").exists()


def test_what_makes_no_sense_is_refused_without_repeating_secrets(content: Path, tmp_path: Path) -> None:
    pea = tmp_path / "x.peas"
    wrong: list[dict[str, Any]] = [
        {"access": "members"},
        {"access": "open", "authority": SECRET},
        {"access": "friends"},
        {"access": "members", "authority": b"short"},
    ]
    for options in wrong:
        with pytest.raises(peas.InvalidError):
            peas.create(content, pea, **options)
        assert not pea.exists()
    peas.create(content, pea)
    calls: list[Callable[[], bytes]] = [
        lambda: peas.admit(AUTHORITY, "nobody"),
        lambda: peas.admit(b"ashort", "0" * 64),
        lambda: peas.admit(AUTHORITY, "0" * 64, roles=["boss"]),  # type: ignore[list-item]
        lambda: peas.admit(AUTHORITY, "0" * 64, valid="soon"),
        lambda: peas.admit(AUTHORITY, "0" * 64, content="0" * 64),
    ]
    for call in calls:
        with pytest.raises(peas.InvalidError) as caught:
            call()
        assert "aaa" not in str(caught.value) and "ashort" not in str(caught.value)
    with local_engine() as engine, pytest.raises(peas.InvalidError):
        engine.install(pea, tmp_path / "no", trust="file", from_web="sometimes")  # type: ignore[arg-type]


class Ranges(http.server.BaseHTTPRequestHandler):
    """A web server with byte ranges, as any real one."""

    protocol_version = "HTTP/1.1"

    def __init__(self, content: bytes, *more: object) -> None:
        self.content = content
        super().__init__(*more)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        first, last = (int(text) for text in self.headers["Range"].removeprefix("bytes=").split("-"))
        body = self.content[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{first + len(body) - 1}/{len(self.content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class OldRanges(Ranges):
    """One that ends the connection with each answer."""

    protocol_version = "HTTP/1.0"


class OldAndWhole(OldRanges):
    """What ``python -m http.server`` does."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.content)


def serve(content: Path, tls: ssl.SSLContext | None = None, manner: type[Ranges] = Ranges) -> http.server.HTTPServer:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(manner, content.read_bytes()))
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture
def web(content: Path) -> Iterator[str]:
    server = serve(content)
    yield f"http://127.0.0.1:{server.server_port}/content.bin"
    server.shutdown()
    server.server_close()


@pytest.fixture
def https(content: Path, tmp_path: Path) -> Iterator[str]:
    """One whose certificate browsers would not take."""
    key = base64.encodebytes((CERTIFICATES / "localhost.key.der").read_bytes()).decode()
    chain = tmp_path / "chain.pem"
    certificate = ssl.DER_cert_to_PEM_cert((CERTIFICATES / "localhost.der").read_bytes())
    chain.write_text(f"{certificate}-----BEGIN PRIVATE KEY-----\n{key}-----END PRIVATE KEY-----\n")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(chain)
    server = serve(content, tls)
    yield f"https://localhost:{server.server_port}/content.bin"
    server.shutdown()
    server.server_close()


def test_web_servers_are_asked_when_wanted(content: Path, web: str, tmp_path: Path) -> None:
    pea = tmp_path / "web.peas"
    assert peas.create(content, pea, web=[web]).web == (web,)
    with local_engine() as engine:
        never = engine.install(pea, tmp_path / "never", trust="file", from_web="never")
        with local_engine() as other:
            done = other.install(pea, tmp_path / "copy", trust="file", from_web="always").wait(PATIENCE_S)
        assert (tmp_path / "copy").read_bytes() == content.read_bytes()
        assert done.bytes_from_web >= CONTENT_BYTES and done.bytes_from_peers == done.bytes_from_origin == 0
        assert (never.latest.bytes_done, never.latest.bytes_from_web, never.latest.web_sources) == (0, 0, 0)


def test_a_web_server_of_http_1_0_gives_all_or_is_named(content: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    servers, pea = [serve(content, manner=manner) for manner in (OldRanges, OldAndWhole)], tmp_path / "old.peas"
    gives, whole = (f"http://127.0.0.1:{server.server_port}/content.bin" for server in servers)
    with local_engine() as engine:
        peas.create(content, pea, web=[gives])
        engine.install(pea, tmp_path / "copy", trust="file").wait(PATIENCE_S)
    assert (tmp_path / "copy").read_bytes() == content.read_bytes()
    with local_engine() as engine:
        peas.create(content, pea, web=[whole])
        job = engine.install(pea, tmp_path / "none", trust="file")

        def wait() -> None:
            with pytest.raises(peas.Error):
                job.wait()

        waiter = threading.Thread(target=wait)
        waiter.start()
        why = f"web-failed 0 {whole}: the server does not serve parts of files"
        until(lambda: why in (record.getMessage() for record in caplog.records if record.levelno == logging.WARNING))
        assert [event.text for event in job.events() if event.kind == "web-failed"] == [why.removeprefix("web-failed 0 ")]
        assert waiter.is_alive()
    waiter.join()
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_host_may_name_authorities_for_web_servers(content: Path, https: str, tmp_path: Path) -> None:
    pea = tmp_path / "https.peas"
    peas.create(content, pea, web=[https])
    authority = (CERTIFICATES / "authority.der").read_bytes()
    with local_engine() as engine:
        job = engine.install(pea, tmp_path / "none", trust="file", from_web="always")
        until(lambda: any("certificate" in str(source["error"]) for source in job.stats()["web"]))
        assert job.latest.bytes_from_web == 0
    with local_engine(web_authorities=[authority]) as engine:
        done = engine.install(pea, tmp_path / "copy", trust="file", from_web="always").wait(PATIENCE_S)
    assert (tmp_path / "copy").read_bytes() == content.read_bytes()
    assert done.bytes_from_web >= CONTENT_BYTES
