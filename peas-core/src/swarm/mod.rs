//! The machine that decides who sends what to whom.
//!
//! A driver feeds it one fact at a time ([`Swarm::handle`]), drains what it wants done ([`Swarm::poll`]), and comes back with the next
//! fact or when [`Swarm::deadline`] has passed. Time, chance and the world are arguments: the machine has no clock, no socket, no
//! lock, no hash map, and never sees a byte of payload. The production engine and the simulator drive the same three methods, and
//! the same seed with the same inputs gives the same outputs.
//!
//! How it works: an origin hands out each piece once (`handout`), to clients that allow it (`credit`); everybody who holds something
//! grants, that is, picks who may ask (`uplink`); whoever is granted picks what (`downlink`, `pieces`). Neighbours hear in batches what
//! is held (`haves`); members are gossiped with relative ages (`members`); lies end links (`faults`).

mod credit;
mod downlink;
mod faults;
mod guests;
mod handout;
mod haves;
mod knocks;
mod limits;
mod members;
mod neighbors;
mod newcomers;
mod pieces;
mod rates;
mod regions;
#[cfg(test)]
mod single_tests;
mod slots;
mod table;
#[cfg(test)]
mod tests;
mod uplink;
mod vocab;

pub use limits::Limits;
pub use vocab::{Candidate, Committed, Fault, FetchEnd, Input, Notice, Order, Output, Via};

use crate::unit::{Geometry, PeerId, PieceSet, RequestId, Rng, Span, Time};
use crate::wire::{Hello, MemberRecord, Message};
use downlink::Downlink;
use faults::Faults;
use handout::Handout;
use haves::Log;
use members::Members;
use neighbors::{Neighbor, Neighbors};
use newcomers::Newcomers;
use pieces::Pieces;
use regions::Near;
use std::collections::VecDeque;
use std::net::SocketAddr;
use uplink::Uplink;

/// What a machine is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Sizes of the content.
    pub geometry: Geometry,
    /// Who we are.
    pub me: PeerId,
    /// What the disk already holds.
    pub held: PieceSet,
    /// Whether we hand out pieces as an origin.
    pub role: Role,
    /// Bounds.
    pub limits: Limits,
    /// Region label, 0 when unknown.
    pub region: u32,
    /// Seed of every random choice.
    pub seed: u64,
}

/// One bit: whether a full holder runs the unique hand-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Hands out each piece once before it serves like anybody else.
    Origin,
    /// Everyone else.
    Peer,
}

/// A copyable picture of the machine, for progress displays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Pieces held.
    pub pieces_held: u32,
    /// Pieces of the content.
    pub pieces_total: u32,
    /// Bytes held.
    pub bytes_held: u64,
    /// Good bytes received from origins.
    pub bytes_from_origin: u64,
    /// Good bytes received from others.
    pub bytes_from_peers: u64,
    /// Payload bytes sent.
    pub bytes_sent: u64,
    /// Bytes received in vain.
    pub bytes_wasted: u64,
    /// Bytes per second received, about the last second.
    pub receive_bytes_per_s: u64,
    /// Bytes per second sent, about the last second.
    pub send_bytes_per_s: u64,
    /// Peers linked.
    pub links: u32,
    /// Linked peers that lack something we hold.
    pub links_lacking: u32,
    /// Peers known.
    pub members: u32,
    /// Missing pieces that no linked peer holds.
    pub pieces_unavailable: u32,
    /// Held pieces that no linked peer holds: a reason to stay.
    pub pieces_alone: u32,
    /// Whether an origin is linked.
    pub origin_linked: bool,
    /// Peers banned.
    pub banned: u32,
    /// Bytes granted or asked for, and not yet sent.
    pub upload_queue_bytes: u64,
}

/// How often slow matters (deadlines, leases, gossip, dials) are looked at.
const TICK: Span = Span::ms(250);

