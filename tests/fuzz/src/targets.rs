//! What strangers send, and what must hold whatever it is.

use peas_core::config::Scope;
use peas_core::fuzzing;
use peas_core::hash::{SpanProof, SpanVerifier, block_cvs, file_hash, piece_cv};
use peas_core::manifest::{Builder, EntryKind, FileEntry, Manifest, Trust, TrustContext, TrustedManifest, check_path, owner_hint_message};
use peas_core::swarm::{Candidate, Committed, FetchEnd, Input, Limits, Order, Output, Role, Setup, Swarm, Via};
use peas_core::transport::{FrameReader, Incoming, LinkReader};
use peas_core::unit::{Geometry, PeaId, PeerId, PieceSet, RequestId, Span, Time};
use peas_core::wire::frame::{self, FrameHead, FrameKind, HEAD_BYTES, Stage};
use peas_core::wire::{Hello, MemberRecord, Message, codec};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

/// By name.
pub const ALL: [(&str, fn(&[u8]) -> bool); 11] = [
    ("frame", frame_head),
    ("message", message),
    ("link", link),
    ("machine", machine),
    ("manifest", manifest),
    ("path", path),
    ("journal", journal),
    ("owner_record", owner_record),
    ("addr_filter", addr_filter),
    ("span_proof", span_proof),
    ("http_origin", http_origin),
];

/// A frame whole in memory: a head that is taken is written the same, and a body that is taken is encoded the same.
pub fn frame_head(data: &[u8]) -> bool {
    let Some((head, body)) = data.split_first_chunk::<HEAD_BYTES>() else { return false };
    for stage in [Stage::BeforeHello, Stage::Open] {
        let Ok(parsed) = FrameHead::parse(head, stage) else { continue };
        assert_eq!(parsed.to_bytes(), *head);
        let Some(body) = body.get(..parsed.body_bytes as usize) else { continue };
        match parsed.kind {
            FrameKind::Message => {
                if let Ok(message) = frame::decode_message(body) {
                    assert_eq!(frame::encode_message(&message).expect("what was decoded is right"), [head, body].concat());
                    return true;
                }
            }
            FrameKind::Payload => {
                let (req, bytes) = frame::decode_payload(body).expect("its head was right");
                assert_eq!([&frame::payload_head(req, bytes.len())[..], bytes].concat(), [head, body].concat());
                return true;
            }
            FrameKind::Proof => {
                let (req, nodes) = frame::decode_proof(body).expect("its head was right");
                assert_eq!(frame::encode_proof(req, &nodes), [head, body].concat());
                return true;
            }
        }
    }
    false
}

/// A message's body: one encoding for each value.
pub fn message(data: &[u8]) -> bool {
    let Ok(message) = frame::decode_message(data) else { return false };
    assert_eq!(codec::encode(&message), data);
    message.check().expect("decoding checks");
    matches!(message, Message::Members(_) | Message::Held { .. })
}

/// A stream of bytes through the receiving half of a link, in portions that the first byte sets: it ends, with a word for why.
pub fn link(data: &[u8]) -> bool {
    let Some((&portion, stream)) = data.split_first() else { return false };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let (mut speaks, hears) = tokio::io::duplex(usize::from(portion) + 1);
        let stream = stream.to_vec();
        let speaking = async move {
            use tokio::io::AsyncWriteExt;
            let _ = speaks.write_all(&stream).await; // the reader may have had enough
        };
        let hearing = async move {
            let mut reader = FrameReader::new(hears);
            let mut frames = 0;
            let mut payload = vec![0; frame::PAYLOAD_BYTES_MAX];
            loop {
                match reader.next().await {
                    Ok(Incoming::Payload { len, .. }) if frames % 2 == 0 => {
                        if reader.payload(&mut payload[..len as usize]).await.is_err() {
                            return frames;
                        }
                    }
                    Ok(Incoming::Payload { .. }) => {
                        if reader.skip().await.is_err() {
                            return frames;
                        }
                    }
                    Ok(_) => {}
                    Err(_) => return frames,
                }
                frames += 1;
            }
        };
        tokio::join!(speaking, hearing).1 > 0
    })
}

