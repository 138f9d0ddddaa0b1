//! Web sources in the place of neighbours: for the machine each is a peer that holds everything and grants when it is allowed to.
//!
//! So the machine chooses what to ask it for, takes its requests over when it is slow, and bans it for wrong bytes, with the rules
//! it has for peers. A source is a neighbour only while it is of use: it joins when peers bring next to nothing (or always, if the
//! host says so), has answered a first request before that, and goes when the content is whole. It is nobody's member, is told to
//! nobody, and grants nothing while peers do well. When it fails it rests, for as long as it asked for or longer each time.
//!
//! This file: which source is where. What a source does while it is linked is in `web_link`.

use super::driver::Driver;
use super::links::LinkHandle;
use super::scope::may_fetch;
use super::web_link::{Got, WebLink};
use super::without_signals;
use super::works::{LinkNo, Report};
use crate::config::{Scope, WebPolicy};
use crate::event::{Event, State};
use crate::manifest::TrustedManifest;
use crate::source::{Fetcher, Gate, Places, Tls, WebError};
use crate::swarm::{Fault, Input, Order};
use crate::unit::{PeerId, Span, Time};
use crate::wire::{Hello, Message};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::{mpsc, oneshot, watch};

/// Sources at work at one time; the others stand by.
const AT_ONCE: usize = 2;

/// Connections to one source.
const CONNECTIONS: usize = 2;

/// How long peers must have brought next to nothing. 4 s: longer than finding and linking them takes.
const STARVED_AFTER: Span = Span::s(4);

/// What peers must bring not to count as nothing. 64 KiB/s: a content of any size worth installing would take hours.
const NOTHING_BYTES_PER_S: f64 = 65_536.0;

/// Between two looks at what peers bring.
const LOOK_EVERY: Span = Span::ms(500);

/// First and longest rest of a source that failed; one that said no rests longer.
const REST_MIN: Span = Span::s(1);
const REST_MAX: Span = Span::s(60);
const REST_REFUSED: Span = Span::s(20);

/// Addresses taken from one name.
const ADDRESSES_PER_NAME_MAX: usize = 8;

/// A source as the host may see it.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct WebPicture {
    pub(crate) url: String,
    /// As which it appears in events.
    pub(crate) peer: String,
    /// "waiting", "trying", "linked", "resting", "dropped".
    pub(crate) state: &'static str,
    /// Right bytes that came from it.
    pub(crate) bytes: u64,
    /// Why it failed last.
    pub(crate) error: Option<String>,
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// Until then.
    Resting(Time),
    Trying(LinkNo),
    Linked(LinkNo),
    /// For good.
    Dropped,
}

struct Source {
    url: String,
    peer: PeerId,
    addr: SocketAddr,
    place: Place,
    rest: Span,
    error: Option<String>,
    /// What the host was told last about why it failed.
    told: Option<String>,
    got: Arc<Got>,
    got_when_linked: u64,
    active: watch::Sender<bool>,
    /// What the link will be made of, once the source has answered.
    handle: Option<LinkHandle>,
}

/// All sources of a session.
pub(super) struct Webs {
    sources: Vec<Source>,
    policy: WebPolicy,
    tls: Arc<Tls>,
    look_at: Time,
    /// Bytes from peers at the beginning of the present stretch, and when that was.
    mark: (u64, Time),
    starved: bool,
    /// Bytes that the machine counts as peers' and that were sources'.
    counted: u64,
    ahead: (u64, Time, f64),
}

