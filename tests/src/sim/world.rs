//! The world: nodes, their links, and the clock. One event after the other; each is turned into inputs for a machine, whose
//! outputs become new events.
//!
//! How bytes travel is in `traffic`, what a driver does with each output in `driver`, promises in [`checks`](super::checks).

use super::checks::Checks;
use super::disk::Disk;
use super::event::{Event, HalfRef, MS, Ns, Queue, ns};
use super::faults::What;
use super::link::Links;
use super::node::{NONE, Nic, Node, mix, node_of, peer_of};
use super::stats::{Messages, Outcome, Sample, Unavailable, Uplinks};
use super::workload::{Conduct, Plan};
use super::{Machine, bound};
use peas_core::swarm::{Committed, FetchEnd, Input, Swarm};
use peas_core::unit::{Geometry, PeerId, PieceSet, Rng, Time};
use peas_core::wire::Hello;

/// A swarm in virtual time.
#[derive(Debug)]
pub struct World<M = Swarm> {
    pub(super) plan: Plan,
    pub(super) geometry: Geometry,
    pub(super) nodes: Vec<Node<M>>,
    pub(super) links: Links,
    pub(super) queue: Queue,
    pub(super) rng: Rng,
    /// When the thin link is free, away from the origin's region and towards it.
    pub(super) trunk_free: [Ns; 2],
    pub(super) trunk_bytes: [u64; 2],
    pub(super) checks: Checks,
    pub(super) messages: Messages,
    pub(super) fold: u64,
    pub(super) inputs: u64,
    /// Honest clients that are to become whole and are not yet.
    pub(super) short: u32,
    /// Copies among clients of each piece.
    pub(super) copies: Vec<u32>,
    pub(super) pieces_out: u32,
    pub(super) spread_at: Option<Ns>,
    pub(super) handed_out_at: Option<Ns>,
    pub(super) last_whole_at: Ns,
    pub(super) commits: u64,
    pub(super) serves_max: u32,
    pub(super) samples: Vec<Sample>,
    pub(super) unavailable: Vec<Unavailable>,
    pub(super) sample_every: Ns,
    pub(super) healed: bool,
    pub(super) bound_s: f64,
}

impl<M: Machine> World<M> {
    /// A world before its first event.
    pub fn new(plan: Plan) -> Self {
        let bound_s = bound::last_client_s(&plan);
        let node_count = plan.clients.len() + 1;
        let mut world = Self {
            geometry: plan.geometry,
            nodes: Vec::with_capacity(node_count),
            links: Links::default(),
            queue: Queue::default(),
            rng: Rng::new(mix(plan.seed)),
            trunk_free: [0; 2],
            trunk_bytes: [0; 2],
            checks: Checks::new(plan.geometry.piece_count()),
            messages: Messages::default(),
            fold: 0,
            inputs: 0,
            short: plan.honest().count() as u32,
            copies: vec![0; plan.geometry.piece_count() as usize],
            pieces_out: 0,
            spread_at: None,
            handed_out_at: None,
            last_whole_at: 0,
            commits: 0,
            serves_max: 0,
            samples: Vec::new(),
            unavailable: Vec::new(),
            sample_every: ns((bound_s / 500.0).max(0.02)).max(10 * MS),
            healed: plan.faults.iter().all(|fault| fault.what != What::Heal),
            bound_s,
            plan,
        };
        (0..node_count as u32).for_each(|node| world.add_node(node));
        for index in 0..world.plan.faults.len() {
            world.queue.push(ns(world.plan.faults[index].at_s), Event::Fault { index: index as u32 });
        }
        world.queue.push(world.sample_every, Event::Sample);
        world
    }

    fn add_node(&mut self, node: u32) {
        let plan = &self.plan;
        let client = (node as usize).checked_sub(1).map(|at| &plan.clients[at]);
        let conduct = client.map_or(Conduct::Honest, |client| client.conduct);
        let full = client.is_none() || matches!(conduct, Conduct::Poisoner | Conduct::Liar | Conduct::Staller);
        let journal = if full { PieceSet::full(&self.geometry) } else { PieceSet::empty(&self.geometry) };
        let (up, down) = client
            .map_or((plan.origin_up_bytes_per_s, plan.origin_up_bytes_per_s), |client| (client.up_bytes_per_s, client.down_bytes_per_s));
        self.nodes.push(Node {
            machine: None,
            incarnation: 0,
            peer: peer_of(node),
            region: client.map_or(plan.origin_region, |client| client.region),
            origin: client.is_none(),
            conduct,
            nic: Nic::new(up, down, ns(plan.one_way_s / 2.0), plan.quantum_bytes),
            disk: Disk::new(journal, plan.disk_bytes_per_s),
            links: vec![NONE; plan.clients.len() + 1],
            ends: Vec::new(),
            timer_at: Ns::MAX,
            spins: 0,
            last_timeout: 0,
            started_at: 0,
            first_commit_at: None,
            whole_at: None,
            leaves_after: client.and_then(|client| client.leaves_after_s).map(ns),
            gone: false,
            next_port: 40_000,
            caught: Vec::new(),
            serves: 0,
        });
        let (arrives_s, dies_at_s) = client.map_or((0.0, None), |client| (client.arrives_s, client.dies_at_s));
        self.queue.push(ns(arrives_s), Event::Start { node });
        if let Some(dies_at_s) = dies_at_s {
            self.queue.push(ns(dies_at_s), Event::Kill { node });
        }
    }

