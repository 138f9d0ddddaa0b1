//! The receiver's side: what to ask for, and what to do when it does not come.
//!
//! Every request answers a grant or an assignment. A block is asked of one peer at a time; in the tail, or when a peer turns out to
//! be far slower than another, its request is taken over (stolen) and cancelled.

use super::neighbors::Neighbor;
use super::rates::Flow;
use super::{Committed, Fault, FetchEnd, Output, Swarm};
use crate::unit::{BlockSpan, PeerId, PieceIdx, RequestId, Run, Span, Time};
use crate::wire::{Message, REFUSE_NOT_HELD};
use std::collections::BTreeMap;

/// A request of ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetch {
    pub from: PeerId,
    pub span: BlockSpan,
    pub bytes: u32,
    pub asked_at: Time,
    /// Bytes that came, and when the first and last report of them was.
    pub arrived: u32,
    pub first_at: Option<Time>,
    pub last_at: Time,
    /// All bytes came; the disk has them.
    pub received: bool,
    pub assigned: bool,
}

/// All requests under way, and sums.
#[derive(Clone, Debug)]
pub(super) struct Downlink {
    pub fetches: BTreeMap<RequestId, Fetch>,
    next_req: u64,
    /// Bytes asked for and not here yet.
    pub outstanding_bytes: u64,
    pub flow: Flow,
    /// The most that it was.
    most_bytes_per_s: f64,
    /// Pieces to be had from other clients that we have not asked for.
    on_offer: u32,
    pub flow_from_afar: Flow,
    pub limit_bytes_per_s: u64,
    pub from_origin_bytes: u64,
    pub from_peers_bytes: u64,
    pub wasted_bytes: u64,
}

/// Pieces that may be outstanding however slow we are. 4: with fewer the downlink runs dry between two requests, with more several
/// senders wait behind our downlink who could have served others.
const WINDOW_PIECES: f64 = 4.0;

/// Up to twice as many while less comes than this share of the most that ever came, and other clients offer many pieces more: then it is not
/// the downlink that we wait for, nor the swarm for its origin, but senders too slow to fill it. Those who have few fast ones among many slow
/// ones are whole a twelfth sooner (`peas-sim report --only 'uploads 50'`: 1.08 instead of 1.16); where little is on offer, more at once only
/// keeps each piece from being passed on (`--only poisoners`: 1.14 and 1.18 instead of 1.09 and 1.10).
const RATE_USUAL: f64 = 0.9;
const WINDOW_WIDER_MAX: f64 = 2.0;
const MANY_PIECES: u32 = 12;

/// Pieces that may be outstanding when the sender has nobody else to serve: then it may as well wait for us, and many slow senders can add up.
const WINDOW_PIECES_SPARE: f64 = 16.0;

/// Round trips that the window hides on top, as our own grants measure them. 4: the time from a request to its first byte is one, and
/// the others' queues make up the rest (`peas-sim run --clients 16 --pieces 256 --piece-kib 64 --one-way-ms 30`).
const WINDOW_ROUND_TRIPS: f64 = 4.0;

/// What may be outstanding on fast links, in seconds of what we receive.
const WINDOW_S: f64 = 0.05;
const WINDOW_SPARE_S: f64 = 0.5;

/// How long a grant from afar is kept. 3 s: its sender gives it up after 5.
const GRANT_KEPT: Span = Span::s(3);

/// A request is late when nothing of it came for this long, or for four times what it should take.
const PATIENCE_MIN: Span = Span::s(5);

/// Who was asked for something and has sent nothing for this long is asked for no more until it does. 1 s: a slow link brings a block in that
/// time. Without it, and with peers that stall coming back each minute, 1.34 instead of 1.25; with 2 s 1.28 (`peas-sim report --only stallers`).
const WAITS_MAX: Span = Span::s(1);

/// What a request takes before its first byte comes, at least. 0.1 s: a long round trip and a little queue; without it every request
/// that is a round trip old looks late, and requests are stolen to and fro.
const REQUEST_S: f64 = 0.1;

/// In the tail, a request is taken over if its sender would need this many times longer than the one that grants.
const STEAL_IN_TAIL: f64 = 1.3;

/// At any time, if it would need this many times longer, and more than [`STEAL_ANY_S`].
const STEAL_ANY: f64 = 4.0;

/// See [`STEAL_ANY`].
const STEAL_ANY_S: f64 = 3.0;

