//! Who did wrong, and what follows.

use super::{Fault, Notice, Output, Swarm};
use crate::unit::{PeerId, PieceIdx, Span, Time};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// First ban of a peer; each further one lasts twice as long, up to a day.
const BAN: Span = Span::s(3600);
const BAN_MAX: Span = Span::s(24 * 3600);

/// The same for one that lets requests lie: as long as there is anybody else it is left alone. 600 s: with 60 s, three in ten that stall are
/// back again and again, and cost the others a quarter of their time instead of an eighth (`peas-sim report --only stallers`).
const SHUN: Span = Span::s(600);

/// Bans remembered. Beyond it the one that ends first is forgotten.
const BANS_MAX: usize = 1024;

/// Banned keys of one address that ban the address: keys cost nothing, addresses do.
const KEYS_PER_ADDRESS: u32 = 3;

/// Half strikes that end a link: four promises of pieces not kept, or eight requests not answered in time; half as many if it has never given
/// anything. They are forgiven when there is no other for this long.
const HALF_STRIKES_MAX: u8 = 8;
const HALF_STRIKES_MAX_UNPROVEN: u8 = 4;
const FORGIVEN_AFTER: Span = Span::s(600);

#[derive(Clone, Copy, Debug, Default)]
struct Ban {
    until: Time,
    times: u32,
}

/// Bans of one kind, by peer.
#[derive(Clone, Debug, Default)]
struct Bans(BTreeMap<PeerId, Ban>);

impl Bans {
    fn holds(&self, peer: PeerId, now: Time) -> bool {
        self.0.get(&peer).is_some_and(|ban| ban.until > now)
    }

    /// Bans for this long, and for twice as long with each time.
    fn add(&mut self, peer: PeerId, first: Span, now: Time) {
        if self.0.len() >= BANS_MAX
            && let Some(soonest) = self.0.iter().min_by_key(|(_, ban)| ban.until).map(|(&peer, _)| peer)
        {
            self.0.remove(&soonest);
        }
        let ban = self.0.entry(peer).or_default();
        ban.until = now + Span(first.0 << ban.times.min(8)).min(BAN_MAX);
        ban.times += 1;
    }
}

/// Banned peers and addresses, and peers that are shunned.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    banned: Bans,
    addresses: BTreeMap<IpAddr, u32>,
    shunned: Bans,
}

impl Faults {
    pub fn is_banned(&self, peer: PeerId, addr: IpAddr, now: Time) -> bool {
        self.banned.holds(peer, now) || self.addresses.get(&addr).is_some_and(|&keys| keys >= KEYS_PER_ADDRESS && !addr.is_loopback())
    }

    pub fn count(&self) -> u32 {
        self.banned.0.len() as u32
    }

    fn ban(&mut self, peer: PeerId, addr: IpAddr, now: Time) {
        self.banned.add(peer, BAN, now);
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
        if self.now.since(neighbor.struck_at) >= FORGIVEN_AFTER {
            neighbor.half_strikes = 0;
        }
        (neighbor.half_strikes, neighbor.struck_at) = (neighbor.half_strikes.saturating_add(1), self.now);
        let most = if neighbor.proven { HALF_STRIKES_MAX } else { HALF_STRIKES_MAX_UNPROVEN };
        if neighbor.half_strikes >= most {
            // Who is named in the pea is tried again as ever.
            if !(neighbor.is_origin && neighbor.dialed) {
                self.faults.shunned.add(peer, SHUN, self.now);
            }
            self.hang_up(peer, Fault::Unreliable);
        }
    }

    /// Whether it let requests lie lately, and there are others. Its own link, if it is up, is none of them.
    pub(super) fn is_shunned(&self, peer: PeerId) -> bool {
        self.faults.shunned.holds(peer, self.now) && self.neighbors.iter().any(|neighbor| neighbor.peer != peer)
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
    use crate::swarm::tests::{joins, machine, peer};
    use crate::swarm::{Input, Role};
    use crate::unit::RequestId;
    use crate::wire::Message;

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
        assert_eq!((faults.banned.0.len(), faults.addresses.len()), (BANS_MAX, BANS_MAX));
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

    /// A client and the links it has; who is linked holds everything and grants.
    struct Client {
        swarm: Swarm,
        now: Time,
    }

    impl Client {
        fn new() -> Self {
            Self { swarm: machine(0, 32, Role::Peer), now: Time::ZERO }
        }

        /// What it asks for and whom it hangs up on.
        fn give(&mut self, input: Input) -> (Vec<RequestId>, Vec<Fault>) {
            self.swarm.handle(self.now, input);
            let (mut fetches, mut hangups) = (Vec::new(), Vec::new());
            while let Some(output) = self.swarm.poll() {
                match output {
                    Output::Fetch { req, .. } => fetches.push(req),
                    Output::Hangup { why, .. } => hangups.push(why),
                    _ => {}
                }
            }
            (fetches, hangups)
        }

        fn link(&mut self, n: u8) -> Vec<Fault> {
            joins(n, false, vec![(0, 32)], 0).into_iter().flat_map(|input| self.give(input).1).collect()
        }

        fn grant(&mut self, n: u8) -> Vec<RequestId> {
            self.give(Input::Message { peer: peer(n), message: Message::Grant { blocks: 4, spare: false } }).0
        }

        /// Requests that the peer lets lie, one after the other, until it is hung up on.
        fn is_let_down_by(&mut self, n: u8) -> usize {
            for requests in 1.. {
                assert_eq!(self.grant(n).len(), 1, "it was asked for something");
                assert!(self.grant(n).is_empty(), "who owes something is asked for no more");
                let until = self.now + Span::s(6);
                while self.now < until {
                    self.now = self.now + Span::ms(250);
                    if self.give(Input::Timeout).1.contains(&Fault::Unreliable) {
                        return requests;
                    }
                }
            }
            unreachable!()
        }
    }

    #[test]
    fn who_lets_requests_lie_is_left_alone_while_there_are_others() {
        let mut client = Client::new();
        assert!(client.link(1).is_empty() && client.link(2).is_empty());
        assert_eq!(client.is_let_down_by(1), usize::from(HALF_STRIKES_MAX_UNPROVEN));
        assert_eq!(client.link(1), [Fault::Unreliable], "it comes again at once");
        let soon = client.now + Span::s(599);
        client.now = client.now + SHUN;
        assert!(client.link(1).is_empty(), "and after ten minutes");
        client.is_let_down_by(1);
        client.now = soon + SHUN;
        assert_eq!(client.link(1), [Fault::Unreliable], "the second time is for twice as long");
        client.give(Input::LinkDown { peer: peer(2) });
        assert!(client.link(1).is_empty(), "nobody else is there");
    }

    /// A second of silence now and then is no reason: strikes are forgiven.
    #[test]
    fn old_strikes_are_forgiven() {
        let mut client = Client::new();
        client.link(1);
        let strikes = |client: &mut Client, count| {
            for _ in 0..count {
                client.swarm.half_strike(peer(1));
            }
            client.swarm.neighbors.get(peer(1)).is_some()
        };
        assert!(strikes(&mut client, HALF_STRIKES_MAX_UNPROVEN - 1));
        client.now = client.now + FORGIVEN_AFTER;
        client.give(Input::Timeout);
        assert!(strikes(&mut client, HALF_STRIKES_MAX_UNPROVEN - 1));
        assert!(!strikes(&mut client, 1));
    }
}
