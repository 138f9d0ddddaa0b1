//! The sender's side: whom to grant, what is queued.
//!
//! The sender alone knows how full its uplink is, so it picks who; the receiver alone knows what it asked of whom, so it picks
//! what. Queues are kept short: whenever what is queued, and what of the grants will probably be used, falls below a few pieces (plus
//! what the round trip hides), one neighbour is picked.

use super::neighbors::{DECLINES_USUAL, PERMIT_LIFE, PERMITS_PER_PEER_MAX, PERMITS_PER_PEER_USUAL, Permit, Serving};
use super::rates::{Flow, Speed};
use super::{Fault, Output, Swarm};
use crate::unit::{BLOCK_BYTES, BlockSpan, PeerId, PieceIdx, RequestId, Span, Time};
use crate::wire::{Message, REFUSE_BUSY, REFUSE_NOT_HELD};

/// Sums over all links.
#[derive(Clone, Debug)]
pub(super) struct Uplink {
    /// Asked for and not yet handed to the network.
    pub queued_bytes: u64,
    /// Granted and not yet asked for.
    pub permitted_bytes: u64,
    pub speed: Speed,
    pub flow: Flow,
    /// The same over less time.
    burst: Flow,
    /// The most that went out per second; told while the speed is not known.
    most_bytes_per_s: Option<f64>,
    pub limit_bytes_per_s: u64,
    /// Smoothed time from a grant to its answer, and the least.
    round_trip: Option<Span>,
    nearest: Option<Span>,
    /// Share of the grants answered lately that were used.
    used_share: f64,
    busy_since: Option<Time>,
    /// When the queue last had nothing in it and nobody could be granted: the uplink is idle since.
    pub idle_since: Option<Time>,
    pub sent_bytes: u64,
}

/// Most bytes that the round trip may add to the queue: what a 10 Gbit/s link moves in 25 ms.
const HIDDEN_BYTES_MAX: f64 = 32e6;

/// Over how long the uplink is watched while it fills. 0.4 s: less follows its waves and makes them larger, more is slow to fill a far link.
const BURST_S: f64 = 0.4;

/// Pieces granted or queued. 3: one under way, one behind it, and one to turn to while a receiver's downlink is full; 2 and 4 are
/// slower (`peas-sim report`).
const QUEUE_PIECES: u64 = 3;

/// And bytes, while it is not known what our uplink can do: three pieces of 32 KiB, so that smaller ones begin no slower.
const QUEUE_BYTES_AT_FIRST: u64 = 96 << 10;

/// A grant counts as queued by the share of its like that was used, and by at least this much. Where most are declined, an uplink that
/// counted them whole would stand idle behind three of them for a round trip, again and again. 0.2: with a tenth
/// clients on fast links side by side take a twentieth longer, because they are asked too much
/// (`peas-sim run --clients 32 --one-way-ms 1 --up-mbit 1000`).
const USED_SHARE_MIN: f64 = 0.2;

/// Weight of one more answer in that share.
const USED_SHARE_WEIGHT: f64 = 0.1;

/// When a permit that was not used stops taking room in the queue: 250 ms, or four round trips where those are longer.
const STALE_MIN: Span = Span::ms(250);

/// A far peer's request that takes this many times what a piece takes on our uplink, and this long at least, takes no more room in the
/// queue: the way is narrower than our uplink, which would stand idle behind a few of those. 32: with three pieces queued each takes three,
/// and with 8 far peers behind a link that is nearly wide enough are taken for slow (`peas-sim run --clients 16 --piece-kib 32 --trunk-mbit
/// 13.75 --one-way-ms 2`: 1.38 instead of 1.28).
/// Near peers wait for each other's downlinks as long as that, and giving them more at once only makes it worse (`peas-sim run --clients
/// 128`: 1.25 instead of 1.07).
const ASIDE_PIECES: u64 = 32;
const ASIDE_MIN: Span = Span::ms(500);

/// Bounds of a trial.
const TRIAL_MIN: Span = Span::ms(50);
const TRIAL: Span = Span::ms(250);

