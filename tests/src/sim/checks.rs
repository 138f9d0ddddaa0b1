//! Promises, checked while the world runs: a run without violations kept every one of them at every step.

use super::Machine;
use super::event::{HalfRef, Ns};
use super::link::Half;
use super::stats::{Sample, Uplinks};
use super::workload::Conduct;
use super::world::World;
use peas_core::swarm::{Input, Output};
use peas_core::unit::{BlockSpan, PieceSet, Time};
use peas_core::wire::Message;

/// A broken promise.
#[derive(Clone, Debug, PartialEq)]
pub struct Violation {
    /// When, seconds.
    pub at_s: f64,
    /// Which node; 0 is the origin.
    pub node: u32,
    /// What it did.
    pub what: String,
}

/// Most violations kept.
const VIOLATIONS_MAX: usize = 50;
/// Copies of one block that may be on the way to one node.
const COPIES_MAX: usize = 2;
/// Links above the limit for the moment between a link's coming up and the machine's hanging up.
const LINKS_SLACK: u32 = 8;

/// What the checks remember.
#[derive(Debug)]
pub struct Checks {
    pub(super) violations: Vec<Violation>,
    pub(super) links_max: u32,
    /// For each piece: to whom the origin last assigned it and until when the lease runs; the origin's life in which it did.
    assigned: Vec<Option<Assigned>>,
    assigned_count: u32,
}

#[derive(Clone, Copy, Debug)]
struct Assigned {
    to: u32,
    until: Ns,
    incarnation: u32,
}

impl Checks {
    pub(super) fn new(piece_count: u32) -> Self {
        Self { violations: Vec::new(), links_max: 0, assigned: vec![None; piece_count as usize], assigned_count: 0 }
    }

    /// A client's link to the origin, or the origin's to a client, is gone: its assignments lapse.
    pub(super) fn link_down(&mut self, half: &Half, now: Ns) {
        for (client, origin) in [(half.peer, half.owner), (half.owner, half.peer)] {
            if origin == 0 {
                self.assigned.iter_mut().flatten().filter(|assigned| assigned.to == client).for_each(|assigned| assigned.until = now);
            }
        }
    }
}

impl<M: Machine> World<M> {
    pub(super) fn violate(&mut self, node: u32, what: String) {
        let known = self.checks.violations.iter().any(|violation| violation.node == node && alike(&violation.what, &what));
        if self.node(node).conduct == Conduct::Honest && !known && self.checks.violations.len() < VIOLATIONS_MAX {
            self.checks.violations.push(Violation { at_s: self.queue.now() as f64 / 1e9, node, what });
        }
    }

    /// A message is about to leave.
    pub(super) fn check_send(&mut self, half: u32, message: &Message) {
        let (node, peer) = (self.links[half].owner, self.links[half].peer);
        match message {
            Message::Held { runs, .. } | Message::Have { runs, .. } => match PieceSet::from_runs(&self.geometry, runs) {
                None => self.violate(node, format!("announces runs that are none: {runs:?}")),
                Some(said) if said.has_more_than(&self.node(node).disk.journal) => {
                    self.violate(node, "announces a piece that is not committed".to_owned());
                }
                Some(_) => {}
            },
            Message::Assign { piece, lease_ms } => self.check_assign(node, peer, *piece, u64::from(*lease_ms)),
            Message::Members(records) if records.len() > 50 => self.violate(node, format!("sends {} member records", records.len())),
            _ => {}
        }
        if matches!(message, Message::Grant { .. } | Message::Assign { .. }) {
            self.links[half].granted += 1;
        }
    }

    fn check_assign(&mut self, node: u32, to: u32, piece: u32, lease_ms: u64) {
        let now = self.queue.now();
        let incarnation = self.node(node).incarnation;
        if !self.node(node).origin {
            return self.violate(node, "assigns without being an origin".to_owned());
        }
        let Some(slot) = self.checks.assigned.get_mut(piece as usize) else {
            return self.violate(node, format!("assigns piece {piece} which does not exist"));
        };
        match slot.replace(Assigned { to, until: now + lease_ms * 1_000_000, incarnation }) {
            None => {
                self.checks.assigned_count += 1;
                if self.checks.assigned_count == self.geometry.piece_count() {
                    self.handed_out_at = Some(now);
                }
            }
            Some(before) if before.until > now && before.incarnation == incarnation => {
                self.violate(node, format!("assigns piece {piece} to {to} while the lease of {} runs", before.to));
            }
            Some(_) => {}
        }
    }

