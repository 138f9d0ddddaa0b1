//! Near and far: what is brought over a thin link, and by whom.
//!
//! Between two regions there may be a link that cannot carry every piece many times. So a piece that nobody near holds is fetched from afar
//! by one of us only, the first for it by rendezvous hashing; the others have it from near. While nothing new comes to the region, a few
//! more may fetch it: the first for it may be slow. What somebody near holds comes from afar only if those afar are much faster than those
//! near. Where there are no regions, or nobody near, nothing of this applies.

use super::Swarm;
use super::neighbors::{Neighbor, Place};
use super::rates::Turnout;
use super::uplink::UPLINK_UNKNOWN;
use crate::unit::{Geometry, PeerId, PieceIdx, PieceSet, Span, Time};

/// A peer is far when its answers take this many times as long as the nearest neighbour's, and longer than those by `FAR_MIN` at least,
/// unless both say which region they are in.
const FAR_TIMES: u64 = 4;
const FAR_MIN: Span = Span::ms(25);

/// When nothing new has come to the region for this long, and for this many times what a piece takes on our uplink, what is to be had afar is
/// waited for no longer: then the first two for a piece may fetch it, and with each time more twice as many. At most eight, because where
/// imports are slow as the link is full, more of them only fill it with what comes twice; until so many times have passed that the first
/// eight may be nobody: members are known by hearsay, too.
const PATIENCE: Span = Span::s(2);
const PATIENCE_PIECES: u64 = 16;
const IN_TURN: [u16; 8] = [1, 1, 2, 4, 8, 8, 8, 8];

/// Imports that take so many times what a piece takes on our uplink, and so many times the way to and fro: the link is full of them. Two
/// imports for each of few that share a link no narrower than their uplinks take less.
const SLOW_PIECES: u64 = 4;
const SLOW_WAYS: u64 = 16;

/// Weight of one more import in their mean time.
const IMPORT_WEIGHT: f64 = 0.25;

/// What a neighbour holds counts as being near only while it gives: who offered what we lack, and gave nothing for this many times as long as
/// we wait for pieces, is not counted on. Anybody may say that it holds everything, and come again under another key when nobody believes it:
/// where several did so, only who has given something counts.
const GIVES_WITHIN: u64 = 4;

/// A far sender that delivers this many times what those near do is asked for what they hold, too. 1.4: on a thin link that many share each
/// gets less than near, and where our own uplinks are the narrow ones it is many times as much. With 1, 128 clients bring two copies over
/// a link of twice a client's rate; with 2, those behind narrow uplinks leave a wide link empty (`peas-sim report --only regions`).
const MUCH_FASTER: f64 = 1.4;

/// What we know of our own region.
#[derive(Clone, Debug)]
pub(super) struct Near {
    me: u64,
    /// Those of us who bring pieces in, by the numbers that their scores come from, in order.
    bringers: Vec<u64>,
    /// How many of them come before us, for each piece.
    before_us: Vec<u16>,
    /// How often we looked and a piece was to be had afar only, while nothing new came to the region.
    waited: Vec<u8>,
    look_at: Time,
    /// When somebody near last announced what nobody near had.
    pub fresh_at: Time,
    /// What imports take, in the mean.
    import: Span,
    /// Which of our neighbours gave what they said they had.
    givers: Turnout,
    /// We hold something that no far neighbour has got: so it was when we last looked, or else it has come since.
    pub has_news_for_afar: bool,
}

impl Near {
    pub fn new(geometry: &Geometry, me: PeerId) -> Self {
        let pieces = geometry.piece_count() as usize;
        Self {
            me: number_of(me),
            bringers: Vec::new(),
            before_us: vec![0; pieces],
            waited: vec![0; pieces],
            look_at: Time::ZERO,
            fresh_at: Time::ZERO,
            import: Span::ZERO,
            givers: Turnout::new(),
            has_news_for_afar: true,
        }
    }

    /// A neighbour gave us something good.
    pub fn gave(&mut self, neighbor: &mut Neighbor, now: Time) {
        neighbor.offers_since = now;
        let was_in_debt = std::mem::take(&mut neighbor.owes);
        if !neighbor.is_far && (was_in_debt || !neighbor.proven) {
            self.givers.note(true);
        }
    }

    /// A neighbour went.
    pub fn went(&mut self, gone: &Neighbor) {
        if !gone.is_far && gone.half_strikes > 0 && !gone.proven {
            self.givers.note(false);
        }
    }

