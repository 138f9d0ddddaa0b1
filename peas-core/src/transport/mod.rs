//! Links between peers: how bytes get from one engine to another, and whose bytes they are.
//!
//! A [`Transport`] makes links by dialling and by accepting. A [`Link`] comes out of its handshake with the key of the peer
//! proven; from then on its two halves live their own lives, one task each. [`TcpTransport`] is the one for the world: TCP, TLS 1.3
//! between raw Ed25519 keys. `memory` (tests and simulators) carries the same frames through pipes.
//!
//! What always holds: nothing that a peer sends makes this room panic, allocate more than one frame, or wait for longer than
//! the handshake's limit before its key is proven. What must not come in: any choice of whom to call, what to ask and when.
//!
//! No task is spawned here. Everything runs in the caller's tasks and ends when they drop it.
//!
//! Sockets are written with `MSG_NOSIGNAL` throughout, several slices at once too, so that a peer which hangs up cannot raise
//! SIGPIPE in a host that leaves the signal at its default. The engine blocks the signal on its threads all the same.

mod buffers;
mod frames;
mod gate;
mod identity;
mod keys;
#[cfg(any(test, feature = "simulation"))]
pub mod memory;
mod outlet;
mod primitives;
mod record;
mod streams;
mod tcp;
mod tls;

pub use frames::{Backlog, FrameReader, FrameWriter};
pub use identity::Identity;
pub use outlet::Outlet;
pub use streams::{TcpInbound, TcpOutbound};
pub(crate) use tcp::descriptors_max;
pub use tcp::{TcpOptions, TcpRaw, TcpTransport};

use crate::hash::Cv;
use crate::unit::{PeerId, RequestId};
use crate::wire::Message;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Why a link is no more, or never was.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The network: refused, reset, cut in the middle of something.
    #[error("{0}")]
    Io(io::Error),
    /// What came breaks the framing or the codec, is too long, or was altered on the way.
    #[error("protocol: {0}")]
    Protocol(&'static str),
    /// Handshake failed or took too long.
    #[error("handshake: {0}")]
    Handshake(String),
    /// Another key answered than expected: this one.
    #[error("handshake: somebody else answered, {0}")]
    Stranger(PeerId),
    /// The peer ended its sending side, between two frames.
    #[error("closed")]
    Closed,
}

impl From<io::Error> for LinkError {
    /// Layers below say `InvalidData` for what no honest peer sends.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData => LinkError::Protocol("a record is not what the peer sealed"),
            _ => LinkError::Io(error),
        }
    }
}

/// What a link brings next. Payload bytes must be taken (or skipped) before the next `next`.
#[derive(Debug)]
pub enum Incoming {
    /// A control message.
    Message(Message),
    /// This many payload bytes of the request follow (at most 64 KiB), in order.
    Payload {
        /// The request that they answer.
        req: RequestId,
        /// How many bytes, at least one.
        len: u32,
    },
    /// Proof nodes of the request's span; come before its first payload.
    Proof {
        /// The request that they answer.
        req: RequestId,
        /// The nodes, in the order of [`SpanProof`](crate::hash::SpanProof).
        nodes: Vec<Cv>,
    },
}

/// Receiving half.
pub trait LinkReader: Send + 'static {
    /// Waits for the next frame. May be dropped half-way and called again: what came so far is kept.
    fn next(&mut self) -> impl Future<Output = Result<Incoming, LinkError>> + Send;
    /// Fills `into` from the payload announced by the last `next`; `into` may be shorter than what remains of it, not longer.
    /// Dropped half-way, the link must be closed.
    fn payload(&mut self, into: &mut [u8]) -> impl Future<Output = Result<(), LinkError>> + Send;
    /// Discards what remains of the payload. May be dropped half-way and called again.
    fn skip(&mut self) -> impl Future<Output = Result<(), LinkError>> + Send;
}

