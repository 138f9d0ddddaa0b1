//! Frames: how messages, payload and proofs lie one after the other on a link.
//!
//! ```text
//! len u32 LE | kind u8 | body of len bytes
//! kind 0  message   one Message in the one codec, at most 64 KiB
//! kind 1  payload   req u64 LE | 1 to 65,536 bytes of the content, in order
//! kind 2  proof     req u64 LE | n x 32 bytes, 1 <= n <= 1,100: the nodes of a SpanProof
//! ```
//! Pure functions over bytes. A head is checked before its body is read or room for it is made; before the hello nothing but a
//! short message is taken. Which frames may follow which is the business of the link, not of this file.

use super::message::Message;
use super::{WireError, codec};
use crate::unit::RequestId;

/// Bytes before the body: length and kind.
pub const HEAD_BYTES: usize = 5;

/// Longest encoded message. The longest we make, 4,000 runs of five-byte numbers, has 40 KB.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Longest message while the other side has not said hello: a hello with the longest proof has at most 1,082 bytes.
pub const HELLO_BYTES_MAX: usize = 2048;

/// Most bytes of content in a frame: four blocks. Longer would let one serve delay control messages behind it.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// Most nodes in a proof: the largest piece has 1,024 blocks, and no walk meets more nodes than blocks.
pub const PROOF_NODES_MAX: usize = 1100;

/// Bytes of the request id that payload and proof begin with.
pub const REQ_BYTES: usize = 8;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A control message.
    Message,
    /// Bytes of the content.
    Payload,
    /// Nodes that prove what follows.
    Proof,
}

/// How far a link is, as far as its frames are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The other side has not said hello yet.
    BeforeHello,
    /// It has.
    Open,
}

/// A checked head: reading `body_bytes` into memory is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// What the body is.
    pub kind: FrameKind,
    /// How long it is, within the limits of its kind.
    pub body_bytes: u32,
}

impl FrameKind {
    /// As it is written.
    pub const fn raw(self) -> u8 {
        match self {
            FrameKind::Message => 0,
            FrameKind::Payload => 1,
            FrameKind::Proof => 2,
        }
    }

    /// Shortest and longest body.
    const fn limits(self, stage: Stage) -> (usize, usize) {
        match (self, stage) {
            (FrameKind::Message, Stage::BeforeHello) => (1, HELLO_BYTES_MAX),
            (FrameKind::Message, Stage::Open) => (1, MESSAGE_BYTES_MAX),
            (FrameKind::Payload, _) => (REQ_BYTES + 1, REQ_BYTES + PAYLOAD_BYTES_MAX),
            (FrameKind::Proof, _) => (REQ_BYTES + 32, REQ_BYTES + 32 * PROOF_NODES_MAX),
        }
    }
}

impl FrameHead {
    /// Checks the head of a frame that comes in.
    pub fn parse(head: &[u8; HEAD_BYTES], stage: Stage) -> Result<FrameHead, WireError> {
        let [a, b, c, d, raw] = *head;
        let kind = match raw {
            0 => FrameKind::Message,
            1 => FrameKind::Payload,
            2 => FrameKind::Proof,
            _ => return Err(WireError::UnknownFrame(raw)),
        };
        if stage == Stage::BeforeHello && kind != FrameKind::Message {
            return Err(WireError::BeforeHello(raw));
        }
        let body_bytes = u32::from_le_bytes([a, b, c, d]);
        let (bytes, (least, limit)) = (body_bytes as usize, kind.limits(stage));
        if bytes > limit {
            return Err(WireError::TooLong { bytes, limit });
        }
        if bytes < least || (kind == FrameKind::Proof && !(bytes - REQ_BYTES).is_multiple_of(32)) {
            return Err(WireError::BadLength { kind: raw, bytes });
        }
        Ok(FrameHead { kind, body_bytes })
    }