impl Downlink {
    pub fn new() -> Self {
        Self {
            fetches: BTreeMap::new(),
            next_req: 0,
            outstanding_bytes: 0,
            flow: Flow::new(),
            most_bytes_per_s: 0.0,
            on_offer: 0,
            flow_from_afar: Flow::new(),
            limit_bytes_per_s: 0,
            from_origin_bytes: 0,
            from_peers_bytes: 0,
            wasted_bytes: 0,
        }
    }

    /// What was asked of a neighbour and is not here yet.
    pub(super) fn under_way<'a>(&'a self, neighbor: &'a Neighbor) -> impl Iterator<Item = &'a Fetch> {
        neighbor.fetches.iter().filter_map(|req| self.fetches.get(req)).filter(|fetch| !fetch.received)
    }
}

impl Fetch {
    /// Seconds until it should be whole, by how it came so far or else by what the sender usually does; as long as nothing comes, at least
    /// as many as nothing has come for.
    fn remaining_s(&self, now: Time, usual_bytes_per_s: f64) -> f64 {
        if self.received {
            return 0.0;
        }
        let (heard_at, rate) = match self.first_at {
            None => (self.asked_at, usual_bytes_per_s),
            Some(first) if self.last_at > first => (self.last_at, f64::from(self.arrived) / self.last_at.since(first).as_s()),
            Some(_) => (self.last_at, usual_bytes_per_s),
        };
        let silent_s = now.since(heard_at).as_s();
        let left = f64::from(self.bytes - self.arrived.min(self.bytes));
        (left / rate - silent_s).max(silent_s)
    }
}

impl Swarm {
    pub(super) fn on_grant(&mut self, peer: PeerId, blocks: u16, spare: bool) {
        if blocks == 0 {
            return self.fault(peer, Fault::Protocol);
        }
        match self.use_for_grant(peer, blocks, spare) {
            Some(span) => self.fetch(peer, span, false),
            None if self.may_keep_grant(peer) => {
                let now = self.now;
                self.neighbors.get_mut(peer).expect("it was asked about").kept_grant = Some((blocks, now));
            }
            None => {
                self.tell_news(peer);
                self.send(peer, Message::Decline { piece: None });
            }
        }
    }

    /// What to ask for now, if anything.
    fn use_for_grant(&mut self, peer: PeerId, blocks: u16, spare: bool) -> Option<BlockSpan> {
        if self.may_fetch_from(peer, spare) { self.choose(peer, blocks) } else { None }
    }

    /// A grant from afar is kept for a while when there is no use for it: back and forth are long, and the link may be thin.
    fn may_keep_grant(&self, peer: PeerId) -> bool {
        !self.is_holding_off()
            && self.neighbors.get(peer).is_some_and(|neighbor| neighbor.is_far && neighbor.told_held && neighbor.kept_grant.is_none())
    }

    /// Uses grants that were kept, and declines those that were kept for long.
    pub(super) fn use_kept_grants(&mut self) {
        let kept = self.neighbors.iter().filter_map(|neighbor| neighbor.kept_grant.map(|(blocks, since)| (neighbor.peer, blocks, since)));
        let mut kept: Vec<(PeerId, u16, Time)> = kept.collect();
        kept.sort_by_key(|&(_, _, since)| since);
        for (peer, blocks, since) in kept {
            let span = self.use_for_grant(peer, blocks, false);
            let is_old = self.now.since(since) >= GRANT_KEPT;
            if let Some(neighbor) = self.neighbors.get_mut(peer).filter(|_| span.is_some() || is_old) {
                neighbor.kept_grant = None;
            }
            match span {
                Some(span) => self.fetch(peer, span, false),
                None if is_old => self.send(peer, Message::Decline { piece: None }),
                None => {}
            }
        }
    }

    pub(super) fn on_assign(&mut self, peer: PeerId, raw: u32) {
        let Some(piece) = self.geometry.piece(raw) else { return self.fault(peer, Fault::Protocol) };
        let Some(neighbor) = self.neighbors.get_mut(peer) else { return };
        let allowed = neighbor.credit_out > 0;
        neighbor.credit_out = neighbor.credit_out.saturating_sub(1);
        let span = self.pieces.rest_of(piece).filter(|_| allowed && !self.is_holding_off() && self.room() > 0);
        match span {
            Some(span) => self.fetch(peer, span, true),
            None => {
                self.send(peer, Message::Decline { piece: Some(raw) });
                self.give_credit(peer);
            }
        }
    }

