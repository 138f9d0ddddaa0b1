//! Making links: connect, prove keys, exchange hellos, hand over.
//!
//! One task per dial. Before its hello a dialler makes sure that it has no other link to the peer and is making none, so two
//! links between the same two peers can only come from both dialling at once; the driver settles that.

use super::accept::{hear_hello, say_hello};
use super::access::{Lock, Meeting};
use super::clock::unix_s;
use super::works::Report;
use super::{Newcomer, Shared};
use crate::swarm::Input;
use crate::transport::{LinkError, Transport};
use crate::unit::PeerId;
use crate::wire::Hello;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;

/// Dials and probes at work in one session: as many of each as the swarm machine asks for at once.
pub(super) const DIALS_MAX: usize = 32;

/// How long connecting and proving keys may take.
const DIAL_MAX: Duration = Duration::from_secs(8);

/// Peers of one session that we have a link with, or are just greeting. Shared by its dials and its driver.
#[derive(Default)]
pub(super) struct Greeted {
    peers: Mutex<BTreeSet<PeerId>>,
}

impl Greeted {
    pub(super) fn insert(&self, peer: PeerId) -> bool {
        self.peers.lock().expect("nothing panics while holding it").insert(peer)
    }

    pub(super) fn remove(&self, peer: PeerId) {
        self.peers.lock().expect("nothing panics while holding it").remove(&peer);
    }
}

/// One dial. Reports only failures; a link goes to the driver's door.
pub(super) struct Dial {
    pub(super) shared: Arc<Shared>,
    pub(super) greeted: Arc<Greeted>,
    pub(super) lock: Arc<Lock>,
    pub(super) hello: Hello,
    pub(super) addr: SocketAddr,
    pub(super) expect: Option<PeerId>,
    pub(super) newcomers: mpsc::Sender<Newcomer>,
    pub(super) reports: mpsc::Sender<Report>,
}

impl Dial {
    /// Dials. Safe to drop half-way, except that the peer greeted stays marked: only at the session's end.
    pub(super) async fn run(self) {
        let (reports, addr) = (self.reports.clone(), self.addr);
        if let Err(error) = self.link().await {
            let stranger = matches!(error, LinkError::Stranger(_));
            // Nobody listens only while the session is being torn down.
            let _ = reports.send(Report::DialEnded(Input::DialFailed { addr, stranger })).await;
        }
    }

    async fn link(self) -> Result<(), LinkError> {
        let place = self.shared.place_for_link().ok_or_else(|| LinkError::Handshake("no place for one more link".into()))?;
        let mut link = self.shared.transport.dial(self.addr, self.expect, DIAL_MAX).await?;
        if link.peer == self.shared.me {
            return Err(LinkError::Handshake("it is us".into()));
        }
        let peer = link.peer;
        if !self.greeted.insert(peer) {
            return Err(LinkError::Handshake("linked already".into()));
        }
        let greet = async {
            let at = Meeting { me: self.shared.me, peer, binding: link.binding };
            say_hello(&mut link, self.lock.hello(&self.hello, &at)).await?;
            let hello = hear_hello(&mut link).await?;
            self.lock.admit(hello, &at, unix_s()).ok_or(LinkError::Protocol("another content, or no proof of belonging to it"))
        };
        match greet.await {
            Ok(admitted) => {
                let newcomer = Newcomer { link, admitted, dialed: Some(self.addr), place };
                self.newcomers.send(newcomer).await.map_err(|_| LinkError::Closed)
            }
            Err(error) => {
                self.greeted.remove(peer);
                Err(error)
            }
        }
    }

    /// Only finds out whether the peer answers there: no hello is said, nobody is marked.
    pub(super) async fn probe(self) {
        let end = match self.shared.transport.dial(self.addr, self.expect, DIAL_MAX).await {
            Ok(link) => Input::Probed { addr: self.addr, peer: link.peer },
            Err(_) => Input::ProbeFailed { addr: self.addr },
        };
        let _ = self.reports.send(Report::DialEnded(end)).await;
    }
}
