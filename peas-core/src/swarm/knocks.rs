//! Where a stranger's word has made us knock lately, so that the swarm is no weapon.
//!
//! Only what was heard of is held to these rules; addresses that we reached before, or that the host or the signed pea named, are not,
//! nor are private networks, where a crowd has few addresses and one owner. What must not come in: which addresses may be dialled
//! at all (the driver knows).

use super::members::is_local;
use crate::unit::{Span, Time};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

/// A host of the world is tried once in this time, whatever ports are told: who names a victim to the swarm gets one connection a minute
/// from each of us.
pub(super) const SAME_HOST: Span = Span::s(60);

/// A network (/24 or /48) is left alone when this many tries there failed in this time.
const FAILURES_MAX: usize = 2;
const NETWORK_RESTS: Span = Span::s(600);

/// Entries of a table before those that no longer count are cleared away. Dials and probes are slower than they lapse.
const TABLE_MAX: usize = 8192;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Knocks {
    tried: BTreeMap<IpAddr, Time>,
    failed: BTreeMap<IpAddr, VecDeque<Time>>,
    probed: BTreeMap<SocketAddr, Time>,
}

impl Knocks {
    /// Whether a stranger's word is enough to knock there now.
    pub fn may_knock(&self, addr: IpAddr, now: Time) -> bool {
        let rested = self.tried.get(&addr).is_none_or(|&tried| now.since(tried) >= SAME_HOST);
        let recent = |failed: &VecDeque<Time>| failed.iter().filter(|&&at| now.since(at) < NETWORK_RESTS).count();
        is_local(addr) || (rested && self.failed.get(&network_of(addr)).map_or(0, recent) < FAILURES_MAX)
    }

    pub fn knocked(&mut self, addr: IpAddr, now: Time) {
        if !is_local(addr) {
            self.tried.insert(addr, now);
        }
        if self.tried.len() > TABLE_MAX {
            self.tried.retain(|_, &mut tried| now.since(tried) < SAME_HOST);
        }
    }

    pub fn failed(&mut self, addr: IpAddr, now: Time) {
        if !is_local(addr) {
            let failed = self.failed.entry(network_of(addr)).or_default();
            failed.push_back(now);
            if failed.len() > FAILURES_MAX {
                failed.pop_front();
            }
        }
        if self.failed.len() > TABLE_MAX {
            self.failed.retain(|_, failed| failed.back().is_some_and(|&at| now.since(at) < NETWORK_RESTS));
        }
    }

    /// Notes that we look whether a guest can be reached where it says; false if we have looked there just now.
    pub fn may_probe(&mut self, addr: SocketAddr, now: Time) -> bool {
        if self.probed.len() > TABLE_MAX {
            self.probed.retain(|_, &mut at| now.since(at) < SAME_HOST);
        }
        let rested = self.probed.get(&addr).is_none_or(|&at| now.since(at) >= SAME_HOST);
        if rested && !is_local(addr.ip()) {
            self.probed.insert(addr, now);
        }
        rested
    }
}

/// The first address of a host's network (/24 or /48).
pub(super) fn network_of(addr: IpAddr) -> IpAddr {
    match addr {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & !0xff).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 80 << 80).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_host_is_tried_once_a_minute_and_a_dead_network_left_alone() {
        let mut knocks = Knocks::default();
        let (victim, neighbour, other) = (ip("9.9.9.1"), ip("9.9.9.200"), ip("9.9.10.1"));
        let at = |s| Time::ZERO + Span::s(s);
        knocks.knocked(victim, at(0));
        assert!(!knocks.may_knock(victim, at(59)) && knocks.may_knock(victim, at(60)));
        assert!(knocks.may_knock(neighbour, at(0)), "another host is another's business");
        knocks.failed(victim, at(1));
        assert!(knocks.may_knock(neighbour, at(2)));
        knocks.failed(neighbour, at(2));
        assert!(!knocks.may_knock(neighbour, at(600)) && knocks.may_knock(neighbour, at(601)));
        assert!(knocks.may_knock(other, at(3)));
        let (six, near, far) = (ip("2620:fe::1"), ip("2620:fe:0:9::2"), ip("2620:ff::1"));
        (0..2).for_each(|_| knocks.failed(six, at(0)));
        assert!(!knocks.may_knock(near, at(1)) && knocks.may_knock(far, at(1)));
        let lan = ip("192.168.1.1");
        (0..9).for_each(|_| knocks.failed(lan, at(0)));
        knocks.knocked(lan, at(0));
        assert!(knocks.may_knock(lan, at(0)), "one owner's network is no victim");
    }

    #[test]
    fn a_guest_is_looked_for_once_a_minute_at_each_address() {
        let mut knocks = Knocks::default();
        let at = |s| Time::ZERO + Span::s(s);
        let guest = SocketAddr::new(ip("9.9.9.1"), 7000);
        assert!(knocks.may_probe(guest, at(0)) && !knocks.may_probe(guest, at(59)) && knocks.may_probe(guest, at(60)));
        assert!(knocks.may_probe(SocketAddr::new(guest.ip(), 7001), at(0)), "others behind the same address");
    }
}