    /// A request is about to leave.
    pub(super) fn check_fetch(&mut self, node: u32, half: u32, span: BlockSpan) {
        let (piece, peer) = (span.piece(), self.links[half].peer);
        let told = self.links[half].announced.as_ref().is_some_and(|set| set.contains(piece));
        if !told && !self.links[half].assigned.contains(&piece.raw()) {
            self.violate(node, format!("asks {peer} for piece {piece} which it never announced"));
        }
        if self.node(node).disk.journal.contains(piece) {
            self.violate(node, format!("asks {peer} for piece {piece} which it holds"));
        }
        if self.node(node).caught.contains(&peer) {
            self.violate(node, format!("asks {peer}, which it caught lying, for piece {piece}"));
        }
        let mut fetches = 1;
        let mut copies = 1;
        // What was asked of somebody on whom it has hung up does not come any more.
        for &half in self.node(node).ends.iter().filter(|&&half| !self.links[half].hung_up) {
            for fetch in self.links[half].fetches.iter().filter(|fetch| !fetch.checking) {
                fetches += 1;
                copies += usize::from(fetch.span.piece() == piece && fetch.span.first() < span.end() && span.first() < fetch.span.end());
            }
        }
        if copies > COPIES_MAX {
            self.violate(node, format!("has {copies} copies of blocks of piece {piece} on the way"));
        }
        if fetches > usize::from(self.plan.limits.fetches_max) {
            self.violate(node, format!("has {fetches} fetches under way"));
        }
    }

    pub(super) fn check_serve(&mut self, node: u32, span: BlockSpan) {
        if !self.node(node).disk.journal.contains(span.piece()) {
            self.violate(node, format!("serves piece {} which it does not hold", span.piece()));
        }
        if self.node(node).serves >= u32::from(self.plan.limits.uploads_max) {
            self.violate(node, format!("has {} serves queued", self.node(node).serves + 1));
        }
    }

    /// After the machine was told that a peer's bytes are wrong: the link must be on its way down.
    pub(super) fn check_caught(&mut self, node: u32, peer: u32, link: HalfRef) {
        if !self.node(node).caught.contains(&peer) {
            self.node_mut(node).caught.push(peer);
        }
        if self.links.live(link).is_some() && !self.links[link.half].hung_up {
            self.violate(node, format!("keeps the link to {peer} which lied"));
        }
    }

    /// What the world learns from an arriving message.
    pub(super) fn note_message(&mut self, half: u32, message: &Message, now: Ns) {
        let geometry = self.geometry;
        match message {
            Message::Held { runs, .. } | Message::Have { runs, .. } => {
                let said = PieceSet::from_runs(&geometry, runs);
                if let (Some(said), Some(announced)) = (said, &mut self.links[half].announced) {
                    announced.union_with(&said);
                }
            }
            Message::Withdraw { runs } => {
                if let (Some(gone), Some(announced)) = (PieceSet::from_runs(&geometry, runs), &mut self.links[half].announced) {
                    gone.iter().for_each(|piece| {
                        announced.remove(piece);
                    });
                }
            }
            Message::Assign { piece, .. } => self.links[half].assigned.push(*piece),
            Message::Request { .. } => self.links[half].granted = self.links[half].granted.saturating_sub(1),
            Message::Decline { piece } => {
                self.links[half].granted = self.links[half].granted.saturating_sub(1);
                self.links[half].declined_at = Some(now);
                if let Some(assigned) = piece.and_then(|piece| self.checks.assigned.get_mut(piece as usize)?.as_mut()) {
                    assigned.until = now;
                }
            }
            _ => {}
        }
    }

