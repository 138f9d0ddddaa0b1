//! Which pieces we hold, which are on their way, and how many neighbours hold each.
//!
//! A piece is in exactly one state: held; on its way (it has an entry in `partial`); or missing. `asked` marks the pieces on their
//! way of which every block is verified or asked for, so "missing or with blocks to spare" is one bit test.

use super::neighbors::Place;
use crate::unit::{BlockSpan, Geometry, PieceIdx, PieceSet, RequestId, Rng};
use std::collections::BTreeMap;

/// Bits of the blocks of one piece: at most 1,024.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Blocks([u64; 16]);

impl Blocks {
    fn set(&mut self, span: BlockSpan) {
        (span.first()..span.end()).for_each(|block| self.0[usize::from(block) / 64] |= 1 << (block % 64));
    }

    fn has(&self, block: u16) -> bool {
        self.0[usize::from(block) / 64] >> (block % 64) & 1 == 1
    }
}

/// A piece on its way.
#[derive(Clone, Debug, Default)]
struct Partial {
    verified: Blocks,
    asked: Vec<(RequestId, BlockSpan)>,
}

impl Partial {
    fn is_free(&self, block: u16) -> bool {
        !self.verified.has(block) && !self.asked.iter().any(|(_, span)| (span.first()..span.end()).contains(&block))
    }

    /// First run of blocks that are neither verified nor asked for, at most `max` long.
    fn free_run(&self, geometry: &Geometry, piece: PieceIdx, max: u16) -> Option<BlockSpan> {
        let blocks = geometry.blocks_of(piece);
        let first = (0..blocks).find(|&block| self.is_free(block))?;
        let count = (first..blocks).take_while(|&block| self.is_free(block)).take(max.into()).count() as u16;
        geometry.span(piece, first, count)
    }
}

/// The table of pieces.
#[derive(Clone, Debug)]
pub(super) struct Pieces {
    geometry: Geometry,
    held: PieceSet,
    asked: PieceSet,
    partial: BTreeMap<PieceIdx, Partial>,
    /// Neighbours that hold the piece, and how many of them have got it near us and afar.
    holders: Vec<u16>,
    near: Vec<u16>,
    far: Vec<u16>,
    /// Our own order among equally rare pieces, so that peers do not all choose the same.
    rank: Vec<u32>,
    bytes_held: u64,
}

impl Pieces {
    pub fn new(geometry: Geometry, held: PieceSet, rng: &mut Rng) -> Self {
        let mut rank: Vec<u32> = (0..geometry.piece_count()).collect();
        rng.shuffle(&mut rank);
        Self {
            geometry,
            bytes_held: held.iter().map(|piece| u64::from(geometry.len_of(piece))).sum(),
            held,
            asked: PieceSet::empty(&geometry),
            partial: BTreeMap::new(),
            holders: vec![0; geometry.piece_count() as usize],
            near: vec![0; geometry.piece_count() as usize],
            far: vec![0; geometry.piece_count() as usize],
            rank,
        }
    }

    pub fn held(&self) -> &PieceSet {
        &self.held
    }

    pub fn bytes_held(&self) -> u64 {
        self.bytes_held
    }

    pub fn is_whole(&self) -> bool {
        self.held.is_full()
    }

    /// Pieces that are neither held nor wholly asked for.
    pub fn need(&self) -> u32 {
        self.geometry.piece_count() - self.held.len() - self.asked.len()
    }

    pub fn holder_came(&mut self, piece: PieceIdx, place: Place) {
        self.holders[piece.at()] += 1;
        if let Some(count) = self.count_at(piece, place) {
            *count += 1;
        }
    }

    pub fn holder_went(&mut self, piece: PieceIdx, place: Place) {
        self.holders[piece.at()] -= 1;
        if let Some(count) = self.count_at(piece, place) {
            *count -= 1;
        }
    }

    /// A holder turns out to be elsewhere.
    pub fn holder_moved(&mut self, piece: PieceIdx, from: Place, to: Place) {
        self.holder_went(piece, from);
        self.holder_came(piece, to);
    }

    fn count_at(&mut self, piece: PieceIdx, place: Place) -> Option<&mut u16> {
        match place {
            Place::Near => Some(&mut self.near[piece.at()]),
            Place::Far => Some(&mut self.far[piece.at()]),
            Place::Source => None,
        }
    }

    /// Whether a near neighbour has got the piece.
    pub fn is_near(&self, piece: PieceIdx) -> bool {
        self.near[piece.at()] > 0
    }