/// Bytes per second that our uplink is taken for while nothing is known of it.
pub(super) const UPLINK_UNKNOWN: f64 = 1e6;

/// What a piece takes at least, so that refusals do not turn into chatter, and while nothing is known of our uplink: who waits too short a time
/// at first sends some small messages in vain, who waits too long lets a fast link stand idle. 4 ms: with 10, and 50 while unknown, 32 MiB
/// took eight clients at 100 Mbit/s a twentieth longer.
const PIECE_TIME_MIN: Span = Span::ms(4);
const PIECE_TIME_MAX: Span = Span::s(2);

/// Longest time without a grant to a peer that declines.
const REST_MAX: Span = Span::s(5);

/// Who is on probation and says nothing for this long goes. 2 s: a busy host needs one now and then, and with 4 s a crowd costs three times
/// as much.
const SILENT_MAX: Span = Span::s(2);

/// 10 s from the hello until a peer must have said what it holds.
const FIRST_WORD_MAX: Span = Span::s(10);

/// Pieces that one under way counts for in who is granted next. 8: with 4 thirty clients with small pieces are whole at 1.126 times the bound instead of
/// 1.111, with 32 at 1.112; where it decides alone, 128 clients at 1 Gbit/s and 50 ms at 1.76 instead of 1.49 (`peas-sim run --clients 30 --pieces 512
/// --piece-kib 16 --up-mbit 6`, seeds 1 to 4; `peas-sim report --only '1 Gbit/s, 50'`).
const UNDER_WAY: i64 = 8;

/// Neighbours compared for each grant. A little randomness is right: the best of all neighbours is everybody's choice at once.
const TRIED: usize = 3;

impl Uplink {
    pub fn new() -> Self {
        Self {
            queued_bytes: 0,
            permitted_bytes: 0,
            speed: Speed::default(),
            flow: Flow::new(),
            burst: Flow::over(BURST_S),
            most_bytes_per_s: None,
            limit_bytes_per_s: 0,
            round_trip: None,
            nearest: None,
            used_share: 1.0,
            busy_since: None,
            idle_since: Some(Time::ZERO),
            sent_bytes: 0,
        }
    }

    /// What we can send per second, if known: measured, and within the host's limit. Small pieces vanish in the system's buffers at
    /// once, and only show what we did send.
    pub fn bytes_per_s(&self) -> Option<f64> {
        let limit = (self.limit_bytes_per_s > 0).then_some(self.limit_bytes_per_s as f64);
        match (self.speed.known().or(self.most_bytes_per_s), limit) {
            (Some(speed), Some(limit)) => Some(speed.min(limit)),
            (speed, limit) => speed.or(limit),
        }
    }

    fn note_round_trip(&mut self, sample: Span) {
        self.nearest = Some(self.nearest.map_or(sample, |nearest| nearest.min(sample)));
        self.round_trip = Some(match self.round_trip {
            Some(known) => Span((known.0 * 7 + sample.0) / 8),
            None => sample,
        });
    }

    /// Takes note of what became of a grant.
    fn note_grant(&mut self, permit: &Permit, now: Time, used: bool) {
        self.note_round_trip(now.since(permit.at));
        if permit.piece.is_none() {
            self.used_share += (f64::from(u8::from(used)) - self.used_share) * USED_SHARE_WEIGHT;
        }
    }

    /// Bytes queued, and those that grants will probably bring.
    fn expected_bytes(&self) -> u64 {
        self.queued_bytes + (self.permitted_bytes as f64 * self.used_share.max(USED_SHARE_MIN)) as u64
    }

    pub fn round_trip(&self) -> Span {
        self.round_trip.unwrap_or(Span::ZERO)
    }

    fn note_queue(&mut self, now: Time, bytes: u64) {
        if self.queued_bytes == 0 {
            self.busy_since = Some(now);
        }
        self.queued_bytes += bytes;
    }

    fn note_sent(&mut self, now: Time, queued: u64, sent: u64) {
        self.sent_bytes += sent;
        self.flow.add(now, sent);
        self.burst.add(now, sent);
        if let Some(since) = self.busy_since.filter(|_| queued > 0) {
            self.speed.add(sent, now.since(since));
        }
        if self.speed.known().is_none() && self.flow.is_settled(now) {
            let most = self.flow.rate(now).max(self.most_bytes_per_s.unwrap_or(0.0));
            self.most_bytes_per_s = (most > 0.0).then_some(most);
        }
        self.leave_queue(now, queued);
    }

