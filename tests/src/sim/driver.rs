//! What a driver does with the machine's requests, as far as this world needs it.

use super::Machine;
use super::event::{Event, HalfRef, Ns, Purpose};
use super::link::{Fetch, Serve};
use super::node::{NONE, addr_of, node_at};
use super::stats::Unavailable;
use super::workload::Conduct;
use super::world::World;
use peas_core::swarm::{FetchEnd, Input, Notice, Output};
use peas_core::unit::{PeerId, PieceIdx, PieceSet, RequestId, Span};
use peas_core::wire::{Message, REFUSE_NOT_HELD};
use std::net::SocketAddr;

impl<M: Machine> World<M> {
    /// Does what a machine asks for.
    pub(super) fn apply(&mut self, node: u32, output: Output) {
        match output {
            Output::Dial { addr, peer } => self.dial(node, addr, peer, Purpose::Link),
            Output::Probe { addr, peer } => self.dial(node, addr, Some(peer), Purpose::Probe),
            Output::Send { peer, message } => {
                if let Some(half) = self.half_or_violate(node, peer, "sends a message") {
                    self.send_as_told(half, message);
                }
            }
            Output::Fetch { req, from, span } => {
                if let Some(half) = self.half_or_violate(node, from, "fetches") {
                    self.check_fetch(node, half, span);
                    self.links[half].fetches.push(Fetch::new(req, span));
                    self.send(half, Message::Request { req: req.0, piece: span.piece().raw(), first: span.first(), count: span.count() });
                }
            }
            Output::Cancel { req, from } => self.cancel(node, req, from),
            Output::Serve { req, to, span } => {
                if let Some(half) = self.half_or_violate(node, to, "serves") {
                    self.check_serve(node, span);
                    self.serve(half, req, span);
                }
            }
            Output::StopServe { req, to } => {
                if let Some(half) = self.half_or_violate(node, to, "stops a serve") {
                    self.stop_serve(half, req);
                }
            }
            Output::Hangup { peer, .. } => {
                if let Some(half) = self.half_or_violate(node, peer, "hangs up") {
                    self.hang_up(half);
                }
            }
            Output::Notice(Notice::Whole) => {
                if !self.node(node).disk.journal.is_full() {
                    self.violate(node, "says it is whole and is not".to_owned());
                }
            }
            Output::Notice(Notice::Unavailable { missing_pieces }) => {
                let at_s = self.queue.now() as f64 / 1e9;
                self.unavailable.push(Unavailable { at_s, node, pieces: missing_pieces });
            }
            Output::Notice(_) => {}
        }
    }

    fn half_or_violate(&mut self, node: u32, peer: PeerId, what: &str) -> Option<u32> {
        let half = self.half_to(node, peer);
        if half.is_none() {
            self.violate(node, format!("{what} without a link to {peer:?}"));
        }
        half
    }

    fn dial(&mut self, node: u32, addr: SocketAddr, peer: Option<PeerId>, purpose: Purpose) {
        let target = node_at(addr, self.nodes.len());
        let trip = target.map_or(self.node(node).nic.latency * 2, |target| self.latency_between(node, target));
        let target = target.filter(|&target| target != node && peer.is_none_or(|peer| peer == self.node(target).peer));
        let incarnation = self.node(node).incarnation;
        self.queue.push(self.queue.now() + trip * 3, Event::Dialed { dialer: node, incarnation, addr: Box::new(addr), target, purpose });
    }

    pub(super) fn dialed(&mut self, dialer: u32, incarnation: u32, addr: SocketAddr, target: Option<u32>, purpose: Purpose) {
        if self.node(dialer).incarnation != incarnation || self.node(dialer).machine.is_none() {
            return;
        }
        let target = target.filter(|&target| self.node(target).machine.is_some());
        if purpose == Purpose::Probe {
            let input = target.map_or(Input::ProbeFailed { addr }, |target| Input::Probed { addr, peer: self.node(target).peer });
            return self.feed(dialer, input);
        }
        let target = target.filter(|&target| self.node(dialer).links[target as usize] == NONE);
        // The other end may still have a half of an earlier link that it does not know to be gone.
        let Some(target) = target.filter(|&target| self.node(target).links[dialer as usize] == NONE) else {
            return self.feed(dialer, Input::DialFailed { addr, stranger: false });
        };
        let half = self.links.open(dialer, target);
        for (end, owner, peer) in [(half, dialer, target), (half ^ 1, target, dialer)] {
            self.links[end].announced = Some(PieceSet::empty(&self.geometry));
            let state = self.node_mut(owner);
            state.links[peer as usize] = end;
            state.ends.push(end);
        }
        let state = self.node_mut(dialer);
        state.next_port = state.next_port.wrapping_add(1).max(40_000);
        let passing = SocketAddr::new(addr_of(dialer).ip(), state.next_port);
        let (dialer_end, listener_end) = (self.links.name(half), self.links.name(half ^ 1));
        let (hello, answer) = (self.hello(dialer), self.hello(target));
        let dialer_peer = self.node(dialer).peer;
        let round_trip = Some(Span(2 * self.latency_between(dialer, target) / 1000));
        if self.links.live(listener_end).is_some() {
            self.feed(target, Input::LinkUp { peer: dialer_peer, addr: passing, dialed: false, round_trip, hello });
        }
        if self.links.live(dialer_end).is_some() {
            let peer = self.node(target).peer;
            self.feed(dialer, Input::LinkUp { peer, addr, dialed: true, round_trip, hello: answer });
        }
    }

