//! The obvious swarm, for comparison and as a stand-in: everyone tells its neighbours what it has, receivers pull a random missing
//! piece from whoever has it, senders serve in order. Nobody assigns, grants or steals.

use super::Machine;
use peas_core::swarm::{FetchEnd, Input, Notice, Output, Setup, Snapshot, Via};
use peas_core::unit::{PeerId, PieceIdx, PieceSet, RequestId, Rng, Time};
use peas_core::wire::Message;
use std::collections::{BTreeMap, VecDeque};

/// Requests at a time per neighbour.
const PIPELINE: usize = 2;

/// The machine.
#[derive(Debug)]
pub struct Naive {
    setup: Setup,
    rng: Rng,
    peers: BTreeMap<PeerId, Peer>,
    asked: BTreeMap<u64, (PeerId, PieceIdx)>,
    wanted: PieceSet,
    next_req: u64,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
struct Peer {
    holds: PieceSet,
    asked: usize,
}

impl Naive {
    fn ask(&mut self, from: PeerId) {
        while let Some(peer) = self.peers.get(&from).filter(|peer| peer.asked < PIPELINE) {
            let pieces: Vec<PieceIdx> = peer.holds.iter().filter(|&piece| self.wanted.contains(piece)).collect();
            if pieces.is_empty() {
                return;
            }
            let piece = pieces[self.rng.below(pieces.len())];
            let req = RequestId(self.next_req);
            self.next_req += 1;
            self.wanted.remove(piece);
            self.asked.insert(req.0, (from, piece));
            self.peers.entry(from).and_modify(|peer| peer.asked += 1);
            self.outputs.push_back(Output::Fetch { req, from, span: self.setup.geometry.whole(piece) });
        }
    }

    fn held_message(&self) -> Message {
        Message::Held { runs: self.setup.held.runs(), need: self.wanted.len(), queue_ms: 0 }
    }

    fn ended(&mut self, req: RequestId, end: FetchEnd) {
        let Some((from, piece)) = self.asked.remove(&req.0) else { return };
        self.peers.entry(from).and_modify(|peer| peer.asked -= 1);
        match end {
            FetchEnd::Committed(proof) => {
                self.setup.held.insert(proof.piece());
                for &peer in self.peers.keys() {
                    let message = Message::Have { runs: vec![(piece.raw(), 1)], need: self.wanted.len(), queue_ms: 0 };
                    self.outputs.push_back(Output::Send { peer, message });
                }
                if self.setup.held.is_full() {
                    self.outputs.push_back(Output::Notice(Notice::Whole));
                }
            }
            FetchEnd::Corrupt => {
                self.wanted.insert(piece);
                self.outputs.push_back(Output::Hangup { peer: from, why: peas_core::swarm::Fault::Corrupt });
            }
            _ => {
                self.wanted.insert(piece);
            }
        }
        self.ask(from);
    }

    fn message(&mut self, peer: PeerId, message: Message) {
        let geometry = self.setup.geometry;
        match message {
            Message::Held { runs, .. } | Message::Have { runs, .. } => {
                if let (Some(more), Some(known)) = (PieceSet::from_runs(&geometry, &runs), self.peers.get_mut(&peer)) {
                    known.holds.union_with(&more);
                }
                self.ask(peer);
            }
            Message::Request { req, piece, first, count } => {
                let span =
                    geometry.piece(piece).filter(|&piece| self.setup.held.contains(piece)).and_then(|p| geometry.span(p, first, count));
                self.outputs.push_back(match span {
                    Some(span) => Output::Serve { req: RequestId(req), to: peer, span },
                    None => Output::Send {
                        peer,
                        message: Message::Refuse { req, reason: peas_core::wire::REFUSE_NOT_HELD, retry_after_ms: 1000 },
                    },
                });
            }
            Message::Cancel { req } => self.outputs.push_back(Output::StopServe { req: RequestId(req), to: peer }),
            Message::Members(records) => {
                for record in records {
                    let known = self.peers.contains_key(&record.peer_id()) || record.peer_id() == self.setup.me;
                    if !known && self.peers.len() < usize::from(self.setup.limits.neighbors) {
                        self.outputs.push_back(Output::Dial { addr: record.addr, peer: Some(record.peer_id()) });
                    }
                }
            }
            _ => {}
        }
    }
}

impl Machine for Naive {
    fn new(setup: Setup) -> Self {
        let mut wanted = PieceSet::full(&setup.geometry);
        setup.held.iter().for_each(|piece| {
            wanted.remove(piece);
        });
        let (rng, peers) = (Rng::new(setup.seed), BTreeMap::new());
        Self { setup, rng, peers, asked: BTreeMap::new(), wanted, next_req: 1, outputs: VecDeque::new() }
    }

    fn handle(&mut self, _now: Time, input: Input) {
        match input {
            Input::LinkUp { peer, addr, .. } => {
                let holds = PieceSet::empty(&self.setup.geometry);
                // An origin passes on whom it knows, so that the others find each other.
                let others: Vec<PeerId> = self.peers.keys().copied().collect();
                for _ in 0..others.len().min(8) {
                    let other = others[self.rng.below(others.len())];
                    let record = peas_core::wire::MemberRecord {
                        peer: peer.0,
                        addr: std::net::SocketAddr::new(addr.ip(), super::node::PORT),
                        epoch: 1,
                        age_s: 0,
                        ttl_s: 600,
                        held_permille: 0,
                        region: 0,
                    };
                    self.outputs.push_back(Output::Send { peer: other, message: Message::Members(vec![record]) });
                }
                self.peers.insert(peer, Peer { holds, asked: 0 });
                self.outputs.push_back(Output::Send { peer, message: self.held_message() });
            }
            Input::LinkDown { peer } => {
                self.peers.remove(&peer);
                let lost: Vec<u64> = self.asked.iter().filter(|(_, (from, _))| *from == peer).map(|(&req, _)| req).collect();
                for req in lost {
                    let (_, piece) = self.asked.remove(&req).expect("the request was found just now");
                    self.wanted.insert(piece);
                }
                let peers: Vec<PeerId> = self.peers.keys().copied().collect();
                peers.into_iter().for_each(|peer| self.ask(peer));
            }
            Input::Message { peer, message } => self.message(peer, message),
            Input::Candidates(candidates) => {
                for candidate in candidates.into_iter().filter(|candidate| candidate.via != Via::Remembered) {
                    self.outputs.push_back(Output::Dial { addr: candidate.addr, peer: candidate.peer });
                }
            }
            Input::FetchEnded { req, end } => self.ended(req, end),
            Input::Found(proof) => {
                self.setup.held.insert(proof.piece());
                self.wanted.remove(proof.piece());
            }
            _ => {}
        }
    }

    fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn deadline(&self) -> Option<Time> {
        None
    }

    fn snapshot(&self, _now: Time) -> Snapshot {
        Snapshot { pieces_held: self.setup.held.len(), links: self.peers.len() as u32, ..Snapshot::default() }
    }

    fn held(&self) -> &PieceSet {
        &self.setup.held
    }
}
