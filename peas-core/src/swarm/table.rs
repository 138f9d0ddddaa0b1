//! The table of members: who else is in the swarm as far as we know, how young that is, and how many of each network there are.

use super::knocks::network_of;
use super::slots::{OfPeer, Slots};
use crate::unit::{PeerId, Time};
use crate::wire::MemberRecord;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// What we know of one.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub record: MemberRecord,
    pub heard_at: Time,
    /// When the peer was first heard of.
    pub known_since: Time,
    /// We reached the peer there ourselves.
    pub proven: bool,
    /// We have a link to it.
    pub linked: bool,
}

impl Member {
    pub fn age_s(&self, now: Time) -> u64 {
        u64::from(self.record.age_s) + now.since(self.heard_at).0 / 1_000_000
    }

    pub fn is_alive(&self, now: Time) -> bool {
        self.age_s(now) < self.record.ttl_s.into()
    }

    /// Whether it may be told to others: we reached it, and lately somebody did.
    pub fn is_good(&self, now: Time) -> bool {
        self.proven && self.is_alive(now)
    }

    /// What is told of it: it has aged here.
    pub fn told(&self, now: Time) -> MemberRecord {
        MemberRecord { age_s: self.age_s(now) as u32, ..self.record.clone() }
    }

    fn network(&self) -> IpAddr {
        network_of(self.record.addr.ip())
    }
}

impl OfPeer for Member {
    fn peer(&self) -> PeerId {
        self.record.peer_id()
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    members: Slots<Member>,
    per_network: BTreeMap<IpAddr, usize>,
}

impl Table {
    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn get(&self, peer: PeerId) -> Option<&Member> {
        self.members.get(peer)
    }

    pub fn at(&self, slot: usize) -> &Member {
        self.members.at(slot)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.members.iter()
    }

    /// How many members the host's network (/24 or /48) has.
    pub fn in_network_of(&self, host: IpAddr) -> usize {
        self.per_network.get(&network_of(host)).copied().unwrap_or(0)
    }

    /// Adds a member that is not there yet.
    pub fn insert(&mut self, member: Member) {
        *self.per_network.entry(member.network()).or_default() += 1;
        self.members.insert(member);
    }

    pub fn remove(&mut self, peer: PeerId) -> Option<Member> {
        let gone = self.members.remove(peer)?;
        if let Some(count) = self.per_network.get_mut(&gone.network()) {
            *count -= 1;
            if *count == 0 {
                self.per_network.remove(&gone.network());
            }
        }
        Some(gone)
    }

    /// A younger word of a member that is there: it may have moved.
    pub fn renew(&mut self, record: MemberRecord, now: Time) {
        if let Some(known) = self.remove(record.peer_id()) {
            self.insert(Member { record, heard_at: now, ..known });
        }
    }

    /// This peer is at this address now, and so nobody else.
    pub fn moved_out(&mut self, addr: SocketAddr, except: PeerId) {
        let others = self.iter().filter(|member| member.record.addr == addr && !member.linked).map(OfPeer::peer);
        let gone: Vec<PeerId> = others.filter(|&peer| peer != except).collect();
        gone.into_iter().for_each(|peer| {
            self.remove(peer);
        });
    }

    /// A link to it came up or went.
    pub fn link(&mut self, peer: PeerId, linked: bool) {
        if let Some(member) = self.members.get_mut(peer) {
            member.linked = linked;
        }
    }

    /// It is linked, and so as young as can be.
    pub fn touch(&mut self, peer: PeerId, now: Time, held_permille: u16) {
        if let Some(member) = self.members.get_mut(peer) {
            (member.heard_at, member.record.age_s, member.record.held_permille) = (now, 0, held_permille);
        }
    }

    /// Forgets the dead.
    pub fn bury(&mut self, now: Time) {
        let dead: Vec<PeerId> = self.iter().filter(|member| !member.is_alive(now)).map(OfPeer::peer).collect();
        dead.into_iter().for_each(|peer| {
            self.remove(peer);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(peer: u8, addr: [u8; 4]) -> MemberRecord {
        let addr = SocketAddr::from((addr, 7000));
        MemberRecord { peer: [peer; 32], addr, epoch: 0, age_s: 0, ttl_s: 60, held_permille: 0, region: 0 }
    }

    #[test]
    fn networks_are_counted_as_members_come_move_and_go() {
        let mut table = Table::default();
        let at = |s| Time(s * 1_000_000);
        let count = |table: &Table, host: [u8; 4]| table.in_network_of(host.into());
        for n in 1..=5 {
            let record = record(n, [9, 9, 9, n]);
            table.insert(Member { record, heard_at: at(u64::from(n)), known_since: at(0), proven: false, linked: false });
        }
        assert_eq!((count(&table, [9, 9, 9, 200]), count(&table, [9, 9, 8, 1])), (5, 0));
        table.renew(record(5, [9, 9, 8, 5]), at(9));
        assert_eq!((count(&table, [9, 9, 9, 200]), count(&table, [9, 9, 8, 1])), (4, 1));
        assert!(table.remove(PeerId([1; 32])).is_some() && table.remove(PeerId([1; 32])).is_none());
        table.bury(at(63));
        assert_eq!((table.len(), count(&table, [9, 9, 9, 200]), count(&table, [9, 9, 8, 1])), (2, 1, 1));
        assert!(table.iter().all(|member| table.get(member.peer()).is_some_and(|same| same.record == member.record)));
    }
}
