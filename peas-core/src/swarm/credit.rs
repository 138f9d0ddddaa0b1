//! Credit: how many pieces an origin may assign us before we have them.
//!
//! From credit to piece there are two ways to the origin and back: the credit, the assignment, the request, the piece. Where the origin is far,
//! two pieces would come in all that time; so it is allowed as many as come in during that, and several times as many, so that a long way is
//! full after a few of those.

use super::Swarm;
use crate::unit::{PeerId, Span};
use crate::wire::Message;

/// Pieces at least, and at first; and bytes, where pieces are small.
const CREDIT_MIN: u32 = 2;
const CREDIT_BYTES_MIN: u32 = 64 << 10;

/// Most assignments that a client's credits may add up to: what 100 Mbit/s of pieces of 16 KiB bring in twice 80 ms, and no hoard.
pub(super) const CREDIT_MAX: u32 = 128;

/// Ways to an origin and back that credit hides. 8: both, at four times what came in during the last second, which may have grown by as much.
const CREDIT_WAYS: f64 = 8.0;

/// On fast links, what comes in within this time is on its way at any time, however near the origin is.
const HIDDEN_S: f64 = 0.02;

impl Swarm {
    /// Lets an origin assign us more. Without room for any it is asked again when there is some.
    pub(super) fn give_credit(&mut self, peer: PeerId) {
        let rate = self.downlink.flow.rate(self.now);
        let piece_bytes = f64::from(self.geometry.piece_bytes());
        let most = ((self.limits.buffered_bytes_max as f64 / 2.0 / piece_bytes) as u32).clamp(CREDIT_MIN, CREDIT_MAX);
        let least = CREDIT_MIN.max(CREDIT_BYTES_MIN / self.geometry.piece_bytes());
        let upload_bytes_per_s = self.uplink.bytes_per_s().unwrap_or(0.0) as u64;
        let missing = !self.pieces.is_whole() && !self.is_holding_off();
        let room = self.room();
        let Some(neighbor) = self.neighbors.get_mut(peer) else { return };
        if !neighbor.is_origin || !missing {
            return;
        }
        let pieces_within = |seconds: f64| rate * seconds / piece_bytes;
        // Less a piece: where one takes as long as that, two are enough.
        let far = pieces_within(neighbor.round_trip.unwrap_or(Span::ZERO).as_s() * CREDIT_WAYS) - 1.0;
        let wanted = (least + far.max(pieces_within(HIDDEN_S)) as u32).min(most);
        let assigned = self.downlink.under_way(neighbor).filter(|fetch| fetch.assigned).count() as u32;
        let pieces = wanted.saturating_sub(neighbor.credit_out + assigned).min(room);
        if pieces > 0 {
            neighbor.credit_out += pieces;
            self.send(peer, Message::Credit { pieces: pieces as u16, upload_bytes_per_s });
        }
    }

    /// The same for all that there are.
    pub(super) fn credit_origins(&mut self) {
        let origins: Vec<PeerId> = self.neighbors.iter().filter(|neighbor| neighbor.is_origin).map(|neighbor| neighbor.peer).collect();
        origins.into_iter().for_each(|peer| self.give_credit(peer));
    }
}