    /// Sends a message as the node's conduct would have it.
    fn send_as_told(&mut self, half: u32, message: Message) {
        let node = self.links[half].owner;
        match (self.node(node).conduct, message) {
            (Conduct::Hoarder, Message::Held { need, queue_ms, .. }) => self.send(half, Message::Held { runs: Vec::new(), need, queue_ms }),
            (Conduct::Hoarder, Message::Have { .. } | Message::Grant { .. }) => {}
            (_, message) => {
                self.check_send(half, &message);
                self.send(half, message);
            }
        }
    }

    fn cancel(&mut self, node: u32, req: RequestId, from: PeerId) {
        let Some(half) = self.half_or_violate(node, from, "cancels") else { return };
        let now = self.queue.now();
        match self.links[half].fetches.iter().position(|fetch| fetch.req == req.0) {
            Some(at) => {
                let mut fetch = self.links[half].fetches.swap_remove(at);
                self.salvage(node, &mut fetch, now);
            }
            None => self.violate(node, format!("cancels request {} which is not under way", req.0)),
        }
        self.send(half, Message::Cancel { req: req.0 });
    }

    /// Keeps what a fetch that is over brought so far.
    fn salvage(&mut self, node: u32, fetch: &mut Fetch, now: Ns) {
        if !fetch.checking && !fetch.corrupt {
            let received = fetch.received_by(now);
            let geometry = self.geometry;
            self.node_mut(node).disk.salvage(&geometry, fetch.span, received);
        }
    }

    fn serve(&mut self, half: u32, req: RequestId, span: peas_core::unit::BlockSpan) {
        let node = self.links[half].owner;
        let conduct = self.node(node).conduct;
        if self.node(node).disk.rotten.contains(&span.piece()) {
            let at = self.links.name(half);
            let damaged = Some(span.piece());
            return self.queue.push(self.queue.now(), Event::ServeEnded { at, req: req.0, sent_bytes: 0, damaged });
        }
        let bytes = self.geometry.len_of_span(span);
        let (corrupt, stuck) = (conduct == Conduct::Poisoner, conduct == Conduct::Staller);
        self.links[half].serves.push_back(Serve { req: req.0, bytes, sent: 0, corrupt, stuck });
        let state = self.node_mut(node);
        state.serves += 1;
        let serves = state.serves;
        self.serves_max = self.serves_max.max(serves);
        if !std::mem::replace(&mut self.links[half].in_row, true) {
            self.node_mut(node).nic.row.push(half);
        }
        self.pump(node);
    }

    fn stop_serve(&mut self, half: u32, req: RequestId) {
        let at = self.links.name(half);
        if let Some(index) = self.links[half].serves.iter().position(|serve| serve.req == req.0) {
            let serve = self.links[half].serves.remove(index).expect("the index was found just now");
            let node = self.links[half].owner;
            self.node_mut(node).serves -= 1;
            self.queue.push(self.queue.now(), Event::ServeEnded { at, req: req.0, sent_bytes: serve.sent, damaged: None });
        }
    }

    fn hang_up(&mut self, half: u32) {
        let now = self.queue.now();
        let (here, there) = (self.links.name(half), self.links.name(half ^ 1));
        self.links[half].hung_up = true;
        self.checks.link_down(&self.links[half], now);
        let last_word = self.links[half].control_until;
        let there_at = (now + self.latency(half)).max(last_word);
        self.queue.push(now, Event::Closed { at: here });
        self.queue.push(there_at, Event::Closed { at: there });
    }

