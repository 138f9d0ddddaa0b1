//! Who else is in the swarm: what is heard of members and passed on, whom to dial.
//!
//! A record lives by its age, counted on our own clock and handed on with our dwell time added; only a link to a peer makes its
//! record young again, so a dead peer's record grows old everywhere at once. An address is passed on only after we ourselves
//! reached that very peer there.

use super::guests::Guests;
use super::knocks::Knocks;
use super::slots::OfPeer;
use super::table::{Member, Table};
use super::{Candidate, Output, Swarm, Via};
use crate::unit::{PeerId, Span, Time};
use crate::wire::{MemberRecord, Message};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

/// Seconds for which a record is good. 600: a swarm forgets a dead peer in ten minutes.
pub(super) const TTL_S: u32 = 600;

/// Longest life that a stranger's record gets.
const TTL_MAX_S: u32 = 3600;

/// Records in one message.
const RECORDS_MAX: usize = 50;

/// Records that a newcomer gets, one for whom there is no room, and that one round of gossip passes on.
const SAMPLE: usize = 32;
pub(super) const SAMPLE_REFUSED: usize = 16;
const GOSSIP: usize = 6;

/// A round of gossip comes once a second, or in a small swarm so seldom that each of us tells of each member once in this time: still eight
/// times in the life of a record. At least every 5 s.
const TOLD_WITHIN: Span = Span::s(75);
const GOSSIP_EVERY: Span = Span::s(1);
const GOSSIP_EVERY_MAX: Span = Span::s(5);

/// Neighbours that hear at once of a newcomer: the first of a crowd learn of those who come after them.
const HERALDS: usize = 8;

/// Records that one network (/24 or /48) may have in the table, unless it is our own kind of private network.
const PER_NETWORK_MAX: usize = 8;

/// New dials: 5 a second, 16 at once to begin with; 16 under way. A swarm must not become a weapon, and must start fast.
const DIALS_PER_S: f64 = 5.0;
const DIAL_BURST: f64 = 16.0;
const DIALING_MAX: usize = 16;

/// How long an address that did not answer is left alone: learnt ones for long, those that the pea names for a little, doubling.
const DEAD_FOR: Span = Span::s(900);
const BOOTSTRAP_RETRY_MIN: Span = Span::s(1);
const BOOTSTRAP_RETRY_MAX: Span = Span::s(30);

/// How long an address is left alone whose peer hung up before it said what it holds: it is full. Doubles with each time. 1 s: an
/// origin that a crowd finds has reached the first of them by then, and has others to name.
const FULL_FOR: Span = Span::s(1);
const FULL_FOR_MAX: Span = Span::s(16);

/// The same for those who have a quarter of the neighbours they want: they may wait this long, unless they receive nothing for `STALLED_FOR`.
/// Where 2,048 clients knocked at an origin every 16 s, refusing them took a fifth of its uplink.
const FULL_FOR_SETTLED: Span = Span::s(600);
const STALLED_FOR: Span = Span::s(30);

/// When both of a pair know each other, one of them dials at once and the other only after this long.
const COURTESY: Span = Span::s(2);

/// Share of the neighbours dialled that are looked for in our own region, when it is known.
const LOCAL_SHARE: f64 = 0.75;

#[derive(Clone, Copy, Debug, Default)]
struct Attempt {
    not_before: Time,
    failures: u32,
    /// When it said last that it is full.
    full_at: Option<Time>,
}

/// The table and the dials.
#[derive(Clone, Debug)]
pub(super) struct Members {
    pub(super) table: Table,
    bootstrap: Vec<Candidate>,
    hearsay: VecDeque<Candidate>,
    attempts: BTreeMap<SocketAddr, Attempt>,
    knocks: Knocks,
    dialing: BTreeMap<SocketAddr, Option<PeerId>>,
    guests: Guests,
    allowance: f64,
    allowance_at: Time,
    tended_at: Time,
    gossiped_at: Time,
    rewire_at: Time,
}

