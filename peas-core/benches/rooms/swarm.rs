//! The machine, fed by hand: a client that picks among many pieces, and a whole swarm in which nothing takes time.

use divan::Bencher;
use divan::counter::ItemsCount;
use peas_core::swarm::{Committed, FetchEnd, Input, Limits, Output, Role, Setup, Swarm};
use peas_core::unit::{BlockSpan, Geometry, PeerId, PieceSet, Span, Time};
use peas_core::wire::{Hello, Message};
use std::collections::VecDeque;

const PIECE_BYTES: u32 = 1 << 20;

fn peer(n: usize) -> PeerId {
    PeerId([n as u8; 32])
}

fn machine(n: usize, piece_count: u32, role: Role) -> Swarm {
    let geometry = Geometry::new(u64::from(piece_count) * u64::from(PIECE_BYTES), PIECE_BYTES).expect("a size that contents may have");
    let held = if role == Role::Origin { PieceSet::full(&geometry) } else { PieceSet::empty(&geometry) };
    Swarm::new(Setup { geometry, me: peer(n), held, role, limits: Limits::default(), region: 0, seed: n as u64 })
}

fn link_up(n: usize, dialed: bool, origin: bool) -> Input {
    let hello = Hello { version: 1, content: [0; 32], proof: Vec::new(), listen_port: Some(7000), region: 0, origin, extensions: 0 };
    Input::LinkUp { peer: peer(n), addr: ([10, 0, 0, n as u8], 7000).into(), dialed, round_trip: None, hello }
}

fn committed(span: BlockSpan) -> FetchEnd {
    FetchEnd::Committed(Committed::simulated(span.piece()))
}

/// Pieces that the client takes in one sample.
const TAKEN: u32 = 256;
const HOLDERS: usize = 16;

/// A client with sixteen neighbours that hold everything.
fn client(piece_count: u32) -> Swarm {
    let mut client = machine(0, piece_count, Role::Peer);
    for n in 1..=HOLDERS {
        client.handle(Time::ZERO, link_up(n, true, false));
        let message = Message::Held { runs: vec![(0, piece_count)], need: 0, queue_ms: 0 };
        client.handle(Time::ZERO, Input::Message { peer: peer(n), message });
    }
    while client.poll().is_some() {}
    client
}

/// From a grant to the piece on the disk: it picks the rarest, asks for it, and tells its neighbours that it has it.
#[divan::bench(args = [512, 4096, 32768], sample_count = 20)]
fn pick(bencher: Bencher, piece_count: u32) {
    bencher.counter(ItemsCount::new(TAKEN)).with_inputs(|| client(piece_count)).bench_local_refs(|client| {
        let mut now = Time::ZERO;
        for n in 0..TAKEN as usize {
            now = now + Span::ms(10);
            let message = Message::Grant { blocks: 64, spare: false };
            client.handle(now, Input::Message { peer: peer(1 + n % HOLDERS), message });
            while let Some(output) = client.poll() {
                if let Output::Fetch { req, span, .. } = output {
                    client.handle(now, Input::FetchEnded { req, end: committed(span) });
                }
            }
        }
        assert_eq!(client.held().len(), TAKEN, "each grant was used");
    });
}

/// Machines that are all linked; what one wants of another happens at once.
struct Room {
    machines: Vec<Swarm>,
    now: Time,
    /// Facts that somebody has yet to hear.
    facts: VecDeque<(usize, Input)>,
    inputs: u64,
}

impl Room {
    /// An origin and clients.
    fn new(clients: usize, piece_count: u32) -> Self {
        let role = |n| if n == 0 { Role::Origin } else { Role::Peer };
        let machines = (0..=clients).map(|n| machine(n, piece_count, role(n))).collect();
        let pairs = (0..=clients).flat_map(|n| (0..n).map(move |m| (n, m)));
        let facts = pairs.flat_map(|(n, m)| [(n, link_up(m, true, m == 0)), (m, link_up(n, false, false))]).collect();
        Self { machines, now: Time::ZERO, facts, inputs: 0 }
    }

    fn run(&mut self) {
        while !self.machines.iter().all(|machine| machine.held().is_full()) {
            while let Some((n, fact)) = self.facts.pop_front() {
                self.give(n, fact);
            }
            self.now = self.now + Span::ms(5);
            for n in 0..self.machines.len() {
                if self.machines[n].deadline().is_some_and(|at| at <= self.now) {
                    self.facts.push_back((n, Input::Timeout));
                }
            }
        }
    }

    fn give(&mut self, n: usize, fact: Input) {
        self.inputs += 1;
        self.machines[n].handle(self.now, fact);
        while let Some(output) = self.machines[n].poll() {
            match output {
                Output::Send { peer: to, message } => self.tell(to, Input::Message { peer: peer(n), message }),
                Output::Fetch { req, from, span } => {
                    let message = Message::Request { req: req.0, piece: span.piece().raw(), first: span.first(), count: span.count() };
                    self.tell(from, Input::Message { peer: peer(n), message });
                }
                Output::Serve { req, to, span } => {
                    let sent_bytes = u32::from(span.count()) * peas_core::unit::BLOCK_BYTES;
                    self.facts.push_back((n, Input::ServeEnded { peer: to, req, sent_bytes, damaged: false }));
                    self.tell(to, Input::FetchEnded { req, end: committed(span) });
                }
                Output::Probe { addr, peer } => self.facts.push_back((n, Input::Probed { addr, peer })),
                Output::Cancel { .. } | Output::StopServe { .. } | Output::Notice(_) => {}
                Output::Dial { .. } | Output::Hangup { .. } => unreachable!("all are linked, and nobody lies"),
            }
        }
    }

    fn tell(&mut self, to: PeerId, fact: Input) {
        self.facts.push_back((to.0[0].into(), fact));
    }
}

const PIECES: u32 = 256;

/// Until all clients are whole. Items are inputs of machines.
#[divan::bench(args = [4, 16], sample_count = 10)]
fn room(bencher: Bencher, clients: usize) {
    let mut first = Room::new(clients, PIECES);
    first.run();
    bencher.counter(ItemsCount::new(first.inputs)).with_inputs(|| Room::new(clients, PIECES)).bench_local_refs(|room| {
        room.run();
        assert_eq!(room.inputs, first.inputs, "the same seeds, the same course");
    });
}
