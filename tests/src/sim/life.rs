//! How nodes come, fail, are mended and go: what a fault plan does to the world.

use super::Machine;
use super::event::{Event, Ns, SECOND, ns};
use super::faults::What;
use super::node::{NONE, Node, addr_of, mix, peer_of};
use super::workload::Conduct;
use super::world::World;
use peas_core::swarm::{Candidate, Input, Order, Role, Setup, Via};

impl<M: Machine> World<M> {
    pub(super) fn start(&mut self, node: u32) {
        let now = self.queue.now();
        let (seed, limits) = (mix(self.plan.seed ^ mix(u64::from(node))), self.plan.limits.clone());
        let state = &mut self.nodes[node as usize];
        if state.machine.is_some() || state.gone {
            return;
        }
        state.incarnation += 1;
        state.timer_at = Ns::MAX;
        // Bans are remembered by the machine, and it is a new one.
        state.caught.clear();
        if state.incarnation == 1 {
            state.started_at = now;
        }
        state.machine = Some(M::new(Setup {
            geometry: self.geometry,
            me: state.peer,
            held: state.disk.journal.clone(),
            role: if state.origin { Role::Origin } else { Role::Peer },
            limits,
            region: state.region,
            seed: seed.wrapping_add(u64::from(state.incarnation)),
        }));
        let mut candidates = Vec::new();
        if node != 0 {
            candidates.push(Candidate { addr: addr_of(0), peer: Some(peer_of(0)), via: Via::Bootstrap });
        }
        candidates.extend(self.remembered(node));
        self.feed(node, Input::Candidates(candidates));
    }

    /// Some that came before this node, as if known from an earlier run.
    fn remembered(&mut self, node: u32) -> Vec<Candidate> {
        let known = |other: u32| other != node && self.node(other).incarnation > 0 && !self.node(other).gone;
        let before: Vec<u32> = (1..self.nodes.len() as u32).filter(|&other| known(other)).collect();
        let mut candidates = Vec::new();
        for _ in 0..self.plan.remembered.min(before.len()) {
            let other = before[self.rng.below(before.len())];
            candidates.push(Candidate { addr: addr_of(other), peer: Some(peer_of(other)), via: Via::Remembered });
        }
        candidates
    }

    /// Ends a node without a word: its links break at the other ends after one latency.
    pub(super) fn kill(&mut self, node: u32) {
        let now = self.queue.now();
        if self.node_mut(node).machine.take().is_none() {
            return;
        }
        let halves = self.node(node).ends.clone();
        for half in halves {
            let there = self.links.name(half ^ 1);
            let latency = self.latency(half);
            self.unlink(half);
            self.queue.push(now + latency, Event::Closed { at: there });
        }
        let state = self.node_mut(node);
        state.nic.row.clear();
        state.nic.pump_at = 0;
        state.disk.crash();
    }

    pub(super) fn leave(&mut self, node: u32, incarnation: u32) {
        if self.node(node).incarnation == incarnation {
            self.feed(node, Input::Order(Order::Leave));
            self.queue.push(self.queue.now() + 2 * SECOND, Event::Kill { node });
        }
    }

    pub(super) fn fault(&mut self, index: u32) {
        let now = self.queue.now();
        match self.plan.faults[index as usize].what.clone() {
            What::Cut(a, b) => self.cut(a, b),
            What::Stall(from, to, for_s) => {
                let half = self.node(from).links[to as usize];
                if half != NONE {
                    self.links[half].stalled_until = now + ns(for_s.min(20.0));
                    if for_s > 20.0 {
                        let (here, there) = (self.links.name(half), self.links.name(half ^ 1));
                        self.queue.push(now + 20 * SECOND, Event::Closed { at: here });
                        self.queue.push(now + 20 * SECOND, Event::Closed { at: there });
                    }
                }
            }
            What::Latency(node, extra_s) => self.node_mut(node).nic.extra_latency = ns(extra_s),
            What::Kill(node) => self.kill(node),
            What::Wipe(node) => self.wipe(node),
            What::Start(node) => self.queue.push(now, Event::Start { node }),
            What::DiskSlowness(node, factor) => self.node_mut(node).disk.slowness = factor,
            What::DiskFull(node, for_s) => self.node_mut(node).disk.full_until = now + ns(for_s),
            What::Rot(node, salt) => self.rot(node, salt, false),
            What::Scrub(node, salt) => self.rot(node, salt, true),
            What::Order(node, order) => self.feed(node, Input::Order(order)),
            What::Heal => self.heal(),
        }
    }

    fn cut(&mut self, a: u32, b: u32) {
        let half = self.node(a).links[b as usize];
        if half != NONE {
            for end in [half, half ^ 1] {
                let at = self.links.name(end);
                self.queue.push(self.queue.now(), Event::Closed { at });
            }
        }
    }

    fn wipe(&mut self, node: u32) {
        let pieces: Vec<_> = self.node(node).disk.journal.iter().collect();
        if self.node(node).machine.is_none() && !self.node(node).origin && self.node(node).conduct == Conduct::Honest {
            pieces.into_iter().for_each(|piece| self.lose(node, piece));
        }
    }

    /// Rots a piece that somebody else honest holds as well, so that it can be mended.
    fn rot(&mut self, node: u32, salt: u64, scrub: bool) {
        if self.node(node).machine.is_none() || self.node(node).conduct != Conduct::Honest {
            return;
        }
        let mendable: Vec<_> = self.node(node).disk.journal.iter().filter(|&piece| self.copies_besides(node, piece) > 0).collect();
        if mendable.is_empty() {
            return;
        }
        let piece = mendable[(salt % mendable.len() as u64) as usize];
        if scrub {
            self.lose(node, piece);
            self.feed(node, Input::Damaged(piece));
        } else {
            self.node_mut(node).disk.rotten.push(piece);
        }
    }

    fn copies_besides(&self, node: u32, piece: peas_core::unit::PieceIdx) -> usize {
        let holds = |other: &Node<M>| {
            other.conduct == Conduct::Honest && !other.gone && other.disk.journal.contains(piece) && !other.disk.rotten.contains(&piece)
        };
        (0..self.nodes.len() as u32).filter(|&other| other != node && holds(self.node(other))).count()
    }

    fn heal(&mut self) {
        let now = self.queue.now();
        self.healed = true;
        for node in 0..self.nodes.len() as u32 {
            let state = self.node_mut(node);
            state.nic.extra_latency = 0;
            state.disk.slowness = 1.0;
            state.disk.full_until = 0;
            state.disk.rotten.clear();
        }
        let dead = self.node(0).machine.is_none();
        let missing = self.geometry.pieces().any(|piece| self.copies_besides(0, piece) == 0);
        if missing {
            for piece in self.geometry.pieces() {
                self.node_mut(0).disk.journal.insert(piece);
            }
            if !dead {
                self.kill(0);
            }
        }
        for node in 0..self.nodes.len() as u32 {
            if self.node(node).incarnation > 0 && (node != 0 || missing) {
                self.queue.push(now, Event::Start { node });
            }
            // Without an origin, islands cannot find each other by themselves: healing includes that hosts know some others again.
            if node != 0 && self.node(node).machine.is_some() {
                let candidates = self.remembered(node);
                self.feed(node, Input::Candidates(candidates));
            }
        }
    }
}