/// Bytes taken one after the other; zeros when there are no more.
struct Tape<'a>(&'a [u8]);

impl Tape<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        byte
    }

    fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    fn portion(&mut self, len: usize) -> Vec<u8> {
        let (portion, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        portion.to_vec()
    }
}

/// A live machine among a few peers of which each may say anything, in any order, at any time, while its fetches and serves end in
/// every way. The machine checks itself after each input (debug assertions), never asks for what it holds, and stays within its limits.
pub fn machine(data: &[u8]) -> bool {
    const PIECES: u32 = 24;
    const PIECE: u32 = 64 << 10;
    let mut tape = Tape(data);
    let setup = tape.byte();
    let geometry = Geometry::new(u64::from(PIECES) * u64::from(PIECE) - 1, PIECE).expect("a content");
    let role = if setup & 1 == 1 { Role::Origin } else { Role::Peer };
    let held = match (role, setup & 6) {
        (Role::Origin, _) | (_, 2) => PieceSet::full(&geometry),
        (_, 4) => PieceSet::from_runs(&geometry, &[(0, 9), (12, 3)]).expect("runs"),
        _ => PieceSet::empty(&geometry),
    };
    let limits = Limits { members_max: 32, links_max: 6, neighbors: 4, fetches_max: 8, ..Limits::default() };
    let me = PeerId([0xEE; 32]);
    let mut swarm = Swarm::new(Setup { geometry, me, held, role, limits, region: 0, seed: setup.into() });
    let (mut now, mut granted) = (Time::ZERO, 0);
    let mut fetches = BTreeMap::new();
    let mut serves = BTreeMap::new();
    while !tape.0.is_empty() {
        let peer = |number: u8| PeerId([number & 7; 32]);
        let op = tape.byte();
        let who = tape.byte();
        now = now + Span::ms(1 << (who >> 4));
        let addr = SocketAddr::from(([9, 9, who & 3, who & 7], 7000 + u16::from(who & 7)));
        let req = |wanted: &BTreeMap<RequestId, _>| wanted.keys().nth(usize::from(who) % wanted.len().max(1)).copied();
        let input = match op % 20 {
            0 | 1 => {
                let hello = Hello {
                    version: 1,
                    content: [0; 32],
                    proof: vec![],
                    listen_port: (who & 8 != 0).then_some(7000),
                    region: u32::from(who & 1),
                    origin: who & 2 != 0,
                    extensions: 0,
                };
                let round_trip = (op & 64 != 0).then(|| Span::ms(u64::from(who) * 4));
                Input::LinkUp { peer: peer(who), addr, dialed: op & 128 != 0, round_trip, hello }
            }
            2 => {
                fetches.retain(|_, (from, _)| *from != peer(who));
                serves.retain(|_, (to, _)| *to != peer(who));
                Input::LinkDown { peer: peer(who) }
            }
            3 if op & 64 != 0 => Input::ProbeFailed { addr },
            3 => Input::DialFailed { addr, stranger: op & 128 != 0 },
            4 => Input::Probed { addr, peer: peer(who) },
            5 => Input::Candidates(vec![Candidate { addr, peer: Some(peer(who)), via: Via::Owners }]),
            6 => Input::Damaged(geometry.piece(u32::from(who) % PIECES).expect("in range")),
            7 => Input::Order(
                [Order::Pause, Order::Resume, Order::HoldFetches, Order::ReleaseFetches, Order::Ban { peer: peer(who) }]
                    [usize::from(who >> 3) % 5]
                    .clone(),
            ),
            8 => match req(&fetches) {
                Some(req) => Input::Arrived { req, bytes: tape.short().into() },
                None => Input::Timeout,
            },
            9 | 10 => {
                let Some(req) = req(&fetches) else { continue };
                let (_, span): (PeerId, peas_core::unit::BlockSpan) = fetches[&req];
                swarm.handle(now, Input::Received { req });
                fetches.remove(&req);
                let end = match (who >> 3) % 5 {
                    0 => FetchEnd::Corrupt,
                    1 => FetchEnd::Refused { reason: 1 + (op >> 7), retry_after_ms: tape.short().into() },
                    2 => FetchEnd::Unwritten,
                    3 if !geometry.is_whole(span) => FetchEnd::Verified,
                    _ if geometry.is_whole(span) => FetchEnd::Committed(Committed::simulated(span.piece())),
                    _ => FetchEnd::Verified,
                };
                Input::FetchEnded { req, end }
            }
            11 => match req(&serves) {
                Some(req) => {
                    let (to, span): (PeerId, peas_core::unit::BlockSpan) = serves.remove(&req).expect("it was found");
                    let sent_bytes = if op & 128 == 0 { geometry.len_of_span(span) } else { 0 };
                    Input::ServeEnded { peer: to, req, sent_bytes, damaged: op & 64 != 0 && sent_bytes == 0 }
                }
                None => Input::Timeout,
            },
            12 => Input::Timeout,
            // What comes off the wire, right by the codec or not at all.
            13 => {
                let len = usize::from(tape.byte());
                match frame::decode_message(&tape.portion(len)) {
                    Ok(message) => Input::Message { peer: peer(who), message },
                    Err(_) => continue,
                }
            }
            kind => Input::Message { peer: peer(who), message: said(kind, &mut tape) },
        };
        swarm.handle(now, input);
        while let Some(output) = swarm.poll() {
            match output {
                Output::Fetch { req, from, span } => {
                    assert!(!swarm.held().contains(span.piece()), "it asked for what it holds");
                    assert!(fetches.insert(req, (from, span)).is_none(), "a request number twice");
                }
                Output::Cancel { req, .. } => {
                    fetches.remove(&req);
                }
                Output::Serve { req, to, span } => {
                    assert!(swarm.held().contains(span.piece()), "it serves what it does not hold");
                    serves.insert(req, (to, span));
                    granted += 1;
                }
                Output::Hangup { peer, .. } => {
                    fetches.retain(|_, (from, _)| *from != peer);
                    serves.retain(|_, (to, _)| *to != peer);
                }
                Output::Dial { addr, .. } | Output::Probe { addr, .. } => assert_ne!(addr.port(), 0),
                _ => {}
            }
        }
        let snapshot = swarm.snapshot(now);
        assert!(snapshot.members <= 32, "{} members", snapshot.members);
        assert!(fetches.len() <= 8 + 1, "{} fetches", fetches.len());
    }
    granted > 0 && !fetches.is_empty() || granted > 2
}