/// How often a newcomer may take another's place. 1 s: of 1,024 clients that come at once the first 16 then have 30 of 47 links among the
/// first 128 instead of 41, and are no longer the last to be whole.
const SWAP_EVERY: Span = Span::s(1);

/// How long missing pieces must have no holder before the host is told. 5 s: links come and go.
const UNAVAILABLE_AFTER: Span = Span::s(5);

/// The machine. See the module's text for the contract.
pub struct Swarm {
    geometry: Geometry,
    me: PeerId,
    role: Role,
    limits: Limits,
    region: u32,
    rng: Rng,
    now: Time,
    out: VecDeque<Output>,

    pieces: Pieces,
    neighbors: Neighbors,
    uplink: Uplink,
    downlink: Downlink,
    newcomers: Newcomers,
    handout: Option<Handout>,
    log: Log,
    members: Members,
    faults: Faults,
    near: Near,

    paused: bool,
    disk_holds: bool,
    leaving: bool,
    whole_told: bool,
    origin_known: bool,
    origin_lost: bool,
    lacking_since: Option<Time>,
    lacking_told: u32,

    swapped_at: Time,
    tick_at: Time,
    flush_at: Option<Time>,
    flushed_at: Time,
    wake_at: Option<Time>,
}

impl Swarm {
    /// Ready for its first input.
    pub fn new(setup: Setup) -> Self {
        let Setup { geometry, me, held, role, limits, region, seed } = setup;
        let mut rng = Rng::new(seed);
        let handout = (role == Role::Origin).then(|| Handout::new(geometry.pieces(), &mut rng));
        let pieces = Pieces::new(geometry, held, &mut rng);
        let whole_told = pieces.is_whole();
        Self {
            geometry,
            me,
            role,
            limits,
            region,
            rng,
            now: Time::ZERO,
            out: VecDeque::new(),
            pieces,
            neighbors: Neighbors::default(),
            uplink: Uplink::new(),
            downlink: Downlink::new(),
            newcomers: Newcomers::new(),
            handout,
            log: Log::default(),
            members: Members::new(),
            faults: Faults::default(),
            near: Near::new(&geometry, me),
            paused: false,
            disk_holds: false,
            leaving: false,
            whole_told,
            origin_known: false,
            origin_lost: false,
            lacking_since: None,
            lacking_told: 0,
            swapped_at: Time::ZERO,
            tick_at: Time::ZERO,
            flush_at: None,
            flushed_at: Time::ZERO,
            wake_at: None,
        }
    }

    /// Takes one fact. Time that goes back counts as standing still.
    pub fn handle(&mut self, now: Time, input: Input) {
        self.now = self.now.max(now);
        self.take(input);
        if self.flush_at.is_some_and(|at| at <= self.now) {
            self.flush_haves();
        }
        if self.tick_at <= self.now {
            self.tick();
        }
        if self.wake_at.is_some_and(|at| at <= self.now) {
            self.wake_at = None;
        }
        self.hand_out();
        self.try_newcomers();
        self.grant();
        #[cfg(debug_assertions)]
        self.check();
    }

    /// Gives the next request; `None` when all are given.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When to call `handle` with [`Input::Timeout`] if nothing else happens before.
    pub fn deadline(&self) -> Option<Time> {
        [Some(self.tick_at), self.flush_at, self.wake_at].into_iter().flatten().min()
    }