    /// Runs until every honest client is whole and all faults are over, or time is up, or nothing happens any more.
    pub fn run(mut self) -> Outcome {
        let ends_at = ns(self.plan.ends_s);
        while self.short > 0 || !self.healed {
            match self.queue.pop() {
                Some(event) if self.queue.now() <= ends_at => self.step(event),
                _ => break,
            }
        }
        self.look();
        self.outcome()
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Start { node } => self.start(node),
            Event::Timer { node, incarnation } => self.timer(node, incarnation),
            Event::Pump { node } => {
                if self.node(node).nic.pump_at == self.queue.now() {
                    self.node_mut(node).nic.pump_at = 0;
                    self.pump(node);
                }
            }
            Event::Deliver { to, message } => self.deliver(to, *message),
            Event::Arrived { at, req, bytes } => {
                if let Some(half) = self.links.live(at).filter(|&half| self.links[half].fetches.iter().any(|fetch| fetch.req == req)) {
                    self.feed(self.links[half].owner, Input::Arrived { req: peas_core::unit::RequestId(req), bytes });
                }
            }
            Event::Last { at, req } => self.received(at, req),
            Event::Stored { node, incarnation } => self.stored(node, incarnation),
            Event::ServeEnded { at, req, sent_bytes, damaged } => {
                if let Some(half) = self.links.live(at) {
                    let (node, peer) = (self.links[half].owner, self.peer_at(half));
                    if let Some(piece) = damaged {
                        self.lose(node, piece);
                    }
                    let req = peas_core::unit::RequestId(req);
                    self.feed(node, Input::ServeEnded { peer, req, sent_bytes, damaged: damaged.is_some() });
                }
            }
            Event::Dialed { dialer, incarnation, addr, target, purpose } => self.dialed(dialer, incarnation, *addr, target, purpose),
            Event::Closed { at } => self.closed(at),
            Event::Kill { node } => {
                self.node_mut(node).gone = true;
                self.kill(node);
            }
            Event::Leave { node, incarnation } => self.leave(node, incarnation),
            Event::Fault { index } => self.fault(index),
            Event::Sample => {
                self.look();
                self.queue.push(self.queue.now() + self.sample_every, Event::Sample);
            }
        }
    }

    /// Gives a machine a fact and does what it asks for.
    pub(super) fn feed(&mut self, node: u32, input: Input) {
        let now = Time(self.queue.now() / 1000);
        self.fold_input(node, &input);
        if self.plan.trace == Some(node) {
            eprintln!("{:11.6} <- {input:?}", now.0 as f64 / 1e6);
        }
        let Some(machine) = &mut self.nodes[node as usize].machine else { return };
        self.inputs += 1;
        machine.handle(now, input);
        self.drain(node);
    }

    fn drain(&mut self, node: u32) {
        for _ in 0..100_000 {
            let Some(output) = self.nodes[node as usize].machine.as_mut().and_then(M::poll) else { return self.arm(node) };
            self.fold_output(node, &output);
            if self.plan.trace == Some(node) {
                eprintln!("{:11.6} -> {output:?}", self.queue.now() as f64 / 1e9);
            }
            self.apply(node, output);
        }
        self.violate(node, "asks for 100,000 things after one fact".to_owned());
    }

    fn arm(&mut self, node: u32) {
        let now = self.queue.now();
        let node_now = &mut self.nodes[node as usize];
        let Some(deadline) = node_now.machine.as_ref().and_then(M::deadline) else { return };
        let mut at = (deadline.0.saturating_mul(1000)).max(now);
        if at == now && node_now.spins > 50 {
            at = now + MS;
        }
        if at < node_now.timer_at {
            node_now.timer_at = at;
            let incarnation = node_now.incarnation;
            self.queue.push(at, Event::Timer { node, incarnation });
        }
    }

    fn timer(&mut self, node: u32, incarnation: u32) {
        let now = self.queue.now();
        let state = self.node_mut(node);
        if state.incarnation != incarnation || state.timer_at != now {
            return;
        }
        state.timer_at = Ns::MAX;
        if state.machine.as_ref().and_then(M::deadline).is_none_or(|deadline| deadline.0 > now / 1000) {
            return self.arm(node);
        }
        state.spins = if state.last_timeout == now { state.spins + 1 } else { 0 };
        state.last_timeout = now;
        if state.spins == 50 {
            self.violate(node, "its deadline does not move".to_owned());
        }
        self.feed(node, Input::Timeout);
    }

    pub(super) fn node(&self, node: u32) -> &Node<M> {
        &self.nodes[node as usize]
    }

    pub(super) fn node_mut(&mut self, node: u32) -> &mut Node<M> {
        &mut self.nodes[node as usize]
    }

    /// Who is at the other end.
    pub(super) fn peer_at(&self, half: u32) -> PeerId {
        self.node(self.links[half].peer).peer
    }

    /// The half of a link that a machine names by its peer.
    pub(super) fn half_to(&self, node: u32, peer: PeerId) -> Option<u32> {
        let other = node_of(peer, self.nodes.len())?;
        Some(self.node(node).links[other as usize]).filter(|&half| half != NONE)
    }

    pub(super) fn hello(&self, node: u32) -> Hello {
        let state = self.node(node);
        Hello {
            version: 1,
            content: [7; 32],
            proof: Vec::new(),
            listen_port: Some(super::node::PORT),
            region: state.region,
            origin: state.origin,
            extensions: 0,
        }
    }

    fn outcome(mut self) -> Outcome {
        self.final_checks();
        let honest = |node: &&Node<M>| !node.origin && node.conduct == Conduct::Honest;
        let mut durations_s: Vec<f64> =
            self.nodes.iter().filter(honest).filter_map(|node| Some((node.whole_at? - node.started_at) as f64 / 1e9)).collect();
        durations_s.sort_by(f64::total_cmp);
        let mut firsts_s: Vec<f64> =
            self.nodes.iter().filter(honest).filter_map(|node| Some((node.first_commit_at? - node.started_at) as f64 / 1e9)).collect();
        firsts_s.sort_by(f64::total_cmp);
        let payload: u64 = self.nodes.iter().map(|node| node.nic.payload_bytes).sum();
        let control: u64 = self.nodes.iter().map(|node| node.nic.control_bytes).sum();
        let total = self.geometry.total_bytes() as f64;
        let committed = (self.commits as f64 * f64::from(self.geometry.piece_bytes())).max(1.0);
        let weight = self.samples.iter().map(|sample| f64::from(sample.clients)).sum::<f64>().max(1.0);
        let mut uplinks = Uplinks::default();
        for sample in &self.samples {
            uplinks.add(&sample.uplinks, f64::from(sample.clients) / weight);
        }
        Outcome {
            last_whole_s: (self.short == 0).then_some(self.last_whole_at as f64 / 1e9),
            durations_s,
            short: self.short,
            bound_s: self.bound_s,
            pieces: self.geometry.piece_count(),
            unavailable: self.unavailable,
            origin_copies: self.nodes[0].nic.payload_bytes as f64 / total.max(1.0),
            spread_s: self.spread_at.map(|at| at as f64 / 1e9),
            handed_out_s: self.handed_out_at.map(|at| at as f64 / 1e9),
            control_share: control as f64 / (payload as f64).max(1.0),
            waste_share: (payload as f64 - committed).max(0.0) / committed,
            trunk_copies: self.trunk_bytes[0] as f64 / total.max(1.0),
            first_piece_s: firsts_s.last().copied().unwrap_or(f64::INFINITY),
            first_piece_p99_s: firsts_s.get(firsts_s.len() * 99 / 100).copied().unwrap_or(f64::INFINITY),
            serves_max: self.serves_max,
            links_max: self.checks.links_max,
            uplinks,
            messages: self.messages,
            samples: self.samples,
            inputs: self.inputs,
            events: self.queue.pushed(),
            virtual_s: self.queue.now() as f64 / 1e9,
            fold: self.fold,
            violations: self.checks.violations,
        }
    }

    fn closed(&mut self, at: HalfRef) {
        if let Some(half) = self.links.live(at) {
            let (node, peer) = (self.links[half].owner, self.peer_at(half));
            self.unlink(half);
            self.feed(node, Input::LinkDown { peer });
        }
    }

    fn stored(&mut self, node: u32, incarnation: u32) {
        if self.node(node).incarnation != incarnation || self.node(node).machine.is_none() {
            return;
        }
        let now = self.queue.now();
        let geometry = self.geometry;
        let disk = &mut self.node_mut(node).disk;
        let write = disk.writes.pop_front().expect("every Stored event has its job");
        let piece = write.span.piece();
        let end = if write.corrupt {
            FetchEnd::Corrupt
        } else if disk.journal.contains(piece) {
            // A second copy, asked for in the tail.
            FetchEnd::Committed(Committed::simulated(piece))
        } else if !disk.verify(&geometry, write.span) {
            FetchEnd::Verified
        } else if now < disk.full_until {
            disk.lose(piece);
            FetchEnd::Unwritten
        } else {
            self.commit(node, piece);
            FetchEnd::Committed(Committed::simulated(piece))
        };
        let link = self.links.live(write.link);
        let waiting = link.and_then(|half| {
            let at = self.links[half].fetches.iter().position(|fetch| fetch.req == write.req)?;
            self.links[half].fetches.swap_remove(at);
            Some(half)
        });
        match (waiting, end) {
            (Some(half), end) => self.fetch_ended(half, write.req, end),
            (None, FetchEnd::Committed(proof)) => self.feed(node, Input::Found(proof)),
            _ => {}
        }
    }
}