/// A message of the kind, its numbers from the tape and often near the edges.
fn said(kind: u8, tape: &mut Tape<'_>) -> Message {
    let (piece, count) = (u32::from(tape.byte() % 32), u32::from(tape.byte() % 8));
    let runs = if count == 0 { vec![] } else { vec![(piece, count)] };
    match kind {
        14 => Message::Held { runs, need: tape.byte().into(), queue_ms: 0 },
        15 => Message::Have { runs, need: tape.byte().into(), queue_ms: tape.short().into() },
        16 => Message::Grant { blocks: tape.byte().into(), spare: count & 1 == 1 },
        17 => Message::Request { req: tape.byte().into(), piece, first: (count % 4) as u16, count: 1 + u16::from(tape.byte() % 4) },
        18 => match count {
            0 => Message::Withdraw { runs: vec![(piece, 1)] },
            1 => Message::Credit { pieces: tape.short(), upload_bytes_per_s: u64::MAX >> (tape.byte() & 63) },
            2 => Message::Assign { piece, lease_ms: tape.short().into() },
            3 => Message::Decline { piece: Some(piece) },
            4 => Message::Decline { piece: None },
            5 => Message::Cancel { req: tape.byte().into() },
            6 => Message::Refuse { req: tape.byte().into(), reason: 1, retry_after_ms: tape.short().into() },
            _ => Message::Bye,
        },
        _ => {
            let record = |tape: &mut Tape<'_>| MemberRecord {
                peer: [tape.byte(); 32],
                addr: ([9, 9, tape.byte(), tape.byte()], tape.short()).into(),
                epoch: tape.byte().into(),
                age_s: tape.short().into(),
                ttl_s: tape.short().into(),
                held_permille: tape.short() % 1001,
                region: 0,
            };
            Message::Members((0..count).map(|_| record(tape)).collect())
        }
    }
}

