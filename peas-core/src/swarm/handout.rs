//! The unique hand-out: while some piece has never left the origin, the origin says who fetches which.
//!
//! Each piece is waiting, assigned to one peer under a lease, or out. A lapsed assignment, or one whose holder went before anyone
//! else announced the piece, waits again, at the front.

use super::neighbors::{PERMIT_LIFE, Serving};
use super::{Role, Swarm};
use crate::unit::{PeerId, PieceIdx, Rng, Span, Time};
use crate::wire::Message;
use std::collections::{BTreeMap, VecDeque};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Waiting,
    /// With one peer: promised to it, or announced by it alone.
    With {
        peer: PeerId,
        lease_until: Option<Time>,
    },
    Out,
}

/// What left the origin, and what did not.
#[derive(Clone, Debug)]
pub(super) struct Handout {
    waiting: VecDeque<PieceIdx>,
    places: Vec<Place>,
    /// Pieces that a peer holds, or is about to hold, alone.
    alone: BTreeMap<PeerId, u32>,
    /// Bytes sent after the last piece had left: they count against the origin's budget.
    pub extra_bytes: u64,
    began: bool,
    /// When somebody last announced a piece.
    announced_at: Time,
}

/// An assignment is kept at least this long. 10 s: a client that swaps, or whose disk stalls, is not robbed.
pub(super) const LEASE_MIN: Span = Span::s(10);

/// A piece that is being sent is not taken back before this many others were begun later and are sent: on a slow uplink each takes long, and
/// who does not read is overtaken soon.
const OVERTAKEN_MAX: u32 = 3;

/// Within which a client that is not known to answer must ask for its first piece. 1 s: a crowd that says nothing keeps a piece from the
/// others for no longer.
const LEASE_ON_TRIAL: Span = Span::s(1);

/// When every piece has left once, the origin rests unless its help would end the distribution sooner by this share of the time in which
/// it sends one copy, and by half a second at least: what it sends then is a copy that somebody else would have sent a little later.
const SAVED_SHARE_MIN: f64 = 0.03;
const SAVED_MIN_S: f64 = 0.5;

/// More than this nobody can pass on in a second, whatever it claims: 1 TiB. Sums of claims stay far from the end of their type.
pub(super) const CLAIM_MAX: u64 = 1 << 40;

impl Handout {
    pub fn new(pieces: impl Iterator<Item = PieceIdx>, rng: &mut Rng) -> Self {
        let mut waiting: Vec<PieceIdx> = pieces.collect();
        rng.shuffle(&mut waiting);
        Self {
            places: vec![Place::Waiting; waiting.len()],
            waiting: waiting.into(),
            alone: BTreeMap::new(),
            extra_bytes: 0,
            began: false,
            announced_at: Time::ZERO,
        }
    }

    /// Whether every piece is assigned or out.
    pub fn is_done(&mut self) -> bool {
        while self.waiting.front().is_some_and(|piece| self.places[piece.at()] != Place::Waiting) {
            self.waiting.pop_front();
        }
        self.waiting.is_empty()
    }

    fn next(&mut self) -> Option<PieceIdx> {
        (!self.is_done()).then(|| self.waiting.pop_front()).flatten()
    }

    fn alone(&self, peer: PeerId) -> u32 {
        self.alone.get(&peer).copied().unwrap_or(0)
    }

    fn assign(&mut self, piece: PieceIdx, peer: PeerId, lease_until: Time) {
        self.places[piece.at()] = Place::With { peer, lease_until: Some(lease_until) };
        *self.alone.entry(peer).or_default() += 1;
    }

    /// The swarm gets on.
    pub fn progressed(&mut self, now: Time) {
        self.announced_at = now;
    }

    /// Somebody announced the piece.
    pub fn announced(&mut self, piece: PieceIdx, by: PeerId) {
        match self.places[piece.at()] {
            Place::With { peer, .. } if peer == by => self.places[piece.at()] = Place::With { peer, lease_until: None },
            Place::With { peer, .. } => {
                self.no_longer_alone(peer);
                self.places[piece.at()] = Place::Out;
            }
            Place::Waiting => {
                self.places[piece.at()] = Place::With { peer: by, lease_until: None };
                *self.alone.entry(by).or_default() += 1;
            }
            Place::Out => {}
        }
    }

    /// It asked for what it was assigned: from here on it has the time of a lease.
    fn asked(&mut self, piece: PieceIdx, peer: PeerId, lease_until: Time) {
        if let Place::With { peer: holder, lease_until: Some(until) } = &mut self.places[piece.at()]
            && *holder == peer
        {
            *until = lease_until.max(*until);
        }
    }

