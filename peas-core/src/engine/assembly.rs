//! Pieces that come in parts, from several senders.
//!
//! Shared by the readers of one session. Only blocks that were verified against the piece's hash get in, so what is complete
//! here is right; storage checks it once more all the same. Buffers here are not part of the byte budget: readers wait for the
//! budget, and what they wait with may be the very blocks that would complete a piece here. Their number is bounded by the
//! pieces that the machine has begun.

use crate::storage::{PieceBuf, Storage};
use crate::unit::{BLOCK_BYTES, BlockSpan, Geometry, PieceIdx, PieceSet};
use std::collections::BTreeMap;
use std::sync::Mutex;

struct Part {
    buf: PieceBuf,
    blocks: Vec<bool>,
    missing: u16,
}

/// Parts of pieces.
pub(super) struct Assembly {
    geometry: Geometry,
    inner: Mutex<Inner>,
}

struct Inner {
    parts: BTreeMap<PieceIdx, Part>,
    held: PieceSet,
    /// About to be held. Two may write one piece: that one of them was wrong takes nothing from `held`.
    writing: PieceSet,
}

impl Inner {
    /// Late blocks of what is held or being written are not kept.
    fn is_done(&self, piece: PieceIdx) -> bool {
        self.held.contains(piece) || self.writing.contains(piece)
    }
}

/// What became of verified blocks.
pub(super) enum Put {
    /// The piece is not whole yet.
    Kept,
    /// Now it is: to be committed.
    Whole(PieceBuf),
    /// Nobody waits for them any more.
    Late,
}

impl Assembly {
    pub(super) fn new(geometry: Geometry, held: &PieceSet) -> Self {
        let writing = PieceSet::empty(&geometry);
        Self { geometry, inner: Mutex::new(Inner { parts: BTreeMap::new(), held: held.clone(), writing }) }
    }

    /// Takes the verified bytes of a span.
    pub(super) fn put(&self, span: BlockSpan, bytes: &[u8], storage: &Storage) -> Put {
        let piece = span.piece();
        let mut inner = self.inner.lock().expect("nothing panics while holding it");
        if inner.is_done(piece) {
            return Put::Late;
        }
        let part = inner.parts.entry(piece).or_insert_with(|| {
            let blocks = self.geometry.blocks_of(piece);
            Part { buf: storage.buffer(piece), blocks: vec![false; blocks.into()], missing: blocks }
        });
        for block in span.first()..span.end() {
            if !std::mem::replace(&mut part.blocks[usize::from(block)], true) {
                part.missing -= 1;
                let at = usize::from(block) * BLOCK_BYTES as usize;
                let from = usize::from(block - span.first()) * BLOCK_BYTES as usize;
                let len = (BLOCK_BYTES as usize).min(bytes.len() - from);
                part.buf[at..at + len].copy_from_slice(&bytes[from..from + len]);
            }
        }
        match part.missing {
            0 => match inner.parts.remove(&piece) {
                Some(part) => {
                    inner.writing.insert(piece);
                    Put::Whole(part.buf)
                }
                None => Put::Late,
            },
            _ => Put::Kept,
        }
    }

    /// All of the piece is about to be written by somebody else than `put`.
    pub(super) fn writing(&self, piece: PieceIdx) {
        self.inner.lock().expect("nothing panics while holding it").writing.insert(piece);
    }

    /// What was about to be written was wrong; blocks that came before are still right.
    pub(super) fn unwritten(&self, piece: PieceIdx) {
        self.inner.lock().expect("nothing panics while holding it").writing.remove(piece);
    }

    /// Whether the piece is held or being written.
    pub(super) fn is_done(&self, piece: PieceIdx) -> bool {
        self.inner.lock().expect("nothing panics while holding it").is_done(piece)
    }

    /// Whether some blocks of the piece are here.
    pub(super) fn is_begun(&self, piece: PieceIdx) -> bool {
        self.inner.lock().expect("nothing panics while holding it").parts.contains_key(&piece)
    }

    /// The piece is on disk: parts of it are of no use.
    pub(super) fn finished(&self, piece: PieceIdx) {
        let mut inner = self.inner.lock().expect("nothing panics while holding it");
        inner.held.insert(piece);
        inner.writing.remove(piece);
        inner.parts.remove(&piece);
    }

    /// What was about to be written is not on disk, nor are the blocks that it was made of to be trusted.
    pub(super) fn failed(&self, piece: PieceIdx) {
        let mut inner = self.inner.lock().expect("nothing panics while holding it");
        inner.writing.remove(piece);
        inner.parts.remove(&piece);
    }

    /// The piece is held no more.
    pub(super) fn lost(&self, piece: PieceIdx) {
        self.inner.lock().expect("nothing panics while holding it").held.remove(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a piece that two servers sent the wrong copy was checked after the right one was on disk: it was fetched once more.
    #[test]
    fn a_wrong_copy_takes_nothing_from_what_is_held() {
        let geometry = Geometry::new(4 << 15, 1 << 15).unwrap();
        let assembly = Assembly::new(geometry, &PieceSet::empty(&geometry));
        for wrong in [Assembly::unwritten, Assembly::failed] {
            let piece = geometry.piece(1).unwrap();
            assembly.writing(piece);
            assert!(assembly.is_done(piece));
            wrong(&assembly, piece);
            assert!(!assembly.is_done(piece), "nobody writes it");
            assembly.writing(piece);
            assembly.finished(piece);
            wrong(&assembly, piece);
            assert!(assembly.is_done(piece), "it is held");
            assembly.lost(piece);
            assert!(!assembly.is_done(piece), "and rotted");
        }
    }
}