    /// Bytes that are sent, given up or set aside. What comes next is timed from here.
    fn leave_queue(&mut self, now: Time, bytes: u64) {
        if bytes > 0 {
            self.queued_bytes -= bytes;
            self.busy_since = (self.queued_bytes > 0).then_some(now);
        }
    }

    /// How long what is queued will take.
    pub fn queue_ms(&self) -> u32 {
        match self.bytes_per_s() {
            Some(rate) => ((self.queued_bytes + self.permitted_bytes) as f64 / rate * 1e3) as u32,
            None => 0,
        }
    }
}

impl Swarm {
    /// Grants until the queue is as long as it should be or nobody can use a grant.
    pub(super) fn grant(&mut self) {
        if self.paused || self.leaving || self.pieces.held().is_empty() || self.origin_spent() || self.is_handing_out() || self.is_resting()
        {
            return;
        }
        let target = self.queue_target();
        // Few neighbours far away are granted more than usual, or they would have asked for all long before the next grant can come.
        let share = (target / u64::from(self.geometry.piece_bytes())) as usize / self.neighbors.len().max(1);
        let permits_max = share.clamp(PERMITS_PER_PEER_USUAL, PERMITS_PER_PEER_MAX);
        while self.uplink.expected_bytes() < target {
            let Some((peer, spare)) = self.pick_receiver(permits_max) else {
                self.uplink.idle_since.get_or_insert(self.now);
                return;
            };
            let blocks = self.grant_blocks();
            self.tell_news(peer);
            self.permit(peer, None, blocks, PERMIT_LIFE, Message::Grant { blocks, spare });
        }
        self.uplink.idle_since = None;
    }

    /// Bytes that granted and queued work should amount to: enough to last until the next grant is answered.
    pub(super) fn queue_target(&self) -> u64 {
        let piece_bytes = u64::from(self.geometry.piece_bytes());
        let hidden = self.uplink.bytes_per_s().unwrap_or(0.0) * self.uplink.round_trip().as_s();
        // An uplink that is not full yet is filled within some round trips, by twice what went out in one of them. Less a piece, which the queue
        // has for that: where pieces take long, the first that went out looks like a fast uplink.
        let nearest = self.uplink.nearest.unwrap_or(Span::ZERO);
        let fills = 2.0 * self.uplink.burst.rate(self.now) * nearest.as_s() - piece_bytes as f64;
        let least = piece_bytes * QUEUE_PIECES;
        let least = if self.uplink.bytes_per_s().is_none() { least.max(QUEUE_BYTES_AT_FIRST) } else { least };
        least + hidden.max(fills).min(HIDDEN_BYTES_MAX) as u64
    }

    /// At most a piece, and at most a second of one of the two slots that a queue of this length amounts to.
    fn grant_blocks(&self) -> u16 {
        let piece_blocks = (self.geometry.piece_bytes() / BLOCK_BYTES) as u16;
        let Some(rate) = self.uplink.bytes_per_s() else { return piece_blocks };
        let second = (rate / 2.0 / f64::from(BLOCK_BYTES)) as u16;
        // Half a piece or more is rounded up: whole pieces travel without proofs and are free of fragments.
        if second >= piece_blocks / 2 { piece_blocks } else { second.max(1) }
    }