impl Webs {
    pub(super) fn new(pea: &TrustedManifest, policy: WebPolicy, tls: Arc<Tls>) -> Self {
        let source = |(at, url): (usize, &String)| Source {
            url: url.clone(),
            peer: PeerId(blake3::derive_key("peas 2026 web source", url.as_bytes())),
            // Of the range for what is to be discarded (RFC 6666): nobody's, so that a ban of it is nobody else's.
            addr: SocketAddr::new(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, at as u16 + 1).into(), 1),
            place: Place::Resting(Time::ZERO),
            rest: REST_MIN,
            error: None,
            told: None,
            got: Arc::default(),
            got_when_linked: 0,
            active: watch::channel(false).0,
            handle: None,
        };
        let named = if policy == WebPolicy::Never { &[] } else { pea.web() };
        Self {
            sources: named.iter().enumerate().map(source).collect(),
            policy,
            tls,
            look_at: Time::ZERO,
            mark: (0, Time::ZERO),
            starved: false,
            counted: 0,
            ahead: (0, Time::ZERO, 0.0),
        }
    }

    pub(super) fn linked(&self) -> u32 {
        self.sources.iter().filter(|source| matches!(source.place, Place::Linked(_))).count() as u32
    }

    pub(super) fn bytes(&self) -> u64 {
        self.sources.iter().map(|source| source.got.bytes.load(Ordering::Relaxed)).sum()
    }

    /// Bytes that the machine took for a peer's.
    pub(super) fn counted(&self) -> u64 {
        self.counted
    }

    /// The machine counts these as a peer's; says so if they were.
    pub(super) fn note(&mut self, from: PeerId, bytes: u32) {
        if self.sources.iter().any(|source| source.peer == from) {
            self.counted += u64::from(bytes);
        }
    }

    /// Bytes per second that came without having been asked for one by one, about the last second.
    pub(super) fn ahead_bytes_per_s(&mut self, now: Time) -> u64 {
        let bytes = self.sources.iter().map(|source| source.got.ahead_bytes.load(Ordering::Relaxed)).sum();
        let (before, then, rate) = self.ahead;
        let seconds = now.since(then).as_s();
        if seconds > 0.05 {
            let share = (seconds / 1.0).min(1.0);
            self.ahead = (bytes, now, rate * (1.0 - share) + (bytes - before) as f64 / seconds * share);
        }
        self.ahead.2 as u64
    }

    pub(super) fn picture(&self) -> Vec<WebPicture> {
        let picture = |source: &Source| WebPicture {
            url: source.url.clone(),
            peer: source.peer.to_string(),
            state: match source.place {
                Place::Resting(_) if source.error.is_some() => "resting",
                Place::Resting(_) => "waiting",
                Place::Trying(_) => "trying",
                Place::Linked(_) => "linked",
                Place::Dropped => "dropped",
            },
            bytes: source.got.bytes.load(Ordering::Relaxed),
            error: source.error.clone(),
        };
        self.sources.iter().map(picture).collect()
    }

    fn by_link(&mut self, no: LinkNo) -> Option<&mut Source> {
        self.sources.iter_mut().find(|source| source.place == Place::Trying(no) || source.place == Place::Linked(no))
    }

    /// The link of a source, as of any peer, has been ended.
    pub(super) fn unlinked(&mut self, peer: PeerId, why: Option<Fault>, now: Time) {
        let Some(source) = self.sources.iter_mut().find(|source| source.peer == peer) else { return };
        if !matches!(source.place, Place::Linked(_)) {
            return;
        }
        match why {
            Some(Fault::Corrupt | Fault::Banned | Fault::Protocol) => {
                source.place = Place::Dropped;
                source.error = Some("it sent wrong bytes".into());
            }
            Some(Fault::Leaving) => source.place = Place::Resting(now),
            _ => source.rest(now, Span::ZERO),
        }
    }

    /// Looks at what peers brought in the last stretch.
    fn watch(&mut self, from_peers: u64, nobody_known: bool, now: Time) {
        if nobody_known && from_peers == 0 {
            self.starved = true;
        }
        let (before, since) = self.mark;
        let seconds = now.since(since).as_s();
        if now.since(since) >= STARVED_AFTER {
            self.starved = ((from_peers - before.min(from_peers)) as f64) < NOTHING_BYTES_PER_S * seconds;
            self.mark = (from_peers, now);
        }
    }
}

impl Source {
    /// Longer each time, unless something came.
    fn rest(&mut self, now: Time, at_least: Span) {
        if self.got.bytes.load(Ordering::Relaxed) > self.got_when_linked {
            (self.rest, self.told) = (REST_MIN, None);
        }
        self.place = Place::Resting(now + self.rest.max(at_least));
        self.rest = Span((self.rest.0 * 2).min(REST_MAX.0));
    }