    /// As it is written.
    pub const fn to_bytes(self) -> [u8; HEAD_BYTES] {
        let [a, b, c, d] = self.body_bytes.to_le_bytes();
        [a, b, c, d, self.kind.raw()]
    }
}

/// A whole frame with this message. Errors as the receiver would judge it: a message that breaks the rules is not sent.
pub fn encode_message(message: &Message) -> Result<Vec<u8>, WireError> {
    message.check()?;
    let body = codec::encode(message);
    if body.len() > MESSAGE_BYTES_MAX {
        return Err(WireError::TooLong { bytes: body.len(), limit: MESSAGE_BYTES_MAX });
    }
    let head = FrameHead { kind: FrameKind::Message, body_bytes: body.len() as u32 };
    Ok([&head.to_bytes()[..], &body].concat())
}

/// The message in the body of a frame, with all checks that need no knowledge of the content.
pub fn decode_message(body: &[u8]) -> Result<Message, WireError> {
    let message: Message = codec::decode::<MESSAGE_BYTES_MAX, Message>(body)?;
    message.check()?;
    Ok(message)
}

/// What goes before `payload_bytes` bytes of content: head and request. The bytes themselves follow without a copy.
///
/// Panics outside 1 to [`PAYLOAD_BYTES_MAX`]: the sender cuts spans into such portions.
pub fn payload_head(req: RequestId, payload_bytes: usize) -> [u8; HEAD_BYTES + REQ_BYTES] {
    assert!((1..=PAYLOAD_BYTES_MAX).contains(&payload_bytes), "{payload_bytes} bytes in one payload frame");
    let head = FrameHead { kind: FrameKind::Payload, body_bytes: (REQ_BYTES + payload_bytes) as u32 };
    let mut bytes = [0; HEAD_BYTES + REQ_BYTES];
    bytes[..HEAD_BYTES].copy_from_slice(&head.to_bytes());
    bytes[HEAD_BYTES..].copy_from_slice(&req.0.to_le_bytes());
    bytes
}

/// A whole frame with the nodes of a proof. Panics outside 1 to [`PROOF_NODES_MAX`] nodes.
pub fn encode_proof(req: RequestId, nodes: &[[u8; 32]]) -> Vec<u8> {
    assert!((1..=PROOF_NODES_MAX).contains(&nodes.len()), "{} nodes in one proof frame", nodes.len());
    let head = FrameHead { kind: FrameKind::Proof, body_bytes: (REQ_BYTES + nodes.len() * 32) as u32 };
    [&head.to_bytes()[..], &req.0.to_le_bytes(), nodes.as_flattened()].concat()
}

/// Request and content bytes in the body of a payload frame.
pub fn decode_payload(body: &[u8]) -> Result<(RequestId, &[u8]), WireError> {
    let (req, bytes) = split_req(body).ok_or(bad_length(FrameKind::Payload, body))?;
    if bytes.is_empty() || bytes.len() > PAYLOAD_BYTES_MAX { Err(bad_length(FrameKind::Payload, body)) } else { Ok((req, bytes)) }
}

/// Request and nodes in the body of a proof frame.
pub fn decode_proof(body: &[u8]) -> Result<(RequestId, Vec<[u8; 32]>), WireError> {
    let (req, bytes) = split_req(body).ok_or(bad_length(FrameKind::Proof, body))?;
    let (nodes, rest) = bytes.as_chunks::<32>();
    let right = rest.is_empty() && (1..=PROOF_NODES_MAX).contains(&nodes.len());
    if right { Ok((req, nodes.to_vec())) } else { Err(bad_length(FrameKind::Proof, body)) }
}

/// The request that a payload or proof belongs to, and the rest of the body.
fn split_req(body: &[u8]) -> Option<(RequestId, &[u8])> {
    body.split_first_chunk().map(|(req, rest)| (RequestId(u64::from_le_bytes(*req)), rest))
}

