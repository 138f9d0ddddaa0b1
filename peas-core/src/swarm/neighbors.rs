//! The peers we have links to, and what each of them told us.

use super::rates::Speed;
use super::slots::{OfPeer, Slots};
use crate::unit::{BlockSpan, PeerId, PieceSet, RequestId, Span, Time};
use std::collections::VecDeque;
use std::net::SocketAddr;

/// A permission to ask us that was not used yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Permit {
    /// Given for this piece (an assignment), or for any (a grant).
    pub piece: Option<crate::unit::PieceIdx>,
    pub blocks: u16,
    pub bytes: u64,
    pub at: Time,
    pub until: Time,
}

/// A request that we are serving.
#[derive(Clone, Copy, Debug)]
pub(super) struct Serving {
    pub req: RequestId,
    pub span: BlockSpan,
    /// Room that it takes in the queue: its length, or nothing when it is served beside others.
    pub bytes: u64,
    pub since: Time,
    /// Serves that began after this one and ended before it.
    pub overtaken: u32,
}

/// A linked peer.
#[derive(Clone, Debug)]
pub(super) struct Neighbor {
    pub peer: PeerId,
    /// As we see it.
    pub addr: SocketAddr,
    /// Where it says it accepts links: the address we see with the port it claims, or what we dialled.
    pub listen: Option<SocketAddr>,
    pub dialed: bool,
    pub region: u32,
    /// Least time that an answer of it took.
    pub round_trip: Option<Span>,
    /// It is in another region than we are; and where what it holds counts as being. Both are settled now and then, by `regions`.
    pub is_far: bool,
    pub place: Place,
    pub is_origin: bool,

    // What it told us.
    pub held: PieceSet,
    pub told_held: bool,
    pub need: u32,
    pub queue_ms: u32,
    /// When it last announced something.
    pub news_at: Time,

    // What we told it: everything up to here of the log of commits, and when.
    pub log_at: usize,
    pub told_at: Time,
    pub told_need: u32,
    pub told_whole: bool,

    // Sending to it.
    /// Pieces that we hold and it does not.
    pub lacks: u32,
    pub permits: VecDeque<Permit>,
    pub serving: Vec<Serving>,
    /// Its way is narrower than our uplink: it is served beside others, one request at a time.
    pub is_slow: bool,
    pub backoff_until: Time,
    /// Grants that it declined in a row while neither of us had news for the other.
    pub declines: u8,
    /// It uses what it is permitted: it asked for something lately, and has left no permit lying since.
    pub answers: bool,
    /// It takes what it asks for, as far as we saw; `newcomers` settles this and the next three.
    pub takes: bool,
    /// It lets a permit lie, and has used none since.
    pub lets_lie: bool,
    /// Permits given behind a serve that it used.
    pub answered: u8,
    /// When something was last sent to it: handed to the system, that is.
    pub served_at: Option<Time>,
    /// It has asked for something at all.
    pub has_asked: bool,
    /// Times in a row that it let its permits lapse.
    pub vain: u8,
    pub linked_at: Time,
    /// Assignments that it will take (origins count this).
    pub credit: u32,
    /// Until when others are assigned to before it: it gave back what it was assigned.
    pub behind_until: Time,
    /// Bytes per second at which it says it passes pieces on, 0 when unknown.
    pub claimed_upload: u64,

    // Receiving from it.
    /// A grant of this many blocks that we have no use for yet, and since when.
    pub kept_grant: Option<(u16, Time)>,
    pub fetches: Vec<RequestId>,
    pub speed: Speed,
    pub received_at: Time,
    pub proven: bool,
    /// Since when it offers what we lack and gives us nothing; for long: it owes us. `regions` settles both.
    pub offers_since: Time,
    pub owes: bool,
    /// Half strikes: promises of pieces not kept. And when the last one was.
    pub half_strikes: u8,
    pub struck_at: Time,
    /// Assignments that we still allow it to make (clients of origins count this).
    pub credit_out: u32,
}

/// Where what a neighbour holds counts as being.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Near,
    Far,
    /// With an origin, a web server, somebody whose distance is not known yet, or somebody near who does not give what it says it has:
    /// it has got to nobody that we could place or count on.
    Source,
}

impl Neighbor {
    pub fn new(peer: PeerId, addr: SocketAddr, held: PieceSet, now: Time) -> Self {
        Self {
            peer,
            addr,
            listen: None,
            dialed: false,
            region: 0,
            round_trip: None,
            is_far: false,
            place: Place::Source,
            is_origin: false,
            held,
            told_held: false,
            need: u32::MAX,
            queue_ms: 0,
            news_at: now,
            log_at: 0,
            told_at: now,
            told_need: 0,
            told_whole: false,
            lacks: 0,
            permits: VecDeque::new(),
            serving: Vec::new(),
            is_slow: false,
            backoff_until: Time::ZERO,
            declines: 0,
            answers: false,
            takes: false,
            lets_lie: false,
            answered: 0,
            served_at: None,
            has_asked: false,
            vain: 0,
            linked_at: now,
            credit: 0,
            behind_until: Time::ZERO,
            claimed_upload: 0,
            kept_grant: None,
            fetches: Vec::new(),
            speed: Speed::default(),
            received_at: now,
            proven: false,
            offers_since: now,
            owes: false,
            half_strikes: 0,
            struck_at: now,
            credit_out: 0,
        }
    }

