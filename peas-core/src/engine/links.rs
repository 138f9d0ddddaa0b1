//! The links of one session, as its driver sees them.
//!
//! At most one per peer. When two peers dialled each other at once, both keep the link that the smaller peer id dialled; when
//! the same side dialled again, the newer one, because a dialler has let go of its first before it greets a second time.

use super::Newcomer;
use super::reader::{Ended, FetchBox, Reader};
use super::works::{LinkNo, News, What, Works};
use super::writer::{ServeBox, Writer};
use crate::manifest::Roles;
use crate::swarm::Fault;
use crate::unit::{PeerId, RequestId};
use crate::wire::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Control messages that wait for a link to take them; one more and the link is too slow to be of use. 512: what a swarm machine says at once to
/// one peer, in the worst case (grants, requests, assignments, 128 of each), and some news.
const CONTROL_MAX: usize = 512;

/// How long the last control messages of a link may take to leave after it was given up.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// One link.
pub(super) struct LinkHandle {
    pub(super) no: LinkNo,
    pub(super) addr: SocketAddr,
    pub(super) dialed: bool,
    pub(super) is_web: bool,
    /// What its peer may do.
    pub(super) roles: Roles,
    /// When its peer's certificate ends, in seconds since 1970.
    until_unix_s: Option<u64>,
    pub(super) fetches: Arc<FetchBox>,
    pub(super) serves: Arc<ServeBox>,
    /// Serves that have not been reported as ended.
    pub(super) serving: BTreeSet<RequestId>,
    control: mpsc::Sender<Message>,
    token: CancellationToken,
}

impl LinkHandle {
    /// Queues a message; false if the link is too slow.
    pub(super) fn send(&self, message: Message) -> bool {
        !matches!(self.control.try_send(message), Err(mpsc::error::TrySendError::Full(_)))
    }
}

/// Whether a second link to the same peer takes the place of the first.
pub(super) fn newer_wins(me: PeerId, peer: PeerId, old_dialed: bool, new_dialed: bool) -> bool {
    old_dialed == new_dialed || new_dialed == (me < peer)
}

/// All links of a session.
pub(super) struct Links {
    by_peer: BTreeMap<PeerId, LinkHandle>,
    peers: BTreeMap<LinkNo, PeerId>,
    next: u64,
    works: Arc<Works>,
    tracker: TaskTracker,
    token: CancellationToken,
}

impl Links {
    /// Link tasks run in the tracker and below the token.
    pub(super) fn new(works: Arc<Works>, tracker: TaskTracker, token: CancellationToken) -> Self {
        Self { by_peer: BTreeMap::new(), peers: BTreeMap::new(), next: 0, works, tracker, token }
    }

    pub(super) fn get(&self, peer: PeerId) -> Option<&LinkHandle> {
        self.by_peer.get(&peer)
    }

    pub(super) fn get_mut(&mut self, peer: PeerId) -> Option<&mut LinkHandle> {
        self.by_peer.get_mut(&peer)
    }