    /// Who is granted next, and whether it was the only one that could be. `permits_max`: grants outstanding to one peer.
    ///
    /// Who needs most is first, but each piece under way from us counts as if [`UNDER_WAY`] fewer were needed: then all have work, and no downlink
    /// waits for us alone. Who is far has little under way because its answers take long, and would be first again and again: a thin link
    /// would carry a piece 1.81 times instead of 1.60 (`peas-sim run --clients 48 --pieces 96 --trunk-mbit 25`, means of seeds 1 to 40). So where some
    /// are, who has got least is first.
    fn pick_receiver(&mut self, permits_max: usize) -> Option<(PeerId, bool)> {
        let mut best: Option<((bool, bool, i64), PeerId)> = None;
        let mut tried = 0;
        let try_one = self.neighbors.may_try_one(self.now, self.trial());
        let crowded = self.is_crowded();
        let some_are_far = self.neighbors.iter().any(|neighbor| neighbor.is_far);
        for slot in self.rng.walk(self.neighbors.len()) {
            let neighbor = self.neighbors.at(slot);
            if !neighbor.may_be_granted(self.now, permits_max) || !(neighbor.answers || try_one) || self.newcomers.doubt(neighbor) {
                continue;
            }
            // A region that has got all that we hold is granted only when nobody else can use it.
            let last = neighbor.is_far && !self.near.has_news_for_afar;
            let under_way = (neighbor.permits.len() + neighbor.serving.len()) as i64;
            let served = if some_are_far { i64::from(neighbor.held.len()) + 2 * under_way } else { UNDER_WAY * under_way };
            let score = served - i64::from(neighbor.need.min(self.geometry.piece_count()));
            let behind = crowded && !neighbor.takes;
            if best.is_none_or(|(least, _)| (behind, last, score) < least) {
                best = Some(((behind, last, score), neighbor.peer));
            }
            tried += usize::from(!last && !behind);
            if tried == TRIED {
                break;
            }
        }
        let (_, peer) = best?;
        let spare = tried == 1 && self.neighbors.iter().filter(|neighbor| neighbor.lacks as usize > neighbor.serving.len()).count() == 1;
        Some((peer, spare))
    }

    /// How long a permit is young: four round trips; 250 ms while they are not known. Then the next is tried beside it.
    pub(super) fn trial(&self) -> Span {
        self.uplink.round_trip.map_or(TRIAL, |round_trip| Span(round_trip.0 * 4).clamp(TRIAL_MIN, TRIAL))
    }

    /// Gives a peer leave to ask, and tells it.
    pub(super) fn permit(&mut self, peer: PeerId, piece: Option<PieceIdx>, blocks: u16, life: Span, message: Message) {
        let bytes = match piece {
            Some(piece) => u64::from(self.geometry.len_of(piece)),
            None => u64::from(blocks) * u64::from(BLOCK_BYTES),
        };
        let Some(neighbor) = self.neighbors.get_mut(peer) else { return };
        // Who is not known to answer is given leave on trial: it takes no room from others.
        let (bytes, life) = match neighbor.answers && !self.newcomers.doubt(neighbor) {
            true if neighbor.is_slow || (neighbor.is_far && piece.is_none()) => (0, life),
            true => (bytes, life),
            false => (0, life.min(PERMIT_LIFE)),
        };
        neighbor.permits.push_back(Permit { piece, blocks, bytes, at: self.now, until: self.now + life });
        self.uplink.permitted_bytes += bytes;
        self.send(peer, message);
    }

    pub(super) fn on_request(&mut self, peer: PeerId, req: RequestId, piece: u32, first: u16, count: u16) {
        let span = self.geometry.piece(piece).and_then(|piece| self.geometry.span(piece, first, count));
        let Some(span) = span else { return self.fault(peer, Fault::Protocol) };
        let Some(permit) = self.take_permit(peer, span) else {
            return self.refuse(peer, req, REFUSE_BUSY);
        };
        self.uplink.note_grant(&permit, self.now, true);
        if !self.pieces.held().contains(span.piece()) {
            return self.refuse(peer, req, REFUSE_NOT_HELD);
        }
        if permit.piece.is_some() {
            self.assignment_asked(peer, span.piece(), permit.at);
        }
        let neighbor = self.neighbors.get_mut(peer).expect("its permit was just taken");
        let aside = neighbor.is_slow || self.newcomers.doubt(neighbor);
        let bytes = if aside { 0 } else { u64::from(self.geometry.len_of_span(span)) };
        if neighbor.serving.iter().any(|serving| serving.req == req) {
            return self.fault(peer, Fault::Protocol);
        }
        neighbor.serving.push(Serving { req, span, bytes, since: self.now, overtaken: 0 });
        self.uplink.note_queue(self.now, bytes);
        self.output(Output::Serve { req, to: peer, span });
    }