    /// Takes one end of a link down; its machine is told by the caller.
    pub(super) fn unlink(&mut self, half: u32) {
        let now = self.queue.now();
        let (node, peer) = (self.links[half].owner, self.links[half].peer);
        let fetches = std::mem::take(&mut self.links[half].fetches);
        let serves = std::mem::take(&mut self.links[half].serves).len() as u32;
        for mut fetch in fetches {
            self.salvage(node, &mut fetch, now);
        }
        self.checks.link_down(&self.links[half], now);
        let state = self.node_mut(node);
        state.links[peer as usize] = NONE;
        state.ends.retain(|&end| end != half);
        state.serves -= serves;
        state.nic.row.retain(|&other| other != half);
        self.links.close(half);
    }

    /// Gives an arriving message to the machine, or does what the driver does with it.
    pub(super) fn deliver(&mut self, to: HalfRef, message: Message) {
        let Some(half) = self.links.live(to) else { return };
        let now = self.queue.now();
        let (node, peer) = (self.links[half].owner, self.peer_at(half));
        self.note_message(half, &message, now);
        match message {
            Message::Refuse { req, reason, retry_after_ms } => {
                if let Some(at) = self.links[half].fetches.iter().position(|fetch| fetch.req == req && !fetch.checking) {
                    let mut fetch = self.links[half].fetches.swap_remove(at);
                    self.salvage(node, &mut fetch, now);
                    self.fetch_ended(half, req, FetchEnd::Refused { reason, retry_after_ms });
                }
            }
            Message::Request { req, .. } if self.node(node).conduct == Conduct::Liar => {
                self.send(half, Message::Refuse { req, reason: REFUSE_NOT_HELD, retry_after_ms: 1000 });
            }
            message => self.feed(node, Input::Message { peer, message }),
        }
    }

    /// The last byte of a fetch is here.
    pub(super) fn received(&mut self, at: HalfRef, req: u64) {
        let Some(half) = self.links.live(at) else { return };
        let Some(fetch) = self.links[half].fetches.iter_mut().find(|fetch| fetch.req == req && !fetch.checking) else { return };
        fetch.checking = true;
        let (span, corrupt) = (fetch.span, fetch.corrupt);
        let node = self.links[half].owner;
        let bytes = self.geometry.len_of_span(span);
        let write = super::disk::Write { link: at, req, span, corrupt };
        let now = self.queue.now();
        let state = self.node_mut(node);
        let done_at = state.disk.enqueue(now, bytes, write);
        let incarnation = state.incarnation;
        self.queue.push(done_at, Event::Stored { node, incarnation });
        self.feed(node, Input::Received { req: RequestId(req) });
    }

    pub(super) fn fetch_ended(&mut self, half: u32, req: u64, end: FetchEnd) {
        let (node, peer) = (self.links[half].owner, self.links[half].peer);
        let lie = matches!(end, FetchEnd::Corrupt).then(|| self.links.name(half));
        self.feed(node, Input::FetchEnded { req: RequestId(req), end });
        if let Some(name) = lie {
            self.check_caught(node, peer, name);
        }
    }

    /// A piece is on the platter.
    pub(super) fn commit(&mut self, node: u32, piece: PieceIdx) {
        let now = self.queue.now();
        let state = self.node_mut(node);
        if !state.disk.commit(piece) || state.conduct != Conduct::Honest {
            return;
        }
        state.first_commit_at.get_or_insert(now);
        let whole = state.disk.journal.is_full();
        let (incarnation, origin, leaves_after) = (state.incarnation, state.origin, state.leaves_after);
        self.commits += 1;
        if origin {
            return;
        }
        self.copies[piece.at()] += 1;
        if self.copies[piece.at()] == 1 {
            self.pieces_out += 1;
            if self.pieces_out == self.geometry.piece_count() {
                self.spread_at.get_or_insert(now);
            }
        }
        if whole {
            self.became_whole(node, now);
            if let Some(after) = leaves_after {
                self.queue.push(now + after, Event::Leave { node, incarnation });
            }
        }
    }

    fn became_whole(&mut self, node: u32, now: Ns) {
        let counted = self.plan.clients[node as usize - 1].dies_at_s.is_none();
        let state = self.node_mut(node);
        state.whole_at = Some(now);
        if counted {
            self.short -= 1;
            self.last_whole_at = self.last_whole_at.max(now);
        }
    }

    /// A piece is gone from a disk.
    pub(super) fn lose(&mut self, node: u32, piece: PieceIdx) {
        let whole = self.node(node).disk.journal.is_full();
        if !self.node(node).disk.journal.contains(piece) {
            return;
        }
        self.node_mut(node).disk.lose(piece);
        if self.node(node).origin {
            return;
        }
        self.copies[piece.at()] -= 1;
        if self.copies[piece.at()] == 0 {
            self.pieces_out -= 1;
        }
        if whole && self.plan.clients[node as usize - 1].dies_at_s.is_none() {
            self.short += 1;
            self.node_mut(node).whole_at = None;
        }
    }
}
