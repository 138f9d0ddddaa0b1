//! Every byte that travels or is kept, frozen: `tests/golden/*.txt` hold name, meaning and hex of each vector.
//!
//! A difference here means that peers and peas of older versions are no longer understood: raise the protocol or format version
//! instead. New vectors are written with `PEAS_GOLDEN=write cargo test --test golden`; look at the difference before committing.

use peas_core::config::Owner;
use peas_core::hash::{self, SpanProof};
use peas_core::manifest::{Builder, EntryKind, FileEntry, Manifest, OwnerHint};
use peas_core::unit::{BLOCK_BYTES, Geometry, PeerId, RequestId};
use peas_core::wire::frame::{self, FrameHead, FrameKind, HEAD_BYTES};
use peas_core::wire::{Hello, MemberRecord, Message};
use std::fmt::Write;

/// Pieces of the vectors.
const PIECE_BYTES: u32 = 64 * 1024;

/// Name, meaning, bytes.
type Vector = (&'static str, String, Vec<u8>);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
        text
    })
}

fn compare(file: &str, vectors: &[Vector]) {
    let mut text = String::new();
    for (name, meaning, bytes) in vectors {
        writeln!(text, "{name}\n  {meaning}\n  {}\n", hex(bytes)).expect("writing to a string does not fail");
    }
    let path = format!("{}/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("PEAS_GOLDEN").is_some_and(|what| what == "write") {
        std::fs::write(&path, &text).expect("the golden directory can be written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    for (now, then) in text.split("\n\n").zip(kept.split("\n\n")) {
        assert_eq!(now, then, "{file}");
    }
    assert_eq!(text.len(), kept.len(), "{file} has more or fewer vectors");
}

/// The input of all hash vectors: a cycle of 251 bytes.
fn content(bytes: u64) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8).collect()
}

fn record() -> MemberRecord {
    let addr = ([192, 0, 2, 1], 7000).into();
    MemberRecord { peer: [0x11; 32], addr, epoch: 300, age_s: 12, ttl_s: 600, held_permille: 1000, region: 4 }
}

fn messages() -> Vec<(&'static str, Message)> {
    let hello = Hello { version: 1, content: [0xAB; 32], proof: vec![], listen_port: Some(7000), region: 0, origin: true, extensions: 0 };
    let quiet = Hello { proof: vec![1, 2, 3], listen_port: None, origin: false, extensions: 1 << 33, region: 70_000, ..hello.clone() };
    let v6 = MemberRecord { addr: "[2001:db8::1]:65535".parse().expect("an address"), ..record() };
    vec![
        ("hello of an origin", Message::Hello(hello)),
        ("hello with proof, not listening", Message::Hello(quiet)),
        ("held", Message::Held { runs: vec![(0, 250), (251, 1), (70_000, 2)], need: 65_536, queue_ms: 251 }),
        ("held, nothing", Message::Held { runs: vec![], need: 9, queue_ms: 0 }),
        ("have", Message::Have { runs: vec![(5, 1)], need: 8, queue_ms: 0 }),
        ("withdraw", Message::Withdraw { runs: vec![(131_071, 1)] }),
        ("credit", Message::Credit { pieces: 3, upload_bytes_per_s: 12_500_000 }),
        ("assign", Message::Assign { piece: 250, lease_ms: 10_000 }),
        ("grant", Message::Grant { blocks: 64, spare: false }),
        ("decline a grant", Message::Decline { piece: None }),
        ("decline an assignment", Message::Decline { piece: Some(7) }),
        ("request", Message::Request { req: 1 << 32, piece: 7, first: 0, count: 64 }),
        ("refuse", Message::Refuse { req: 5, reason: 2, retry_after_ms: 500 }),
        ("cancel", Message::Cancel { req: 5 }),
        ("members", Message::Members(vec![record(), v6])),
        ("bye", Message::Bye),
    ]
}

#[test]
fn messages_are_frozen() {
    let mut vectors = Vec::new();
    for (name, message) in messages() {
        let bytes = frame::encode_message(&message).expect("a right message");
        assert_eq!(frame::decode_message(&bytes[HEAD_BYTES..]), Ok(message.clone()));
        vectors.push((name, format!("{message:?}"), bytes));
    }
    compare("messages.txt", &vectors);
}

#[test]
fn frames_are_frozen() {
    let payload = |req, bytes: &[u8]| [&frame::payload_head(RequestId(req), bytes.len())[..], bytes].concat();
    let head = |kind, body_bytes| FrameHead { kind, body_bytes }.to_bytes().to_vec();
    compare(
        "frames.txt",
        &[
            ("payload", "request 1, bytes \"pea\"".into(), payload(1, b"pea")),
            ("payload, large request", "request 2^64 - 1, one byte 0".into(), payload(u64::MAX, &[0])),
            ("proof", "request 2, nodes 01.. and 02..".into(), frame::encode_proof(RequestId(2), &[[1; 32], [2; 32]])),
            ("longest message", "head of 65,536 bytes of message".into(), head(FrameKind::Message, 65_536)),
            ("longest payload", "head of 65,536 bytes of content".into(), head(FrameKind::Payload, 65_544)),
            ("longest proof", "head of 1,100 nodes".into(), head(FrameKind::Proof, 35_208)),
        ],
    );
}