    /// What to tell the host, if it does not know.
    fn failed(&mut self, why: &WebError, now: Time) -> Option<Event> {
        if why.is_final() {
            self.place = Place::Dropped;
        } else {
            let said_no = matches!(why, WebError::Status { status: 400..500, .. } | WebError::Forbidden(_));
            let asked = why.retry_after().map_or(Span::ZERO, Span::from);
            self.rest(now, asked.max(if said_no { REST_REFUSED } else { Span::ZERO }));
        }
        let message = why.to_string();
        self.error = Some(message.clone());
        let known = self.told.replace(message.clone());
        (known.as_ref() != Some(&message)).then(|| Event::WebFailed { url: self.url.clone(), message })
    }
}

impl Driver {
    /// Lets sources in, quiets them, sends them away.
    pub(super) fn tend_web(&mut self, now: Time) {
        if self.webs.sources.is_empty() || self.webs.look_at > now {
            return;
        }
        self.webs.look_at = now + LOOK_EVERY;
        let of_use = self.life.installing && self.life.state == State::Receiving && !self.life.is_leaving() && !self.swarm.held().is_full();
        if of_use {
            let snapshot = self.swarm.snapshot(now);
            let from_peers = snapshot.bytes_from_origin + snapshot.bytes_from_peers - self.webs.counted;
            let nobody_known = self.links.peer_count() == 0 && self.bootstrap.is_empty();
            self.webs.watch(from_peers, nobody_known, now);
        }
        let wanted = of_use && (self.webs.policy == WebPolicy::Always || self.webs.starved);
        for at in 0..self.webs.sources.len() {
            let busy = self.webs.sources.iter().filter(|source| matches!(source.place, Place::Trying(_) | Place::Linked(_))).count();
            let source = &mut self.webs.sources[at];
            match source.place {
                Place::Linked(_) if !of_use => {
                    let peer = source.peer;
                    self.unlink(peer, Some(Fault::Leaving));
                }
                Place::Linked(_) => {
                    source.active.send_if_modified(|active| std::mem::replace(active, wanted) != wanted);
                }
                Place::Resting(until) if wanted && until <= now && busy < AT_ONCE => self.try_web(at, now),
                _ => {}
            }
        }
        self.feed(Input::Timeout);
    }

    /// Starts a source's task; it reports when it has had a first answer.
    fn try_web(&mut self, at: usize, now: Time) {
        let (ahead, tls) = (self.webs.policy != WebPolicy::Always, self.webs.tls.clone());
        let source = &mut self.webs.sources[at];
        let places = match Places::new(self.works.pea.clone(), &source.url) {
            Ok(places) => Arc::new(places),
            Err(error) => {
                if let Some(news) = source.failed(&error, now) {
                    self.face().emit(news);
                }
                return;
            }
        };
        let gate = Arc::new(Door { scope: self.shared.scope, listen: self.shared.listen_addr().map(|addr| addr.ip()) });
        let fetchers = (0..CONNECTIONS).map(|_| Fetcher::new(places.clone(), gate.clone(), tls.clone(), super::unix_s)).collect();
        let (handle, control, token) = self.links.prepare(source.addr);
        let link = handle.no;
        let web = WebLink::new(
            link,
            self.works.clone(),
            control,
            handle.fetches.clone(),
            source.active.subscribe(),
            fetchers,
            source.got.clone(),
            ahead,
        );
        source.got_when_linked = source.got.bytes.load(Ordering::Relaxed);
        source.active.send_replace(true);
        source.place = Place::Trying(link);
        source.handle = Some(handle);
        let reports = self.works.reports.clone();
        self.tracker.spawn(async move {
            let end = tokio::select! {
                end = web.run() => end,
                () = token.cancelled() => Ok(()),
            };
            token.cancel();
            if let Err(why) = end {
                // Nobody listens only while the session is being torn down.
                let _ = reports.send(Report::WebDown { link, why }).await;
            }
        });
    }

