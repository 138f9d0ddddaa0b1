//! What the tasks of one session share, and the words in which they report to its driver.
//!
//! Everything here is either immutable, internally queued, or a counter. Reports travel in a bounded channel in which each
//! finished piece of work has reserved its place beforehand, so that a disk thread never waits for the driver.

use super::assembly::Assembly;
use super::budget::Budget;
use super::throttle::{Place, Throttle};
use super::turns::Turns;
use crate::discovery::Resolved;
use crate::manifest::TrustedManifest;
use crate::source::WebError;
use crate::storage::{CommitEnd, PublishError, Storage};
use crate::swarm::{Fault, Input};
use crate::unit::{Geometry, PieceIdx, RequestId};
use crate::wire::Message;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::mpsc;

/// Number of a link inside its session: a peer's second link is not its first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LinkNo(pub(super) u64);

/// Finished work.
#[derive(Debug)]
pub(super) enum Report {
    /// The last byte of a fetch came in.
    Received { req: RequestId },
    /// Blocks of a fetch are verified and kept; more of the piece is missing.
    Verified { req: RequestId },
    /// A peer sent wrong blocks.
    Corrupt { req: RequestId },
    /// A peer refused.
    Refused { req: RequestId, reason: u8, retry_after_ms: u32 },
    /// The disk answered.
    Commit { req: RequestId, piece: PieceIdx, end: CommitEnd },
    /// A serve ended.
    ServeEnded { link: LinkNo, req: RequestId, sent_bytes: u32, damaged: bool },
    /// A dial ended without a link, or a probe ended: what the swarm machine is to hear of it.
    DialEnded(Input),
    /// A disk that had refused takes writes again, or not.
    DiskProbed(Result<(), crate::Error>),
    /// The content is under its final name, or not.
    Published(Result<(), PublishError>),
    /// Host names were looked up.
    Resolved(Resolved),
    /// A web source gave its first answer.
    WebUp { link: LinkNo },
    /// A web source failed.
    WebDown { link: LinkNo, why: WebError },
    /// A web source sent a wrong piece that was not asked for.
    WebLied { link: LinkNo },
}

/// News of a link.
#[derive(Debug)]
pub(super) struct News {
    pub(super) link: LinkNo,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// A control message.
    Message(Message),
    /// Bytes of a fetch so far.
    Arrived { req: RequestId, bytes: u32 },
    /// The link ended; a fault if the peer broke the protocol.
    Down(Option<Fault>),
}

/// What a session's tasks share.
pub(super) struct Works {
    pub(super) pea: Arc<TrustedManifest>,
    pub(super) geometry: Geometry,
    pub(super) storage: Storage,
    pub(super) assembly: Assembly,
    pub(super) budget_in: Budget,
    pub(super) budget_out: Budget,
    /// The engine's and the session's.
    pub(super) upload: [Arc<Throttle>; 2],
    /// The engine's.
    pub(super) turns: Arc<Turns>,
    /// The engine's and the session's.
    pub(super) download: [Arc<Throttle>; 2],
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) news: mpsc::Sender<News>,
    /// Payload that came in for nobody.
    pub(super) wasted_bytes: AtomicU64,
}

impl Works {
    /// Waits until both rates let so many bytes pass.
    pub(super) async fn take(throttles: &[Arc<Throttle>; 2], bytes: u32) {
        Self::reach(throttles, &mut Default::default(), bytes).await;
    }

    /// The same, safe to drop half-way: it goes on with the same places, and uses them up.
    pub(super) async fn reach(throttles: &[Arc<Throttle>; 2], places: &mut [Place; 2], bytes: u32) {
        for (throttle, place) in throttles.iter().zip(places.iter_mut()) {
            throttle.reach(place, bytes).await;
        }
        *places = Default::default();
    }
}
