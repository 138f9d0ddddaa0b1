//! Frames over any stream of bytes: the two halves of a link, the same for every transport.
//!
//! What always holds: a length is checked before anything is allocated for it; at most one control or proof frame is held in
//! memory; payload goes from the stream right into the caller's slice; a frame that has begun to come or to go ends within
//! [`FRAME_MAX`] and a little more for its length, or the link does. What must not come in: what a message means.

use super::{Incoming, LinkError, LinkReader, LinkWriter, RoundTrip};
use crate::hash::Cv;
use crate::unit::RequestId;
use crate::wire::frame::{self, FrameHead, FrameKind, HEAD_BYTES, REQ_BYTES, Stage};
use crate::wire::{Message, WireError};
use std::io::{self, ErrorKind, IoSlice};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

/// Receiving half of a link over `R`.
#[derive(Debug)]
pub struct FrameReader<R> {
    below: R,
    /// The frame being received: its head, the request of payload and proofs, the body of all but payload.
    frame: Vec<u8>,
    /// What of the announced payload is still to come.
    payload_left: usize,
    stage: Stage,
    /// When the first byte of `frame` came.
    begun: Option<Instant>,
}

/// 10 s for any frame, and 5 s more for each 16 KiB of it: slower than the slowest path that is of use, and fast enough that who sends a
/// byte now and then, or takes none, is rid of within 20 s (a new link's payload comes in frames of 16 KiB).
const FRAME_MAX: Duration = Duration::from_secs(10);
const MORE_TIME: Duration = Duration::from_secs(5);
const MORE_TIME_BYTES: usize = 16 << 10;

fn time_for(bytes: usize) -> Duration {
    FRAME_MAX + MORE_TIME.mul_f64(bytes as f64 / MORE_TIME_BYTES as f64)
}

/// 16 KiB: read at once when payload is discarded.
const SKIP_BYTES: usize = 16 << 10;
/// 4 KiB: memory that a reader keeps between frames.
const KEPT_BYTES: usize = 4 << 10;

impl<R: AsyncRead + Unpin + Send + 'static> FrameReader<R> {
    /// Frames from this stream, which stands between two of them.
    pub fn new(below: R) -> Self {
        Self { below, frame: Vec::new(), payload_left: 0, stage: Stage::BeforeHello, begun: None }
    }

    /// Reads until `frame` holds this many bytes. Safe to drop: what came stays in `frame`.
    async fn fill(&mut self, total: usize) -> Result<(), LinkError> {
        while self.frame.len() < total {
            let missing = total - self.frame.len();
            let mut rest = (&mut self.below).take(missing as u64);
            let read = rest.read_buf(&mut self.frame);
            let count = match self.begun {
                Some(begun) => timeout_at(begun + time_for(total), read).await.map_err(|_| slow())??,
                None => read.await?,
            };
            if count == 0 {
                return Err(if self.frame.is_empty() { LinkError::Closed } else { cut() });
            }
            self.begun.get_or_insert_with(Instant::now);
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
        self.begun = None;
        self.frame.clear();
        self.frame.shrink_to(KEPT_BYTES);
        incoming
    }

    /// # Panics
    /// When more is asked for than was announced.
    async fn payload(&mut self, into: &mut [u8]) -> Result<(), LinkError> {
        assert!(into.len() <= self.payload_left, "no more payload is taken than was announced");
        let time = time_for(into.len());
        let fill = async {
            let mut filled = 0;
            while filled < into.len() {
                match self.below.read(&mut into[filled..]).await? {
                    0 => return Err(cut()),
                    count => filled += count,
                }
            }
            Ok(())
        };
        timeout(time, fill).await.map_err(|_| slow())??;
        self.payload_left -= into.len();
        Ok(())
    }

    async fn skip(&mut self) -> Result<(), LinkError> {
        let late = Instant::now() + time_for(self.payload_left);
        while self.payload_left > 0 {
            let count = self.payload_left.min(SKIP_BYTES);
            self.frame.clear();
            let mut rest = (&mut self.below).take(count as u64);
            match timeout_at(late, rest.read_buf(&mut self.frame)).await.map_err(|_| slow())?? {
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

fn slow() -> LinkError {
    LinkError::Io(io::Error::new(ErrorKind::TimedOut, "the peer stands still in the middle of a frame"))
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
        let bytes = parts.iter().map(|part| part.len()).sum();
        let write = async {
            let mut slices = parts.map(IoSlice::new);
            let mut left = &mut slices[..];
            while left.iter().any(|slice| !slice.is_empty()) {
                match self.below.write_vectored(left).await? {
                    0 => return Err(LinkError::Io(ErrorKind::WriteZero.into())),
                    count => IoSlice::advance_slices(&mut left, count),
                }
            }
            Ok(self.below.flush().await?)
        };
        timeout(time_for(bytes), write).await.map_err(|_| slow())?
    }
}

/// A stream whose share of the system's buffers can be limited, and of which the system may know how far it goes.
pub trait Backlog {
    /// At most about this many bytes are to wait there, unsent. Best effort.
    fn limit_backlog(&self, bytes: u32);
    /// See [`LinkWriter::round_trip`].
    fn round_trip(&self) -> Option<RoundTrip>;
}

impl<W: AsyncWrite + Backlog + Unpin + Send + 'static> LinkWriter for FrameWriter<W> {
    async fn messages(&mut self, messages: &[Message]) -> Result<(), LinkError> {
        let frames: Result<Vec<_>, _> = messages.iter().map(frame::encode_message).collect();
        self.send([&frames.map_err(protocol)?.concat(), &[]]).await
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

    fn round_trip(&self) -> Option<RoundTrip> {
        self.below.round_trip()
    }

    async fn finish(&mut self) {
        // Nobody is left to be told of a failure: a peer that does not see the end sees the connection go.
        let _ = self.below.shutdown().await;
    }
}
