//! Addresses worth trying: from the pea, from the host, from an earlier run.
//!
//! Nothing here decides whom to dial; it only gives candidates. Nothing here waits, either: looking names up is handed out as work.

mod remembered;

pub(crate) use remembered::Remembered;

use crate::manifest::TrustedManifest;
use crate::swarm::{Candidate, Via};
use crate::unit::PeerId;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

/// Most addresses taken from one name.
const ADDRESSES_PER_NAME_MAX: usize = 8;

/// Most addresses that a host may add to one session.
const GIVEN_MAX: usize = 256;

/// What the owners' host names resolved to.
pub(crate) type Resolved = Vec<Candidate>;

/// Where a session can start from, again and again.
pub(crate) struct Bootstrap {
    /// Fixed addresses: the signed owners', the host's, and with less weight the hints' and the remembered ones.
    fixed: Vec<Candidate>,
    names: Arc<Vec<(String, Option<PeerId>)>>,
    resolved: Resolved,
    looking_up: bool,
}

impl Bootstrap {
    pub(crate) fn new(pea: &TrustedManifest, given: &[SocketAddr], remembered: Vec<Candidate>) -> Self {
        let mut bootstrap = Self { fixed: Vec::new(), names: Arc::default(), resolved: Vec::new(), looking_up: false };
        let mut names = Vec::new();
        for owner in pea.owners() {
            match owner.addr.parse() {
                Ok(addr) => bootstrap.fixed.push(Candidate { addr, peer: owner.peer, via: Via::Bootstrap }),
                Err(_) => names.push((owner.addr.clone(), owner.peer)),
            }
        }
        bootstrap.names = Arc::new(names);
        bootstrap.give(given);
        let hints = pea.owner_hints().iter().map(|hint| &hint.record);
        bootstrap.fixed.extend(hints.map(|hint| Candidate { addr: hint.addr, peer: Some(hint.peer_id()), via: Via::Owners }));
        bootstrap.fixed.extend(remembered);
        bootstrap
    }

    /// More addresses from the host.
    pub(crate) fn give(&mut self, addrs: &[SocketAddr]) {
        for &addr in addrs.iter().take(GIVEN_MAX) {
            let known = self.fixed.iter().any(|candidate| candidate.addr == addr && candidate.via == Via::Bootstrap);
            if !known && self.fixed.len() < GIVEN_MAX * 2 {
                self.fixed.push(Candidate { addr, peer: None, via: Via::Bootstrap });
            }
        }
    }

    /// Whether nobody was ever named, neither by address nor by name.
    pub(crate) fn is_empty(&self) -> bool {
        self.fixed.is_empty() && self.names.is_empty()
    }

    /// What is known now.
    pub(crate) fn candidates(&self) -> Vec<Candidate> {
        self.fixed.iter().chain(&self.resolved).cloned().collect()
    }

    /// Addresses that the host or the signed pea named: exempt from the scope.
    pub(crate) fn named(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let named = self.fixed.iter().chain(&self.resolved).filter(|candidate| candidate.via == Via::Bootstrap);
        named.map(|candidate| candidate.addr)
    }

    /// The work of looking the names up, to be done where waiting hurts nobody; `None` if there is none to do, or an answer is
    /// still due.
    pub(crate) fn look_up(&mut self) -> Option<impl FnOnce() -> Resolved + Send + 'static> {
        if self.names.is_empty() || std::mem::replace(&mut self.looking_up, true) {
            return None;
        }
        let names = self.names.clone();
        Some(move || {
            let addresses = |(name, peer): &(String, Option<PeerId>)| {
                let addrs = name.to_socket_addrs().into_iter().flatten().take(ADDRESSES_PER_NAME_MAX);
                let peer = *peer;
                addrs.map(move |addr| Candidate { addr, peer, via: Via::Bootstrap }).collect::<Vec<_>>()
            };
            names.iter().flat_map(addresses).collect()
        })
    }

    /// Takes an answer. An empty one does not replace a good one.
    pub(crate) fn resolved(&mut self, resolved: Resolved) {
        self.looking_up = false;
        if !resolved.is_empty() {
            self.resolved = resolved;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_one_at_a_time_and_good_answers_stay() {
        let names = vec![("localhost:7000".to_owned(), Some(PeerId([1; 32])))];
        let mut bootstrap = Bootstrap { fixed: Vec::new(), names: Arc::new(names), resolved: Vec::new(), looking_up: false };
        let work = bootstrap.look_up().unwrap();
        assert!(bootstrap.look_up().is_none(), "an answer is due");
        let answer = work();
        assert!(answer.iter().all(|candidate| candidate.addr.port() == 7000 && candidate.peer == Some(PeerId([1; 32]))));
        bootstrap.resolved(answer.clone());
        assert_eq!(bootstrap.candidates(), answer);
        assert_eq!(bootstrap.named().count(), answer.len());
        assert!(bootstrap.look_up().is_some());
        bootstrap.resolved(Vec::new());
        assert_eq!(bootstrap.candidates(), answer, "a resolver that is down does not make us forget");
    }

    #[test]
    fn what_the_host_gives_is_bounded_and_counted_once() {
        let mut bootstrap = Bootstrap { fixed: Vec::new(), names: Arc::default(), resolved: Vec::new(), looking_up: false };
        let addrs: Vec<SocketAddr> = (1..2000).map(|port| ([192, 0, 2, 1], port).into()).collect();
        bootstrap.give(&addrs[..1]);
        bootstrap.give(&addrs[..1]);
        assert_eq!(bootstrap.candidates().len(), 1);
        (0..10).for_each(|at| bootstrap.give(&addrs[at * 100..]));
        assert!(bootstrap.candidates().len() <= GIVEN_MAX * 2);
    }
}