    /// The permit that covers the span: an assignment of its piece, else the oldest grant that is large enough.
    fn take_permit(&mut self, peer: PeerId, span: BlockSpan) -> Option<Permit> {
        let neighbor = self.neighbors.get_mut(peer)?;
        let permits = &mut neighbor.permits;
        let at = permits
            .iter()
            .position(|permit| permit.piece == Some(span.piece()))
            .or_else(|| permits.iter().position(|permit| permit.piece.is_none() && permit.blocks >= span.count()))?;
        let permit = permits.remove(at)?;
        neighbor.note_round_trip(self.now.since(permit.at));
        // Of many grants given at once it may have declined the first and used the last: that it has room is news, too.
        neighbor.has_news(self.now);
        (neighbor.answers, neighbor.has_asked, neighbor.vain) = (true, true, 0);
        self.newcomers.answered(neighbor, permit.at);
        self.uplink.permitted_bytes -= permit.bytes;
        Some(permit)
    }

    fn refuse(&mut self, peer: PeerId, req: RequestId, reason: u8) {
        self.send(peer, Message::Refuse { req: req.0, reason, retry_after_ms: self.piece_time().as_ms() as u32 });
    }

    pub(super) fn on_decline(&mut self, peer: PeerId, piece: Option<u32>) {
        let piece = match piece.map(|raw| self.geometry.piece(raw)) {
            Some(None) => return self.fault(peer, Fault::Protocol),
            Some(known) => known,
            None => None,
        };
        let rest = Span(self.piece_time().0 * 2);
        let Some(neighbor) = self.neighbors.get_mut(peer) else { return };
        // There is none if the grant has lapsed since; or if it asked for an assigned piece, got it, and could not keep it.
        let permit = neighbor.permits.iter().position(|permit| permit.piece == piece).and_then(|at| neighbor.permits.remove(at));
        if let Some(permit) = &permit {
            // A decline costs nothing, so it proves little; but it is a word.
            neighbor.vain = 0;
            self.newcomers.answered(neighbor, permit.at);
            self.uplink.permitted_bytes -= permit.bytes;
            neighbor.note_round_trip(self.now.since(permit.at));
            self.uplink.note_grant(permit, self.now, false);
        }
        match piece {
            Some(piece) => {
                neighbor.behind_until = self.now + super::handout::LEASE_MIN;
                self.assignment_declined(peer, piece);
            }
            // It has as much on its way as it can take: twice the time of a piece, in which one of those should arrive. Or what we think
            // it lacks came from others who did not tell us: then it will decline until one of us has news, and is asked ever less.
            None if permit.is_some() => {
                let longer = Span(rest.0 << neighbor.declines.saturating_sub(DECLINES_USUAL).min(10));
                neighbor.declines = neighbor.declines.saturating_add(1);
                let until = self.now + longer.min(rest.max(REST_MAX));
                neighbor.backoff_until = until;
                self.wake_at(until);
            }
            None => {}
        }
    }

    pub(super) fn on_serve_ended(&mut self, peer: PeerId, req: RequestId, sent_bytes: u32, damaged: bool) {
        let usual = self.usual_serve();
        let Some(neighbor) = self.neighbors.get_mut(peer) else { return };
        let Some(at) = neighbor.serving.iter().position(|serving| serving.req == req) else { return };
        let serving = neighbor.serving.swap_remove(at);
        neighbor.is_slow &= usual.is_none_or(|usual| self.now.since(serving.since) >= usual);
        neighbor.served_at = Some(self.now);
        self.uplink.note_sent(self.now, serving.bytes, sent_bytes.into());
        self.count_copies(u64::from(sent_bytes));
        self.assignment_sent(peer, &serving);
        if damaged {
            self.refuse(peer, req, REFUSE_NOT_HELD);
            self.on_damaged(serving.span.piece());
        }
    }