#[test]
fn hashes_are_frozen() {
    let (leaf, block, piece) = (1024, u64::from(BLOCK_BYTES), u64::from(PIECE_BYTES));
    let mut vectors = Vec::new();
    for edge in [0, leaf, block, 2 * block, piece, 2 * piece, 3 * piece] {
        for size in edge.saturating_sub(1)..=edge + 1 {
            let (content, geometry) = (content(size), Geometry::new(size, PIECE_BYTES).expect("sizes"));
            let cvs: Vec<_> = geometry
                .pieces()
                .zip(content.chunks(piece as usize))
                .map(|(piece, bytes)| hash::piece_cv(&geometry, piece, bytes))
                .collect();
            let bytes = [&[hash::root(&geometry, &cvs)][..], &cvs].concat().concat();
            vectors.push(("content", format!("{size} bytes 0, 1, .. 250, 0, ..: root, then each piece of 64 KiB"), bytes));
        }
    }
    let size = 3 * block + 5;
    let (content, geometry) = (content(piece + size), Geometry::new(piece + size, PIECE_BYTES).expect("sizes"));
    let last = geometry.piece(1).expect("two pieces");
    let cvs = hash::block_cvs(&geometry, last, &content[piece as usize..]);
    for (first, count) in [(0, 1), (1, 2), (3, 1), (0, 4)] {
        let proof = SpanProof::new(&geometry, geometry.span(last, first, count).expect("inside"), &cvs);
        vectors.push((
            "proof",
            format!("blocks {first}, {count} of them, of the last piece of {} bytes", piece + size),
            proof.nodes.concat(),
        ));
    }
    compare("hashes.txt", &vectors);
}

#[test]
fn a_pea_is_frozen() {
    let content = content(70_000);
    let geometry = Geometry::new(70_000, PIECE_BYTES).expect("sizes");
    let file = |path: &str, from: usize, to: usize, executable| {
        let (offset, bytes, hash) = (from as u64, (to - from) as u64, hash::file_hash(&content[from..to]));
        FileEntry { path: path.into(), kind: EntryKind::File { offset, bytes, executable, hash } }
    };
    let other = |path: &str, kind| FileEntry { path: path.into(), kind };
    let made = Builder {
        name: "example".into(),
        geometry,
        single_file: false,
        entries: vec![
            file("bin/run", 0, 60_000, true),
            other("bin/start", EntryKind::Symlink { target: "run".into() }),
            file("data/one", 60_000, 70_000, false),
            file("data/two", 70_000, 70_000, false),
            other("empty", EntryKind::Directory),
        ],
        piece_cvs: geometry.pieces().zip(content.chunks(65_536)).map(|(piece, bytes)| hash::piece_cv(&geometry, piece, bytes)).collect(),
        owners: vec![Owner { addr: "example.org:7000".into(), peer: Some(PeerId([0x22; 32])) }],
        web: vec!["https://example.org/content/".into()],
        channel: "stable".into(),
        release: 3,
        created_unix_s: 1_767_225_600,
        expires_unix_s: 0,
    };
    let bytes = made.clone().build(&[[7; 32]]).expect("a right pea");
    let manifest = Manifest::decode(&bytes).expect("a right pea");
    assert_eq!(manifest.entries(), made.entries);
    let hint = OwnerHint::sign(MemberRecord { peer: PUBLIC_OF_SEVENS, ..record() }, manifest.id(), &[7; 32]);
    assert!(hint.verify(manifest.id()));
    let with_tail = manifest.with_owner_hints(&[hint]);
    let back = Manifest::decode(&with_tail).expect("a right pea");
    assert_eq!(back.id(), manifest.id());
    let meaning = "folder of bin/run (60,000 bytes, executable), bin/start -> run, data/one (10,000), data/two (0), empty/; signed by the key of 32 x 07";
    compare(
        "pea.txt",
        &[
            ("pea", meaning.into(), bytes),
            (
                "pea with an owner",
                format!("the same, with 192.0.2.1:7000 as an owner in its tail ({} bytes in all)", with_tail.len()),
                with_tail,
            ),
            ("content id", "of both".into(), manifest.id().0.to_vec()),
        ],
    );
}

/// Public half of the secret of 32 times 07.
const PUBLIC_OF_SEVENS: [u8; 32] = [
    0xea, 0x4a, 0x6c, 0x63, 0xe2, 0x9c, 0x52, 0x0a, 0xbe, 0xf5, 0x50, 0x7b, 0x13, 0x2e, 0xc5, 0xf9, 0x95, 0x47, 0x76, 0xae, 0xbe, 0xbe,
    0x7b, 0x92, 0x42, 0x1e, 0xea, 0x69, 0x14, 0x46, 0xd2, 0x2c,
];