    /// A source has answered: from now on it is a neighbour.
    pub(super) fn web_up(&mut self, link: LinkNo) {
        let Some(source) = self.webs.by_link(link) else { return };
        let (peer, addr) = (source.peer, source.addr);
        let Some(handle) = source.handle.take() else { return };
        (source.place, source.error) = (Place::Linked(link), None);
        self.links.adopt(peer, handle);
        let content = self.works.pea.id().0;
        let hello = Hello { version: 1, content, proof: Vec::new(), listen_port: None, region: 0, origin: false, extensions: 0 };
        self.feed(Input::LinkUp { peer, addr, dialed: false, round_trip: None, hello });
        // It may have been refused at once.
        if self.links.get(peer).is_some() {
            let runs = vec![(0, self.works.geometry.piece_count())];
            self.feed(Input::Message { peer, message: Message::Held { runs, need: 0, queue_ms: 0 } });
        }
    }

    /// A source failed.
    pub(super) fn web_down(&mut self, link: LinkNo, why: &WebError) {
        let now = self.clock.now();
        let Some(source) = self.webs.by_link(link) else { return };
        let (peer, linked) = (source.peer, matches!(source.place, Place::Linked(_)));
        source.handle = None;
        if let Some(news) = source.failed(why, now) {
            self.face().emit(news);
        }
        if linked {
            self.unlink(peer, None);
            self.feed(Input::Timeout);
        }
    }

    /// A source sent wrong bytes that nobody had asked for one by one.
    pub(super) fn web_lied(&mut self, link: LinkNo) {
        if let Some(peer) = self.links.peer_of(link) {
            self.feed(Input::Order(Order::Ban { peer }));
        }
    }
}

/// The engine's word on where connections may go.
struct Door {
    scope: Scope,
    listen: Option<IpAddr>,
}

impl Gate for Door {
    fn resolve(&self, host: &str, port: u16) -> oneshot::Receiver<Vec<SocketAddr>> {
        let (answer, receiver) = oneshot::channel();
        let host = host.to_owned();
        let work = move || {
            let addrs = (host.as_str(), port).to_socket_addrs().map(|addrs| addrs.take(ADDRESSES_PER_NAME_MAX).collect());
            // Nobody waits for it any more when the source was given up.
            if let Ok(addrs) = addrs {
                let _ = answer.send(addrs);
            }
        };
        // On a thread that nobody waits for, as for peers' names. A machine without room for one has no answer.
        drop(without_signals(|| std::thread::Builder::new().name("peas-resolve".into()).spawn(work)));
        receiver
    }

    fn allows(&self, addr: SocketAddr, from: Option<IpAddr>) -> bool {
        let ours: Vec<IpAddr> = self.listen.into_iter().chain(own_ip_towards(addr)).collect();
        may_fetch(self.scope, addr, from, &ours)
    }
}

/// The address from which our packets to a place leave. Connecting a datagram socket sends nothing.
fn own_ip_towards(addr: SocketAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind(if addr.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).ok()?;
    socket.connect(addr).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// The control messages of a source that waits to be linked.
pub(super) type Control = mpsc::Receiver<Message>;

#[cfg(test)]
mod tests {
    use super::*;

    fn webs() -> Webs {
        Webs {
            sources: Vec::new(),
            policy: WebPolicy::WhenStarved,
            tls: Arc::new(Tls::new(Vec::new())),
            look_at: Time::ZERO,
            mark: (0, Time::ZERO),
            starved: false,
            counted: 0,
            ahead: (0, Time::ZERO, 0.0),
        }
    }

    fn at(seconds: u64) -> Time {
        Time::ZERO + Span::s(seconds)
    }

    #[test]
    fn it_is_hunger_when_peers_bring_next_to_nothing() {
        let mut webs = webs();
        for (second, bytes, starved) in
            [(1, 0, false), (3, 0, false), (4, 0, true), (6, 0, true), (8, 10 << 20, false), (12, 10 << 20, true)]
        {
            webs.watch(bytes, false, at(second));
            assert_eq!(webs.starved, starved, "after {second} s and {bytes} bytes");
        }
    }

    #[test]
    fn who_knows_nobody_does_not_wait() {
        let mut webs = webs();
        webs.watch(0, true, at(0));
        assert!(webs.starved);
    }
}
