//! Those who have not shown yet that they take what they ask for, and how much of the uplink they may cost the others.
//!
//! Who asks and does not read costs its sender what the systems between them keep for it, and the time until that is seen; and what it was
//! assigned is nowhere. A peer shows that it reads by announcing a piece after we sent it something, or by using permits again and again that
//! we gave behind what we sent. As long as newcomers turn out well nothing is held back from them, but for this: when many were sent something and have
//! shown nothing yet (*a crowd*), those who have come first. And once several left permits lying, all who have shown nothing are *on
//! probation*: one small request at a time, beside the queue and not in it, out of a small share of the uplink.

use super::Swarm;
use super::neighbors::{Neighbor, PERMIT_LIFE};
use super::rates::Turnout;
use super::uplink::UPLINK_UNKNOWN;
use crate::unit::{BLOCK_BYTES, Span, Time};
use crate::wire::Message;

/// Permits given behind a serve whose use counts like an announcement: on probation a peer is sent blocks, and of those it announces none.
const ANSWERS_MIN: u8 = 4;

/// Newcomers that were sent something within the last 5 s and have shown nothing yet, at most, before others come first: 8, or twice as many as
/// those who have shown it. Where all come at once and are sent a piece each, this many are never behind with their first word.
const EXPOSED_MIN: usize = 8;
const EXPOSED_PER_PROVEN: usize = 2;
const EXPOSED_FOR: Span = Span::s(5);

/// What newcomers on probation may take of the uplink. A sixteenth: a crowd of nothing but such peers costs the others less than the tenth
/// that we allow it to, and at 8 MB/s 30 are tried in a second.
const UPLINK_SHARE: f64 = 1.0 / 16.0;

/// Saved up for them, at most: what is tried in one tick of an idle machine.
const SAVED_BYTES_MAX: f64 = 8.0 * BLOCK_BYTES as f64;

/// How newcomers turn out.
#[derive(Clone, Debug)]
pub(super) struct Newcomers {
    /// Which of them took what they asked for.
    turnout: Turnout,
    saved_bytes: f64,
    saved_at: Time,
}

impl Newcomers {
    pub fn new() -> Self {
        Self { turnout: Turnout::new(), saved_bytes: SAVED_BYTES_MAX, saved_at: Time::ZERO }
    }

    /// A neighbour announced pieces.
    pub fn announced(&mut self, neighbor: &mut Neighbor) {
        if !neighbor.takes && neighbor.served_at.is_some() {
            self.takes(neighbor);
        }
    }

    /// A neighbour used a permit or declined it. If it was told of that behind a serve, it has read the serve.
    pub fn answered(&mut self, neighbor: &mut Neighbor, told_at: Time) {
        neighbor.lets_lie = false;
        neighbor.answered += u8::from(!neighbor.takes && neighbor.served_at.is_some_and(|served_at| served_at <= told_at));
        if neighbor.answered >= ANSWERS_MIN {
            self.takes(neighbor);
        }
    }

    fn takes(&mut self, neighbor: &mut Neighbor) {
        (neighbor.takes, neighbor.answered) = (true, 0);
        self.turnout.note(true);
    }

    /// A neighbour lets a permit lie.
    pub fn unanswered(&mut self, neighbor: &mut Neighbor) {
        (neighbor.takes, neighbor.answered) = (false, 0);
        if !std::mem::replace(&mut neighbor.lets_lie, true) {
            self.turnout.note(false);
        }
    }

    /// Whether those who have shown nothing yet are on probation.
    pub fn are_suspect(&self) -> bool {
        self.turnout.is_bad()
    }

    /// Whether a neighbour is held to what newcomers may have.
    pub fn doubt(&self, neighbor: &Neighbor) -> bool {
        !neighbor.takes && self.are_suspect()
    }

    fn save(&mut self, now: Time, bytes_per_s: f64) {
        let more = bytes_per_s * UPLINK_SHARE * now.since(self.saved_at).as_s();
        (self.saved_bytes, self.saved_at) = ((self.saved_bytes + more).min(SAVED_BYTES_MAX), now);
    }
}

impl Swarm {
    /// Whether so many newcomers were sent something and have shown nothing yet that others come first. Only whole holders can tell: who lacks
    /// something is not told of what it holds itself.
    pub(super) fn is_crowded(&self) -> bool {
        if !self.pieces.is_whole() {
            return false;
        }
        let (mut proven, mut exposed) = (0, 0);
        for neighbor in self.neighbors.iter() {
            proven += usize::from(neighbor.takes);
            exposed += usize::from(!neighbor.takes && neighbor.served_at.is_some_and(|at| self.now.since(at) < EXPOSED_FOR));
        }
        exposed > EXPOSED_MIN.max(proven * EXPOSED_PER_PROVEN)
    }

    /// Grants a block each to some who are on probation or stand behind others, whatever else goes on. First to those who were sent something:
    /// what they were assigned is nowhere else.
    pub(super) fn try_newcomers(&mut self) {
        if !(self.newcomers.are_suspect() || self.is_crowded()) || self.paused || self.leaving || self.origin_spent() {
            return;
        }
        self.newcomers.save(self.now, self.uplink.bytes_per_s().unwrap_or(UPLINK_UNKNOWN));
        while self.newcomers.saved_bytes >= f64::from(BLOCK_BYTES) && self.neighbors.may_try_one(self.now, self.trial()) {
            let idle = |neighbor: &&Neighbor| !neighbor.takes && neighbor.permits.is_empty() && neighbor.serving.is_empty();
            let turns = self.rng.walk(self.neighbors.len()).map(|slot| self.neighbors.at(slot));
            let may = turns.filter(idle).filter(|neighbor| neighbor.may_be_granted(self.now, 1));
            let Some(peer) = may.min_by_key(|neighbor| neighbor.served_at.is_none()).map(|neighbor| neighbor.peer) else { return };
            self.newcomers.saved_bytes -= f64::from(BLOCK_BYTES);
            self.permit(peer, None, 1, PERMIT_LIFE, Message::Grant { blocks: 1, spare: false });
        }
    }
}