/// A pea: what is decoded is written back the same, signatures or not.
pub fn manifest(data: &[u8]) -> bool {
    let Ok(manifest) = Manifest::decode(data) else { return false };
    let geometry = manifest.geometry();
    assert!(manifest.entries().iter().all(|entry| check_path(&entry.path).is_ok()));
    assert_eq!(geometry.pieces().len(), geometry.piece_count() as usize);
    let mut back = manifest.with_owner_hints(manifest.owner_hints());
    // A tail that is not there says the same as an empty one.
    if manifest.owner_hints().is_empty() && back.len() == data.len() + 2 {
        back.truncate(data.len());
    }
    assert_eq!(back, data, "one pea, one writing");
    let context = TrustContext { now_unix_s: Some(1), channel: None, release_at_least: None };
    let _ = manifest.clone().trust(&Trust::Keys { keys: vec![[7; 32]], threshold: 1 }, &context);
    let trusted = manifest.trust(&Trust::File, &TrustContext::default());
    trusted.is_ok()
}

/// A path that is taken stays below the place that it is joined to, whatever system reads it.
pub fn path(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    if check_path(text).is_err() {
        return false;
    }
    let path = std::path::Path::new(text);
    assert!(path.is_relative() && path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
    assert!(
        text.len() <= 1024
            && !text.contains(['\\', ':', '\0'])
            && !text.split('/').any(|part| part.is_empty() || part.ends_with(['.', ' ']))
    );
    text.contains('/')
}

/// A journal found on disk: it names only pieces that exist, and its believable start says no more than the whole.
pub fn journal(data: &[u8]) -> bool {
    let geometry = Geometry::new(100 * 65_536, 65_536).expect("a content");
    let id = PeaId([1; 32]);
    // With a start that is right, so that the rest is looked at.
    let whole = [fuzzing::journal_start(id), data.to_vec()].concat();
    let _ = fuzzing::journal(data, id, &geometry);
    let pieces = fuzzing::journal(&whole, id, &geometry).expect("its first record is right");
    let less = fuzzing::journal(&whole[..whole.len() - data.len() / 2], id, &geometry).expect("as above");
    assert!(less.iter().all(|piece| pieces.contains(piece)), "a torn journal says more than a whole one");
    // The same with the checksum of the first record mended: a fuzzer does not guess those.
    let mended = [fuzzing::journal_start(id), fuzzing::journal_frame(data)].concat();
    let pieces = fuzzing::journal(&mended, id, &geometry).expect("as above");
    !pieces.is_empty()
}

/// Records about members, as they stand in messages and in the tail of a pea.
pub fn owner_record(data: &[u8]) -> bool {
    let Ok(record) = codec::decode::<256, MemberRecord>(data) else { return false };
    assert_eq!(codec::encode(&record), data);
    let _ = record.check();
    let words = owner_hint_message(PeaId([2; 32]), &record);
    assert!(words.len() < 256);
    // However old, however long it claims to live: a machine that hears it dials at most there, and not as itself.
    let geometry = Geometry::new(65_536, 65_536).expect("a content");
    let me = PeerId([3; 32]);
    let mut swarm = Swarm::new(Setup {
        geometry,
        me,
        held: PieceSet::empty(&geometry),
        role: Role::Peer,
        limits: Limits::default(),
        region: 0,
        seed: 1,
    });
    let from = PeerId([4; 32]);
    let hello = Hello { version: 1, content: [0; 32], proof: vec![], listen_port: None, region: 0, origin: false, extensions: 0 };
    swarm.handle(Time::ZERO, Input::LinkUp { peer: from, addr: ([9, 9, 9, 9], 1).into(), dialed: true, round_trip: None, hello });
    if record.check().is_ok() {
        swarm.handle(Time::ZERO, Input::Message { peer: from, message: Message::Members(vec![record.clone()]) });
    }
    for minute in 0..3 {
        swarm.handle(Time::ZERO + Span::s(60 * minute), Input::Timeout);
        while let Some(output) = swarm.poll() {
            if let Output::Dial { addr, peer } = output {
                // Or the neighbour itself again, which we had dialled ourselves and which never says what it holds.
                let neighbour = (([9, 9, 9, 9], 1).into(), Some(from));
                assert!((addr, peer) == (record.addr, Some(PeerId(record.peer))) || (addr, peer) == neighbour, "{addr} {peer:?}");
                assert_ne!(peer, Some(me));
                swarm.handle(Time::ZERO + Span::s(60 * minute), Input::DialFailed { addr, stranger: false });
            }
        }
    }
    record.addr.is_ipv6()
}

/// Addresses: what is let through under `Scope::Public` is public however it is written, and its port is nobody's service.
pub fn addr_filter(data: &[u8]) -> bool {
    let Some((form, rest)) = data.split_first() else { return false };
    let Some((bytes, rest)) = rest.split_first_chunk::<16>() else { return false };
    let Some((port, _)) = rest.split_first_chunk::<2>() else { return false };
    let v4 = Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]);
    let [high, low] = [u16::from_be_bytes([bytes[0], bytes[1]]), u16::from_be_bytes([bytes[2], bytes[3]])];
    let (ip, inner): (IpAddr, Option<Ipv4Addr>) = match form % 6 {
        0 => (v4.into(), Some(v4)),
        1 => (v4.to_ipv6_mapped().into(), Some(v4)),
        2 => (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low).into(), Some(v4)),
        3 => (Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1).into(), Some(v4)),
        4 => (Ipv6Addr::new(0x2001, 0, 0x909, 0x909, 0, 0, !high, !low).into(), Some(v4)),
        _ => (Ipv6Addr::from(*bytes).into(), None),
    };
    let addr = SocketAddr::new(ip, u16::from_le_bytes(*port));
    let near = [IpAddr::from([10, 0, 0, 1])];
    let public = fuzzing::may_dial(Scope::Public, addr, &[], &near);
    let auto = fuzzing::may_dial(Scope::Auto, addr, &[], &near);
    assert!(!public || auto, "{addr}: what is public is allowed with a home, too");
    assert!(fuzzing::may_dial(Scope::Public, addr, &[addr], &[]), "{addr}: the host's word counts");
    if public || auto {
        assert!(addr.port() >= 1024, "{addr}");
        assert!(!ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast(), "{addr}");
    }
    if let Some(inner) = inner {
        let private = inner.is_private() || inner.octets()[0] == 100 && inner.octets()[1] & 0xC0 == 64;
        let bad = inner.is_loopback() || inner.is_link_local() || inner.is_multicast() || inner.is_broadcast() || inner.is_documentation();
        assert!(!(public && (private || bad)), "{addr} holds {inner}");
        assert!(!(auto && bad), "{addr} holds {inner}");
    }
    public
}