    /// Looks at every node: bounds, agreement of machine and disk, why uplinks are silent.
    pub(super) fn look(&mut self) {
        let now = self.queue.now();
        let mut sample = Sample { at_s: now as f64 / 1e9, pieces_out: self.pieces_out, ..Sample::default() };
        let mut share = 0.0;
        let mut up = 0.0;
        for node in 0..self.nodes.len() as u32 {
            let state = self.node(node);
            let Some(machine) = &state.machine else { continue };
            if state.conduct != Conduct::Honest {
                continue;
            }
            let snapshot = machine.snapshot(Time(now / 1000));
            let (held, journal) = (machine.held(), &state.disk.journal);
            let more = (held.count_minus(journal), journal.count_minus(held));
            let links = state.ends.iter().filter(|&&half| !self.links[half].hung_up).count() as u32;
            let limits = &self.plan.limits;
            let (links_over, members_over) = (links > u32::from(limits.links_max) + LINKS_SLACK, snapshot.members > limits.members_max);
            let link_counts_differ = snapshot.links > state.ends.len() as u32;
            sample.links += f64::from(links);
            if node != 0 {
                sample.clients += 1;
                sample.whole += u32::from(state.disk.journal.is_full());
                sample.held += f64::from(state.disk.journal.len()) / f64::from(self.geometry.piece_count()).max(1.0);
            }
            up += 1.0;
            sample.uplinks.add(&self.uplink(node), 1.0);
            sample.fetches += state.ends.iter().map(|&half| self.links[half].fetches.len() as f64).sum::<f64>();
            share += 1.0;
            self.checks.links_max = self.checks.links_max.max(links);
            if more != (0, 0) {
                self.violate(node, format!("machine and disk disagree: {} pieces only in the machine, {} only on disk", more.0, more.1));
            }
            if links_over {
                self.violate(node, format!("has {links} links"));
            }
            if members_over {
                self.violate(node, format!("keeps {} members", snapshot.members));
            }
            if link_counts_differ {
                self.violate(node, format!("counts {} links and has {links}", snapshot.links));
            }
        }
        if share > 0.0 {
            sample.links /= share;
            sample.fetches /= share;
            sample.held /= f64::from(sample.clients.max(1));
            let mut mean = Uplinks::default();
            mean.add(&sample.uplinks, 1.0 / up);
            sample.uplinks = mean;
        }
        self.samples.push(sample);
    }

    /// Why this node's uplink is silent, or that it is not.
    fn uplink(&self, node: u32) -> Uplinks {
        let now = self.queue.now();
        let state = self.node(node);
        let one = 1.0;
        if state.nic.wire_free > now {
            return Uplinks { busy: one, ..Uplinks::default() };
        }
        if !state.nic.row.is_empty() {
            return Uplinks { pushed_back: one, ..Uplinks::default() };
        }
        if state.disk.journal.is_empty() {
            return Uplinks { empty: one, ..Uplinks::default() };
        }
        let piece_time = state.nic.up(f64::from(self.geometry.piece_bytes()));
        let (mut needy, mut granted, mut declined) = (0, 0, 0);
        for &half in &state.ends {
            let end = &self.links[half];
            let there = self.node(end.peer);
            if there.machine.is_some() && state.disk.journal.has_more_than(&there.disk.journal) {
                needy += 1;
                granted += u32::from(end.granted > 0);
                declined += u32::from(end.declined_at.is_some_and(|at| at + piece_time > now));
            }
        }
        match (needy, granted, declined) {
            (0, _, _) => Uplinks { unneeded: one, ..Uplinks::default() },
            (_, 1.., _) => Uplinks { unanswered: one, ..Uplinks::default() },
            (needy, _, declined) if needy == declined => Uplinks { declined: one, ..Uplinks::default() },
            _ => Uplinks { unused: one, ..Uplinks::default() },
        }
    }

    /// What must hold when the run is over.
    pub(super) fn final_checks(&mut self) {
        if self.short > 0 {
            let idle: Vec<u32> = (1..self.nodes.len() as u32)
                .filter(|&node| {
                    self.node(node).conduct == Conduct::Honest && !self.node(node).disk.journal.is_full() && !self.node(node).gone
                })
                .collect();
            for &node in idle.iter().take(3) {
                let state = self.node(node);
                let what = format!(
                    "is not whole at the end: holds {} of {}, {} links, up {}",
                    state.disk.journal.len(),
                    self.geometry.piece_count(),
                    state.ends.len(),
                    state.machine.is_some()
                );
                self.violate(node, what);
            }
        }
    }

    pub(super) fn count(&mut self, message: &Message) {
        let messages = &mut self.messages;
        let counter = match message {
            Message::Held { .. } | Message::Have { .. } => &mut messages.have,
            Message::Grant { .. } => &mut messages.grant,
            Message::Assign { .. } => &mut messages.assign,
            Message::Decline { .. } => &mut messages.decline,
            Message::Request { .. } => &mut messages.request,
            Message::Refuse { .. } => &mut messages.refuse,
            Message::Cancel { .. } => &mut messages.cancel,
            Message::Credit { .. } => &mut messages.credit,
            Message::Members(_) => &mut messages.members,
            _ => return,
        };
        *counter += 1;
    }