impl Members {
    pub fn new() -> Self {
        Self {
            table: Table::default(),
            bootstrap: Vec::new(),
            hearsay: VecDeque::new(),
            attempts: BTreeMap::new(),
            knocks: Knocks::default(),
            dialing: BTreeMap::new(),
            guests: Guests::default(),
            allowance: DIAL_BURST,
            allowance_at: Time::ZERO,
            tended_at: Time::ZERO,
            gossiped_at: Time::ZERO,
            rewire_at: Time::ZERO,
        }
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Live members that say they are in this region, and are not whole.
    pub fn in_region(&self, region: u32, now: Time) -> impl Iterator<Item = PeerId> + '_ {
        let fits = move |member: &Member| {
            region != 0 && member.record.region == region && member.record.held_permille < 1000 && member.is_alive(now)
        };
        self.table.iter().filter(move |member| fits(member)).map(OfPeer::peer)
    }

    fn take_allowance(&mut self, now: Time) -> bool {
        self.allowance = (self.allowance + now.since(self.allowance_at).as_s() * DIALS_PER_S).min(DIAL_BURST);
        self.allowance_at = now;
        let some = self.allowance >= 1.0 && self.dialing.len() < DIALING_MAX;
        if some {
            self.allowance -= 1.0;
        }
        some
    }

    fn may_try(&self, addr: SocketAddr, now: Time) -> bool {
        !self.dialing.contains_key(&addr) && self.attempts.get(&addr).is_none_or(|attempt| attempt.not_before <= now)
    }

    fn network_is_full(&self, addr: IpAddr) -> bool {
        !is_local(addr) && self.table.in_network_of(addr) >= PER_NETWORK_MAX
    }
}

/// Loopback, private and link-local addresses: one operator's, so that a crowd from one network is no attack.
pub(super) fn is_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.segments()[0] & 0xfe00 == 0xfc00 || v6.segments()[0] & 0xffc0 == 0xfe80,
    }
}

impl Swarm {
    pub(super) fn on_candidates(&mut self, candidates: Vec<Candidate>) {
        for candidate in candidates {
            let known = match candidate.via {
                Via::Bootstrap => &self.members.bootstrap,
                Via::Owners | Via::Remembered => self.members.hearsay.make_contiguous() as &[Candidate],
            }
            .iter()
            .any(|other| other.addr == candidate.addr);
            if known || candidate.peer == Some(self.me) {
                continue;
            }
            match candidate.via {
                Via::Bootstrap if self.members.bootstrap.len() < 256 => self.members.bootstrap.push(candidate),
                Via::Owners | Via::Remembered if self.members.hearsay.len() < 256 => self.members.hearsay.push_back(candidate),
                _ => {}
            }
        }
        self.dial_some();
    }

    /// What a neighbour says of others: believed as far as trying.
    pub(super) fn on_members(&mut self, records: Vec<MemberRecord>) {
        for record in records.into_iter().take(RECORDS_MAX) {
            let peer = record.peer_id();
            if peer == self.me || record.addr.port() == 0 || self.faults.is_banned(peer, record.addr.ip(), self.now) {
                continue;
            }
            let record = MemberRecord { ttl_s: record.ttl_s.min(TTL_MAX_S), ..record };
            let heard = Member { record, heard_at: self.now, known_since: self.now, proven: false, linked: false };
            if !heard.is_alive(self.now) {
                continue;
            }
            match self.members.table.get(peer) {
                // The younger word wins, but hearsay never moves a peer from where we reached it ourselves.
                Some(known) if known.proven && known.record.addr != heard.record.addr => {}
                Some(known) if heard.age_s(self.now) < known.age_s(self.now) => self.members.table.renew(heard.record, self.now),
                Some(_) => {}
                None => self.add_member(Member { linked: self.neighbors.get(peer).is_some(), ..heard }),
            }
        }
        self.dial_some();
    }

    fn add_member(&mut self, member: Member) {
        if self.members.network_is_full(member.record.addr.ip()) && !member.proven {
            return;
        }
        if self.members.table.len() >= self.limits.members_max as usize {
            match self.least_member(member.proven) {
                Some(peer) => self.members.table.remove(peer),
                None => return,
            };
        }
        self.members.table.insert(member);
    }