    pub fn note_round_trip(&mut self, took: Span) {
        self.round_trip = Some(self.round_trip.map_or(took, |least| least.min(took)));
    }

    /// Whether a grant to it may be of use now; `permits_max` of them at once if it is known to use them.
    pub fn may_be_granted(&self, now: Time, permits_max: usize) -> bool {
        let permits_max = if self.answers && !self.is_slow && !self.is_far { permits_max } else { 1 };
        self.told_held
            && self.lacks as usize > self.serving.len()
            && self.permits.len() < permits_max
            && self.backoff_until <= now
            && self.may_be_served()
    }

    /// Whether one more request of it may be served.
    pub fn may_be_served(&self) -> bool {
        !self.is_slow || (self.serving.is_empty() && self.permits.is_empty())
    }

    /// One of us has something new for the other: a long rest after many declines is over.
    pub fn has_news(&mut self, now: Time) {
        if self.declines > DECLINES_USUAL {
            self.backoff_until = self.backoff_until.min(now);
        }
        self.declines = 0;
    }

    /// Whether we wait to see if it answers at all: its permit is younger than this.
    pub fn is_on_trial(&self, now: Time, trial: Span) -> bool {
        !self.answers && self.permits.back().is_some_and(|permit| now.since(permit.at) < trial)
    }

    /// Whether its place is better given to somebody who wants it: it lets a permit lie, or it has been here for long and nothing was
    /// ever exchanged.
    pub fn wastes_its_place(&self, now: Time) -> bool {
        let lets_lie = !self.answers && self.permits.front().is_some_and(|permit| now.since(permit.at) >= LEFT_LYING);
        lets_lie || (!self.has_asked && !self.proven && now.since(self.linked_at) >= IDLE_PLACE)
    }

    /// Whether its place may be given to one of the same crowd: it came lately, by itself, and nothing is under way. Those whom we dialled stay,
    /// so that nobody is surrounded by who knocks most often.
    pub fn may_give_way(&self, now: Time) -> bool {
        let is_young = !self.dialed && self.told_held && now.since(self.linked_at) < CROWD_LASTS;
        is_young && self.permits.is_empty() && self.serving.is_empty() && self.fetches.is_empty()
    }

    /// Whether neither side can help the other any more.
    pub fn is_whole(&self) -> bool {
        self.told_held && self.held.is_full()
    }
}

/// Declines in a row that mean nothing but a full window; each further one doubles the time until the next grant.
pub(super) const DECLINES_USUAL: u8 = 4;

/// Grants outstanding to one peer; more where the queue, shared among few, should hold more for it. Two: one being answered, one behind it,
/// so that its uplink of requests never runs dry.
pub(super) const PERMITS_PER_PEER_USUAL: usize = 2;

/// The most, whatever our uplink may do: as many as a peer has fetches. What is granted at once must also leave the link faster than its
/// messages may pile up: an uplink taken for too fast made us end links that had nothing wrong.
pub(super) const PERMITS_PER_PEER_MAX: usize = 128;

/// Peers that are not known to answer and hold a young permit, at most. What they are permitted does not count as
/// queued: a peer that takes grants and says nothing must not hold up those who use theirs. 3: what a queue of three pieces begins with.
const ON_TRIAL_MAX: usize = 3;

/// A permit that was left lying for 1 s costs a peer its place, and one with whom nothing was exchanged for 30 s has no claim to one either,
/// as soon as somebody else wants it.
const LEFT_LYING: Span = Span::s(1);
const IDLE_PLACE: Span = Span::s(30);

/// Links of one crowd come within this time.
const CROWD_LASTS: Span = Span::s(60);

/// All linked peers.
pub(super) type Neighbors = Slots<Neighbor>;

impl OfPeer for Neighbor {
    fn peer(&self) -> PeerId {
        self.peer
    }
}

impl Neighbors {
    /// Whether one more that is not known to answer may be tried.
    pub fn may_try_one(&self, now: Time, trial: Span) -> bool {
        self.iter().filter(|neighbor| neighbor.is_on_trial(now, trial)).count() < ON_TRIAL_MAX
    }

    pub fn has_origin(&self) -> bool {
        self.iter().any(|neighbor| neighbor.is_origin)
    }
}

/// How long a peer may leave a grant unanswered. 5 s: twice the worst round trip we mean to serve, plus a busy host.
pub(super) const PERMIT_LIFE: Span = Span::s(5);
