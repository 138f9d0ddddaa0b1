//! How bytes travel: uplinks on which links take turns as in `engine/turns.rs`, downlinks that push back when they are full,
//! a thin link between regions, and control messages that overtake payload.

use super::Machine;
use super::event::{Event, MS, Ns, SECOND, ns};
use super::link::message_bytes;
use super::workload::OVERHEAD;
use super::world::World;
use peas_core::wire::Message;

/// Links of a faster uplink than this go as they come: there the engine does not ask what is on the way.
const FAST_BYTES_PER_S: f64 = 16e6;

/// A downlink or thin link takes no more payload while this much is queued: what TCP's windows settle at.
const QUEUE_MAX: Ns = 100 * MS;

impl<M: Machine> World<M> {
    /// One-way latency of what this end sends.
    pub(super) fn latency(&self, half: u32) -> Ns {
        self.latency_between(self.links[half].owner, self.links[half].peer)
    }

    pub(super) fn latency_between(&self, a: u32, b: u32) -> Ns {
        let (a, b) = (self.node(a), self.node(b));
        let trunk = self.plan.trunk.filter(|_| a.region != b.region).map_or(0, |trunk| ns(trunk.one_way_s));
        a.nic.latency + a.nic.extra_latency + b.nic.latency + b.nic.extra_latency + trunk
    }

    /// Which direction of the thin link this end's bytes take, if any: 0 is away from the origin.
    fn trunk_of(&self, half: u32) -> Option<usize> {
        let (from, to) = (self.node(self.links[half].owner).region, self.node(self.links[half].peer).region);
        (self.plan.trunk.is_some() && from != to).then_some(usize::from(from != self.plan.origin_region))
    }

    fn trunk_ns(&self, bytes: f64) -> Ns {
        self.plan.trunk.map_or(0, |trunk| (bytes / trunk.bytes_per_s * 1e9) as Ns)
    }

    /// When a quantum that is handed over has to leave at the earliest for the way to the other end to take it.
    fn room_at(&self, half: u32) -> Ns {
        let sender = &self.links[half];
        let receiver = &self.node(sender.peer).nic;
        let trunk = self.trunk_of(half).map_or(0, |way| self.trunk_free[way]);
        receiver.down_free.max(trunk).saturating_sub(self.latency(half) + QUEUE_MAX).max(sender.stalled_until)
    }

    /// Hands payload to the wire as long as there is some and the kernel takes it.
    pub(super) fn pump(&mut self, node: u32) {
        let now = self.queue.now();
        loop {
            let nic = &self.nodes[node as usize].nic;
            if nic.row.is_empty() {
                return;
            }
            if nic.wire_free > now + nic.backlog {
                let at = nic.wire_free - nic.backlog;
                return self.pump_at(node, at);
            }
            let leaves_at = nic.wire_free.max(now);
            match self.next_to_leave(node, leaves_at) {
                Ok(half) => self.send_quantum(node, half, leaves_at),
                Err(room_at) => return self.pump_at(node, room_at),
            }
        }
    }

    /// Takes who goes next out of the row: of those whose way takes a quantum the one whose is due first. Or when there is room for one.
    fn next_to_leave(&mut self, node: u32, leaves_at: Ns) -> Result<u32, Ns> {
        let now = self.queue.now();
        let is_fast = self.node(node).nic.up(FAST_BYTES_PER_S) < SECOND;
        let mut room_at = Ns::MAX;
        let mut first: Option<(Ns, usize)> = None;
        for place in 0..self.node(node).nic.row.len() {
            let half = self.node(node).nic.row[place];
            let at = self.room_at(half);
            let end = &mut self.links[half];
            if at > leaves_at {
                end.due = None;
                room_at = room_at.min(at);
                continue;
            }
            let queued = end.queued(now);
            let due = *end.due.get_or_insert(if is_fast { now } else { now + queued / 2 });
            if first.is_none_or(|(earliest, _)| due < earliest) {
                first = Some((due, place));
            }
        }
        let (_, place) = first.ok_or(room_at)?;
        let half = self.node_mut(node).nic.row.remove(place);
        (self.links[half].in_row, self.links[half].due) = (false, None);
        Ok(half)
    }

    fn pump_at(&mut self, node: u32, at: Ns) {
        let nic = &mut self.node_mut(node).nic;
        if nic.pump_at == 0 || at < nic.pump_at {
            nic.pump_at = at;
            self.queue.push(at, Event::Pump { node });
        }
    }