    /// Who makes room for one more: the oldest of whom we only heard. When there is none, hearsay gets no room, and one whom we reached
    /// gets that of the oldest in the network that has most members: keys cost nothing, so one host could fill the table with its own.
    fn least_member(&self, for_reached: bool) -> Option<PeerId> {
        let table = &self.members.table;
        let unlinked = || table.iter().filter(|member| !member.linked);
        let heard_of = unlinked().filter(|member| !member.proven).max_by_key(|member| member.age_s(self.now));
        if heard_of.is_some() || !for_reached {
            return heard_of.map(OfPeer::peer);
        }
        let crowd_and_age = |member: &&Member| (table.in_network_of(member.record.addr.ip()), member.age_s(self.now));
        unlinked().max_by_key(crowd_and_age).map(OfPeer::peer)
    }

    /// We reached the peer at this address: it may be told to others. It was told of so many already.
    fn prove(&mut self, peer: PeerId, addr: SocketAddr, told: usize) {
        let Some(neighbor) = self.neighbors.get(peer) else { return };
        let (region, held_permille) = (neighbor.region, permille(neighbor.held.len(), self.geometry.piece_count()));
        let record = MemberRecord { peer: peer.0, addr, epoch: 0, age_s: 0, ttl_s: TTL_S, held_permille, region };
        let known = self.members.table.remove(peer);
        let news = known.as_ref().is_none_or(|member| !member.proven);
        let known_since = known.map_or(self.now, |member| member.known_since);
        self.add_member(Member { record, heard_at: self.now, known_since, proven: true, linked: true });
        if news {
            self.introduce(peer);
            if told < SAMPLE {
                self.tell_sample(peer, SAMPLE);
            }
        }
    }

    /// Tells some neighbours of a newcomer.
    fn introduce(&mut self, peer: PeerId) {
        let Some(record) = self.members.table.get(peer).map(|member| member.told(self.now)) else { return };
        let others = self.rng.walk(self.neighbors.len()).map(|slot| self.neighbors.at(slot).peer).filter(|&other| other != peer);
        let heralds: Vec<PeerId> = others.take(HERALDS).collect();
        for herald in heralds {
            self.send(herald, Message::Members(vec![record.clone()]));
        }
    }

    /// Tells a peer of at most so many members. Says of how many it did.
    pub(super) fn tell_sample(&mut self, peer: PeerId, count: usize) -> usize {
        let table = &self.members.table;
        let others = self.rng.walk(table.len()).map(|slot| table.at(slot)).filter(|member| member.record.peer != peer.0);
        let good = others.filter(|member| member.is_good(self.now));
        let records: Vec<MemberRecord> = good.take(count).map(|member| member.told(self.now)).collect();
        let told = records.len();
        if told > 0 {
            self.send(peer, Message::Members(records));
        }
        told
    }

    /// Live records, youngest first: what a refreshed pea lists.
    pub(super) fn live_records(&self, now: Time, max: usize) -> Vec<MemberRecord> {
        let mut live: Vec<&Member> = self.members.table.iter().filter(|member| member.is_good(now)).collect();
        live.sort_by_key(|member| (member.age_s(now), member.record.peer));
        live.into_iter().take(max).map(|member| member.told(now)).collect()
    }

    /// A link came up: what we dialled is proven, what dialled us hears of others and is looked for where it says it listens.
    pub(super) fn member_linked(&mut self, peer: PeerId, addr: SocketAddr, dialed: bool, listen: Option<SocketAddr>) {
        if dialed {
            self.members.dialing.remove(&addr);
            return self.prove(peer, addr, 0);
        }
        let told = self.tell_sample(peer, SAMPLE);
        let Some(listen) = listen else { return };
        if self.members.table.get(peer).is_some_and(|member| member.proven && member.record.addr == listen) {
            self.prove(peer, listen, told);
        } else {
            self.members.guests.came(listen, peer, told, self.now);
            self.probe_some();
        }
    }

