//! A node: one machine, its network card, its disk.

use super::disk::Disk;
use super::event::{Ns, SECOND};
use super::workload::Conduct;
use peas_core::unit::PeerId;
use std::net::{Ipv4Addr, SocketAddr};

/// Where every node listens.
pub(super) const PORT: u16 = 7000;
/// "No link".
pub(super) const NONE: u32 = u32::MAX;

/// A network card: an uplink that flows share in turn, and a downlink that is a queue.
#[derive(Debug)]
pub(super) struct Nic {
    up_ns_per_byte: f64,
    down_ns_per_byte: f64,
    /// When the last byte handed to the card has left.
    pub wire_free: Ns,
    /// When the last byte on its way here has passed the downlink.
    pub down_free: Ns,
    /// How far ahead of the wire payload is handed over: what a kernel keeps unsent.
    pub backlog: Ns,
    /// Halves with something to send, as they came.
    pub row: Vec<u32>,
    /// Time of the one valid `Pump` event; 0 for none.
    pub pump_at: Ns,
    /// Share of this node in the one-way latency.
    pub latency: Ns,
    /// Extra latency while a fault lasts.
    pub extra_latency: Ns,
    /// Payload bytes sent.
    pub payload_bytes: u64,
    /// Bytes of control messages sent.
    pub control_bytes: u64,
    /// Nanoseconds of sending.
    pub busy: Ns,
}

impl Nic {
    pub fn new(up_bytes_per_s: f64, down_bytes_per_s: f64, latency: Ns, quantum_bytes: u32) -> Self {
        let up_ns_per_byte = 1e9 / up_bytes_per_s;
        // 50 ms of a home uplink, at most 512 KiB on a fast one: what sockets with a low-water mark of unsent bytes hold together.
        let quantum = f64::from(quantum_bytes) * up_ns_per_byte;
        let backlog = (SECOND as f64 / 20.0).min(512.0 * 1024.0 * up_ns_per_byte).max(quantum);
        Self {
            up_ns_per_byte,
            down_ns_per_byte: 1e9 / down_bytes_per_s,
            wire_free: 0,
            down_free: 0,
            backlog: backlog as Ns,
            row: Vec::new(),
            pump_at: 0,
            latency,
            extra_latency: 0,
            payload_bytes: 0,
            control_bytes: 0,
            busy: 0,
        }
    }

    /// Time that these bytes take on the uplink.
    pub fn up(&self, bytes: f64) -> Ns {
        (bytes * self.up_ns_per_byte) as Ns
    }

    /// Time that these bytes take on the downlink.
    pub fn down(&self, bytes: f64) -> Ns {
        (bytes * self.down_ns_per_byte) as Ns
    }

    /// Passes bytes through the downlink; returns when the last is through. `first` and `last` are when the first and the last
    /// byte come to it.
    pub fn pass_down(&mut self, first: Ns, last: Ns, bytes: f64) -> Ns {
        self.down_free = last.max(first.max(self.down_free) + self.down(bytes));
        self.down_free
    }
}

/// A node.
#[derive(Debug)]
pub(super) struct Node<M> {
    /// `None` while it is down.
    pub machine: Option<M>,
    /// Rises with each start: events of an earlier life are void.
    pub incarnation: u32,
    pub peer: PeerId,
    pub region: u32,
    pub origin: bool,
    pub conduct: Conduct,
    pub nic: Nic,
    pub disk: Disk,
    /// Half of the link to each other node, or [`NONE`].
    pub links: Vec<u32>,
    /// Halves of all its links.
    pub ends: Vec<u32>,
    /// Earliest `Timer` event under way; `Ns::MAX` for none.
    pub timer_at: Ns,
    /// Timeouts in a row at one moment.
    pub spins: u32,
    pub last_timeout: Ns,
    pub started_at: Ns,
    pub first_commit_at: Option<Ns>,
    pub whole_at: Option<Ns>,
    pub leaves_after: Option<Ns>,
    /// Whether it was told to leave, or died for good.
    pub gone: bool,
    pub next_port: u16,
    /// Peers whose bytes it has proved wrong.
    pub caught: Vec<u32>,
    /// Serves queued.
    pub serves: u32,
}

/// The identity of a node. Its first bytes are mixed, so that nothing can depend on their order.
pub(super) fn peer_of(node: u32) -> PeerId {
    let mut bytes = [0x5a; 32];
    bytes[..8].copy_from_slice(&mix(u64::from(node) + 1).to_be_bytes());
    bytes[28..].copy_from_slice(&node.to_be_bytes());
    PeerId(bytes)
}

/// The node behind an identity made by [`peer_of`].
pub(super) fn node_of(peer: PeerId, nodes: usize) -> Option<u32> {
    let node = u32::from_be_bytes([peer.0[28], peer.0[29], peer.0[30], peer.0[31]]);
    ((node as usize) < nodes && peer_of(node) == peer).then_some(node)
}

/// Where a node listens: one address each in 10.0.0.0/8, in a /24 of its own so that no limit per network applies by accident.
pub(super) fn addr_of(node: u32) -> SocketAddr {
    let at = node + 1;
    SocketAddr::from((Ipv4Addr::new(10, (at >> 8) as u8, at as u8, 1), PORT))
}

/// The node that listens at an address.
pub(super) fn node_at(addr: SocketAddr, nodes: usize) -> Option<u32> {
    let SocketAddr::V4(addr) = addr else { return None };
    let [ten, high, low, one] = addr.ip().octets();
    let node = (u32::from(high) << 8 | u32::from(low)).checked_sub(1)?;
    (ten == 10 && one == 1 && addr.port() == PORT && (node as usize) < nodes).then_some(node)
}

/// Spreads the bits of a number (the finaliser of splitmix64, Steele et al. 2014).
pub(super) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_found_by_their_names_and_addresses() {
        for node in [0, 1, 254, 255, 256, 2048] {
            assert_eq!(node_of(peer_of(node), 4096), Some(node));
            assert_eq!(node_at(addr_of(node), 4096), Some(node));
            assert_eq!(node_at(addr_of(node), node as usize), None);
        }
        assert_eq!(node_of(PeerId([0; 32]), 4096), None);
    }

    #[test]
    fn a_full_downlink_delays_by_its_queue() {
        let mut nic = Nic::new(1e6, 1e6, 0, 16 << 10);
        assert_eq!(nic.pass_down(1000, 2_000_000, 1000.0), 2_000_000);
        assert_eq!(nic.pass_down(1000, 2_000_000, 1000.0), 3_000_000);
    }
}
