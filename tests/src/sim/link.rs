//! A link: two halves, one per end. Each half keeps what its owner sends (serves in order) and what it waits for (fetches).

use super::event::{HalfRef, Ns};
use peas_core::unit::{BlockSpan, PieceSet, RequestId};
use peas_core::wire::Message;
use std::collections::VecDeque;

/// What a control message costs beside its body: IP and TCP headers, frame and record.
const MESSAGE_OVERHEAD_BYTES: u32 = 40;

/// A serve under way.
#[derive(Debug)]
pub(super) struct Serve {
    pub req: u64,
    pub bytes: u32,
    pub sent: u32,
    /// Whether the bytes are wrong.
    pub corrupt: bool,
    /// Whether it is never to be finished.
    pub stuck: bool,
}

/// A fetch under way.
#[derive(Debug)]
pub(super) struct Fetch {
    pub req: u64,
    pub span: BlockSpan,
    /// When each quantum on its way will have arrived, and the bytes so far by then.
    pub coming: VecDeque<(Ns, u32)>,
    /// Bytes that have arrived.
    pub received: u32,
    pub corrupt: bool,
    /// Whether the last byte came and the disk has it.
    pub checking: bool,
}

impl Fetch {
    pub fn new(req: RequestId, span: BlockSpan) -> Self {
        Self { req: req.0, span, coming: VecDeque::new(), received: 0, corrupt: false, checking: false }
    }

    /// Notes a quantum that will be there at `at`.
    pub fn expect(&mut self, now: Ns, at: Ns, bytes: u32) {
        self.received_by(now);
        self.coming.push_back((at, bytes));
    }

    /// Bytes that have arrived by `now`.
    pub fn received_by(&mut self, now: Ns) -> u32 {
        while let Some(&(at, bytes)) = self.coming.front() {
            if at > now {
                break;
            }
            self.received = bytes;
            self.coming.pop_front();
        }
        self.received
    }
}

/// One end of a link.
#[derive(Debug)]
pub(super) struct Half {
    pub generation: u32,
    /// Whether this end still thinks that the link is there.
    pub up: bool,
    pub owner: u32,
    pub peer: u32,
    /// What the owner sends, in order.
    pub serves: VecDeque<Serve>,
    /// Whether the half is in its owner's row.
    pub in_row: bool,
    /// When its next quantum is due; `None` while the way to the peer takes none.
    pub due: Option<Ns>,
    /// Quanta on their way to the peer: when that they came is known here, and how long they stood in queues.
    pub unacknowledged: VecDeque<(Ns, Ns)>,
    /// How long they stand there lately, smoothed as TCP does it.
    queued: Ns,
    /// What the owner waits for.
    pub fetches: Vec<Fetch>,
    /// Arrival of the last control message from the owner at the peer: TCP keeps their order.
    pub control_until: Ns,
    /// Nothing that the owner sends arrives before this time.
    pub stalled_until: Ns,
    /// When the next report of arriving bytes is due at the owner.
    pub report_at: Ns,
    /// What the peer has said to the owner that it holds.
    pub announced: Option<PieceSet>,
    /// Pieces that the peer assigned to the owner.
    pub assigned: Vec<u32>,
    /// Grants and assignments that the owner gave and that are not answered.
    pub granted: u32,
    /// Whether the owner has hung up and only waits to be told.
    pub hung_up: bool,
    /// When the peer last declined.
    pub declined_at: Option<Ns>,
}

impl Half {
    pub fn new(generation: u32, owner: u32, peer: u32) -> Self {
        Self {
            generation,
            up: true,
            owner,
            peer,
            serves: VecDeque::new(),
            in_row: false,
            due: None,
            unacknowledged: VecDeque::new(),
            queued: 0,
            fetches: Vec::new(),
            control_until: 0,
            stalled_until: 0,
            report_at: 0,
            announced: None,
            assigned: Vec::new(),
            granted: 0,
            hung_up: false,
            declined_at: None,
        }
    }

    /// How long what the owner sends stands in queues, as far as it knows by `now`.
    pub fn queued(&mut self, now: Ns) -> Ns {
        // A quantum is acknowledged by some six packets, each with an eighth of the weight: half together.
        while let Some((_, queued)) = self.unacknowledged.pop_front_if(|&mut (known_at, _)| known_at <= now) {
            self.queued = (self.queued + queued) / 2;
        }
        self.queued
    }
}

/// All links. The two halves of a link are neighbours: `half ^ 1` is the other end.
#[derive(Debug, Default)]
pub(super) struct Links {
    halves: Vec<Half>,
    free: Vec<u32>,
}

impl Links {
    /// Makes a link; returns the dialler's half.
    pub fn open(&mut self, dialer: u32, listener: u32) -> u32 {
        let half = self.free.pop().unwrap_or_else(|| {
            self.halves.extend([Half::new(0, 0, 0), Half::new(0, 0, 0)]);
            self.halves.len() as u32 - 2
        });
        for (at, owner, peer) in [(half, dialer, listener), (half + 1, listener, dialer)] {
            let generation = self[at].generation + 1;
            self.halves[at as usize] = Half::new(generation, owner, peer);
        }
        half
    }

    /// Closes one end; the slot is free when both are closed.
    pub fn close(&mut self, half: u32) {
        self[half].up = false;
        if !self[half ^ 1].up {
            self.free.push(half & !1);
        }
    }

    /// How the half is named in an event.
    pub fn name(&self, half: u32) -> HalfRef {
        HalfRef { half, generation: self[half].generation }
    }

    /// The half of an event, if its end is still up.
    pub fn live(&self, name: HalfRef) -> Option<u32> {
        let half = &self[name.half];
        (half.up && half.generation == name.generation).then_some(name.half)
    }
}

impl std::ops::Index<u32> for Links {
    type Output = Half;

    fn index(&self, half: u32) -> &Half {
        &self.halves[half as usize]
    }
}

impl std::ops::IndexMut<u32> for Links {
    fn index_mut(&mut self, half: u32) -> &mut Half {
        &mut self.halves[half as usize]
    }
}

/// Bytes of a control message on the wire.
pub(super) fn message_bytes(message: &Message) -> u32 {
    let runs_bytes = |runs: &[(u32, u32)]| 1 + runs.iter().map(|&(first, count)| number(first.into()) + number(count.into())).sum::<u32>();
    let body = match message {
        Message::Hello(hello) => 56 + hello.proof.len() as u32,
        Message::Held { runs, need, queue_ms } | Message::Have { runs, need, queue_ms } => {
            runs_bytes(runs) + number((*need).into()) + number((*queue_ms).into())
        }
        Message::Withdraw { runs } => runs_bytes(runs),
        Message::Credit { upload_bytes_per_s, .. } => 1 + number(*upload_bytes_per_s),
        Message::Assign { piece, lease_ms } => number((*piece).into()) + number((*lease_ms).into()),
        Message::Grant { .. } => 1,
        Message::Decline { .. } => 2,
        Message::Request { req, piece, .. } => number(*req) + number((*piece).into()) + 2,
        Message::Refuse { req, .. } => number(*req) + 4,
        Message::Cancel { req } => number(*req),
        Message::Members(records) => 1 + 60 * records.len() as u32,
        Message::Bye => 0,
    };
    MESSAGE_OVERHEAD_BYTES + 1 + body
}

/// Bytes of a number in the variable-length form of the codec.
fn number(value: u64) -> u32 {
    match value {
        0..251 => 1,
        251..0x1_0000 => 3,
        0x1_0000..0x1_0000_0000 => 5,
        _ => 9,
    }
}