    fn probe_some(&mut self) {
        let (members, neighbors) = (&mut self.members, &self.neighbors);
        let mut next = || members.guests.next(self.now, &mut members.knocks, |peer| neighbors.get(peer).is_some());
        let guests: Vec<_> = std::iter::from_fn(&mut next).collect();
        for guest in guests {
            self.output(Output::Probe { addr: guest.addr, peer: guest.peer });
        }
    }

    pub(super) fn on_probed(&mut self, addr: SocketAddr, peer: PeerId) {
        if let Some(guest) = self.members.guests.reached(addr) {
            // Who was there before is not there any more, and what went wrong there was with that one.
            self.members.attempts.remove(&addr);
            self.members.table.moved_out(addr, peer);
            self.prove(peer, addr, guest.told);
        }
        self.probe_some();
    }

    pub(super) fn on_probe_failed(&mut self, addr: SocketAddr) {
        self.members.guests.missed(addr, self.now);
        self.probe_some();
    }

    pub(super) fn on_dial_failed(&mut self, addr: SocketAddr, stranger: bool) {
        let Some(peer) = self.members.dialing.remove(&addr) else { return };
        let is_bootstrap = self.members.bootstrap.iter().any(|candidate| candidate.addr == addr);
        let was_proven = peer.is_some_and(|peer| self.members.table.get(peer).is_some_and(|member| member.proven));
        // Where somebody else answered, the peer has gone, and who came instead may be dialled in a moment.
        let moved = stranger && !is_bootstrap;
        let attempt = self.members.attempts.entry(addr).or_default();
        attempt.failures += u32::from(!moved);
        let pause = match (moved, is_bootstrap || was_proven) {
            (true, _) => BOOTSTRAP_RETRY_MIN,
            (_, true) => Span(BOOTSTRAP_RETRY_MIN.0 << attempt.failures.min(5)).min(BOOTSTRAP_RETRY_MAX),
            (_, false) => DEAD_FOR,
        };
        attempt.not_before = self.now + pause;
        if !is_bootstrap && !was_proven {
            self.members.knocks.failed(addr.ip(), self.now);
        }
        let was_there = |member: &Member| member.record.addr == addr && !member.linked;
        if let Some(peer) = peer
            && (!was_proven || (moved && self.members.table.get(peer).is_some_and(was_there)))
        {
            self.members.table.remove(peer);
        }
        self.dial_some();
    }

    /// The peer at this address is a good neighbour: whatever went wrong there before is forgotten.
    pub(super) fn member_works(&mut self, addr: SocketAddr) {
        self.members.attempts.remove(&addr);
    }

    /// The peer at this address took our link and ended it at once.
    pub(super) fn member_full(&mut self, addr: SocketAddr) {
        let jitter = 0.75 + self.rng.unit() / 2.0;
        let attempt = self.members.attempts.entry(addr).or_default();
        (attempt.failures, attempt.full_at) = (attempt.failures + 1, Some(self.now));
        let pause = Span(FULL_FOR.0 << (attempt.failures - 1).min(4)).min(FULL_FOR_MAX);
        attempt.not_before = self.now + Span::from_s(pause.as_s() * jitter);
    }

    /// Dials as long as we have fewer neighbours than we should, within the allowance.
    pub(super) fn dial_some(&mut self) {
        if self.leaving {
            return;
        }
        let wanted = usize::from(self.limits.neighbors / 2).max(1);
        while self.neighbors.len() + self.members.dialing.len() < wanted || self.lacks_origin() {
            if !self.dial_one() {
                return;
            }
        }
    }

    /// While something is missing and no origin is linked, addresses that the pea names are worth trying whatever else we have.
    fn lacks_origin(&self) -> bool {
        !self.pieces.is_whole()
            && !self.neighbors.has_origin()
            && self.members.bootstrap.iter().any(|candidate| self.is_dialable(candidate))
    }

