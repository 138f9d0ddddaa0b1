//! Announcements: what we hold, in batches, to those who do not hold it.

use super::neighbors::Place;
use super::{Fault, Swarm};
use crate::unit::{PeerId, PieceIdx, PieceSet, Run, Span, Time, pieces_of_runs};
use crate::wire::Message;

/// Least time between two announcements to a peer that nothing else is said to meanwhile: what our uplink takes for so many pieces and so many
/// bytes, and at most. The first after a silence goes out at once. News passes several peers on its way, and waits at each; but each
/// announcement costs a packet. 5 pieces: with 100 ms whatever they take 128 clients at 10 Gbit/s are whole at 1.64 times the bound instead of
/// 1.24 (`peas-sim report --only '10 Gbit/s'`). 320 KiB, 200 ms: with five pieces of 32 KiB and 100 ms sixteen clients at 12.5 Mbit/s are
/// whole at 1.107 instead of 1.096.
const BATCH_PIECES: u64 = 5;
const BATCH_BYTES: u64 = 320 << 10;
const BATCH_MAX: Span = Span::ms(200);

/// The same for peers that hold everything: to them it is only a hint whom to grant.
const BATCH_TO_WHOLE: Span = Span::ms(500);

/// Runs in one message.
const RUNS_MAX: usize = 4000;

/// Commits in order, so that "everything since I last told you" is a position in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Log(Vec<PieceIdx>);

impl Log {
    pub fn push(&mut self, piece: PieceIdx) {
        self.0.push(piece);
    }

    pub fn end(&self) -> usize {
        self.0.len()
    }

    fn since(&self, at: usize) -> &[PieceIdx] {
        &self.0[at..]
    }
}

fn runs_of(mut pieces: Vec<PieceIdx>) -> Vec<Run> {
    pieces.sort_unstable();
    pieces.dedup();
    let mut runs: Vec<Run> = Vec::new();
    for piece in pieces {
        match runs.last_mut() {
            Some((first, count)) if *first + *count == piece.raw() => *count += 1,
            _ => runs.push((piece.raw(), 1)),
        }
    }
    runs
}

impl Swarm {
    /// First word to a new neighbour: everything.
    pub(super) fn tell_held(&mut self, peer: PeerId) {
        let (need, queue_ms, end, now) = (self.pieces.need(), self.uplink.queue_ms(), self.log.end(), self.now);
        let runs = self.pieces.held().runs();
        let Some(neighbor) = self.neighbors.get_mut(peer) else { return };
        (neighbor.log_at, neighbor.told_at, neighbor.told_need) = (end, now, need);
        neighbor.told_whole = self.pieces.is_whole();
        let mut parts = runs.chunks(RUNS_MAX);
        let first = parts.next().unwrap_or(&[]).to_vec();
        let rest: Vec<Vec<Run>> = parts.map(<[Run]>::to_vec).collect();
        self.send(peer, Message::Held { runs: first, need, queue_ms });
        for runs in rest {
            self.send(peer, Message::Have { runs, need, queue_ms });
        }
    }