    /// Whether we ask for nothing at all for now.
    pub(super) fn is_holding_off(&self) -> bool {
        self.paused || self.leaving || self.disk_holds
    }

    /// Fetches that may still be begun beside those under way.
    pub(super) fn room(&self) -> u32 {
        usize::from(self.limits.fetches_max).saturating_sub(self.downlink.fetches.len()) as u32
    }

    fn may_fetch_from(&self, peer: PeerId, spare: bool) -> bool {
        let Some(neighbor) = self.neighbors.get(peer) else { return false };
        !self.is_holding_off()
            && neighbor.told_held
            && (neighbor.proven || neighbor.fetches.is_empty())
            && !self.keeps_us_waiting(neighbor)
            && self.room() > 0
            && self.downlink.outstanding_bytes + u64::from(self.geometry.piece_bytes()) <= self.window_bytes(spare)
            && (!neighbor.is_far || self.has_room_from_afar())
    }

    /// Whether we asked it for something and nothing has come for a while: then it is asked for no more.
    fn keeps_us_waiting(&self, neighbor: &Neighbor) -> bool {
        let asked_at = self.downlink.under_way(neighbor).map(|fetch| fetch.asked_at).min();
        let came_at = self.downlink.under_way(neighbor).filter(|fetch| fetch.arrived > 0).map(|fetch| fetch.last_at).max();
        asked_at.max(came_at).is_some_and(|since| self.now.since(since) > WAITS_MAX)
    }

    /// From afar, two pieces, or one and what twice the distance hides, are on their way at any time, and one where that takes long: a thin
    /// link that many share would be full for minutes of what they asked for, and nothing of it whole.
    fn has_room_from_afar(&self) -> bool {
        let (mut outstanding_bytes, mut distance) = (0, Span(u64::MAX));
        for neighbor in self.neighbors.iter().filter(|neighbor| neighbor.is_far) {
            distance = distance.min(neighbor.round_trip.unwrap_or(Span::ZERO));
            outstanding_bytes += self.downlink.under_way(neighbor).map(|fetch| u64::from(fetch.bytes)).sum::<u64>();
        }
        if self.is_slow_from_afar(distance) {
            return outstanding_bytes == 0;
        }
        let hidden_bytes = 2.0 * self.downlink.flow_from_afar.rate(self.now) * distance.as_s();
        outstanding_bytes as f64 <= hidden_bytes.max(self.geometry.piece_bytes().into())
    }

    /// Bytes that may be outstanding.
    fn window_bytes(&self, spare: bool) -> u64 {
        let (pieces, seconds) = if spare { (WINDOW_PIECES_SPARE, WINDOW_SPARE_S) } else { (WINDOW_PIECES, WINDOW_S) };
        let rate = self.downlink_bytes_per_s();
        let usual = RATE_USUAL * self.within_limit(self.downlink.most_bytes_per_s);
        let may_widen = !spare && self.downlink.on_offer >= MANY_PIECES;
        let wider = if may_widen { (usual / rate.max(1.0)).clamp(1.0, WINDOW_WIDER_MAX) } else { 1.0 };
        let least = (f64::from(self.geometry.piece_bytes()) * pieces * wider) as u64;
        ((rate * seconds) as u64)
            .max(least + (rate * self.uplink.round_trip().as_s() * WINDOW_ROUND_TRIPS) as u64)
            .min(self.limits.buffered_bytes_max)
    }

    /// What we receive, within the host's limit.
    fn downlink_bytes_per_s(&self) -> f64 {
        self.within_limit(self.downlink.flow.rate(self.now))
    }

    fn within_limit(&self, bytes_per_s: f64) -> f64 {
        match self.downlink.limit_bytes_per_s {
            0 => bytes_per_s,
            limit => bytes_per_s.min(limit as f64),
        }
    }

    /// Takes note of the most that our downlink has carried, and of what there is for it.
    pub(super) fn watch_downlink(&mut self) {
        self.downlink.on_offer = self.pieces.on_offer();
        if self.downlink.flow.is_settled(self.now) {
            self.downlink.most_bytes_per_s = self.downlink.most_bytes_per_s.max(self.downlink.flow.rate(self.now));
        }
    }

    fn choose(&mut self, peer: PeerId, blocks: u16) -> Option<BlockSpan> {
        let sender = self.neighbors.get(peer)?;
        let span = match sender.is_far {
            false => self.pieces.choose(&sender.held, blocks),
            true => {
                let much_faster = self.is_much_faster_than_near(sender);
                self.pieces.choose_from_afar(&sender.held, blocks, |piece| self.may_come_from_afar(piece, much_faster))
            }
        };
        span.or_else(|| self.steal(peer, blocks))
    }