    /// The peer will not have it after all. What it has announced it had.
    fn give_back(&mut self, piece: PieceIdx, from: PeerId) {
        if matches!(self.places[piece.at()], Place::With { peer, lease_until: Some(_) } if peer == from) {
            self.no_longer_alone(from);
            self.places[piece.at()] = Place::Waiting;
            self.waiting.push_front(piece);
        }
    }

    /// The peer went: what it held alone has to leave once more.
    fn holder_went(&mut self, peer: PeerId, pieces: impl Iterator<Item = PieceIdx>) {
        if self.alone.remove(&peer).is_none() {
            return;
        }
        for piece in pieces {
            if matches!(self.places[piece.at()], Place::With { peer: holder, .. } if holder == peer) {
                self.places[piece.at()] = Place::Waiting;
                self.waiting.push_front(piece);
            }
        }
    }

    fn no_longer_alone(&mut self, peer: PeerId) {
        if let Some(count) = self.alone.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.alone.remove(&peer);
            }
        }
    }

    fn lapsed(&self, now: Time) -> Vec<(usize, PeerId)> {
        let late = |place: &Place| match *place {
            Place::With { peer, lease_until: Some(until) } if until <= now => Some(peer),
            _ => None,
        };
        self.places.iter().enumerate().filter_map(|(at, place)| Some((at, late(place)?))).collect()
    }
}

impl Swarm {
    /// Assigns while the uplink has room and somebody has credit.
    pub(super) fn hand_out(&mut self) {
        if self.paused || self.leaving {
            return;
        }
        let target = self.queue_target();
        while self.uplink.queued_bytes + self.uplink.permitted_bytes < target {
            let Some(handout) = &mut self.handout else { return };
            if handout.is_done() {
                return;
            }
            let Some(peer) = self.pick_assignee() else { return };
            let handout = self.handout.as_mut().expect("it was there a line ago");
            let Some(piece) = handout.next() else { return };
            if !self.pieces.held().contains(piece) {
                continue;
            }
            let lease = self.lease(peer);
            self.handout.as_mut().expect("as above").assign(piece, peer, self.now + lease);
            if let Some(neighbor) = self.neighbors.get_mut(peer) {
                neighbor.credit -= 1;
            }
            self.uplink.idle_since = None;
            self.handout.as_mut().expect("as above").began = true;
            self.permit(
                peer,
                Some(piece),
                self.geometry.blocks_of(piece),
                lease.max(PERMIT_LIFE),
                Message::Assign { piece: piece.raw(), lease_ms: lease.as_ms() as u32 },
            );
        }
    }

    /// Who is not known to answer has a short one to ask in, and a whole one once it did.
    fn lease(&self, peer: PeerId) -> Span {
        if self.neighbors.get(peer).is_some_and(|neighbor| !neighbor.answers) {
            return LEASE_ON_TRIAL;
        }
        let links = self.neighbors.len().max(1) as u64;
        Span(self.piece_time().0 * 4 * links.min(8)).max(LEASE_MIN)
    }

    /// The client with credit that will have passed on what it holds alone soonest. One that gives back what it is assigned, because it could not
    /// keep it or had it and does not say so, is asked last for a while: it holds nothing alone, and would be next again and again.
    fn pick_assignee(&self) -> Option<PeerId> {
        let handout = self.handout.as_ref()?;
        let try_one = self.neighbors.may_try_one(self.now, self.trial());
        let typical = self.typical_upload().unwrap_or(1.0);
        let crowded = self.is_crowded();
        self.neighbors
            .iter()
            .filter(|neighbor| neighbor.credit > 0 && neighbor.told_held && !neighbor.held.is_full())
            .filter(|neighbor| neighbor.may_be_served())
            .filter(|neighbor| !self.newcomers.doubt(neighbor))
            .filter(|neighbor| neighbor.answers || (try_one && neighbor.permits.is_empty()))
            .min_by(|a, b| {
                let load = |neighbor: &super::neighbors::Neighbor| {
                    let rate = if neighbor.claimed_upload > 0 { neighbor.claimed_upload as f64 } else { typical };
                    f64::from(handout.alone(neighbor.peer) + 1) / rate
                };
                let is_behind = |neighbor: &super::neighbors::Neighbor| {
                    neighbor.is_slow || neighbor.behind_until > self.now || (crowded && !neighbor.takes)
                };
                is_behind(a).cmp(&is_behind(b)).then(load(a).total_cmp(&load(b))).then(a.permits.len().cmp(&b.permits.len()))
            })
            .map(|neighbor| neighbor.peer)
    }

