//! Who did wrong, and what follows.

use super::{Fault, Notice, Output, Swarm};
use crate::unit::{PeerId, PieceIdx, Span, Time};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// First ban of a peer; each further one lasts twice as long, up to a day.
const BAN: Span = Span::s(3600);
const BAN_MAX: Span = Span::s(24 * 3600);

/// Bans remembered. Beyond it the one that ends first is forgotten.
const BANS_MAX: usize = 1024;

/// Banned keys of one address that ban the address: keys cost nothing, addresses do.
const KEYS_PER_ADDRESS: u32 = 3;

/// Half strikes that end a link: four promises of pieces not kept, or eight requests not answered in time.
const HALF_STRIKES_MAX: u8 = 8;

#[derive(Clone, Copy, Debug, Default)]
struct Ban {
    until: Time,
    times: u32,
}

/// Banned peers and addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    peers: BTreeMap<PeerId, Ban>,
    addresses: BTreeMap<IpAddr, u32>,
}

impl Faults {
    pub fn is_banned(&self, peer: PeerId, addr: IpAddr, now: Time) -> bool {
        self.peers.get(&peer).is_some_and(|ban| ban.until > now)
            || self.addresses.get(&addr).is_some_and(|&keys| keys >= KEYS_PER_ADDRESS && !addr.is_loopback())
    }

    pub fn count(&self) -> u32 {
        self.peers.len() as u32
    }

    fn ban(&mut self, peer: PeerId, addr: IpAddr, now: Time) {
        if self.peers.len() >= BANS_MAX
            && let Some(first) = self.peers.iter().min_by_key(|(_, ban)| ban.until).map(|(&peer, _)| peer)
        {
            self.peers.remove(&first);
        }
        let ban = self.peers.entry(peer).or_default();
        ban.until = now + Span(BAN.0 << ban.times.min(5)).min(BAN_MAX);
        ban.times += 1;
        if self.addresses.len() < BANS_MAX {
            *self.addresses.entry(addr).or_default() += 1;
        }
    }
}

impl Swarm {
    /// It sent what the content does not contain: it is out for long.
    pub(super) fn ban(&mut self, peer: PeerId, why: Fault) {
        let Some(neighbor) = self.neighbors.get(peer) else { return };
        self.faults.ban(peer, neighbor.addr.ip(), self.now);
        self.member_left(peer);
        self.notice(Notice::Banned { peer, why });
        self.hang_up(peer, why);
    }

    /// It broke the protocol: the link ends.
    pub(super) fn fault(&mut self, peer: PeerId, why: Fault) {
        self.hang_up(peer, why);
    }

    /// It said that it holds a piece, and does not give it.
    pub(super) fn promise_broken(&mut self, peer: PeerId, piece: PieceIdx) {
        self.forget_holder(peer, piece);
        self.half_strike(peer);
        self.half_strike(peer);
    }

    pub(super) fn half_strike(&mut self, peer: PeerId) {
        let Some(neighbor) = self.neighbors.get_mut(peer) else { return };
        neighbor.half_strikes = neighbor.half_strikes.saturating_add(1);
        if neighbor.half_strikes >= HALF_STRIKES_MAX {
            self.hang_up(peer, Fault::Unreliable);
        }
    }

    /// Ends a link: what it had under way is free at once, whatever the driver still hears of it is ignored.
    pub(super) fn hang_up(&mut self, peer: PeerId, why: Fault) {
        if self.neighbors.get(peer).is_some() {
            self.output(Output::Hangup { peer, why });
            self.unlink(peer);
        }
    }
}