    /// Whether a far neighbour has got the piece.
    pub fn is_afar(&self, piece: PieceIdx) -> bool {
        self.far[piece.at()] > 0
    }

    /// Whether we hold a piece that no far neighbour holds.
    pub fn has_news_for_afar(&self) -> bool {
        self.held.iter().any(|piece| !self.is_afar(piece))
    }

    /// Whether we lack any of these.
    pub fn lacks_any_of(&self, pieces: &PieceSet) -> bool {
        pieces.minus(&self.held).next().is_some()
    }

    /// Missing pieces that somebody afar has got, and nobody near.
    pub fn offered_from_afar(&self) -> impl Iterator<Item = PieceIdx> + '_ {
        self.geometry.pieces().filter(|&piece| !self.held.contains(piece) && self.is_afar(piece) && !self.is_near(piece))
    }

    /// Pieces that we lack and have not asked for, and that other clients near or far have got.
    pub fn on_offer(&self) -> u32 {
        let is_open = |piece: &PieceIdx| !self.held.contains(*piece) && !self.asked.contains(*piece);
        self.geometry.pieces().filter(is_open).filter(|&piece| self.is_near(piece) || self.is_afar(piece)).count() as u32
    }

    /// Missing pieces that no neighbour holds.
    pub fn unavailable(&self) -> u32 {
        self.geometry.pieces().filter(|&piece| !self.held.contains(piece) && self.holders[piece.at()] == 0).count() as u32
    }

    /// Held pieces that no neighbour holds.
    pub fn alone(&self) -> u32 {
        self.held.iter().filter(|piece| self.holders[piece.at()] == 0).count() as u32
    }

    /// What to ask a sender for: blocks of a piece already begun, else the rarest piece; at most `max` blocks.
    pub fn choose(&self, sender: &PieceSet, max: u16) -> Option<BlockSpan> {
        self.choose_by(sender, max, |_| true, |piece| (self.holders[piece.at()], self.rank[piece.at()]))
    }

    /// The same for a sender that may bring only some pieces. Those that nobody near has got go first, in no order that prefers the newest:
    /// the rarest first would leave what came early to the end.
    pub fn choose_from_afar(&self, sender: &PieceSet, max: u16, may_bring: impl Fn(PieceIdx) -> bool) -> Option<BlockSpan> {
        self.choose_by(sender, max, may_bring, |piece| (self.near[piece.at()], self.rank[piece.at()]))
    }

    fn choose_by(
        &self,
        sender: &PieceSet,
        max: u16,
        may_bring: impl Fn(PieceIdx) -> bool,
        order: impl Fn(PieceIdx) -> (u16, u32),
    ) -> Option<BlockSpan> {
        let mut begun =
            self.partial.iter().filter(|&(&piece, _)| !self.asked.contains(piece) && sender.contains(piece) && may_bring(piece));
        begun.find_map(|(&piece, partial)| partial.free_run(&self.geometry, piece, max)).or_else(|| {
            let first = self.open_to(sender).filter(|&piece| may_bring(piece)).min_by_key(|&piece| order(piece))?;
            self.geometry.span(first, 0, max.min(self.geometry.blocks_of(first)))
        })
    }

    fn open_to<'a>(&'a self, sender: &'a PieceSet) -> impl Iterator<Item = PieceIdx> + 'a {
        sender.minus(&self.held).filter(|&piece| !self.asked.contains(piece))
    }

    /// Blocks of this very piece that are not asked for yet; `None` when it is held or wholly asked for.
    pub fn rest_of(&self, piece: PieceIdx) -> Option<BlockSpan> {
        if self.held.contains(piece) || self.asked.contains(piece) {
            return None;
        }
        match self.partial.get(&piece) {
            Some(partial) => partial.free_run(&self.geometry, piece, u16::MAX),
            None => Some(self.geometry.whole(piece)),
        }
    }

    pub fn ask(&mut self, req: RequestId, span: BlockSpan) {
        debug_assert!(!self.held.contains(span.piece()));
        self.partial.entry(span.piece()).or_default().asked.push((req, span));
        self.refresh(span.piece());
    }

    /// The request brings nothing (more): its blocks are free again.
    pub fn unask(&mut self, req: RequestId, piece: PieceIdx) {
        let Some(partial) = self.partial.get_mut(&piece) else { return };
        partial.asked.retain(|&(other, _)| other != req);
        if partial.asked.is_empty() && partial.verified == Blocks::default() {
            self.partial.remove(&piece);
        }
        self.refresh(piece);
    }

    /// The request's blocks are here and right, the piece is not whole.
    pub fn verify(&mut self, req: RequestId, span: BlockSpan) {
        if let Some(partial) = self.partial.get_mut(&span.piece()) {
            partial.verified.set(span);
            partial.asked.retain(|&(other, _)| other != req);
            // All verified, and yet the disk was not given the piece: some of what was verified is gone. Begin again.
            if (0..self.geometry.blocks_of(span.piece())).all(|block| partial.verified.has(block)) {
                partial.verified = Blocks::default();
            }
            self.refresh(span.piece());
        }
    }

    /// What was here of the piece is lost; requests under way stay.
    pub fn lose_blocks(&mut self, piece: PieceIdx) {
        if let Some(partial) = self.partial.get_mut(&piece) {
            partial.verified = Blocks::default();
            if partial.asked.is_empty() {
                self.partial.remove(&piece);
            }
            self.refresh(piece);
        }
    }

    /// The piece is held. Gives back the requests that are still under way for it.
    pub fn hold(&mut self, piece: PieceIdx) -> Vec<RequestId> {
        if self.held.insert(piece) {
            self.bytes_held += u64::from(self.geometry.len_of(piece));
        }
        self.asked.remove(piece);
        self.partial.remove(&piece).map(|partial| partial.asked.into_iter().map(|(req, _)| req).collect()).unwrap_or_default()
    }

    /// The piece is not held any more; says whether it was.
    pub fn drop_held(&mut self, piece: PieceIdx) -> bool {
        let was = self.held.remove(piece);
        if was {
            self.bytes_held -= u64::from(self.geometry.len_of(piece));
        }
        was
    }

    fn refresh(&mut self, piece: PieceIdx) {
        let is_asked = match self.partial.get(&piece) {
            Some(partial) => (0..self.geometry.blocks_of(piece)).all(|block| !partial.is_free(block)),
            None => false,
        };
        if is_asked {
            self.asked.insert(piece);
        } else {
            self.asked.remove(piece);
        }
    }

    /// Panics if a piece is in two states.
    #[cfg(debug_assertions)]
    pub fn check(&self) {
        for (piece, partial) in &self.partial {
            assert!(!self.held.contains(*piece), "piece {piece} is held and on its way");
            assert!(partial.asked.len() <= 64, "piece {piece} is asked for too often");
        }
        assert!(self.asked.iter().all(|piece| self.partial.contains_key(&piece)), "asked for, but not on its way");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(total_bytes: u64, piece_bytes: u32) -> Pieces {
        let geometry = Geometry::new(total_bytes, piece_bytes).unwrap();
        Pieces::new(geometry, PieceSet::empty(&geometry), &mut Rng::new(1))
    }

    #[test]
    fn blocks_are_asked_for_once_and_return_when_given_up() {
        let mut pieces = table(1 << 20, 256 << 10);
        let all = PieceSet::full(&pieces.geometry);
        let first = pieces.choose(&all, 6).unwrap();
        pieces.ask(RequestId(1), first);
        let second = pieces.choose(&all, 99).unwrap();
        assert_eq!((second.piece(), second.first(), second.count()), (first.piece(), 6, 10), "the piece begun goes first");
        pieces.ask(RequestId(2), second);
        assert_eq!(pieces.need(), 3);
        pieces.verify(RequestId(1), first);
        pieces.unask(RequestId(2), second.piece());
        assert_eq!(pieces.need(), 4);
        assert_eq!(pieces.rest_of(first.piece()), Some(second));
        pieces.lose_blocks(first.piece());
        assert_eq!(pieces.rest_of(first.piece()), Some(pieces.geometry.whole(first.piece())));
    }

    #[test]
    fn the_rarest_piece_goes_first_and_the_rank_breaks_ties() {
        let mut pieces = table(4 << 16, 1 << 16);
        let all = PieceSet::full(&pieces.geometry);
        let rare = pieces.geometry.piece(2).unwrap();
        pieces.geometry.pieces().filter(|&piece| piece != rare).for_each(|piece| pieces.holder_came(piece, Place::Near));
        assert_eq!(pieces.choose(&all, 4).unwrap().piece(), rare);
        assert_eq!(pieces.hold(rare), []);
        let next = pieces.choose(&all, 4).unwrap().piece();
        assert_eq!(pieces.rank[next.at()], *pieces.rank.iter().enumerate().filter(|(at, _)| *at != 2).map(|(_, rank)| rank).min().unwrap());
    }
}