    /// The peer of a link, if that link is its present one.
    pub(super) fn peer_of(&self, no: LinkNo) -> Option<PeerId> {
        self.peers.get(&no).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &LinkHandle> {
        self.by_peer.values()
    }

    /// Serves under way on all links.
    pub(super) fn serving(&self) -> usize {
        self.iter().map(|link| link.serving.len()).sum()
    }

    /// Peers linked, web sources not counted.
    pub(super) fn peer_count(&self) -> usize {
        self.iter().filter(|link| !link.is_web).count()
    }

    /// Peers whose certificates have ended.
    pub(super) fn expired(&self, now_unix_s: u64) -> Vec<PeerId> {
        let ended = self.by_peer.iter().filter(|(_, link)| link.until_unix_s.is_some_and(|until| until < now_unix_s));
        ended.map(|(&peer, _)| peer).collect()
    }

    /// The parts of a link whose task is the caller's: a web source's. It counts once it is adopted.
    pub(super) fn prepare(&mut self, addr: SocketAddr) -> (LinkHandle, mpsc::Receiver<Message>, CancellationToken) {
        let no = LinkNo(self.next);
        self.next += 1;
        let token = self.token.child_token();
        let (control, control_rx) = mpsc::channel(CONTROL_MAX);
        let (fetches, serves, serving) = Default::default();
        let handle = LinkHandle {
            no,
            addr,
            dialed: false,
            is_web: true,
            roles: Roles::ALL,
            until_unix_s: None,
            fetches,
            serves,
            serving,
            control,
            token: token.clone(),
        };
        (handle, control_rx, token)
    }

    /// Takes a link up. The peer must have none.
    pub(super) fn adopt(&mut self, peer: PeerId, handle: LinkHandle) {
        self.peers.insert(handle.no, peer);
        self.by_peer.insert(peer, handle);
    }

    /// Starts the tasks of a link. The peer must have none.
    pub(super) fn start(&mut self, newcomer: Newcomer) {
        let no = LinkNo(self.next);
        self.next += 1;
        let token = self.token.child_token();
        let (control, control_rx) = mpsc::channel(CONTROL_MAX);
        let (fetches, serves) = (Arc::<FetchBox>::default(), Arc::<ServeBox>::default());
        let Newcomer { link, dialed, admitted, place } = newcomer;
        let (roles, until_unix_s) = (admitted.roles, admitted.until_unix_s);
        // The connection is closed when both halves are gone.
        let place = Arc::new(place);
        let (peer, addr) = (link.peer, dialed.unwrap_or(link.addr));

        let reader = Reader::new(no, fetches.clone(), self.works.clone());
        let (read_token, news, read_place) = (token.clone(), self.works.news.clone(), place.clone());
        self.tracker.spawn(async move {
            let _place = read_place;
            let fault = tokio::select! {
                ended = reader.run(link.reader) => match ended {
                    Ended::Fault(fault) => Some(fault),
                    Ended::Link | Ended::Driver => None,
                },
                () = read_token.cancelled() => None,
            };
            read_token.cancel();
            // After all that this link has told. Nobody listens only while the session is being torn down.
            let _ = news.send(News { link: no, what: What::Down(fault) }).await;
        });
        let writer = Writer::new(no, serves.clone(), control_rx, self.works.clone());
        let write_token = token.clone();
        self.tracker.spawn(async move {
            let _place = place;
            tokio::select! {
                _ = writer.run(link.writer) => {}
                () = write_token.cancelled() => {}
            }
            write_token.cancel();
        });
        let dialed = dialed.is_some();
        self.adopt(
            peer,
            LinkHandle { no, addr, dialed, is_web: false, roles, until_unix_s, fetches, serves, serving: BTreeSet::new(), control, token },
        );
    }

    /// Ends a link: at once for a fault of the peer's, otherwise after its queued messages have left.
    pub(super) fn end(&mut self, peer: PeerId, why: Option<Fault>) {
        let Some(handle) = self.by_peer.remove(&peer) else { return };
        self.peers.remove(&handle.no);
        let LinkHandle { token, control, .. } = handle;
        drop(control);
        if matches!(why, Some(Fault::Corrupt | Fault::Protocol | Fault::Banned | Fault::Slow)) {
            token.cancel();
            return;
        }
        self.tracker.spawn(async move {
            let _ = tokio::time::timeout(FAREWELL_MAX, token.cancelled()).await;
            token.cancel();
        });
    }

    pub(super) fn peers(&self) -> Vec<PeerId> {
        self.by_peer.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_of_crossed_dials_keep_the_same_link() {
        let (small, big) = (PeerId([1; 32]), PeerId([2; 32]));
        // The link that `small` dialled comes second at one side and first at the other.
        assert!(newer_wins(small, big, false, true), "small: accepted first, then its own dial");
        assert!(!newer_wins(small, big, true, false));
        assert!(newer_wins(big, small, true, false), "big: its own dial first, then accepted");
        assert!(!newer_wins(big, small, false, true));
        // A peer that came back.
        assert!(newer_wins(big, small, false, false));
        assert!(newer_wins(small, big, true, true));
    }
}