    fn stir(&mut self, words: [u64; 4]) {
        for word in words {
            self.fold = (self.fold.rotate_left(7) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    pub(super) fn fold_input(&mut self, node: u32, input: &Input) {
        let (kind, a) = match input {
            Input::LinkUp { peer, .. } => (1, short(peer)),
            Input::LinkDown { peer } => (2, short(peer)),
            Input::DialFailed { addr, .. } => (3, u64::from(addr.port())),
            Input::ProbeFailed { addr } => (18, u64::from(addr.port())),
            Input::Probed { peer, .. } => (14, short(peer)),
            Input::Message { message, peer } => (4, short(peer) ^ words(message)),
            Input::Candidates(list) => (5, list.len() as u64),
            Input::Arrived { req, bytes } => (6, req.0 ^ u64::from(*bytes) << 32),
            Input::Received { req } => (7, req.0),
            Input::FetchEnded { req, .. } => (8, req.0),
            Input::ServeEnded { req, sent_bytes, .. } => (9, req.0 ^ u64::from(*sent_bytes) << 32),
            Input::RoundTrip { peer, took } => (15, short(peer) ^ took.0),
            Input::Found(proof) => (10, u64::from(proof.piece().raw())),
            Input::Damaged(piece) => (11, u64::from(piece.raw())),
            Input::Order(_) => (12, 0),
            Input::Timeout => (13, 0),
        };
        self.stir([self.queue.now(), u64::from(node), kind, a]);
    }

    pub(super) fn fold_output(&mut self, node: u32, output: &Output) {
        let (kind, a) = match output {
            Output::Dial { addr, .. } => (21, u64::from(addr.port())),
            Output::Probe { peer, .. } => (29, short(peer)),
            Output::Send { peer, message } => (22, short(peer) ^ words(message)),
            Output::Fetch { req, from, span } => (23, req.0 ^ short(from) ^ u64::from(span.piece().raw()) << 24),
            Output::Cancel { req, .. } => (24, req.0),
            Output::Serve { req, span, .. } => (25, req.0 ^ u64::from(span.piece().raw()) << 24),
            Output::StopServe { req, .. } => (26, req.0),
            Output::Hangup { peer, why } => (27, short(peer) ^ *why as u64),
            Output::Notice(_) => (28, 0),
        };
        self.stir([self.queue.now(), u64::from(node), kind, a]);
    }
}

/// Whether two texts differ in their numbers alone: one of a kind for each node is enough.
fn alike(a: &str, b: &str) -> bool {
    a.chars().filter(|letter| !letter.is_ascii_digit()).eq(b.chars().filter(|letter| !letter.is_ascii_digit()))
}

fn short(peer: &peas_core::unit::PeerId) -> u64 {
    u64::from_le_bytes(peer.0[..8].try_into().expect("eight of thirty-two bytes"))
}

/// A message as a number: enough to tell two runs apart.
fn words(message: &Message) -> u64 {
    let runs_of = |runs: &[(u32, u32)]| {
        runs.iter().fold(0u64, |sum, &(first, count)| sum.wrapping_mul(31).wrapping_add(u64::from(first) << 20 | u64::from(count)))
    };
    match message {
        Message::Held { runs, need, queue_ms } | Message::Have { runs, need, queue_ms } => {
            runs_of(runs) ^ u64::from(*need) << 32 ^ u64::from(*queue_ms)
        }
        Message::Withdraw { runs } => runs_of(runs),
        Message::Credit { pieces, upload_bytes_per_s } => u64::from(*pieces) << 48 ^ *upload_bytes_per_s,
        Message::Assign { piece, lease_ms } => u64::from(*piece) << 32 ^ u64::from(*lease_ms),
        Message::Grant { blocks, .. } => u64::from(*blocks),
        Message::Decline { piece } => piece.map_or(1, |piece| u64::from(piece) + 2),
        Message::Request { req, piece, first, count } => *req << 32 ^ u64::from(*piece) ^ u64::from(*first) << 48 ^ u64::from(*count) << 20,
        Message::Refuse { req, .. } => *req << 3,
        Message::Cancel { req } => *req << 5,
        Message::Members(records) => records.iter().fold(records.len() as u64, |sum, record| sum.wrapping_mul(31) ^ record.epoch),
        Message::Hello(_) | Message::Bye => 7,
    }
}