/// Proofs and blocks that are not what was hashed: only the right bytes pass, whatever nodes come with them.
pub fn span_proof(data: &[u8]) -> bool {
    let mut tape = Tape(data);
    let blocks = 1 + u32::from(tape.byte() % 8);
    let last_bytes = 1 + u32::from(tape.short() % 16_384);
    let total = u64::from((blocks - 1) * 16_384 + last_bytes);
    let geometry = Geometry::new(total, 128 << 10).expect("a content");
    let piece = geometry.piece(0).expect("there is one");
    let content: Vec<u8> = (0..total).map(|at| (at % 251) as u8).collect();
    let (first, count) = (u16::from(tape.byte() % 8), 1 + u16::from(tape.byte() % 8));
    let Some(span) = geometry.span(piece, first, count) else { return false };
    let root = piece_cv(&geometry, piece, &content);
    let right = SpanProof::new(&geometry, span, &block_cvs(&geometry, piece, &content));
    let verifier = SpanVerifier::new(&geometry, span, &right, &root).expect("the control: the right proof is taken");
    let mut nodes = right.nodes.clone();
    let mut changed = false;
    // Nodes changed, cut, repeated.
    for _ in 0..tape.byte() % 4 {
        let (how, at, bit) = (tape.byte(), usize::from(tape.byte()), tape.byte());
        match (how % 4, nodes.is_empty()) {
            (0, false) => {
                let len = nodes.len();
                nodes[at % len][usize::from(bit >> 3) % 32] ^= 1 << (bit & 7);
            }
            (1, false) => {
                nodes.pop();
            }
            (2, false) => {
                let len = nodes.len();
                nodes.swap(at % len, usize::from(bit) % len);
            }
            _ => nodes.push([bit; 32]),
        }
        changed = nodes != right.nodes;
    }
    let taken = SpanVerifier::new(&geometry, span, &SpanProof { nodes }, &root);
    assert_eq!(taken.is_ok(), !changed, "a proof that is not the right one");
    let block = span.first() + u16::from(tape.byte()) % span.count();
    let start = usize::from(block) * 16_384;
    let mut bytes = content[start..content.len().min(start + 16_384)].to_vec();
    verifier.block(block, &bytes).expect("the control: right bytes pass");
    let at = usize::from(tape.short()) % bytes.len();
    bytes[at] ^= 1 << (tape.byte() & 7);
    assert!(verifier.block(block, &bytes).is_err(), "a wrong byte passed");
    changed
}

