//! Control messages. One enum; the order of variants and fields is the format, frozen by golden vectors.

use super::{WireError, codec};
use crate::unit::{PeerId, Run};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Where a peer listens.
pub type Address = SocketAddr;

/// First message on every link, from both sides. Nothing else may come before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Protocol version of the sender: 1.
    pub version: u16,
    /// The pea id: which swarm this link belongs to. A listener that does not serve it hangs up.
    pub content: [u8; 32],
    /// Proof of knowing the swarm: what the policy asks for (empty in an open swarm).
    #[serde(deserialize_with = "codec::list")]
    pub proof: Vec<u8>,
    /// Port on which the sender accepts links; the address is the one the listener sees. `None`: it does not listen.
    pub listen_port: Option<u16>,
    /// Region label, 0 when unknown.
    pub region: u32,
    /// 1 while the sender hands out pieces as an origin.
    pub origin: bool,
    /// Bits of optional abilities; unknown bits are ignored.
    pub extensions: u64,
}

/// Who else, and for how long that is to be believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// The peer's public key.
    pub peer: [u8; 32],
    /// Where it was reached by whoever vouches for the record.
    pub addr: Address,
    /// Rises with each renewal by its owner.
    pub epoch: u64,
    /// Seconds since the owner's renewal, relays' dwell times included.
    pub age_s: u32,
    /// Seconds for which a renewal is good.
    pub ttl_s: u32,
    /// Share of the content that it holds, in thousandths.
    pub held_permille: u16,
    /// Region label, 0 when unknown.
    pub region: u32,
}

/// A control message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Who I am and which swarm I mean.
    Hello(Hello),
    /// Everything that I hold: the first word on pieces after the hello.
    Held {
        /// Ascending runs.
        #[serde(deserialize_with = "codec::list")]
        runs: Vec<Run>,
        /// Pieces that I lack and have not asked anyone for yet.
        need: u32,
        /// Milliseconds of work waiting in my upload queue.
        queue_ms: u32,
    },
    /// What I hold since the last word.
    Have {
        /// Ascending runs.
        #[serde(deserialize_with = "codec::list")]
        runs: Vec<Run>,
        /// As in `Held`.
        need: u32,
        /// As in `Held`.
        queue_ms: u32,
    },
    /// I no longer hold these (my disk lost them).
    Withdraw {
        /// Ascending runs.
        #[serde(deserialize_with = "codec::list")]
        runs: Vec<Run>,
    },
    /// To an origin: how many assignments I can take now, and how fast I pass pieces on.
    Credit {
        /// Assignments that I can take beyond those outstanding.
        pieces: u16,
        /// My measured upload rate, 0 when unknown.
        upload_bytes_per_s: u64,
    },
    /// From an origin: this piece is yours to fetch from me and to pass on.
    Assign {
        /// Piece.
        piece: u32,
        /// How long it is kept for you.
        lease_ms: u32,
    },
    /// Ask me for up to this many blocks.
    Grant {
        /// Blocks.
        blocks: u16,
        /// My uplink has nothing better to do: nobody else here lacks what I hold.
        spare: bool,
    },
    /// Not now: answer to a grant or an assignment.
    Decline {
        /// The piece of the assignment; `None` for a grant.
        piece: Option<u32>,
    },
    /// Send me these blocks: answer to a grant or an assignment.
    Request {
        /// Chosen by me.
        req: u64,
        /// Piece.
        piece: u32,
        /// First block.
        first: u16,
        /// How many blocks.
        count: u16,
    },
    /// You will not get this.
    Refuse {
        /// The request.
        req: u64,
        /// [`REFUSE_NOT_HELD`] or [`REFUSE_BUSY`].
        reason: u8,
        /// When to try again.
        retry_after_ms: u32,
    },
    /// I no longer want this; what is on its way is dropped.
    Cancel {
        /// The request.
        req: u64,
    },
    /// Who else is in the swarm. At most 50 records.
    Members(#[serde(deserialize_with = "codec::list")] Vec<MemberRecord>),
    /// I am leaving.
    Bye,
}