    pub(super) fn have_soon(&mut self) {
        let at = self.now.max(self.flushed_at + self.batch());
        self.flush_at = Some(self.flush_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// When what we need came back from nothing, neighbours that left us alone should know soon.
    pub(super) fn tell_need_soon(&mut self) {
        if self.pieces.need() > 0 && self.neighbors.iter().any(|neighbor| neighbor.told_need == 0) {
            self.have_soon();
        }
    }

    /// We declined for a while, and do not any more.
    pub(super) fn tell_need_again(&mut self) {
        self.neighbors.iter_mut().for_each(|neighbor| neighbor.told_need = 0);
        self.tell_need_soon();
    }

    /// Tells everybody what they do not know yet, but nobody too soon after the last time.
    pub(super) fn flush_haves(&mut self) {
        self.flush_at = None;
        self.flushed_at = self.now;
        let (need, end, batch) = (self.pieces.need(), self.log.end(), self.batch());
        let mut due = Vec::new();
        let mut later: Option<Time> = None;
        for neighbor in self.neighbors.iter() {
            let at = neighbor.told_at + if neighbor.held.is_full() { BATCH_TO_WHOLE } else { batch };
            if at <= self.now || (neighbor.told_need == 0 && need > 0) {
                due.push(neighbor.peer);
            } else if neighbor.log_at < end {
                later = Some(later.map_or(at, |earlier| earlier.min(at)));
            }
        }
        for peer in due {
            self.tell_news(peer);
        }
        self.flush_at = later;
    }

    /// Tells a neighbour what it does not know yet. Beside another message to it that costs next to nothing: both leave in one packet.
    pub(super) fn tell_news(&mut self, peer: PeerId) {
        let (need, queue_ms, end, now) = (self.pieces.need(), self.uplink.queue_ms(), self.log.end(), self.now);
        let (held, is_whole) = (self.pieces.held(), self.pieces.is_whole());
        let Some(neighbor) = self.neighbors.get_mut(peer) else { return };
        let to_origin = neighbor.is_origin || neighbor.held.is_full();
        let is_news = |piece: &PieceIdx| held.contains(*piece) && (to_origin || !neighbor.held.contains(*piece));
        let news: Vec<PieceIdx> = self.log.since(neighbor.log_at).iter().copied().filter(is_news).collect();
        neighbor.log_at = end;
        // Who held a piece before us was never told that we have it, too: it would go on offering, and keep a place for us.
        let became_whole = is_whole && !neighbor.told_whole;
        let need_returned = neighbor.told_need == 0 && need > 0;
        if news.is_empty() && !need_returned && !became_whole {
            return;
        }
        (neighbor.told_at, neighbor.told_need, neighbor.told_whole) = (now, need, is_whole);
        let runs = if became_whole { vec![(0, self.geometry.piece_count())] } else { runs_of(news) };
        let mut parts = runs.chunks(RUNS_MAX);
        self.send(peer, Message::Have { runs: parts.next().unwrap_or(&[]).to_vec(), need, queue_ms });
        for runs in parts {
            self.send(peer, Message::Have { runs: runs.to_vec(), need, queue_ms });
        }
    }

    /// Least time between two announcements to a peer.
    fn batch(&self) -> Span {
        let pieces = BATCH_PIECES.max(BATCH_BYTES / u64::from(self.geometry.piece_bytes()));
        Span(self.piece_time().0 * pieces).min(BATCH_MAX)
    }

    pub(super) fn on_held(&mut self, peer: PeerId, runs: &[Run], need: u32, queue_ms: u32) {
        let Some(neighbor) = self.neighbors.get(peer) else { return };
        if neighbor.told_held {
            return self.fault(peer, Fault::Protocol);
        }
        let Some(held) = PieceSet::from_runs(&self.geometry, runs) else { return self.fault(peer, Fault::Protocol) };
        let lacks = self.pieces.held().count_minus(&held);
        let place = neighbor.place;
        for piece in held.iter() {
            self.pieces.holder_came(piece, place);
            if let Some(handout) = &mut self.handout {
                handout.announced(piece, peer);
            }
        }
        let Some(neighbor) = self.neighbors.get_mut(peer) else { return };
        (neighbor.held, neighbor.told_held, neighbor.lacks) = (held, true, lacks);
        (neighbor.need, neighbor.queue_ms) = (need, queue_ms);
        if neighbor.dialed {
            let addr = neighbor.addr;
            self.member_works(addr);
        }
        self.give_credit(peer);
    }

    pub(super) fn on_have(&mut self, peer: PeerId, runs: &[Run], need: u32, queue_ms: u32) {
        let geometry = self.geometry;
        let Some(pieces) = pieces_of_runs(&geometry, runs) else { return self.fault(peer, Fault::Protocol) };
        let Some(neighbor) = self.neighbors.get_mut(peer) else { return };
        if !neighbor.told_held {
            return self.fault(peer, Fault::Protocol);
        }
        (neighbor.need, neighbor.queue_ms) = (need, queue_ms);
        if !neighbor.is_far {
            neighbor.has_news(self.now);
        }
        neighbor.news_at = self.now;
        if let Some(handout) = &mut self.handout {
            handout.progressed(self.now);
        }
        let (place, is_far) = (neighbor.place, neighbor.is_far);
        self.newcomers.announced(neighbor);
        for piece in pieces {
            if neighbor.held.insert(piece) {
                if place == Place::Near && !self.pieces.is_near(piece) {
                    self.near.fresh_at = self.now;
                }
                self.pieces.holder_came(piece, place);
                if self.pieces.held().contains(piece) {
                    neighbor.lacks -= 1;
                }
                if let Some(handout) = &mut self.handout {
                    handout.announced(piece, peer);
                }
            }
        }
        if is_far {
            self.use_kept_grants();
        } else if place == Place::Near {
            self.cancel_from_afar(runs);
        }
    }

    pub(super) fn on_withdraw(&mut self, peer: PeerId, runs: &[Run]) {
        let Some(pieces) = pieces_of_runs(&self.geometry, runs) else { return self.fault(peer, Fault::Protocol) };
        // While it held them we did not tell it of ours: now it has to know.
        let mut ours = Vec::new();
        for piece in pieces {
            self.forget_holder(peer, piece);
            if self.pieces.held().contains(piece) {
                ours.push(piece);
            }
        }
        let (need, queue_ms) = (self.pieces.need(), self.uplink.queue_ms());
        for runs in runs_of(ours).chunks(RUNS_MAX) {
            self.send(peer, Message::Have { runs: runs.to_vec(), need, queue_ms });
        }
    }

    /// The peer does not hold the piece (any more).
    pub(super) fn forget_holder(&mut self, peer: PeerId, piece: PieceIdx) {
        let Some(neighbor) = self.neighbors.get_mut(peer) else { return };
        if neighbor.held.remove(piece) {
            self.pieces.holder_went(piece, neighbor.place);
            if self.pieces.held().contains(piece) {
                neighbor.lacks += 1;
                neighbor.has_news(self.now);
            }
        }
    }
}