/// A folder of three files for web servers to have, 5,000 bytes in all.
fn web_content() -> Arc<TrustedManifest> {
    static MADE: OnceLock<Arc<TrustedManifest>> = OnceLock::new();
    let make = || {
        let geometry = Geometry::new(5000, 65_536).expect("a content");
        let content = vec![7; 5000];
        let piece = geometry.piece(0).expect("there is one");
        let mut offset = 0;
        let entries = [("a", 1000), ("b c", 3000), ("d", 1000)].map(|(path, bytes)| {
            let kind = EntryKind::File { offset, bytes, executable: false, hash: file_hash(&content[..bytes as usize]) };
            offset += bytes;
            FileEntry { path: path.into(), kind }
        });
        let pea = Builder::new("content", geometry, entries.to_vec(), vec![piece_cv(&geometry, piece, &content)]).build(&[]);
        Arc::new(Manifest::decode_trusted(&pea.expect("a pea"), &Trust::File, &TrustContext::default()).expect("it is right"))
    };
    MADE.get_or_init(make).clone()
}

/// What a web server says on its connections, a byte 0xFF between them; the first byte says what is asked for. It gets no more bytes
/// taken than were asked for, is connected to no more often than files and redirections explain, and leads nowhere that is forbidden.
pub fn http_origin(data: &[u8]) -> bool {
    let Some((&ask, says)) = data.split_first() else { return false };
    let start = u64::from(ask % 16) * 300;
    let range = start..(start + 1 + u64::from(ask / 16) * 320).min(5000);
    let says: Vec<Vec<u8>> = says.split(|&byte| byte == 0xFF).map(<[u8]>::to_vec).collect();
    let redirected = says.iter().any(|says| says.starts_with(b"HTTP/1.1 30"));
    let end = fuzzing::http_origin(web_content(), "http://here.example/base", range.clone(), says);
    assert!(end.bytes <= range.end - range.start, "more than was asked for");
    assert!(!end.whole || end.bytes == range.end - range.start, "whole with less than was asked for");
    // Each of two tries: three files, each once more on a new connection when the last one was closed, five redirections.
    assert!(end.connections <= 2 * 3 * 2 * 6, "{} connections", end.connections);
    end.whole && redirected
}