const fn bad_length(kind: FrameKind, body: &[u8]) -> WireError {
    WireError::BadLength { kind: kind.raw(), bytes: body.len() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::Run;
    use crate::wire::RUNS_MAX;

    #[test]
    fn heads_are_held_to_their_limits() {
        let parse = |kind: u8, len: usize| {
            let [a, b, c, d] = (len as u32).to_le_bytes();
            FrameHead::parse(&[a, b, c, d, kind], Stage::Open)
        };
        for (kind, least, most, step) in [(0, 1, 65_536, 1), (1, 9, 65_544, 1), (2, 40, 35_208, 32)] {
            for len in [least, least + step, most - step, most] {
                let head = parse(kind, len).unwrap();
                assert_eq!((head.kind.raw(), head.body_bytes as usize), (kind, len));
                assert_eq!(FrameHead::parse(&head.to_bytes(), Stage::Open), Ok(head));
            }
            assert_eq!(parse(kind, most + 1), Err(WireError::TooLong { bytes: most + 1, limit: most }));
            assert_eq!(parse(kind, u32::MAX as usize), Err(WireError::TooLong { bytes: u32::MAX as usize, limit: most }));
            assert_eq!(parse(kind, least - 1), Err(WireError::BadLength { kind, bytes: least - 1 }));
        }
        assert_eq!(parse(2, 41), Err(WireError::BadLength { kind: 2, bytes: 41 }));
        assert_eq!(parse(3, 1), Err(WireError::UnknownFrame(3)));
        assert_eq!(FrameHead::parse(&[0, 1, 0, 0, 1], Stage::BeforeHello), Err(WireError::BeforeHello(1)));
        assert_eq!(
            FrameHead::parse(&[1, 8, 0, 0, 0], Stage::BeforeHello),
            Err(WireError::TooLong { bytes: HELLO_BYTES_MAX + 1, limit: HELLO_BYTES_MAX })
        );
    }

    #[test]
    fn payload_and_proof_come_back() {
        let mut frame = payload_head(RequestId(1 << 40), 3).to_vec();
        frame.extend(b"pea");
        let head = FrameHead::parse(frame[..HEAD_BYTES].try_into().unwrap(), Stage::Open).unwrap();
        assert_eq!(head.body_bytes as usize, frame.len() - HEAD_BYTES);
        assert_eq!(decode_payload(&frame[HEAD_BYTES..]), Ok((RequestId(1 << 40), &b"pea"[..])));
        let nodes = [[1; 32], [2; 32]];
        let frame = encode_proof(RequestId(7), &nodes);
        assert_eq!(decode_proof(&frame[HEAD_BYTES..]), Ok((RequestId(7), nodes.to_vec())));
        for len in 0..REQ_BYTES + 1 {
            assert_eq!(decode_payload(&frame[..len]), Err(WireError::BadLength { kind: 1, bytes: len }));
            assert_eq!(decode_proof(&frame[..len]), Err(WireError::BadLength { kind: 2, bytes: len }));
        }
    }

    /// Every second piece of the largest content: 65,536 runs, which no single message carries.
    #[test]
    fn the_worst_holdings_travel_in_parts() {
        let runs: Vec<Run> = (0..65_536).map(|at| (at * 2, 1)).collect();
        let parts = Message::held(&runs, 9, 8);
        assert_eq!(parts.len(), 17);
        let mut back = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            let frame = encode_message(part).unwrap();
            match decode_message(&frame[HEAD_BYTES..]).unwrap() {
                Message::Held { runs, need: 9, queue_ms: 8 } if at == 0 => back.extend(runs),
                Message::Have { runs, need: 9, queue_ms: 8 } if at > 0 => back.extend(runs),
                other => panic!("part {at} is {other:?}"),
            }
        }
        assert_eq!(back, runs);
        assert_eq!(Message::held(&[], 1, 0).len(), 1, "holding nothing is said, too");
        let all = Message::Have { runs, need: 0, queue_ms: 0 };
        assert_eq!(encode_message(&all), Err(WireError::TooMany { what: "runs", count: 65_536, limit: RUNS_MAX }));
    }
}