    fn is_dialable(&self, candidate: &Candidate) -> bool {
        let linked = match candidate.peer {
            Some(peer) => self.neighbors.get(peer).is_some(),
            None => self.neighbors.iter().any(|neighbor| neighbor.listen == Some(candidate.addr)),
        };
        !linked && self.members.may_try(candidate.addr, self.now) && !self.does_without(candidate.addr)
    }

    /// Whether the peer there is full, and we get on as we are.
    fn does_without(&self, addr: SocketAddr) -> bool {
        let full_at = self.members.attempts.get(&addr).and_then(|attempt| attempt.full_at);
        let settled = self.neighbors.len() >= usize::from(self.limits.neighbors / 4).max(1);
        let rest = if self.downlink.flow.since_last(self.now) < STALLED_FOR { FULL_FOR_SETTLED } else { STALLED_FOR };
        settled && full_at.is_some_and(|at| self.now.since(at) < rest)
    }

    fn dial_one(&mut self) -> bool {
        if let Some(candidate) = self.members.bootstrap.iter().find(|candidate| self.is_dialable(candidate)) {
            let candidate = candidate.clone();
            if self.members.dialing.len() >= DIALING_MAX {
                return false;
            }
            return self.dial(candidate.addr, candidate.peer);
        }
        let next = self.dialable_member().or_else(|| {
            let knocks = &self.members.knocks;
            let fits = |candidate: &Candidate| self.is_dialable(candidate) && knocks.may_knock(candidate.addr.ip(), self.now);
            let at = self.members.hearsay.iter().position(fits)?;
            self.members.hearsay.remove(at).map(|candidate| (candidate.addr, candidate.peer))
        });
        match next {
            Some((addr, peer)) if self.members.take_allowance(self.now) => self.dial(addr, peer),
            _ => false,
        }
    }

    fn dial(&mut self, addr: SocketAddr, peer: Option<PeerId>) -> bool {
        self.members.knocks.knocked(addr.ip(), self.now);
        self.members.dialing.insert(addr, peer);
        self.output(Output::Dial { addr, peer });
        true
    }

    fn dialable_member(&mut self) -> Option<(SocketAddr, Option<PeerId>)> {
        // Who knows its region wants three of four neighbours in it.
        let local_first = self.region != 0 && self.rng.chance(LOCAL_SHARE);
        let mut elsewhere = None;
        for slot in self.rng.walk(self.members.table.len()) {
            let member = self.members.table.at(slot);
            if !self.may_dial(member) {
                continue;
            }
            let found = Some((member.record.addr, Some(member.peer())));
            if !local_first || member.record.region == self.region {
                return found;
            }
            elsewhere = elsewhere.or(found);
        }
        elsewhere
    }

    fn may_dial(&self, member: &Member) -> bool {
        let addr = member.record.addr;
        !member.linked
            && member.is_alive(self.now)
            && !(self.pieces.is_whole() && member.record.held_permille == 1000)
            && (self.now.since(member.known_since) >= COURTESY || dials_first(self.me, member.peer()))
            && self.members.may_try(addr, self.now)
            && !self.does_without(addr)
            && !self.members.guests.is_probing(addr)
            && !self.is_shunned(member.peer())
            && (member.proven || self.members.knocks.may_knock(addr.ip(), self.now))
    }

    /// An idle uplink while others lack something looks for them: up to two new neighbours a second.
    fn rewire(&mut self) {
        let idle = self.uplink.idle_since.is_some_and(|since| self.now.since(since) >= Span::ms(500));
        let room = self.neighbors.len() + self.members.dialing.len() < usize::from(self.limits.links_max);
        if !idle || !room || self.pieces.held().is_empty() || self.now < self.members.rewire_at {
            return;
        }
        self.members.rewire_at = self.now + Span::ms(500);
        if let Some((addr, peer)) = self.dialable_member()
            && self.members.take_allowance(self.now)
        {
            self.dial(addr, peer);
        }
    }

