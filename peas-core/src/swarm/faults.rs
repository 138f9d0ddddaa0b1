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

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> PeerId {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_le_bytes());
        PeerId(key)
    }

    /// Keys and addresses without end: the table stays as large as it may be, and what goes is the ban that would have ended first.
    #[test]
    fn a_full_table_of_bans_forgets_the_one_that_ends_first() {
        let mut faults = Faults::default();
        let addr = |number: u32| IpAddr::from((0x0901_0000 + number).to_be_bytes());
        // The first liar is banned twice: its ban lasts longer than those that follow.
        faults.ban(key(0), addr(0), Time::ZERO);
        faults.ban(key(0), addr(0), Time::ZERO);
        let most = BANS_MAX as u32 + 100;
        for number in 1..most {
            faults.ban(key(number), addr(number), Time::ZERO + Span::ms(number.into()));
        }
        let now = Time::ZERO + Span::s(60);
        assert_eq!((faults.peers.len(), faults.addresses.len()), (BANS_MAX, BANS_MAX));
        assert!(faults.is_banned(key(0), addr(0), now) && faults.is_banned(key(most - 1), addr(most - 1), now));
        assert!(!faults.is_banned(key(1), addr(1), now), "the control: it was banned, and is forgotten");
    }

    /// Three keys of one address are one too many, whoever comes from there; but on one machine all come from one.
    #[test]
    fn an_address_of_many_liars_is_banned() {
        let mut faults = Faults::default();
        let (theirs, ours) = (IpAddr::from([9, 1, 1, 1]), IpAddr::from([127, 0, 0, 1]));
        for number in 0..KEYS_PER_ADDRESS {
            assert!(!faults.is_banned(key(99), theirs, Time::ZERO));
            faults.ban(key(number), theirs, Time::ZERO);
            faults.ban(key(number), ours, Time::ZERO);
        }
        assert!(faults.is_banned(key(99), theirs, Time::ZERO));
        assert!(!faults.is_banned(key(99), ours, Time::ZERO));
    }
}