    /// Takes over the request that would end last, if this sender would end it much sooner.
    fn steal(&mut self, peer: PeerId, blocks: u16) -> Option<BlockSpan> {
        let usual = self.usual_bytes_per_s();
        let thief = self.neighbors.get(peer)?;
        let much_faster = thief.is_far && self.is_much_faster_than_near(thief);
        let thief_rate = thief.speed.known().unwrap_or(usual);
        let in_tail = self.pieces.need() == 0;
        let now = self.now;
        // Whoever sends it, it has to come through our downlink behind what is already on its way.
        let ahead_s = self.downlink.outstanding_bytes as f64 / self.downlink_bytes_per_s().max(1.0);
        let (req, fetch, _) = self
            .downlink
            .fetches
            .iter()
            .filter(|(_, fetch)| fetch.from != peer && !fetch.received && thief.held.contains(fetch.span.piece()))
            .filter(|(_, fetch)| !thief.is_far || self.may_come_from_afar(fetch.span.piece(), much_faster))
            .filter_map(|(&req, fetch)| {
                let rate = self.neighbors.get(fetch.from).and_then(|neighbor| neighbor.speed.known()).unwrap_or(usual);
                let theirs_s = fetch.remaining_s(now, rate);
                let ours_s = REQUEST_S + (f64::from(fetch.bytes) / thief_rate).max(ahead_s);
                let worth = (in_tail && theirs_s > STEAL_IN_TAIL * ours_s) || (theirs_s > STEAL_ANY * ours_s && theirs_s > STEAL_ANY_S);
                worth.then_some((req, *fetch, theirs_s))
            })
            .max_by(|a, b| a.2.total_cmp(&b.2).then(b.0.cmp(&a.0)))?;
        self.cancel(req);
        // What the slower one had sent of a whole piece came without proof and is lost; of a part, the blocks that were checked stay.
        let rest = self.pieces.rest_of(fetch.span.piece())?;
        self.geometry.span(rest.piece(), rest.first(), rest.count().min(blocks))
    }

    /// Bytes per second that one of our senders usually delivers.
    fn usual_bytes_per_s(&self) -> f64 {
        let known: Vec<f64> = self.neighbors.iter().filter_map(|neighbor| neighbor.speed.known()).collect();
        if known.is_empty() { 1e6 } else { known.iter().sum::<f64>() / known.len() as f64 }
    }

    fn fetch(&mut self, peer: PeerId, span: BlockSpan, assigned: bool) {
        self.downlink.next_req += 1;
        let req = RequestId(self.downlink.next_req);
        let bytes = self.geometry.len_of_span(span);
        let now = self.now;
        self.pieces.ask(req, span);
        self.downlink.outstanding_bytes += u64::from(bytes);
        self.downlink.fetches.insert(
            req,
            Fetch { from: peer, span, bytes, asked_at: now, arrived: 0, first_at: None, last_at: now, received: false, assigned },
        );
        if let Some(neighbor) = self.neighbors.get_mut(peer) {
            neighbor.fetches.push(req);
        }
        self.tell_news(peer);
        self.output(Output::Fetch { req, from: peer, span });
    }

    /// Forgets a request: its blocks are free again. Gives it back.
    fn forget(&mut self, req: RequestId) -> Option<Fetch> {
        let was_full = self.room() == 0;
        let fetch = self.downlink.fetches.remove(&req)?;
        self.pieces.unask(req, fetch.span.piece());
        if !fetch.received {
            self.downlink.outstanding_bytes -= u64::from(fetch.bytes);
        }
        if let Some(neighbor) = self.neighbors.get_mut(fetch.from) {
            neighbor.fetches.retain(|&other| other != req);
        }
        if was_full {
            self.credit_origins();
        }
        Some(fetch)
    }

    fn cancel(&mut self, req: RequestId) {
        if let Some(fetch) = self.forget(req) {
            self.downlink.wasted_bytes += u64::from(fetch.arrived);
            self.output(Output::Cancel { req, from: fetch.from });
            if fetch.assigned {
                self.give_credit(fetch.from);
            }
        }
    }