    pub(super) fn on_cancel(&mut self, peer: PeerId, req: RequestId) {
        let serving = self.neighbors.get(peer).is_some_and(|neighbor| neighbor.serving.iter().any(|serving| serving.req == req));
        if serving {
            self.output(Output::StopServe { req, to: peer });
        }
    }

    /// Takes back what a link that went down, or a lapsed permit, kept of the uplink.
    pub(super) fn release_uplink(&mut self, permits: impl IntoIterator<Item = Permit>, serving: &[Serving]) {
        for permit in permits {
            self.uplink.permitted_bytes -= permit.bytes;
        }
        for serving in serving {
            self.uplink.note_sent(self.now, serving.bytes, 0);
        }
    }

    /// Far peers, and those on probation, that take what they asked for too slowly to fill the uplink make room for others.
    pub(super) fn set_slow_aside(&mut self) {
        let Some(usual) = self.usual_serve() else { return };
        let now = self.now;
        let mut aside_bytes = 0;
        for neighbor in self.neighbors.iter_mut().filter(|neighbor| neighbor.is_far || self.newcomers.doubt(neighbor)) {
            if neighbor.serving.iter().any(|serving| now.since(serving.since) >= usual) {
                neighbor.is_slow = true;
                aside_bytes += neighbor.serving.iter_mut().map(|serving| std::mem::take(&mut serving.bytes)).sum::<u64>();
            }
        }
        self.uplink.leave_queue(now, aside_bytes);
    }

    /// Longest time in which a request is served to a peer that is not slow, if we know what our uplink can do.
    fn usual_serve(&self) -> Option<Span> {
        self.uplink.bytes_per_s().map(|_| Span(self.piece_time().0 * ASIDE_PIECES).max(ASIDE_MIN))
    }

    /// Permits that nobody used in time count as declined; long before, they no longer take room in the queue. A peer that lets them
    /// lapse is not kept: at once if it never asked for anything, else after the second time in a row.
    pub(super) fn lapse_permits(&mut self) {
        let now = self.now;
        let stale_after = Span(self.uplink.round_trip().0 * 4).max(STALE_MIN);
        let suspect = self.newcomers.are_suspect();
        let (mut lapsed, mut mute, mut stale_bytes) = (Vec::new(), Vec::new(), 0);
        for neighbor in self.neighbors.iter_mut() {
            let (peer, kept) = (neighbor.peer, neighbor.permits.len());
            for permit in neighbor.permits.iter_mut().filter(|permit| permit.bytes > 0 && now.since(permit.at) >= stale_after) {
                stale_bytes += std::mem::take(&mut permit.bytes);
                neighbor.answers &= neighbor.is_far;
            }
            if !neighbor.is_far && neighbor.permits.iter().any(|permit| now.since(permit.at) >= stale_after) {
                self.newcomers.unanswered(neighbor);
            }
            neighbor.permits.retain(|permit| {
                let late = permit.until <= now;
                if late {
                    lapsed.push((peer, *permit));
                }
                !late
            });
            if neighbor.permits.len() < kept {
                // Those given together lapse one after the other, and count once.
                neighbor.vain += u8::from(neighbor.backoff_until <= now);
                neighbor.backoff_until = now + PERMIT_LIFE;
            }
            let lets_lie = suspect
                && !neighbor.takes
                && !neighbor.is_far
                && neighbor.permits.front().is_some_and(|permit| now.since(permit.at) >= SILENT_MAX);
            let owes_word = !neighbor.told_held && now.since(neighbor.linked_at) >= FIRST_WORD_MAX;
            if owes_word || lets_lie || neighbor.vain > u8::from(neighbor.has_asked) {
                mute.push(peer);
            }
        }
        self.uplink.permitted_bytes -= stale_bytes;
        for (peer, permit) in lapsed {
            self.release_uplink([permit], &[]);
            if let Some(piece) = permit.piece {
                self.assignment_declined(peer, piece);
            }
        }
        mute.into_iter().for_each(|peer| self.hang_up(peer, Fault::Slow));
    }

