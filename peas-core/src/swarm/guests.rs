//! Guests: who linked to us and says where it listens, until we have looked whether it can be reached there.

use super::knocks::{Knocks, SAME_HOST};
use crate::unit::{PeerId, Span, Time};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

/// Looks under way.
const PROBING_MAX: usize = 16;

/// Guests who wait for one.
const WAITING_MAX: usize = 1024;

/// After a look in vain there is another after 2 s, then after twice as long each time, five in all: the guest was slow to listen, or we had
/// no place for one more connection.
const AGAIN_AFTER: Span = Span::s(2);
const LOOKS_MAX: u32 = 5;

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guest {
    pub addr: SocketAddr,
    pub peer: PeerId,
    /// Members that it was told of when it came.
    pub told: usize,
    vain: u32,
    not_before: Time,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Guests {
    waiting: VecDeque<Guest>,
    probing: BTreeMap<SocketAddr, Guest>,
}

impl Guests {
    /// A guest that is to be looked for.
    pub fn came(&mut self, addr: SocketAddr, peer: PeerId, told: usize, now: Time) {
        self.waiting.retain(|guest| guest.peer != peer);
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(Guest { addr, peer, told, vain: 0, not_before: now });
        }
    }

    /// Whom to look for now, if anyone. Who is not linked any more is forgotten.
    pub fn next(&mut self, now: Time, knocks: &mut Knocks, is_linked: impl Fn(PeerId) -> bool) -> Option<Guest> {
        if self.probing.len() >= PROBING_MAX {
            return None;
        }
        let mut at = 0;
        while let Some(guest) = self.waiting.get_mut(at) {
            if !is_linked(guest.peer) {
                self.waiting.remove(at);
            } else if guest.not_before > now || self.probing.contains_key(&guest.addr) {
                at += 1;
            } else if !knocks.may_probe(guest.addr, now) {
                guest.not_before = now + SAME_HOST;
            } else {
                let guest = self.waiting.remove(at)?;
                self.probing.insert(guest.addr, guest);
                return Some(guest);
            }
        }
        None
    }

    pub fn is_probing(&self, addr: SocketAddr) -> bool {
        self.probing.contains_key(&addr)
    }

    /// The guest that is looked for there was reached.
    pub fn reached(&mut self, addr: SocketAddr) -> Option<Guest> {
        self.probing.remove(&addr)
    }

    /// It was not.
    pub fn missed(&mut self, addr: SocketAddr, now: Time) {
        let Some(mut guest) = self.probing.remove(&addr) else { return };
        guest.vain += 1;
        guest.not_before = now + Span(AGAIN_AFTER.0 << (guest.vain - 1));
        if guest.vain < LOOKS_MAX && !self.waiting.iter().any(|other| other.peer == guest.peer) {
            self.waiting.push_back(guest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Time {
        Time::ZERO + Span::s(s)
    }

    #[test]
    fn who_is_missed_is_looked_for_again_later_and_later_while_it_is_linked() {
        let (mut guests, mut knocks) = (Guests::default(), Knocks::default());
        let (peer, addr) = (PeerId([1; 32]), SocketAddr::from(([10, 0, 0, 1], 7000)));
        guests.came(addr, peer, 0, at(0));
        let mut looked = Vec::new();
        for s in 0..300 {
            if guests.next(at(s), &mut knocks, |_| true).is_some() {
                looked.push(s);
                guests.missed(addr, at(s));
            }
        }
        assert_eq!(looked, [0, 2, 6, 14, 30], "five times");
        guests.came(addr, peer, 0, at(300));
        assert!(guests.next(at(300), &mut knocks, |_| false).is_none(), "it has gone");
        assert!(guests.next(at(301), &mut knocks, |_| true).is_none(), "and is forgotten");
    }

    #[test]
    fn one_behind_the_address_of_another_has_its_turn() {
        let (mut guests, mut knocks) = (Guests::default(), Knocks::default());
        let (old, new, addr) = (PeerId([1; 32]), PeerId([2; 32]), SocketAddr::from(([10, 0, 0, 1], 7000)));
        guests.came(addr, old, 0, at(0));
        assert_eq!(guests.next(at(0), &mut knocks, |_| true).unwrap().peer, old);
        guests.came(addr, new, 3, at(0));
        assert!(guests.next(at(0), &mut knocks, |_| true).is_none(), "one look at a time");
        guests.missed(addr, at(0));
        assert_eq!(guests.next(at(0), &mut knocks, |_| true).unwrap().peer, new);
        assert_eq!(guests.reached(addr).unwrap().told, 3);
        let world = SocketAddr::from(([9, 9, 9, 9], 7000));
        for (s, peer) in [(0, old), (1, new)] {
            guests.came(world, peer, 0, at(s));
        }
        assert_eq!(guests.next(at(1), &mut knocks, |_| true).unwrap().peer, old);
        guests.reached(world);
        assert!(guests.next(at(60), &mut knocks, |_| true).is_none(), "the world is looked at once a minute");
        assert_eq!(guests.next(at(121), &mut knocks, |_| true).unwrap().peer, new);
    }
}