    /// What somebody near has got now need not come from afar, unless half of it is here.
    pub(super) fn cancel_from_afar(&mut self, runs: &[Run]) {
        let has_come = |piece: PieceIdx| runs.iter().any(|&(first, count)| (first..first + count).contains(&piece.raw()));
        let fetches = self.downlink.fetches.iter();
        let in_vain = fetches.filter(|(_, fetch)| has_come(fetch.span.piece()) && !fetch.assigned && fetch.arrived < fetch.bytes / 2);
        let from_afar = in_vain.filter(|(_, fetch)| self.neighbors.get(fetch.from).is_some_and(|neighbor| neighbor.is_far));
        let reqs: Vec<RequestId> = from_afar.map(|(&req, _)| req).collect();
        reqs.into_iter().for_each(|req| self.cancel(req));
    }

    pub(super) fn on_arrived(&mut self, req: RequestId, bytes: u32) {
        let now = self.now;
        let Some(fetch) = self.downlink.fetches.get_mut(&req) else { return };
        let fresh = bytes.min(fetch.bytes).saturating_sub(fetch.arrived);
        fetch.arrived += fresh;
        fetch.first_at.get_or_insert(now);
        fetch.last_at = now;
        let from = fetch.from;
        self.count_arrived(from, fresh);
    }

    fn count_arrived(&mut self, from: PeerId, bytes: u32) {
        self.downlink.flow.add(self.now, bytes.into());
        if self.neighbors.get(from).is_some_and(|neighbor| neighbor.is_far) {
            self.downlink.flow_from_afar.add(self.now, bytes.into());
        }
    }

    pub(super) fn on_received(&mut self, req: RequestId) {
        let now = self.now;
        let Some(fetch) = self.downlink.fetches.get_mut(&req) else { return };
        if fetch.received {
            return;
        }
        let fresh = fetch.bytes - fetch.arrived;
        fetch.arrived = fetch.bytes;
        fetch.last_at = now;
        fetch.received = true;
        let fetch = *fetch;
        self.count_arrived(fetch.from, fresh);
        self.downlink.outstanding_bytes -= u64::from(fetch.bytes);
        if let Some(neighbor) = self.neighbors.get_mut(fetch.from) {
            let begun = fetch.asked_at.max(neighbor.received_at);
            neighbor.speed.add(fetch.bytes.into(), now.since(begun));
            neighbor.received_at = now;
        }
        if fetch.assigned {
            self.give_credit(fetch.from);
        }
        if self.neighbors.get(fetch.from).is_some_and(|neighbor| neighbor.is_far) {
            self.near.imported(now.since(fetch.asked_at));
            self.use_kept_grants();
        }
    }

    pub(super) fn on_fetch_ended(&mut self, req: RequestId, end: FetchEnd) {
        if matches!(end, FetchEnd::Verified | FetchEnd::Committed(_) | FetchEnd::Corrupt | FetchEnd::Unwritten) {
            self.on_received(req);
        }
        let Some(&fetch) = self.downlink.fetches.get(&req) else {
            // Cancelled too late to matter: a commit still counts.
            if let FetchEnd::Committed(committed) = end {
                self.on_committed(committed);
            }
            return;
        };
        match end {
            FetchEnd::Verified => {
                self.pieces.verify(req, fetch.span);
                self.forget(req);
                self.count_good(&fetch);
            }
            FetchEnd::Committed(committed) => {
                self.forget(req);
                self.count_good(&fetch);
                self.on_committed(committed);
            }
            FetchEnd::Corrupt => {
                self.forget(req);
                self.downlink.wasted_bytes += u64::from(fetch.bytes);
                self.ban(fetch.from, Fault::Corrupt);
            }
            FetchEnd::Refused { reason, .. } => {
                self.forget(req);
                if fetch.assigned {
                    self.give_credit(fetch.from);
                }
                if reason == REFUSE_NOT_HELD {
                    self.promise_broken(fetch.from, fetch.span.piece());
                }
            }
            FetchEnd::Unwritten => {
                self.forget(req);
                self.pieces.lose_blocks(fetch.span.piece());
                self.downlink.wasted_bytes += u64::from(fetch.bytes);
                if fetch.assigned {
                    // The origin thinks that we pass it on. Told, it hands it out once more; else only when the lease is over.
                    self.send(fetch.from, Message::Decline { piece: Some(fetch.span.piece().raw()) });
                }
            }
        }
        self.tell_need_soon();
    }