/// Sending half. Each call returns when the bytes are with the network (a small backlog apart). Dropping a call half-way
/// breaks the link.
pub trait LinkWriter: Send + 'static {
    /// Sends a control message. A message longer than a frame may be is `Protocol`, and nothing is sent.
    fn message(&mut self, message: &Message) -> impl Future<Output = Result<(), LinkError>> + Send {
        self.messages(std::slice::from_ref(message))
    }
    /// Sends control messages together: of short ones many fit a packet. If one is longer than a frame may be, none is sent.
    fn messages(&mut self, messages: &[Message]) -> impl Future<Output = Result<(), LinkError>> + Send;
    /// Sends payload, 1 byte to 64 KiB.
    fn payload(&mut self, req: RequestId, bytes: &[u8]) -> impl Future<Output = Result<(), LinkError>> + Send;
    /// Sends proof nodes, as many as fit a frame (2048).
    fn proof(&mut self, req: RequestId, nodes: &[Cv]) -> impl Future<Output = Result<(), LinkError>> + Send;
    /// Returns when nothing waits above the network.
    fn flush(&mut self) -> impl Future<Output = Result<(), LinkError>> + Send;
    /// At most about this many bytes are to wait in the system's own buffers: what a control message may have to wait behind.
    fn limit_backlog(&mut self, bytes: u32);
    /// What the network takes to the peer and back, if the system tells.
    fn round_trip(&self) -> Option<RoundTrip>;
    /// Ends the sending side politely: the peer's reader says [`LinkError::Closed`].
    fn finish(&mut self) -> impl Future<Output = ()> + Send;
}

/// What the network takes to a peer and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTrip {
    /// The least within some minutes: the way.
    pub least: Duration,
    /// Lately, smoothed: the way, and the queues on it.
    pub lately: Duration,
}

impl RoundTrip {
    /// What stands in queues.
    pub fn queue(&self) -> Duration {
        self.lately.saturating_sub(self.least)
    }
}

/// A link fresh from its handshake: the peer's key is proven.
#[derive(Debug)]
pub struct Link<R, W> {
    /// Whose key was proven.
    pub peer: PeerId,
    /// What only the two ends of this very connection know, hashed: equal at both, different on every other connection, so that a proof
    /// made for it is of no use elsewhere.
    pub binding: [u8; 32],
    /// The far end of the connection. For an accepted link this is not where the peer listens.
    pub addr: SocketAddr,
    /// How long an answer of the peer took when the link was made, if that was measured.
    pub round_trip: Option<Duration>,
    /// Receiving half.
    pub reader: R,
    /// Sending half.
    pub writer: W,
}

/// The link that a transport makes.
pub type LinkOf<T> = Link<<T as Transport>::Reader, <T as Transport>::Writer>;

/// A connection that has proven nothing.
pub trait Unproven: Send + 'static {
    /// The far end.
    fn addr(&self) -> SocketAddr;
}

/// Makes and accepts links. One per engine.
pub trait Transport: Send + Sync + 'static {
    /// Receiving half of its links.
    type Reader: LinkReader;
    /// Sending half of its links.
    type Writer: LinkWriter;
    /// A connection before its handshake.
    type Raw: Unproven;
    /// Connects and proves both keys within `timeout`. Wrong key: `Handshake`. Safe to drop.
    fn dial(
        &self,
        addr: SocketAddr,
        expect: Option<PeerId>,
        timeout: Duration,
    ) -> impl Future<Output = Result<LinkOf<Self>, LinkError>> + Send
    where
        Self: Sized;
    /// The next raw connection; its handshake is done by `accept` on a task of its own, so that a slow stranger holds up nobody.
    /// Safe to drop. Waits for ever when there is no listener.
    fn incoming(&self) -> impl Future<Output = Result<Self::Raw, LinkError>> + Send;
    /// Proves both keys within `timeout` (10 s at most). Safe to drop.
    fn accept(&self, raw: Self::Raw, timeout: Duration) -> impl Future<Output = Result<LinkOf<Self>, LinkError>> + Send
    where
        Self: Sized;
    /// Where others reach us; `None`: nowhere.
    fn listen_addr(&self) -> Option<SocketAddr>;
}

/// 10 s: longest handshake that an accepted connection may take, whatever the caller allows. A far peer needs two round trips;
/// a stranger who says nothing must not keep a place (the other end of the measure is libtorrent's default, 10 s too).
pub(crate) const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