    /// Now and then: young records for our neighbours' members, a few of them to one neighbour, the dead ones out.
    pub(super) fn tend_members(&mut self) {
        self.rewire();
        self.probe_some();
        self.dial_some();
        if self.now < self.members.tended_at + Span::s(1) {
            return;
        }
        let now = self.now;
        self.members.tended_at = now;
        let total = self.geometry.piece_count();
        for neighbor in self.neighbors.iter() {
            self.members.table.touch(neighbor.peer, now, permille(neighbor.held.len(), total));
        }
        self.members.table.bury(now);
        if self.members.attempts.len() > 8192 {
            self.members.attempts.retain(|_, attempt| attempt.not_before > now);
        }
        let every = Span(TOLD_WITHIN.0 * GOSSIP as u64 / self.members.table.len().max(1) as u64).clamp(GOSSIP_EVERY, GOSSIP_EVERY_MAX);
        let count = self.neighbors.len();
        if count > 0 && self.members.gossiped_at + every <= now {
            self.members.gossiped_at = now;
            let peer = self.neighbors.at(self.rng.below(count)).peer;
            self.tell_sample(peer, GOSSIP);
        }
    }

    /// The peer said goodbye: it is not a member any more.
    pub(super) fn member_left(&mut self, peer: PeerId) {
        self.members.table.remove(peer);
    }
}

fn permille(pieces: u32, of: u32) -> u16 {
    (u64::from(pieces) * 1000 / u64::from(of.max(1))) as u16
}

/// Which of two peers dials the other at once: both come to the same answer.
fn dials_first(me: PeerId, other: PeerId) -> bool {
    (me < other) == ((me.0[31] ^ other.0[31]) & 1 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::tests::{addr, hello, joins, machine, peer};
    use crate::swarm::{Fault, Input, Role};

    /// How often a client with so many neighbours knocks at a full origin in this time.
    fn knocks_at_a_full_origin(neighbors: u8, receives: bool, within_s: u64) -> usize {
        let mut swarm = machine(200, 32, Role::Peer);
        let (origin, at_origin) = (peer(100), addr(100));
        for n in 1..=neighbors {
            joins(n, false, vec![], 1).into_iter().for_each(|input| swarm.handle(Time::ZERO, input));
        }
        let candidate = Candidate { addr: at_origin, peer: None, via: Via::Bootstrap };
        swarm.handle(Time::ZERO, Input::Candidates(vec![candidate]));
        let mut knocks = 0;
        for quarter in 0..within_s * 4 {
            let now = Time::ZERO + Span::ms(quarter * 250);
            if receives {
                swarm.downlink.flow.add(now, 1);
            }
            swarm.handle(now, Input::Timeout);
            while let Some(output) = swarm.poll() {
                assert!(!matches!(output, Output::Hangup { why: Fault::Slow, .. }));
                if matches!(output, Output::Dial { addr, .. } if addr == at_origin) {
                    knocks += 1;
                    let up = Input::LinkUp { peer: origin, addr: at_origin, dialed: true, round_trip: None, hello: hello(true) };
                    swarm.handle(now, up);
                    swarm.handle(now, Input::LinkDown { peer: origin });
                }
            }
        }
        knocks
    }

    #[test]
    fn who_gets_on_without_a_full_origin_leaves_it_in_peace() {
        let alone = knocks_at_a_full_origin(0, false, 60);
        assert!((5..=9).contains(&alone), "alone: {alone} in a minute, doubling up to 16 s");
        assert_eq!(knocks_at_a_full_origin(8, true, 599), 1);
        assert_eq!(knocks_at_a_full_origin(8, true, 601), 2);
        let stalled = knocks_at_a_full_origin(8, false, 100);
        assert!((3..=4).contains(&stalled), "stalled: {stalled} in 100 s, every 30 s");
    }

    #[test]
    fn of_each_pair_exactly_one_dials_first() {
        for a in 0..20u8 {
            for b in (0..20u8).filter(|&b| b != a) {
                let (a, b) = (PeerId([a; 32]), PeerId([b; 32]));
                assert_ne!(dials_first(a, b), dials_first(b, a));
            }
        }
    }
}