    /// How far we are.
    pub fn snapshot(&self, now: Time) -> Snapshot {
        Snapshot {
            pieces_held: self.pieces.held().len(),
            pieces_total: self.geometry.piece_count(),
            bytes_held: self.pieces.bytes_held(),
            bytes_from_origin: self.downlink.from_origin_bytes,
            bytes_from_peers: self.downlink.from_peers_bytes,
            bytes_sent: self.uplink.sent_bytes,
            bytes_wasted: self.downlink.wasted_bytes,
            receive_bytes_per_s: self.downlink.flow.rate(now) as u64,
            send_bytes_per_s: self.uplink.flow.rate(now) as u64,
            links: self.neighbors.len() as u32,
            links_lacking: self.neighbors.iter().filter(|neighbor| neighbor.lacks > 0).count() as u32,
            members: self.members.len() as u32,
            pieces_unavailable: self.pieces.unavailable(),
            pieces_alone: self.pieces.alone(),
            origin_linked: self.neighbors.has_origin(),
            banned: self.faults.count(),
            upload_queue_bytes: self.uplink.queued_bytes + self.uplink.permitted_bytes,
        }
    }

    /// What is held.
    pub fn held(&self) -> &PieceSet {
        self.pieces.held()
    }

    /// Live members that we reached ourselves, with their ages at `now`, youngest first, at most `max`.
    pub fn members(&self, now: Time, max: usize) -> Vec<MemberRecord> {
        self.live_records(now, max)
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::LinkUp { peer, addr, dialed, round_trip, hello } => self.on_link_up(peer, addr, dialed, round_trip, &hello),
            Input::LinkDown { peer } => self.unlink(peer),
            Input::DialFailed { addr, stranger } => self.on_dial_failed(addr, stranger),
            Input::ProbeFailed { addr } => self.on_probe_failed(addr),
            Input::Probed { addr, peer } => self.on_probed(addr, peer),
            Input::Message { peer, message } => self.on_message(peer, message),
            Input::Candidates(candidates) => self.on_candidates(candidates),
            Input::Arrived { req, bytes } => self.on_arrived(req, bytes),
            Input::Received { req } => self.on_received(req),
            Input::FetchEnded { req, end } => self.on_fetch_ended(req, end),
            Input::ServeEnded { peer, req, sent_bytes, damaged } => self.on_serve_ended(peer, req, sent_bytes, damaged),
            Input::RoundTrip { peer, took } => self.neighbors.get_mut(peer).into_iter().for_each(|neighbor| neighbor.note_round_trip(took)),
            Input::Found(committed) => self.on_committed(committed),
            Input::Damaged(piece) => self.on_damaged(piece),
            Input::Order(order) => self.on_order(order),
            Input::Timeout => {}
        }
    }

    fn on_message(&mut self, peer: PeerId, message: Message) {
        if self.neighbors.get(peer).is_none() {
            return;
        }
        match message {
            Message::Hello(_) => self.fault(peer, Fault::Protocol),
            Message::Held { runs, need, queue_ms } => self.on_held(peer, &runs, need, queue_ms),
            Message::Have { runs, need, queue_ms } => self.on_have(peer, &runs, need, queue_ms),
            Message::Withdraw { runs } => self.on_withdraw(peer, &runs),
            Message::Credit { pieces, upload_bytes_per_s } => {
                if let Some(neighbor) = self.neighbors.get_mut(peer) {
                    neighbor.credit = (neighbor.credit + u32::from(pieces)).min(credit::CREDIT_MAX);
                    neighbor.claimed_upload = upload_bytes_per_s.min(handout::CLAIM_MAX);
                }
            }
            Message::Assign { piece, .. } => self.on_assign(peer, piece),
            Message::Grant { blocks, spare } => self.on_grant(peer, blocks, spare),
            Message::Decline { piece } => self.on_decline(peer, piece),
            Message::Request { req, piece, first, count } => self.on_request(peer, RequestId(req), piece, first, count),
            Message::Refuse { req, reason, retry_after_ms } => {
                let req = RequestId(req);
                if self.downlink.fetches.get(&req).is_some_and(|fetch| fetch.from == peer) {
                    self.on_fetch_ended(req, FetchEnd::Refused { reason, retry_after_ms });
                }
            }
            Message::Cancel { req } => self.on_cancel(peer, RequestId(req)),
            Message::Members(records) => self.on_members(records),
            Message::Bye => self.member_left(peer),
        }
    }

    fn on_link_up(&mut self, peer: PeerId, addr: SocketAddr, dialed: bool, round_trip: Option<Span>, hello: &Hello) {
        let listen = if dialed { Some(addr) } else { hello.listen_port.map(|port| SocketAddr::new(addr.ip(), port)) };
        if self.neighbors.get(peer).is_some() || peer == self.me {
            if dialed {
                self.member_linked(peer, addr, dialed, None);
            }
            return self.output(Output::Hangup { peer, why: Fault::Duplicate });
        }
        let mut neighbor = Neighbor::new(peer, addr, PieceSet::empty(&self.geometry), self.now);
        (neighbor.listen, neighbor.dialed, neighbor.region, neighbor.is_origin) = (listen, dialed, hello.region, hello.origin);
        neighbor.round_trip = round_trip;
        // Who the host or the signed pea names is taken at its word for its first pieces.
        neighbor.proven = hello.origin && dialed;
        neighbor.lacks = self.pieces.held().len();
        self.neighbors.insert(neighbor);
        self.members.table.link(peer, true);
        if self.faults.is_banned(peer, addr.ip(), self.now) {
            return self.hang_up(peer, Fault::Banned);
        }
        if self.is_shunned(peer) {
            return self.hang_up(peer, Fault::Unreliable);
        }
        if self.leaving {
            return self.hang_up(peer, Fault::Leaving);
        }
        if !dialed && !self.make_room() {
            self.tell_sample(peer, members::SAMPLE_REFUSED);
            return self.hang_up(peer, Fault::Full);
        }
        self.tell_held(peer);
        self.member_linked(peer, addr, dialed, listen);
        if hello.origin {
            self.origin_known = true;
            if std::mem::take(&mut self.origin_lost) {
                self.notice(Notice::OriginBack);
            }
        }
    }

    /// Whether one more accepted link fits: one and a half times the neighbours we want, unless a link that helps nobody can go. Who came
    /// only to take places is no hindrance to who came to use one. And the first of a crowd, who know only one another, would stay among
    /// themselves: now and then a later one takes the place of one of them.
    fn make_room(&mut self) -> bool {
        let wanted = usize::from(self.limits.neighbors) * 3 / 2;
        let links_max =
            if self.role == Role::Origin { usize::from(self.limits.links_max) } else { wanted.min(self.limits.links_max.into()) };
        if self.neighbors.len() <= links_max {
            return true;
        }
        let useless = self.neighbors.iter().find(|neighbor| neighbor.is_whole() && self.pieces.is_whole()).map(|neighbor| neighbor.peer);
        if let Some(peer) = useless {
            self.hang_up(peer, Fault::Idle);
            return true;
        }
        let wasted = self.neighbors.iter().filter(|neighbor| neighbor.wastes_its_place(self.now));
        let wasted = wasted.min_by_key(|neighbor| neighbor.linked_at).map(|neighbor| neighbor.peer);
        if let Some(peer) = wasted {
            self.hang_up(peer, Fault::Slow);
            return true;
        }
        if self.role == Role::Origin || self.now.since(self.swapped_at) < SWAP_EVERY {
            return false;
        }
        let mut slots = self.rng.walk(self.neighbors.len()).map(|slot| self.neighbors.at(slot));
        let Some(peer) = slots.find(|neighbor| neighbor.may_give_way(self.now)).map(|neighbor| neighbor.peer) else { return false };
        self.swapped_at = self.now;
        self.hang_up(peer, Fault::Idle);
        true
    }

    /// Forgets a link and frees what it had under way.
    fn unlink(&mut self, peer: PeerId) {
        let Some(gone) = self.neighbors.remove(peer) else { return };
        self.members.table.link(peer, false);
        for piece in gone.held.iter() {
            self.pieces.holder_went(piece, gone.place);
        }
        self.near.went(&gone);
        self.release_uplink(gone.permits.iter().copied(), &gone.serving);
        self.release_fetches(&gone);
        self.handout_lost(peer);
        if gone.dialed && !gone.told_held {
            self.member_full(gone.addr);
        }
        if gone.is_origin && gone.told_held && !self.neighbors.has_origin() && !self.leaving {
            self.origin_lost = true;
            self.notice(Notice::OriginLost);
        }
        self.dial_some();
    }

    fn on_order(&mut self, order: Order) {
        match order {
            Order::Pause => self.paused = true,
            Order::HoldFetches => self.disk_holds = true,
            Order::Resume => {
                self.paused = false;
                self.tell_need_again();
            }
            Order::ReleaseFetches => {
                self.disk_holds = false;
                self.tell_need_again();
            }
            Order::Leave => {
                self.leaving = true;
                let peers: Vec<PeerId> = self.neighbors.iter().map(|neighbor| neighbor.peer).collect();
                peers.into_iter().for_each(|peer| self.send(peer, Message::Bye));
            }
            Order::UploadLimit { bytes_per_s } => self.uplink.limit_bytes_per_s = bytes_per_s,
            Order::DownloadLimit { bytes_per_s } => self.downlink.limit_bytes_per_s = bytes_per_s,
            Order::Ban { peer } => self.ban(peer, Fault::Banned),
        }
        self.credit_origins();
    }

    fn on_whole(&mut self) {
        if !std::mem::replace(&mut self.whole_told, true) {
            self.notice(Notice::Whole);
        }
    }

    fn tick(&mut self) {
        self.tick_at = self.now + TICK;
        self.lapse_permits();
        self.set_slow_aside();
        self.lapse_assignments();
        self.lapse_fetches();
        self.credit_origins();
        self.look_around();
        self.watch_downlink();
        self.use_kept_grants();
        self.tend_members();
        self.watch_availability();
    }

    /// Tells the host when pieces have had no holder for a while, and when they have one again.
    fn watch_availability(&mut self) {
        let lacking = if self.pieces.is_whole() { 0 } else { self.pieces.unavailable() };
        if lacking == 0 {
            self.lacking_since = None;
        } else if self.now.since(*self.lacking_since.get_or_insert(self.now)) < UNAVAILABLE_AFTER {
            return;
        }
        if lacking != self.lacking_told {
            self.lacking_told = lacking;
            self.notice(Notice::Unavailable { missing_pieces: lacking });
        }
    }

    fn wake_at(&mut self, at: Time) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    fn send(&mut self, peer: PeerId, message: Message) {
        self.output(Output::Send { peer, message });
    }

    fn notice(&mut self, notice: Notice) {
        self.output(Output::Notice(notice));
    }

    fn output(&mut self, output: Output) {
        self.out.push_back(output);
    }

    /// What must hold between inputs. Panics are bugs of ours: nothing that a peer sends may lead here.
    #[cfg(debug_assertions)]
    fn check(&self) {
        self.pieces.check();
        let serving: u64 = self.neighbors.iter().flat_map(|neighbor| &neighbor.serving).map(|serving| serving.bytes).sum();
        assert_eq!(serving, self.uplink.queued_bytes, "queued bytes drifted");
        let permitted: u64 = self.neighbors.iter().flat_map(|neighbor| &neighbor.permits).map(|permit| permit.bytes).sum();
        assert_eq!(permitted, self.uplink.permitted_bytes, "permitted bytes drifted");
        let outstanding: u64 = self.downlink.fetches.values().filter(|fetch| !fetch.received).map(|fetch| u64::from(fetch.bytes)).sum();
        assert_eq!(outstanding, self.downlink.outstanding_bytes, "outstanding bytes drifted");
        for neighbor in self.neighbors.iter().filter(|neighbor| neighbor.told_held) {
            debug_assert_eq!(neighbor.lacks, self.pieces.held().count_minus(&neighbor.held), "lacks drifted");
        }
    }
}