    /// How long a whole piece takes on our uplink.
    pub(super) fn piece_time(&self) -> Span {
        let takes = |rate| Span::from_s(f64::from(self.geometry.piece_bytes()) / rate).clamp(PIECE_TIME_MIN, PIECE_TIME_MAX);
        self.uplink.bytes_per_s().map_or(PIECE_TIME_MIN, takes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::tests::{joins, machine, peer};
    use crate::swarm::{Input, Role};

    /// The machine gets all pieces; these neighbours of it are known to use grants.
    fn hold_everything(swarm: &mut Swarm, neighbors: &[u8]) {
        let pieces: Vec<PieceIdx> = swarm.geometry.pieces().collect();
        for piece in pieces {
            swarm.on_committed(crate::swarm::Committed::witnessed(piece));
        }
        for &n in neighbors {
            let neighbor = swarm.neighbors.get_mut(peer(n)).unwrap();
            (neighbor.answers, neighbor.takes) = (true, true);
        }
    }

    /// Whom it grants now, in order.
    fn granted(swarm: &mut Swarm) -> Vec<PeerId> {
        swarm.handle(Time::ZERO, Input::Timeout);
        let to = |output| match output {
            Output::Send { peer, message: Message::Grant { .. } } => Some(peer),
            _ => None,
        };
        std::iter::from_fn(|| swarm.poll()).filter_map(to).collect()
    }

    /// A machine that holds everything, takes its uplink for one of 900 Mbit/s over a long way, and has granted its only neighbour what it may.
    fn generous() -> (Swarm, usize) {
        let mut swarm = machine(200, 4000, Role::Peer);
        joins(1, true, vec![], 4000).into_iter().for_each(|input| swarm.handle(Time::ZERO, input));
        swarm.uplink.speed.add(112_000_000, Span::s(1));
        swarm.uplink.note_round_trip(Span::ms(80));
        hold_everything(&mut swarm, &[1]);
        let grants = granted(&mut swarm).len();
        (swarm, grants)
    }

    /// Small pieces went to the system's buffers at once, the uplink was taken for a fast one, and more grants than a link's row of messages takes
    /// ended it.
    #[test]
    fn a_peer_is_granted_no_more_at_once_than_its_link_takes() {
        let (swarm, grants) = generous();
        assert_eq!(grants, PERMITS_PER_PEER_MAX);
        assert!(swarm.queue_target() > 8_000_000, "the control: much more would be granted");
    }

    /// Whom a machine that holds everything grants first: 1 has nothing, 2 a little.
    fn first_grants(other_is_far: bool) -> Vec<PeerId> {
        let mut swarm = machine(200, 4000, Role::Peer);
        for (n, held) in [(1, 0), (2, 5)] {
            let runs = if held > 0 { vec![(0, held)] } else { vec![] };
            joins(n, true, runs, 200 - held).into_iter().for_each(|input| swarm.handle(Time::ZERO, input));
        }
        swarm.neighbors.get_mut(peer(2)).unwrap().is_far = other_is_far;
        hold_everything(&mut swarm, &[1, 2]);
        granted(&mut swarm)
    }

    /// Sixteen clients at 12.5 Mbit/s gave many grants to who had least, who declined most of them.
    #[test]
    fn who_has_less_under_way_is_granted_next_and_where_some_are_far_who_has_least() {
        assert_eq!(first_grants(false), [1, 2, 1].map(peer));
        assert_eq!(first_grants(true), [1, 1, 2].map(peer), "the control");
    }

    /// Three clients far from each other that had no room for a moment left each other alone for five seconds, again and again.
    #[test]
    fn who_declines_many_grants_and_uses_the_last_is_granted_more() {
        let (mut swarm, grants) = generous();
        let says = |swarm: &mut Swarm, message| swarm.handle(Time::ZERO, Input::Message { peer: peer(1), message });
        for _ in 1..grants {
            says(&mut swarm, Message::Decline { piece: None });
        }
        let rests = |swarm: &Swarm| swarm.neighbors.get(peer(1)).unwrap().backoff_until.since(Time::ZERO);
        assert!(rests(&swarm) >= REST_MAX, "the control: it declined often");
        says(&mut swarm, Message::Request { req: 1, piece: 0, first: 0, count: 1 });
        assert_eq!(rests(&swarm), Span::ZERO);
    }
}
