//! Frames over any stream of bytes: the two halves of a link, the same for every transport.
//!
//! What always holds: a length is checked before anything is allocated for it; at most one control or proof frame is held in
//! memory; payload goes from the stream right into the caller's slice. What must not come in: what a message means.

use super::{Incoming, LinkError, LinkReader, LinkWriter};
use crate::hash::Cv;
use crate::unit::RequestId;
use crate::wire::frame::{self, FrameHead, FrameKind, HEAD_BYTES, REQ_BYTES, Stage};
use crate::wire::{Message, WireError};
use std::io::{self, ErrorKind, IoSlice};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Receiving half of a link over `R`.
#[derive(Debug)]
pub struct FrameReader<R> {
    below: R,
    /// The frame being received: its head, the request of payload and proofs, the body of all but payload.
    frame: Vec<u8>,
    /// What of the announced payload is still to come.
    payload_left: usize,
    stage: Stage,
}

/// 16 KiB: read at once when payload is discarded.
const SKIP_BYTES: usize = 16 << 10;
/// 4 KiB: memory that a reader keeps between frames.
const KEPT_BYTES: usize = 4 << 10;

impl<R: AsyncRead + Unpin + Send + 'static> FrameReader<R> {
    /// Frames from this stream, which stands between two of them.
    pub fn new(below: R) -> Self {
        Self { below, frame: Vec::new(), payload_left: 0, stage: Stage::BeforeHello }
    }

    /// Reads until `frame` holds this many bytes. Safe to drop: what came stays in `frame`.
    async fn fill(&mut self, total: usize) -> Result<(), LinkError> {
        while self.frame.len() < total {
            let missing = total - self.frame.len();
            if (&mut self.below).take(missing as u64).read_buf(&mut self.frame).await? == 0 {
                return Err(if self.frame.is_empty() { LinkError::Closed } else { cut() });
            }
        }
        Ok(())
    }

    /// What the whole frame in `frame` says.
    fn judge(&mut self, head: FrameHead) -> Result<Incoming, LinkError> {
        let body = &self.frame[HEAD_BYTES..];
        match head.kind {
            FrameKind::Message => {
                let message = frame::decode_message(body).map_err(protocol)?;
                match (self.stage, &message) {
                    (Stage::BeforeHello, Message::Hello(_)) => self.stage = Stage::Open,
                    (Stage::BeforeHello, _) => return Err(LinkError::Protocol("the first message is not a hello")),
                    (Stage::Open, Message::Hello(_)) => return Err(LinkError::Protocol("a second hello")),
                    (Stage::Open, _) => {}
                }
                Ok(Incoming::Message(message))
            }
            FrameKind::Proof => {
                let (req, nodes) = frame::decode_proof(body).map_err(protocol)?;
                Ok(Incoming::Proof { req, nodes })
            }
            FrameKind::Payload => {
                let req = body.try_into().map(u64::from_le_bytes).expect("a payload frame was read up to its request");
                let len = head.body_bytes - REQ_BYTES as u32;
                self.payload_left = len as usize;
                Ok(Incoming::Payload { req: RequestId(req), len })
            }
        }
    }
}

