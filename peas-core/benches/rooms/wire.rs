//! Messages and frames. A piece of 1 MiB costs a grant, a request, a part of a `Have` for each neighbour, and 16 payload frames.

use divan::{Bencher, black_box};
use peas_core::unit::RequestId;
use peas_core::wire::frame::{FrameHead, HEAD_BYTES, PAYLOAD_BYTES_MAX, Stage, decode_message, encode_message, payload_head};
use peas_core::wire::{MEMBERS_MAX, MemberRecord, Message};

/// The messages that travel most, and the largest of each kind that is usual.
const MESSAGES: [&str; 5] = ["grant", "request", "have of 1 run", "held of 1000 runs", "members, 50"];

fn message(name: &str) -> Message {
    let runs = |count: u32| (0..count).map(|at| (at * 16, 3)).collect();
    match name {
        "grant" => Message::Grant { blocks: 64, spare: false },
        "request" => Message::Request { req: 70_000, piece: 400, first: 0, count: 64 },
        "have of 1 run" => Message::Have { runs: runs(1), need: 100, queue_ms: 40 },
        "held of 1000 runs" => Message::Held { runs: runs(1000), need: 100, queue_ms: 40 },
        "members, 50" => Message::Members((0..MEMBERS_MAX as u8).map(member).collect()),
        _ => unreachable!("each name has a message"),
    }
}

fn member(n: u8) -> MemberRecord {
    let addr = ([10, 0, 0, n], 7000).into();
    MemberRecord { peer: [n; 32], addr, epoch: 3, age_s: 20, ttl_s: 300, held_permille: 500, region: 0 }
}

/// A message to its frame.
#[divan::bench(args = MESSAGES)]
fn encode(bencher: Bencher, name: &str) {
    let message = message(name);
    bencher.bench_local(|| encode_message(black_box(&message)).expect("within its limits"));
}

/// A frame to its message, with every check that needs no knowledge of the content.
#[divan::bench(args = MESSAGES)]
fn decode(bencher: Bencher, name: &str) {
    let frame = encode_message(&message(name)).expect("within its limits");
    bencher.bench_local(|| decode_message(black_box(&frame[HEAD_BYTES..])).expect("just encoded"));
}

/// The head of a payload frame, made and checked.
#[divan::bench]
fn payload_frame() -> FrameHead {
    let head = payload_head(RequestId(black_box(70_000)), PAYLOAD_BYTES_MAX);
    let head = black_box(&head).first_chunk::<HEAD_BYTES>().expect("it begins with one");
    FrameHead::parse(head, Stage::Open).expect("just made")
}
