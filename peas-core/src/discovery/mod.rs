//! Addresses worth trying: from the pea, from the host, from an earlier run.
//!
//! Nothing here decides whom to dial; it only gives candidates. Names are looked up on a thread of their own that nobody waits
//! for: a resolver that hangs costs one thread and no shutdown.

mod remembered;

pub(crate) use remembered::Remembered;

use crate::manifest::TrustedManifest;
use crate::swarm::{Candidate, Via};
use crate::unit::PeerId;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
    resolving: Arc<AtomicBool>,
}

impl Bootstrap {
    pub(crate) fn new(pea: &TrustedManifest, given: &[SocketAddr], remembered: Vec<Candidate>) -> Self {
        let mut bootstrap = Self { fixed: Vec::new(), names: Arc::default(), resolved: Vec::new(), resolving: Arc::default() };
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

    /// What is known now.
    pub(crate) fn candidates(&self) -> Vec<Candidate> {
        self.fixed.iter().chain(&self.resolved).cloned().collect()
    }

    /// Addresses that the host or the signed pea named: exempt from the scope.
    pub(crate) fn named(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let named = self.fixed.iter().chain(&self.resolved).filter(|candidate| candidate.via == Via::Bootstrap);
        named.map(|candidate| candidate.addr)
    }

    /// Looks the names up again, on a thread that is left alone; `done` gets the answer. Does nothing while an earlier one is
    /// under way.
    pub(crate) fn resolve(&self, done: impl FnOnce(Resolved) + Send + 'static) {
        if self.names.is_empty() || self.resolving.swap(true, Ordering::Relaxed) {
            return;
        }
        let (names, resolving) = (self.names.clone(), self.resolving.clone());
        let look_up = move || {
            let mut resolved = Vec::new();
            for (name, peer) in names.iter() {
                let addrs = name.to_socket_addrs().into_iter().flatten().take(ADDRESSES_PER_NAME_MAX);
                resolved.extend(addrs.map(|addr| Candidate { addr, peer: *peer, via: Via::Bootstrap }));
            }
            resolving.store(false, Ordering::Relaxed);
            done(resolved);
        };
        let thread = std::thread::Builder::new().name("peas-resolve".into());
        if crate::engine::without_signals(|| thread.spawn(look_up)).is_err() {
            self.resolving.store(false, Ordering::Relaxed);
        }
    }

    /// Takes an answer. An empty one does not replace a good one.
    pub(crate) fn resolved(&mut self, resolved: Resolved) {
        if !resolved.is_empty() {
            self.resolved = resolved;
        }
    }
}
