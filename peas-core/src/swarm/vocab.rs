//! The words of the machine: facts that go in, requests that come out.

use crate::unit::{BlockSpan, PeerId, PieceIdx, RequestId, Span};
use crate::wire::{Hello, Message};
use std::net::SocketAddr;

/// Evidence that a piece was verified and written. Only room `storage` makes it (the simulator, too, behind its feature), so
/// nothing is announced that no disk holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Committed {
    piece: PieceIdx,
}

impl Committed {
    /// For `storage` alone: `tests/house.rs` checks that no other room calls it.
    #[cfg(feature = "engine")]
    pub(crate) const fn witnessed(piece: PieceIdx) -> Self {
        Self { piece }
    }

    /// For simulators, whose disks are pretended.
    #[cfg(any(test, feature = "simulation"))]
    pub const fn simulated(piece: PieceIdx) -> Self {
        Self { piece }
    }

    /// Which piece.
    pub const fn piece(&self) -> PieceIdx {
        self.piece
    }
}

/// An address worth trying, and who said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where.
    pub addr: SocketAddr,
    /// Who must answer there; `None` when only an address is known.
    pub peer: Option<PeerId>,
    /// Where the address came from.
    pub via: Via,
}

/// Where an address came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// Signed into the pea, or given by the caller.
    Bootstrap,
    /// The unsigned owners list of the pea.
    Owners,
    /// Remembered from an earlier run.
    Remembered,
}

/// How a fetch ended.
#[derive(Debug, PartialEq, Eq)]
pub enum FetchEnd {
    /// The blocks arrived and are right; the piece is not whole yet.
    Verified,
    /// The blocks arrived, the piece is whole, right and written.
    Committed(Committed),
    /// The sender sent something else.
    Corrupt,
    /// The sender refused ([`Message::Refuse`]'s fields).
    Refused {
        /// Why.
        reason: u8,
        /// When to try again.
        retry_after_ms: u32,
    },
    /// The blocks arrived, but the disk did not take the piece; everything of it is to be fetched again.
    Unwritten,
}

/// A fact.
#[derive(Debug)]
pub enum Input {
    /// A link was made and both hellos were exchanged. The driver checked that `hello.content` is ours.
    LinkUp {
        /// Who.
        peer: PeerId,
        /// Where from: the peer's address as we see it (for an accepted link its port is a passing one).
        addr: SocketAddr,
        /// Whether we dialled.
        dialed: bool,
        /// How long an answer took while the link was made, if that is known.
        round_trip: Option<Span>,
        /// What it said.
        hello: Hello,
    },
    /// A link ended.
    LinkDown {
        /// Who.
        peer: PeerId,
    },
    /// A dial ended without a link.
    DialFailed {
        /// Where.
        addr: SocketAddr,
        /// Somebody else answered than who was expected.
        stranger: bool,
    },
    /// A probe ended without an answer by the right key.
    ProbeFailed {
        /// Where.
        addr: SocketAddr,
    },
    /// A probe succeeded: the peer accepts links there.
    Probed {
        /// Where.
        addr: SocketAddr,
        /// Who.
        peer: PeerId,
    },
    /// A control message came (never [`Message::Hello`]).
    Message {
        /// From whom.
        peer: PeerId,
        /// What.
        message: Message,
    },
    /// Addresses worth trying.
    Candidates(Vec<Candidate>),
    /// Bytes of a fetch came in (reported at most every 50 ms per link, and not needed for the fetch to end).
    Arrived {
        /// The fetch.
        req: RequestId,
        /// Bytes so far, in all.
        bytes: u32,
    },
    /// The last byte of a fetch came in and is being checked and written: the link is free for the next.
    Received {
        /// The fetch.
        req: RequestId,
    },
    /// A fetch ended. Not sent after [`Output::Cancel`] or for fetches of a link that went down.
    FetchEnded {
        /// The fetch.
        req: RequestId,
        /// How.
        end: FetchEnd,
    },
    /// The last byte of a serve was handed to the network (or the serve failed or was cancelled). Not sent for links that went down.
    ServeEnded {
        /// To whom.
        peer: PeerId,
        /// The request.
        req: RequestId,
        /// Bytes that left.
        sent_bytes: u32,
        /// Whether our own copy turned out to be damaged or unreadable: the piece is to be withdrawn.
        damaged: bool,
    },
    /// The network turns out to take no more than this to a peer and back.
    RoundTrip {
        /// Which one.
        peer: PeerId,
        /// Least time that was measured.
        took: Span,
    },
    /// A piece was found on disk that was not known before (repair, reuse of old files).
    Found(Committed),
    /// A piece on our disk turned out to be damaged.
    Damaged(PieceIdx),
    /// The host wants something.
    Order(Order),
    /// [`Swarm::deadline`](super::Swarm::deadline) has passed. Any other input does as well.
    Timeout,
}