    fn send_quantum(&mut self, node: u32, half: u32, start: Ns) {
        let now = self.queue.now();
        let latency = self.latency(half);
        let quantum = self.plan.quantum_bytes;
        let here = self.links.name(half);
        let Some(serve) = self.links[half].serves.front_mut() else { return };
        if serve.stuck && serve.sent * 2 >= serve.bytes {
            // A staller: the rest never comes, nor anything behind it.
            return;
        }
        let bytes = quantum.min(serve.bytes - serve.sent);
        serve.sent += bytes;
        let (req, sent, corrupt, done) = (serve.req, serve.sent, serve.corrupt, serve.sent == serve.bytes);
        let wire = f64::from(bytes) * OVERHEAD;

        let nic = &mut self.nodes[node as usize].nic;
        let takes = nic.up(wire);
        nic.wire_free = start + takes;
        nic.busy += takes;
        nic.payload_bytes += u64::from(bytes);
        let (mut first, mut last) = (start + latency, start + takes + latency);
        if let Some(way) = self.trunk_of(half) {
            let takes = self.trunk_ns(wire);
            self.trunk_free[way] = last.max(first.max(self.trunk_free[way]) + takes);
            self.trunk_bytes[way] += u64::from(bytes);
            last = self.trunk_free[way];
            first = last.saturating_sub(takes);
        }
        let receiver = self.links[half].peer;
        let arrived_at = self.nodes[receiver as usize].nic.pass_down(first, last, wire);

        let queued = arrived_at.saturating_sub(start + takes + latency);
        self.links[half].unacknowledged.push_back((arrived_at + latency, queued));
        let report_every = ns(self.plan.report_every_s);
        let there = self.links.name(half ^ 1);
        if self.links[half ^ 1].up {
            let end = &mut self.links[half ^ 1];
            if let Some(fetch) = end.fetches.iter_mut().find(|fetch| fetch.req == req && !fetch.checking) {
                fetch.expect(now, arrived_at, sent);
                // Spans below a piece carry proofs block by block; a whole piece is known to be wrong at its end.
                let caught_early = corrupt && !fetch.corrupt && !self.geometry.is_whole(fetch.span);
                fetch.corrupt |= corrupt;
                if done || caught_early {
                    self.queue.push(arrived_at, Event::Last { at: there, req });
                } else if arrived_at >= end.report_at {
                    end.report_at = arrived_at + report_every;
                    self.queue.push(arrived_at, Event::Arrived { at: there, req, bytes: sent });
                }
            }
        }
        if done {
            self.links[half].serves.pop_front();
            self.node_mut(node).serves -= 1;
            self.queue.push(now, Event::ServeEnded { at: here, req, sent_bytes: sent, damaged: None });
        }
        if !self.links[half].serves.is_empty() {
            self.links[half].in_row = true;
            self.node_mut(node).nic.row.push(half);
        }
        if node == 0 {
            self.origin_sent();
        }
    }

    fn origin_sent(&mut self) {
        let Some(copies) = self.plan.origin_dies_at_copies else { return };
        if self.nodes[0].nic.payload_bytes as f64 >= copies * self.geometry.total_bytes() as f64 && !self.nodes[0].gone {
            // What it handed over still arrives: the last byte counts.
            let last = self.nodes[0].nic.wire_free + 2 * ns(self.plan.one_way_s);
            self.nodes[0].gone = true;
            self.queue.push(last, Event::Kill { node: 0 });
        }
    }

    /// Sends a control message: it waits for the quantum under way and for earlier messages of its link, not for payload.
    pub(super) fn send(&mut self, half: u32, message: Message) {
        let now = self.queue.now();
        let (node, peer) = (self.links[half].owner, self.links[half].peer);
        let bytes = message_bytes(&message);
        self.count(&message);
        let latency = self.latency(half);
        let jitter = self.rng.below(latency as usize / 16 + 1) as Ns;
        let quantum = f64::from(self.plan.quantum_bytes);
        let nic = &mut self.nodes[node as usize].nic;
        let takes = nic.up(f64::from(bytes));
        let leaves_at = nic.wire_free.clamp(now, now + nic.up(quantum)) + takes;
        nic.wire_free = nic.wire_free.max(now) + takes;
        nic.busy += takes;
        nic.control_bytes += u64::from(bytes);
        let mut at = (leaves_at + latency + jitter).max(self.links[half].stalled_until + latency);
        if let Some(way) = self.trunk_of(half) {
            at += self.trunk_ns(quantum.min((self.trunk_free[way].saturating_sub(now)) as f64)) / 2 + self.trunk_ns(f64::from(bytes));
            self.trunk_free[way] += self.trunk_ns(f64::from(bytes));
        }
        let down = &mut self.nodes[peer as usize].nic;
        at += down.down(f64::from(bytes));
        down.down_free += down.down(f64::from(bytes));
        at = at.max(self.links[half].control_until);
        self.links[half].control_until = at;
        let to = self.links.name(half ^ 1);
        if self.links[half ^ 1].up {
            self.queue.push(at, Event::Deliver { to, message: Box::new(message) });
        }
    }
}