impl<R: AsyncRead + Unpin + Send + 'static> LinkReader for FrameReader<R> {
    /// # Panics
    /// When announced payload was neither taken nor skipped.
    async fn next(&mut self) -> Result<Incoming, LinkError> {
        assert_eq!(self.payload_left, 0, "payload is taken or skipped before the next frame");
        self.fill(HEAD_BYTES).await?;
        let head = self.frame.first_chunk().expect("filled above");
        let head = FrameHead::parse(head, self.stage).map_err(protocol)?;
        let body_bytes = if head.kind == FrameKind::Payload { REQ_BYTES } else { head.body_bytes as usize };
        self.fill(HEAD_BYTES + body_bytes).await?;
        let incoming = self.judge(head);
        self.frame.clear();
        self.frame.shrink_to(KEPT_BYTES);
        incoming
    }

    /// # Panics
    /// When more is asked for than was announced.
    async fn payload(&mut self, into: &mut [u8]) -> Result<(), LinkError> {
        assert!(into.len() <= self.payload_left, "no more payload is taken than was announced");
        let mut filled = 0;
        while filled < into.len() {
            match self.below.read(&mut into[filled..]).await? {
                0 => return Err(cut()),
                count => filled += count,
            }
        }
        self.payload_left -= into.len();
        Ok(())
    }

    async fn skip(&mut self) -> Result<(), LinkError> {
        while self.payload_left > 0 {
            let count = self.payload_left.min(SKIP_BYTES);
            self.frame.clear();
            match (&mut self.below).take(count as u64).read_buf(&mut self.frame).await? {
                0 => return Err(cut()),
                count => self.payload_left -= count,
            }
        }
        self.frame.clear();
        Ok(())
    }
}

fn cut() -> LinkError {
    LinkError::Io(io::Error::new(ErrorKind::UnexpectedEof, "the link was cut in the middle of a frame"))
}

fn protocol(error: WireError) -> LinkError {
    LinkError::Protocol(match error {
        WireError::UnknownFrame(_) => "a frame of unknown kind",
        WireError::BeforeHello(_) => "a frame before the hello",
        WireError::TooLong { .. } => "a frame is too long",
        WireError::BadLength { .. } => "the length of a frame does not fit its kind",
        WireError::CutShort | WireError::Trailing { .. } => "a message does not fill its frame",
        WireError::Malformed | WireError::NotCanonical => "bytes that are no message",
        WireError::TooMany { .. } => "a list is too long",
        WireError::BadValue(_) => "an impossible value",
    })
}

/// Sending half of a link over `W`.
#[derive(Debug)]
pub struct FrameWriter<W> {
    below: W,
}

impl<W: AsyncWrite + Unpin + Send + 'static> FrameWriter<W> {
    /// Frames onto this stream.
    pub fn new(below: W) -> Self {
        Self { below }
    }

    /// The stream itself, between two frames.
    pub fn into_inner(self) -> W {
        self.below
    }

    /// Head and body in as few system calls as the stream allows, with no copy where it takes several slices.
    async fn send(&mut self, parts: [&[u8]; 2]) -> Result<(), LinkError> {
        let mut slices = parts.map(IoSlice::new);
        let mut left = &mut slices[..];
        while left.iter().any(|slice| !slice.is_empty()) {
            match self.below.write_vectored(left).await? {
                0 => return Err(LinkError::Io(ErrorKind::WriteZero.into())),
                count => IoSlice::advance_slices(&mut left, count),
            }
        }
        Ok(self.below.flush().await?)
    }
}

/// A stream whose share of the system's buffers can be limited.
pub trait Backlog {
    /// At most about this many bytes are to wait there, unsent. Best effort.
    fn limit_backlog(&self, bytes: u32);
}

impl<W: AsyncWrite + Backlog + Unpin + Send + 'static> LinkWriter for FrameWriter<W> {
    async fn message(&mut self, message: &Message) -> Result<(), LinkError> {
        let frame = frame::encode_message(message).map_err(protocol)?;
        self.send([&frame, &[]]).await
    }

    async fn payload(&mut self, req: RequestId, bytes: &[u8]) -> Result<(), LinkError> {
        self.send([&frame::payload_head(req, bytes.len()), bytes]).await
    }

    async fn proof(&mut self, req: RequestId, nodes: &[Cv]) -> Result<(), LinkError> {
        self.send([&frame::encode_proof(req, nodes), &[]]).await
    }

    async fn flush(&mut self) -> Result<(), LinkError> {
        Ok(self.below.flush().await?)
    }

    fn limit_backlog(&mut self, bytes: u32) {
        self.below.limit_backlog(bytes);
    }

    async fn finish(&mut self) {
        // Nobody is left to be told of a failure: a peer that does not see the end sees the connection go.
        let _ = self.below.shutdown().await;
    }
}