    /// Whether the hand-out still has pieces waiting: until then the origin grants nothing else.
    pub(super) fn is_handing_out(&mut self) -> bool {
        self.handout.as_mut().is_some_and(|handout| !handout.is_done())
    }

    /// Whether the origin, its hand-out over, leaves the rest to the swarm: it would save little, and the swarm gets on.
    pub(super) fn is_resting(&mut self) -> bool {
        let Some(handout) = self.handout.as_ref().filter(|handout| handout.began) else { return false };
        let until = handout.announced_at + Span(self.piece_time().0 * 4).max(Span::s(1));
        if until <= self.now || self.saves_much() {
            return false;
        }
        self.wake_at(until);
        true
    }

    /// Whether the clients would be whole much sooner with us than by what they can pass on themselves.
    fn saves_much(&self) -> bool {
        let (Some(ours), Some(typical)) = (self.uplink.bytes_per_s(), self.typical_upload()) else { return false };
        let clients = || self.neighbors.iter().filter(|neighbor| neighbor.told_held);
        let missing: u64 = clients().map(|neighbor| u64::from(self.geometry.piece_count() - neighbor.held.len())).sum();
        let missing_bytes = missing as f64 * f64::from(self.geometry.piece_bytes());
        let theirs = typical * clients().count() as f64;
        let saved_s = missing_bytes / theirs - missing_bytes / (theirs + ours);
        saved_s > (SAVED_SHARE_MIN * self.geometry.total_bytes() as f64 / ours).max(SAVED_MIN_S)
    }

    /// Bytes per second at which a client passes pieces on, by what those say who know.
    fn typical_upload(&self) -> Option<f64> {
        let known: Vec<u64> = self.neighbors.iter().map(|neighbor| neighbor.claimed_upload).filter(|&rate| rate > 0).collect();
        (!known.is_empty()).then(|| known.iter().sum::<u64>() as f64 / known.len() as f64)
    }

    pub(super) fn assignment_declined(&mut self, peer: PeerId, piece: PieceIdx) {
        if let Some(handout) = &mut self.handout {
            handout.give_back(piece, peer);
        }
    }

    pub(super) fn assignment_asked(&mut self, peer: PeerId, piece: PieceIdx, assigned_at: Time) {
        let until = assigned_at + self.lease(peer);
        if let Some(handout) = &mut self.handout {
            handout.asked(piece, peer, until);
        }
    }

    /// All of it is on its way to the peer: from here on it has the time of a lease. And other assignments that were begun before were
    /// overtaken.
    pub(super) fn assignment_sent(&mut self, peer: PeerId, sent: &Serving) {
        if self.handout.is_none() {
            return;
        }
        self.assignment_asked(peer, sent.span.piece(), self.now);
        let others = self.neighbors.iter_mut().flat_map(|neighbor| &mut neighbor.serving);
        others.filter(|other| other.since < sent.since).for_each(|other| other.overtaken += 1);
    }

    /// Whether the piece is still being sent to the peer, and not much slower than others: then its lease goes on, however slow we are.
    fn is_on_its_way(&self, piece: PieceIdx, peer: PeerId) -> bool {
        let serving = self.neighbors.get(peer).into_iter().flat_map(|neighbor| &neighbor.serving);
        serving.filter(|serving| serving.span.piece() == piece).any(|serving| serving.overtaken < OVERTAKEN_MAX)
    }

    pub(super) fn handout_lost(&mut self, peer: PeerId) {
        if let Some(handout) = &mut self.handout {
            handout.holder_went(peer, self.geometry.pieces());
        }
    }

    pub(super) fn lapse_assignments(&mut self) {
        let Some(handout) = &self.handout else { return };
        for (at, peer) in handout.lapsed(self.now) {
            let Some(piece) = self.geometry.piece(at as u32) else { continue };
            if !self.is_on_its_way(piece, peer) {
                self.assignment_declined(peer, piece);
            }
        }
    }

    /// Counts what an origin sends after its hand-out.
    pub(super) fn count_copies(&mut self, sent_bytes: u64) {
        if !self.is_handing_out()
            && let Some(handout) = &mut self.handout
        {
            handout.extra_bytes += sent_bytes;
        }
    }

    /// Whether the origin has used up the copies it may send.
    pub(super) fn origin_spent(&self) -> bool {
        match (&self.handout, self.limits.origin_copies_max_permille, self.role) {
            (Some(handout), Some(permille), Role::Origin) => {
                handout.extra_bytes as f64 >= (f64::from(permille) - 1000.0).max(0.0) / 1000.0 * self.geometry.total_bytes() as f64
            }
            _ => false,
        }
    }
}