    fn count_good(&mut self, fetch: &Fetch) {
        let Some(neighbor) = self.neighbors.get_mut(fetch.from) else { return };
        self.near.gave(neighbor, self.now);
        neighbor.proven = true;
        let counter = if neighbor.is_origin { &mut self.downlink.from_origin_bytes } else { &mut self.downlink.from_peers_bytes };
        *counter += u64::from(fetch.bytes);
    }

    /// A piece is on our disk.
    pub(super) fn on_committed(&mut self, committed: Committed) {
        let piece = committed.piece();
        if self.pieces.held().contains(piece) {
            return;
        }
        for req in self.pieces.hold(piece) {
            self.cancel(req);
        }
        self.log.push(piece);
        // A region that has the piece already has no use for ours.
        let is_first = !self.pieces.is_afar(piece);
        self.near.has_news_for_afar |= is_first;
        for neighbor in self.neighbors.iter_mut().filter(|neighbor| !neighbor.held.contains(piece)) {
            neighbor.lacks += 1;
            if !neighbor.is_far || is_first {
                neighbor.has_news(self.now);
            }
        }
        self.have_soon();
        if self.pieces.is_whole() {
            self.on_whole();
        }
    }

    /// Requests of a link that went down.
    pub(super) fn release_fetches(&mut self, gone: &Neighbor) {
        for &req in &gone.fetches {
            if let Some(fetch) = self.forget(req) {
                self.downlink.wasted_bytes += u64::from(fetch.arrived);
            }
        }
        self.tell_need_soon();
    }

    /// Requests that nothing came of in time go back, and their senders are thought slower.
    pub(super) fn lapse_fetches(&mut self) {
        let usual = self.usual_bytes_per_s();
        let late: Vec<RequestId> = self
            .downlink
            .fetches
            .iter()
            .filter(|(_, fetch)| {
                let rate = self.neighbors.get(fetch.from).and_then(|neighbor| neighbor.speed.known()).unwrap_or(usual).min(usual);
                let patience = Span::from_s(4.0 * f64::from(fetch.bytes) / rate).clamp(PATIENCE_MIN, Span::s(60));
                !fetch.received && self.now.since(fetch.last_at) > patience
            })
            .map(|(&req, _)| req)
            .collect();
        for req in late {
            // An earlier one may have ended the link, and this one with it.
            let Some(from) = self.downlink.fetches.get(&req).map(|fetch| fetch.from) else { continue };
            self.cancel(req);
            if let Some(neighbor) = self.neighbors.get_mut(from) {
                neighbor.speed.halve();
            }
            self.half_strike(from);
            self.tell_need_soon();
        }
    }

    /// Pieces of ours that turn out to be damaged are missing again.
    pub(super) fn on_damaged(&mut self, piece: PieceIdx) {
        if !self.pieces.drop_held(piece) {
            return;
        }
        self.whole_told = false;
        let mut peers = Vec::new();
        for neighbor in self.neighbors.iter_mut() {
            if !neighbor.held.contains(piece) {
                neighbor.lacks -= 1;
            }
            peers.push(neighbor.peer);
        }
        for peer in peers {
            self.send(peer, Message::Withdraw { runs: vec![(piece.raw(), 1)] });
        }
        self.notice(super::Notice::Damaged { piece });
        self.tell_need_soon();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::Geometry;

    /// A request that waited for long in its sender's queue, and half of which has just come, was taken for one that would need as long
    /// again: at the end of a download on slow links each client threw away fifteen pieces.
    #[test]
    fn what_is_coming_is_not_taken_for_what_lies() {
        let geometry = Geometry::new(1 << 15, 1 << 15).unwrap();
        let span = geometry.whole(geometry.piece(0).unwrap());
        let at = |ms| Time::ZERO + Span::ms(ms);
        let mut fetch = Fetch {
            from: PeerId([1; 32]),
            span,
            bytes: 32_768,
            asked_at: at(0),
            arrived: 0,
            first_at: None,
            last_at: at(0),
            received: false,
            assigned: false,
        };
        assert_eq!(fetch.remaining_s(at(1500), 1e5), 1.5, "nothing came of it");
        (fetch.arrived, fetch.first_at, fetch.last_at) = (16_384, Some(at(1500)), at(1500));
        assert!(fetch.remaining_s(at(1600), 1e5) < 0.15, "half of it came a moment ago");
        assert_eq!(fetch.remaining_s(at(2500), 1e5), 1.0, "half of it came, and then nothing");
        (fetch.arrived, fetch.last_at) = (24_576, at(5500));
        assert!(fetch.remaining_s(at(5500), 1e5) > 1.0, "it comes slowly");
    }
}
