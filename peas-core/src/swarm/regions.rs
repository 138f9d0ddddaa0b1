//! Near and far: what is brought over a thin link, and by whom.
//!
//! Between two regions there may be a link that cannot carry every piece many times. So a piece that nobody near holds is fetched from afar
//! by one of us only, the first for it by rendezvous hashing; the others have it from near. What has been waited for too long may come
//! from anywhere: a neighbour that is first for it may be slow, or those near may have little to give. Where there are no regions,
//! or nobody near, nothing of this applies.

use super::Swarm;
use super::neighbors::{Neighbor, Place};
use crate::unit::{Geometry, PeerId, PieceIdx, PieceSet, Span, Time};

/// A peer is far when its answers take this many times as long as the nearest neighbour's, and longer than those by `FAR_MIN` at least,
/// unless both say which region they are in.
const FAR_TIMES: u64 = 4;
const FAR_MIN: Span = Span::ms(25);

/// What was to be had for this long, and for this many times what a piece takes on our uplink, is waited for no longer.
const PATIENCE: Span = Span::s(2);
const PATIENCE_PIECES: u64 = 16;

/// What we know of our own region.
#[derive(Clone, Debug)]
pub(super) struct Near {
    me: u64,
    /// Those of us who bring pieces in, by the numbers that their scores come from, in order.
    bringers: Vec<u64>,
    /// Pieces that are for us to bring in.
    ours: PieceSet,
    /// Missing pieces that somebody had when we last looked, and those that somebody had for long.
    offered: PieceSet,
    overdue: PieceSet,
    look_at: Time,
    /// We hold something that no far neighbour has got: so it was when we last looked, or else it has come since.
    pub has_news_for_afar: bool,
}

impl Near {
    pub fn new(geometry: &Geometry, me: PeerId) -> Self {
        let none = PieceSet::empty(geometry);
        Self {
            me: number_of(me),
            bringers: Vec::new(),
            ours: none.clone(),
            offered: none.clone(),
            overdue: none,
            look_at: Time::ZERO,
            has_news_for_afar: true,
        }
    }
}

fn number_of(peer: PeerId) -> u64 {
    u64::from_le_bytes(*peer.0.first_chunk().expect("an id has 32 bytes"))
}

/// Rendezvous hashing: of all bringers the one with the highest score for a piece brings it in, and all know that without a word.
fn score(bringer: u64, piece: PieceIdx) -> u64 {
    let mut mixed = bringer ^ (u64::from(piece.raw()) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Swarm {
    /// Whether a far neighbour may be asked for the piece.
    pub(super) fn may_come_from_afar(&self, piece: PieceIdx) -> bool {
        self.near.overdue.contains(piece) || (self.near.ours.contains(piece) && !self.pieces.is_near(piece))
    }

    /// Now and then: who is near, which pieces are ours to bring in, what has been waited for too long.
    pub(super) fn look_around(&mut self) {
        let some_far = self.tell_near_from_far();
        self.near.has_news_for_afar = some_far && self.pieces.has_news_for_afar();
        if !some_far || self.pieces.is_whole() {
            return;
        }
        let patience = Span(self.piece_time().0 * PATIENCE_PIECES).max(PATIENCE);
        let brings = |neighbor: &&Neighbor| {
            neighbor.place == Place::Near && !neighbor.held.is_full() && self.now.since(neighbor.news_at) <= patience
        };
        let mut bringers: Vec<u64> = self.neighbors.iter().filter(brings).map(|neighbor| number_of(neighbor.peer)).collect();
        bringers.sort_unstable();
        if bringers != self.near.bringers || self.near.ours.is_empty() {
            let me = self.near.me;
            let is_ours = |piece: &PieceIdx| bringers.iter().all(|&other| score(other, *piece) <= score(me, *piece));
            self.near.ours = PieceSet::of(&self.geometry, self.geometry.pieces().filter(is_ours));
            self.near.bringers = bringers;
        }
        if self.near.look_at <= self.now {
            self.near.look_at = self.now + patience;
            let offered = PieceSet::of(&self.geometry, self.pieces.offered());
            self.near.overdue = PieceSet::of(&self.geometry, self.near.offered.iter().filter(|&piece| offered.contains(piece)));
            self.near.offered = offered;
        }
    }

    /// Marks the neighbours that are far; says whether there are any. Who has nobody near has no region: then nobody is far.
    fn tell_near_from_far(&mut self) -> bool {
        let nearest = self.neighbors.iter().filter_map(|neighbor| neighbor.round_trip).min().unwrap_or(Span::ZERO);
        let far_above = Span((nearest.0 * FAR_TIMES).max(nearest.0 + FAR_MIN.0));
        let region = self.region;
        let seems_far = |neighbor: &Neighbor| match (region, neighbor.region) {
            (0, _) | (_, 0) => neighbor.round_trip.is_some_and(|round_trip| round_trip > far_above),
            (ours, theirs) => ours != theirs,
        };
        let has_region = self.neighbors.iter().any(|neighbor| !seems_far(neighbor));
        let mut some_far = false;
        for neighbor in self.neighbors.iter_mut() {
            neighbor.is_far = has_region && seems_far(neighbor);
            some_far |= neighbor.is_far;
            let is_known = neighbor.round_trip.is_some() || (region != 0 && neighbor.region != 0);
            let place = match neighbor.is_far {
                _ if neighbor.is_origin || !is_known => Place::Source,
                true => Place::Far,
                false => Place::Near,
            };
            let was = std::mem::replace(&mut neighbor.place, place);
            if was != place {
                neighbor.held.iter().for_each(|piece| self.pieces.holder_moved(piece, was, place));
            }
        }
        some_far
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_piece_has_one_bringer_and_each_bringer_its_share() {
        let geometry = Geometry::new(1000 << 16, 1 << 16).unwrap();
        let bringers: Vec<u64> = (1..=5).map(|n| number_of(PeerId([n; 32]))).collect();
        let mut shares = [0; 5];
        let bringer_of = |bringers: &[u64], piece| bringers.iter().copied().max_by_key(|&bringer| score(bringer, piece)).unwrap();
        for piece in geometry.pieces() {
            let first = bringer_of(&bringers, piece);
            let at = bringers.iter().position(|&bringer| bringer == first).unwrap();
            shares[at] += 1;
            // Another's absence changes nothing for this piece.
            let others: Vec<u64> = bringers.iter().copied().filter(|&bringer| bringer != bringers[(at + 1) % 5]).collect();
            assert_eq!(bringer_of(&others, piece), first);
        }
        assert!(shares.iter().all(|share| (160..240).contains(share)), "{shares:?}");
    }
}
