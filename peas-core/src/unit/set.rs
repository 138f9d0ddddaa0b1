//! Sets of pieces.

use super::{Geometry, PieceIdx};

/// Consecutive pieces: first and count, as they travel.
pub type Run = (u32, u32);

/// Which pieces of one content: a bit each. All sets that meet in an operation must be of the same content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PieceSet {
    words: Vec<u64>,
    piece_count: u32,
    len: u32,
}

impl PieceSet {
    /// No pieces.
    pub fn empty(geometry: &Geometry) -> Self {
        let piece_count = geometry.piece_count();
        Self { words: vec![0; piece_count.div_ceil(64) as usize], piece_count, len: 0 }
    }

    /// All pieces.
    pub fn full(geometry: &Geometry) -> Self {
        Self::of(geometry, geometry.pieces())
    }

    /// These pieces.
    pub fn of(geometry: &Geometry, pieces: impl Iterator<Item = PieceIdx>) -> Self {
        let mut set = Self::empty(geometry);
        pieces.for_each(|piece| {
            set.insert(piece);
        });
        set
    }

    /// How many pieces are in the set.
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether no piece is in the set.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether every piece of the content is in the set.
    pub const fn is_full(&self) -> bool {
        self.len == self.piece_count
    }

    /// How many pieces the content has.
    pub const fn piece_count(&self) -> u32 {
        self.piece_count
    }

    /// Whether the piece is in the set.
    pub fn contains(&self, piece: PieceIdx) -> bool {
        self.words[piece.at() / 64] >> (piece.at() % 64) & 1 == 1
    }

    /// Puts the piece in; says whether it was not there.
    pub fn insert(&mut self, piece: PieceIdx) -> bool {
        let new = !self.contains(piece);
        self.words[piece.at() / 64] |= 1 << (piece.at() % 64);
        // Not `+= u32::from(new)`: see `counting_survives_the_optimizer`.
        if new {
            self.len += 1;
        }
        new
    }

    /// Takes the piece out; says whether it was there.
    pub fn remove(&mut self, piece: PieceIdx) -> bool {
        let there = self.contains(piece);
        self.words[piece.at() / 64] &= !(1 << (piece.at() % 64));
        if there {
            self.len -= 1;
        }
        there
    }

    /// The pieces in order.
    pub fn iter(&self) -> impl Iterator<Item = PieceIdx> + '_ {
        ones(self.words.iter().copied())
    }

    /// The pieces that are here and not in `other`, in order.
    pub fn minus<'a>(&'a self, other: &'a PieceSet) -> impl Iterator<Item = PieceIdx> + 'a {
        debug_assert_eq!(self.piece_count, other.piece_count);
        ones(self.words.iter().zip(&other.words).map(|(here, there)| here & !there))
    }

    /// Whether some piece is here and not in `other`.
    pub fn has_more_than(&self, other: &PieceSet) -> bool {
        self.words.iter().zip(&other.words).any(|(here, there)| here & !there != 0)
    }

    /// How many pieces are here and not in `other`.
    pub fn count_minus(&self, other: &PieceSet) -> u32 {
        self.words.iter().zip(&other.words).map(|(here, there)| (here & !there).count_ones()).sum()
    }

    /// Adds all pieces of `other`.
    pub fn union_with(&mut self, other: &PieceSet) {
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
        self.len = self.words.iter().map(|word| word.count_ones()).sum();
    }

    /// The set as runs of consecutive pieces, in order: the form that travels.
    pub fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for piece in self.iter() {
            match runs.last_mut() {
                Some((first, count)) if *first + *count == piece.raw() => *count += 1,
                _ => runs.push((piece.raw(), 1)),
            }
        }
        runs
    }

    /// A set from runs that a stranger sent: every run must hold at least one piece, lie inside the content and come after the
    /// one before, with a gap.
    pub fn from_runs(geometry: &Geometry, runs: &[Run]) -> Option<Self> {
        Some(Self::of(geometry, pieces_of_runs(geometry, runs)?))
    }
}

/// The pieces of runs that a stranger sent, if the runs are as [`PieceSet::from_runs`] wants them: so there are never more
/// than the content has.
pub fn pieces_of_runs<'a>(geometry: &Geometry, runs: &'a [Run]) -> Option<impl Iterator<Item = PieceIdx> + use<'a>> {
    let mut free_from = 0;
    for &(first, count) in runs {
        let end = first.checked_add(count)?;
        if count == 0 || end > geometry.piece_count() || first < free_from {
            return None;
        }
        free_from = end + 1;
    }
    Some(runs.iter().flat_map(|&(first, count)| (first..first + count).map(PieceIdx::new)))
}

fn ones(words: impl Iterator<Item = u64>) -> impl Iterator<Item = PieceIdx> {
    words.enumerate().flat_map(|(at, mut word)| {
        std::iter::from_fn(move || {
            let bit = (word != 0).then(|| word.trailing_zeros())?;
            word &= word - 1;
            Some(PieceIdx::new(at as u32 * 64 + bit))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn geometry(piece_count: u64) -> Geometry {
        Geometry::new(piece_count * 65_536, 65_536).unwrap()
    }

    proptest! {
        #[test]
        fn behaves_like_a_set_of_numbers(members in proptest::collection::btree_set(0u32..300, 0..300), gone in proptest::collection::vec(0u32..300, 0..50)) {
            let geometry = geometry(300);
            let mut oracle = members.clone();
            let mut set = PieceSet::empty(&geometry);
            for &raw in &members {
                prop_assert!(set.insert(geometry.piece(raw).unwrap()));
            }
            for &raw in &gone {
                prop_assert_eq!(set.remove(geometry.piece(raw).unwrap()), oracle.remove(&raw));
            }
            prop_assert_eq!(set.len() as usize, oracle.len());
            prop_assert_eq!(set.iter().map(PieceIdx::raw).collect::<Vec<_>>(), oracle.iter().copied().collect::<Vec<_>>());
            let back = PieceSet::from_runs(&geometry, &set.runs());
            prop_assert_eq!(back, Some(set));
        }
    }

    /// rustc 1.95 at opt-level 2 and 3 lost the count of one set when an insertion into it and a removal from its neighbour were
    /// inlined into one function and counted by `+= u32::from(bool)`: every piece was held, and none was counted. Only a run with
    /// `--release` can fail here.
    #[test]
    fn counting_survives_the_optimizer() {
        struct Pair {
            held: PieceSet,
            asked: PieceSet,
        }
        #[inline(never)]
        fn hold(pair: &mut Pair, piece: PieceIdx) -> bool {
            let new = pair.held.insert(piece);
            pair.asked.remove(piece);
            new
        }
        let geometry = geometry(64);
        let mut pair = Pair { held: PieceSet::empty(&geometry), asked: PieceSet::empty(&geometry) };
        assert!(hold(&mut pair, geometry.piece(1).unwrap()));
        assert_eq!((pair.held.len(), pair.asked.len()), (1, 0));
    }

    #[test]
    fn runs_from_strangers_are_checked() {
        let geometry = geometry(10);
        for bad in [&[(0, 0)][..], &[(9, 2)], &[(u32::MAX, 2)], &[(0, 2), (2, 1)], &[(5, 1), (1, 1)], &[(10, 1)]] {
            assert_eq!(PieceSet::from_runs(&geometry, bad), None, "{bad:?}");
        }
        assert!(PieceSet::from_runs(&geometry, &[(0, 10)]).unwrap().is_full());
    }
}