/// What the host may want of a running swarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Neither ask nor serve until resumed; links stay.
    Pause,
    /// Go on.
    Resume,
    /// The disk does not take pieces for now: ask for nothing, go on serving.
    HoldFetches,
    /// The disk takes pieces again.
    ReleaseFetches,
    /// Say goodbye to all; ask for nothing and grant nothing more. What is granted is still served.
    Leave,
    /// The most this swarm may send, 0 for no limit: what grants are planned by.
    UploadLimit {
        /// Bytes per second.
        bytes_per_s: u64,
    },
    /// The most this swarm may receive, 0 for no limit.
    DownloadLimit {
        /// Bytes per second.
        bytes_per_s: u64,
    },
    /// End the link to this peer and take it no more.
    Ban {
        /// Who.
        peer: PeerId,
    },
}

/// A request of the machine.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Make a link. Answered by `LinkUp` or `DialFailed`.
    Dial {
        /// Where.
        addr: SocketAddr,
        /// Who must answer; `None` for anyone.
        peer: Option<PeerId>,
    },
    /// Find out whether this peer accepts links there: connect, prove both keys, close without a hello. Answered by `Probed` or
    /// `ProbeFailed`. Only then may the address be told to others.
    Probe {
        /// Where.
        addr: SocketAddr,
        /// Who must answer.
        peer: PeerId,
    },
    /// Send a control message.
    Send {
        /// To whom.
        peer: PeerId,
        /// What.
        message: Message,
    },
    /// Expect these blocks from this peer, then send it the matching [`Message::Request`].
    Fetch {
        /// Chosen here.
        req: RequestId,
        /// From whom.
        from: PeerId,
        /// What.
        span: BlockSpan,
    },
    /// Forget a fetch and send [`Message::Cancel`]; what still comes is dropped.
    Cancel {
        /// The fetch.
        req: RequestId,
        /// From whom it was.
        from: PeerId,
    },
    /// Read these blocks and send them, after what is already queued for this peer. Answered by `ServeEnded`.
    Serve {
        /// The asker's id.
        req: RequestId,
        /// To whom.
        to: PeerId,
        /// What.
        span: BlockSpan,
    },
    /// Drop a serve that has not been sent yet. Still answered by `ServeEnded`.
    StopServe {
        /// The asker's id.
        req: RequestId,
        /// To whom it was.
        to: PeerId,
    },
    /// End a link. Answered by `LinkDown`.
    Hangup {
        /// Who.
        peer: PeerId,
        /// Why.
        why: Fault,
    },
    /// Something the host may want to know.
    Notice(Notice),
}

/// Why a link is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// It sent bytes that are not the content's.
    Corrupt,
    /// It broke the protocol.
    Protocol,
    /// It did not deliver what it said it holds, again and again.
    Unreliable,
    /// It sent nothing that helps for too long.
    Idle,
    /// It is banned.
    Banned,
    /// It is us, or a second link to a peer that has one.
    Duplicate,
    /// We have enough neighbours.
    Full,
    /// We are leaving.
    Leaving,
    /// Its queue of control messages overflowed.
    Slow,
}

/// What the machine tells the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// All pieces are held.
    Whole,
    /// The origin cannot be reached any more.
    OriginLost,
    /// The origin is back.
    OriginBack,
    /// A peer was banned.
    Banned {
        /// Who.
        peer: PeerId,
        /// For what.
        why: Fault,
    },
    /// No connected peer holds these many pieces that we lack. Zero: everything is available again.
    Unavailable {
        /// How many.
        missing_pieces: u32,
    },
    /// A piece of ours was withdrawn and will be fetched again.
    Damaged {
        /// Which.
        piece: PieceIdx,
    },
}
