//! What a host sees: progress is state, events are facts.

use crate::unit::PeerId;

/// What a session is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Reading and hashing what is already on disk.
    #[default]
    Checking,
    /// Receiving what is missing, and sharing what is there.
    Receiving,
    /// Everything is held; it is being put in place.
    Publishing,
    /// Sharing the whole content.
    Sharing,
    /// Over.
    Ended,
}

/// A session at one moment: always whole, always the latest.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// What it is doing.
    pub state: State,
    /// Why it stands still, if it does.
    pub paused: Option<PauseReason>,
    /// Pieces verified and written.
    pub pieces_done: u32,
    /// Pieces of the content.
    pub pieces_total: u32,
    /// Bytes verified and written.
    pub bytes_done: u64,
    /// Bytes of the content.
    pub bytes_total: u64,
    /// Bytes found on this machine: resumed, or taken from files that were there.
    pub bytes_reused: u64,
    /// Bytes received from origins.
    pub bytes_from_origin: u64,
    /// Bytes received from other peers.
    pub bytes_from_peers: u64,
    /// Bytes received from web sources.
    pub bytes_from_web: u64,
    /// Bytes received in vain: duplicates, corrupt blocks.
    pub bytes_wasted: u64,
    /// Bytes sent to others.
    pub bytes_sent: u64,
    /// Bytes per second received, over the last seconds.
    pub receive_bytes_per_s: u64,
    /// Bytes per second sent, over the last seconds.
    pub send_bytes_per_s: u64,
    /// Seconds to go at this rate; `None` when unknown.
    pub remaining_s: Option<f64>,
    /// Peers linked.
    pub peers: u32,
    /// Web sources that are fetched from, or stand ready.
    pub web_sources: u32,
    /// Peers known.
    pub members: u32,
    /// Missing pieces that no linked peer holds.
    pub pieces_unavailable: u32,
    /// Whether an origin is linked.
    pub origin_linked: bool,
}

/// Why a session stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseReason {
    /// The host said so.
    Host,
    /// The disk is full; goes on by itself.
    DiskFull,
    /// The disk refuses; goes on by itself when it takes writes again.
    DiskError,
}

/// A fact. Few, and the final ones (`Installed`, `Failed`, `Left`) are never lost.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// What was on disk is known; the swarm is joined.
    Started {
        /// Bytes that need not be fetched.
        bytes_reused: u64,
    },
    /// Everything is verified, durable and under its final name.
    Installed,
    /// The origin cannot be reached any more.
    OriginLost,
    /// The origin is back.
    OriginBack,
    /// A peer sent what the content does not contain, and was banned.
    PeerBanned {
        /// Who.
        peer: PeerId,
    },
    /// A web source gave nothing. Said once for each different reason, and again after it was of use.
    WebFailed {
        /// Its address, as in the pea.
        url: String,
        /// Why.
        message: String,
    },
    /// These many missing pieces have no linked holder; 0: all have one again.
    Unavailable {
        /// How many.
        missing_pieces: u32,
    },
    /// Stands still.
    Paused(PauseReason),
    /// Goes on.
    Resumed,
    /// A piece on this disk was damaged; it is withdrawn and fetched again.
    Damaged {
        /// Which.
        piece: u32,
    },
    /// Over, with an error: [`Error::code`](crate::Error::code) and its text.
    Failed {
        /// Stable number.
        code: u32,
        /// What to tell a person.
        message: String,
    },
    /// Over because the host left.
    Left,
    /// These many older events were dropped because nobody read them.
    Lagged {
        /// How many.
        missed: u64,
    },
}

impl Event {
    /// Whether it may never be dropped.
    pub fn is_final(&self) -> bool {
        matches!(self, Event::Installed | Event::Failed { .. } | Event::Left)
    }
}

/// How a session was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    /// What was being served was served to its end.
    pub drained: bool,
    /// Tasks that had to be aborted.
    pub tasks_aborted: u32,
}