    /// What was asked for afar has come.
    pub fn imported(&mut self, took: Span) {
        self.import = Span::from_s(self.import.as_s() * (1.0 - IMPORT_WEIGHT) + took.as_s() * IMPORT_WEIGHT);
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
    pub(super) fn may_come_from_afar(&self, piece: PieceIdx, much_faster: bool) -> bool {
        if self.pieces.is_near(piece) {
            return much_faster;
        }
        let waited = usize::from(self.near.waited[piece.at()]);
        IN_TURN.get(waited).is_none_or(|&first| self.near.before_us[piece.at()] < first)
    }

    /// Whether a far sender delivers much more than those near.
    pub(super) fn is_much_faster_than_near(&self, far: &Neighbor) -> bool {
        let near = self.neighbors.iter().filter(|neighbor| neighbor.place == Place::Near);
        let (sum, count) = near.filter_map(|neighbor| neighbor.speed.known()).fold((0.0, 0), |(sum, count), rate| (sum + rate, count + 1));
        count > 0 && far.speed.known().is_some_and(|rate| rate * f64::from(count) > MUCH_FASTER * sum)
    }

    /// Now and then: who is near, which pieces are ours to bring in, what has been waited for too long.
    pub(super) fn look_around(&mut self) {
        let some_far = self.tell_near_from_far();
        self.near.has_news_for_afar = some_far && self.pieces.has_news_for_afar();
        if !some_far || self.pieces.is_whole() {
            return;
        }
        let patience = Span(self.usual_piece_time().0 * PATIENCE_PIECES).max(PATIENCE);
        self.choose_bringers(patience);
        if self.near.look_at <= self.now {
            self.near.look_at = self.now + patience;
            self.judge_givers(Span(patience.0 * GIVES_WITHIN));
            let waits = self.now.since(self.near.fresh_at) >= patience;
            let offered = PieceSet::of(&self.geometry, self.pieces.offered_from_afar());
            for piece in self.geometry.pieces() {
                let waited = &mut self.near.waited[piece.at()];
                *waited = if offered.contains(piece) { waited.saturating_add(waits.into()) } else { 0 };
            }
        }
    }

    /// Who is near, offers what we lack and has given nothing for so long, owes us.
    fn judge_givers(&mut self, within: Span) {
        for neighbor in self.neighbors.iter_mut().filter(|neighbor| !neighbor.is_far && !neighbor.is_origin) {
            if !self.pieces.lacks_any_of(&neighbor.held) {
                neighbor.offers_since = self.now;
            } else if !neighbor.owes && self.now.since(neighbor.offers_since) >= within {
                neighbor.owes = true;
                self.near.givers.note(false);
            }
        }
    }

    /// Whether the link to other regions is so full that what we ask for takes long.
    pub(super) fn is_slow_from_afar(&self, distance: Span) -> bool {
        let under_way = self.downlink.fetches.values().filter(|fetch| !fetch.received && fetch.arrived > 0);
        let from_afar = under_way.filter(|fetch| self.neighbors.get(fetch.from).is_some_and(|neighbor| neighbor.is_far));
        let longest = from_afar.map(|fetch| self.now.since(fetch.asked_at)).max().unwrap_or(Span::ZERO);
        longest.max(self.near.import).0 > self.usual_piece_time().0 * SLOW_PIECES + distance.0 * SLOW_WAYS
    }

    /// What a piece takes on our uplink, or on a usual one.
    fn usual_piece_time(&self) -> Span {
        match self.uplink.bytes_per_s() {
            Some(_) => self.piece_time(),
            None => Span::from_s(f64::from(self.geometry.piece_bytes()) / UPLINK_UNKNOWN),
        }
    }

    /// Everybody in the region brings something in, linked to us or only known, but for linked ones of whom nothing was heard for long.
    fn choose_bringers(&mut self, patience: Span) {
        let brings = |peer: PeerId| match self.neighbors.get(peer) {
            Some(linked) => !linked.is_far && !linked.is_origin && !linked.held.is_full() && self.now.since(linked.news_at) <= patience,
            None => true,
        };
        let linked = self.neighbors.iter().map(|neighbor| neighbor.peer);
        let known = self.members.in_region(self.region, self.now);
        let mut bringers: Vec<u64> = linked.chain(known).filter(|&peer| peer != self.me && brings(peer)).map(number_of).collect();
        bringers.sort_unstable();
        bringers.dedup();
        if bringers == self.near.bringers {
            return;
        }
        for piece in self.geometry.pieces() {
            let ours = score(self.near.me, piece);
            let before = bringers.iter().filter(|&&other| score(other, piece) > ours).count();
            self.near.before_us[piece.at()] = before.min(u16::MAX.into()) as u16;
        }
        self.near.bringers = bringers;
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
            let gives = !neighbor.owes && (neighbor.proven || !self.near.givers.is_bad());
            let place = match neighbor.is_far {
                _ if neighbor.is_origin || !is_known => Place::Source,
                true => Place::Far,
                false if gives => Place::Near,
                false => Place::Source,
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