/// The sender does not hold the blocks (any more).
pub const REFUSE_NOT_HELD: u8 = 1;
/// The sender's queue is full, or nothing was granted.
pub const REFUSE_BUSY: u8 = 2;

/// Most runs in a message: 4,096 of them take at most 40 KiB.
pub const RUNS_MAX: usize = 4096;
/// Most records in [`Message::Members`].
pub const MEMBERS_MAX: usize = 50;
/// Most bytes in [`Hello::proof`]: a key, a signature and a certificate fit with room.
pub const PROOF_BYTES_MAX: usize = 1024;
/// Most blocks in a [`Message::Request`]: those of the largest piece.
pub const REQUEST_BLOCKS_MAX: u16 = 1024;
/// Runs that we put into one message: a bit less than is allowed.
const RUNS_PER_MESSAGE: usize = 4000;

impl Message {
    /// Everything that I hold, in as many messages as it takes: a `Held`, then `Have`s.
    pub fn held(runs: &[Run], need: u32, queue_ms: u32) -> Vec<Message> {
        let (first, rest) = runs.split_at(runs.len().min(RUNS_PER_MESSAGE));
        let mut messages = vec![Message::Held { runs: first.to_vec(), need, queue_ms }];
        messages.extend(Message::have(rest, need, queue_ms));
        messages
    }

    /// What I hold since the last word, in as many messages as it takes; no runs, no message.
    pub fn have(runs: &[Run], need: u32, queue_ms: u32) -> Vec<Message> {
        runs.chunks(RUNS_PER_MESSAGE).map(|runs| Message::Have { runs: runs.to_vec(), need, queue_ms }).collect()
    }

    /// All rules that need no knowledge of the content. Decoding has done this already.
    pub fn check(&self) -> Result<(), WireError> {
        match self {
            Message::Hello(hello) => at_most("bytes of proof", hello.proof.len(), PROOF_BYTES_MAX),
            Message::Held { runs, .. } | Message::Have { runs, .. } | Message::Withdraw { runs } => check_runs(runs),
            Message::Members(records) => {
                at_most("members", records.len(), MEMBERS_MAX)?;
                records.iter().try_for_each(MemberRecord::check)
            }
            Message::Request { count: 0, .. } => Err(WireError::BadValue("request for no blocks")),
            Message::Request { first, count, .. } if first.saturating_add(*count) > REQUEST_BLOCKS_MAX => {
                Err(WireError::BadValue("request past the largest piece"))
            }
            Message::Refuse { reason, .. } if ![REFUSE_NOT_HELD, REFUSE_BUSY].contains(reason) => Err(WireError::BadValue("reason")),
            _ => Ok(()),
        }
    }
}

fn at_most(what: &'static str, count: usize, limit: usize) -> Result<(), WireError> {
    if count > limit { Err(WireError::TooMany { what, count, limit }) } else { Ok(()) }
}

/// Ascending, none empty, with a gap between each and the next; whether they lie in the content is judged where it is known.
fn check_runs(runs: &[Run]) -> Result<(), WireError> {
    at_most("runs", runs.len(), RUNS_MAX)?;
    let mut next = None;
    for &(first, count) in runs {
        let end = first.checked_add(count).filter(|_| count > 0 && next.is_none_or(|next| first > next));
        next = Some(end.ok_or(WireError::BadValue("run"))?);
    }
    Ok(())
}

impl MemberRecord {
    /// Rules for each record, whoever sent it.
    pub fn check(&self) -> Result<(), WireError> {
        match self {
            Self { held_permille: 1001.., .. } => Err(WireError::BadValue("share held")),
            Self { addr, .. } if addr.port() == 0 => Err(WireError::BadValue("port")),
            _ => Ok(()),
        }
    }

    /// The peer as an identity.
    pub const fn peer_id(&self) -> PeerId {
        PeerId(self.peer)
    }
}
