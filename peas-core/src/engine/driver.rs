//! The loop of one session: facts in, requests out.
//!
//! Owns the machine by value. Waits for nothing but its inputs, in this order: stop, the host's wishes, finished work, newcomers,
//! news of peers, time. After each input it drains the machine. Everything that it hands to others goes into a queue that is
//! tried, never waited for.

use super::access::Lock;
use super::budget::Budget;
use super::clock::Clock;
use super::dial::{DIALS_MAX, Dial, Greeted};
use super::face::Face;
use super::life::{Exit, Life, Wish};
use super::links::{Links, newer_wins};
use super::scope::may_dial;
use super::task::{Handle, Task};
use super::web::Webs;
use super::works::{News, Report, What, Works};
use super::writer::Stopped;
use super::{NEWCOMERS_MAX, Newcomer, PROTOCOL_VERSION, Room, Shared};
use crate::discovery::{Bootstrap, Remembered};
use crate::event::Event;
use crate::manifest::Roles;
use crate::storage::{CommitEnd, Opened};
use crate::swarm::{Fault, FetchEnd, Input, Notice, Output, Role, Setup, Swarm};
use crate::unit::{BlockSpan, PeerId, PieceIdx, RequestId, Span};
use crate::wire::{Hello, Message};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Inputs between two looks at timers and at the stop signal.
const INPUTS_PER_TURN: usize = 256;

/// News of all links that wait for the driver. When it is full the links stop reading.
const NEWS_MAX: usize = 512;

/// Reports beyond one for each fetch and serve: dials, names, the publishing.
const REPORTS_MORE: usize = 64;

/// See the module.
pub(super) struct Driver {
    pub(super) shared: Arc<Shared>,
    pub(super) handle: Arc<Handle>,
    pub(super) works: Arc<Works>,
    pub(super) swarm: Swarm,
    pub(super) clock: Clock,
    pub(super) links: Links,
    pub(super) life: Life,
    pub(super) bootstrap: Bootstrap,
    pub(super) webs: Webs,
    pub(super) wish: watch::Receiver<Wish>,
    pub(super) engine_limits: watch::Receiver<(u64, u64)>,
    /// Fetches that the machine waits for.
    fetches: BTreeMap<RequestId, (PeerId, BlockSpan)>,
    /// Facts that follow from what the machine just asked for.
    pending: VecDeque<Input>,
    dials: usize,
    greeted: Arc<Greeted>,
    lock: Arc<Lock>,
    hello: Hello,
    pub(super) reports: mpsc::Receiver<Report>,
    pub(super) news: mpsc::Receiver<News>,
    newcomers: mpsc::Receiver<Newcomer>,
    newcomers_tx: mpsc::Sender<Newcomer>,
    pub(super) tracker: TaskTracker,
    pub(super) token: CancellationToken,
}

impl Driver {
    pub(super) fn new(
        shared: Arc<Shared>,
        handle: Arc<Handle>,
        task: Task,
        lock: Arc<Lock>,
        opened: &Opened,
        remembered: Option<&Remembered>,
        wish: watch::Receiver<Wish>,
    ) -> Self {
        let Task { pea, place, policy, peers, limits, region, role, chance, web, credentials: _ } = task;
        let geometry = *pea.geometry();
        let (reports_tx, reports) = mpsc::channel(usize::from(limits.fetches_max) * 2 + usize::from(limits.uploads_max) + REPORTS_MORE);
        let (news_tx, news) = mpsc::channel(NEWS_MAX);
        let (newcomers_tx, newcomers) = mpsc::channel(NEWCOMERS_MAX);
        let bootstrap = Bootstrap::new(&pea, &peers, remembered.map(Remembered::load).unwrap_or_default());
        let hello = Hello {
            version: PROTOCOL_VERSION,
            content: pea.id().0,
            proof: Vec::new(),
            listen_port: shared.listen_addr().map(|addr| addr.port()),
            region,
            origin: role == Role::Origin,
            extensions: 0,
        };
        let works = Arc::new(Works {
            storage: opened.storage.clone(),
            assembly: super::assembly::Assembly::new(geometry, &opened.held),
            budget_in: Budget::new(limits.buffered_bytes_max / 2),
            budget_out: Budget::new(limits.buffered_bytes_max / 2),
            upload: [shared.upload.clone(), handle.upload.clone()],
            turns: shared.turns.clone(),
            download: [shared.download.clone(), handle.download.clone()],
            reports: reports_tx,
            news: news_tx,
            wasted_bytes: AtomicU64::new(0),
            geometry,
            pea: pea.clone(),
        });
        let (tracker, token) = (TaskTracker::new(), shared.token.child_token());
        shared.open_room(pea.id(), Room { lock: lock.clone(), hello: hello.clone(), newcomers: newcomers_tx.clone() });
        let setup = Setup { geometry, me: shared.me, held: opened.held.clone(), role, limits, region, seed: chance };
        Self {
            webs: Webs::new(&pea, web, shared.web_tls.clone()),
            life: Life::new(&place, policy, opened.bytes_reused),
            swarm: Swarm::new(setup),
            clock: Clock::start(),
            links: Links::new(works.clone(), tracker.clone(), token.clone()),
            engine_limits: shared.limits.subscribe(),
            shared,
            handle,
            works,
            bootstrap,
            wish,
            fetches: BTreeMap::new(),
            pending: VecDeque::new(),
            dials: 0,
            greeted: Arc::default(),
            lock,
            hello,
            reports,
            news,
            newcomers,
            newcomers_tx,
            tracker,
            token,
        }
    }

    pub(super) fn face(&self) -> &Face {
        &self.handle.face
    }

    /// Runs until the session is over. Not to be dropped half-way: `finish` follows.
    pub(super) async fn run(&mut self, installed: bool, room_short: Option<u64>) -> Exit {
        self.begin(installed, room_short);
        let token = self.token.clone();
        loop {
            if let Some(exit) = self.tend() {
                return exit;
            }
            let deadline = self.swarm.deadline().map_or(self.life.deadline(), |at| at.min(self.life.deadline()));
            tokio::select! { biased;
                () = token.cancelled() => return self.closed(),
                _ = self.wish.changed() => self.heed_wish(),
                _ = self.engine_limits.changed() => self.heed_wish(),
                Some(report) = self.reports.recv() => self.report(report),
                Some(newcomer) = self.newcomers.recv() => self.admit(newcomer),
                Some(news) = self.news.recv() => self.hear(news),
                () = tokio::time::sleep_until(self.clock.instant(deadline)) => self.feed(Input::Timeout),
            }
            for _ in 0..INPUTS_PER_TURN {
                if let Ok(report) = self.reports.try_recv() {
                    self.report(report);
                } else if let Ok(news) = self.news.try_recv() {
                    self.hear(news);
                } else {
                    break;
                }
            }
            // A driver with endless input shares its thread with its own links.
            tokio::task::yield_now().await;
        }
    }

    /// One fact, and all that follows from it.
    pub(super) fn feed(&mut self, input: Input) {
        self.life.dirty |= !matches!(input, Input::Timeout);
        self.pending.push_back(input);
        while let Some(input) = self.pending.pop_front() {
            let now = self.clock.now();
            if let Some(recorder) = &self.handle.recorder {
                recorder.note(now, &input);
            }
            self.swarm.handle(now, input);
            while let Some(output) = self.swarm.poll() {
                self.act(output);
            }
        }
    }

    fn act(&mut self, output: Output) {
        match output {
            Output::Dial { addr, peer } => self.dial(addr, peer, false),
            Output::Probe { addr, peer } => self.dial(addr, Some(peer), true),
            Output::Send { peer, message } => self.send(peer, message),
            Output::Fetch { req, from, span } => {
                if let Some(link) = self.links.get(from) {
                    self.fetches.insert(req, (from, span));
                    link.fetches.expect(req, span);
                    let request = Message::Request { req: req.0, piece: span.piece().raw(), first: span.first(), count: span.count() };
                    self.send(from, request);
                }
            }
            Output::Cancel { req, from } => {
                self.fetches.remove(&req);
                if let Some(link) = self.links.get(from) {
                    link.fetches.forget(req);
                    self.send(from, Message::Cancel { req: req.0 });
                }
            }
            Output::Serve { req, to, span } => {
                if let Some(link) = self.links.get_mut(to) {
                    link.serving.insert(req);
                    link.serves.push(req, span);
                }
            }
            Output::StopServe { req, to } => {
                let Some(link) = self.links.get_mut(to) else { return };
                if link.serves.stop(req) == Stopped::Queued {
                    link.serving.remove(&req);
                    self.pending.push_back(Input::ServeEnded { peer: to, req, sent_bytes: 0, damaged: false });
                }
            }
            Output::Hangup { peer, why } => self.unlink(peer, Some(why)),
            Output::Notice(notice) => self.notice(notice),
        }
    }

    fn notice(&mut self, notice: Notice) {
        let event = match notice {
            // The driver looks at what is held itself: a damaged piece may make it whole twice.
            Notice::Whole => return,
            Notice::OriginLost => Event::OriginLost,
            Notice::OriginBack => Event::OriginBack,
            Notice::Banned { peer, .. } => Event::PeerBanned { peer },
            Notice::Unavailable { missing_pieces } => Event::Unavailable { missing_pieces },
            Notice::Damaged { piece } => {
                self.works.assembly.lost(piece);
                Event::Damaged { piece: piece.raw() }
            }
        };
        self.face().emit(event);
    }

    fn dial(&mut self, addr: SocketAddr, expect: Option<PeerId>, only_probe: bool) {
        let named: Vec<SocketAddr> = self.bootstrap.named().collect();
        let listening = self.shared.listen_addr().map(|addr| addr.ip());
        let ours: Vec<IpAddr> = self.links.iter().filter(|link| !link.is_web).map(|link| link.addr.ip()).chain(listening).collect();
        if self.dials >= DIALS_MAX || !may_dial(self.shared.scope, addr, &named, &ours) {
            let failed = if only_probe { Input::ProbeFailed { addr } } else { Input::DialFailed { addr, stranger: false } };
            return self.pending.push_back(failed);
        }
        self.dials += 1;
        let dial = Dial {
            shared: self.shared.clone(),
            greeted: self.greeted.clone(),
            lock: self.lock.clone(),
            hello: self.hello.clone(),
            addr,
            expect,
            newcomers: self.newcomers_tx.clone(),
            reports: self.works.reports.clone(),
        };
        let token = self.token.clone();
        self.tracker.spawn(async move {
            let work = async { if only_probe { dial.probe().await } else { dial.run().await } };
            tokio::select! {
                () = work => {}
                () = token.cancelled() => {}
            }
        });
    }

    fn send(&mut self, peer: PeerId, message: Message) {
        if self.links.get(peer).is_some_and(|link| !link.send(message)) {
            self.unlink(peer, Some(Fault::Slow));
        }
    }

    pub(super) fn unlink(&mut self, peer: PeerId, why: Option<Fault>) {
        if self.links.get(peer).is_none() {
            return;
        }
        self.links.end(peer, why);
        self.webs.unlinked(peer, why, self.clock.now());
        self.greeted.remove(peer);
        self.fetches.retain(|_, (from, _)| *from != peer);
        self.pending.push_back(Input::LinkDown { peer });
    }

    fn admit(&mut self, newcomer: Newcomer) {
        let (peer, dialed) = (newcomer.link.peer, newcomer.dialed.is_some());
        self.dials = self.dials.saturating_sub(usize::from(dialed));
        if let Some(old) = self.links.get(peer) {
            if !newer_wins(self.shared.me, peer, old.dialed, dialed) {
                return;
            }
            self.unlink(peer, Some(Fault::Duplicate));
        }
        self.greeted.insert(peer);
        let addr = newcomer.dialed.unwrap_or(newcomer.link.addr);
        let hello = newcomer.admitted.hello.clone();
        let round_trip = newcomer.link.round_trip.map(Span::from);
        self.links.start(newcomer);
        self.feed(Input::LinkUp { peer, addr, dialed, round_trip, hello });
    }

    fn hear(&mut self, news: News) {
        // What an earlier link of the peer had to say is of no interest.
        let Some(peer) = self.links.peer_of(news.link) else { return };
        if let Some(took) = self.links.get(peer).and_then(|link| link.serves.nearer()) {
            self.feed(Input::RoundTrip { peer, took });
        }
        match news.what {
            What::Message(message) => {
                if self.may_say(peer, &message) {
                    self.feed(Input::Message { peer, message });
                }
            }
            What::Arrived { req, bytes } if self.fetches.contains_key(&req) => self.feed(Input::Arrived { req, bytes }),
            What::Arrived { .. } => {}
            What::Down(fault) => {
                self.unlink(peer, fault);
                self.feed(Input::Timeout);
            }
        }
    }

    /// Whether a peer's roles allow what it says. The machine knows of no roles: who may not send is never asked, and who may not
    /// receive lacks nothing.
    fn may_say(&mut self, peer: PeerId, message: &Message) -> bool {
        let roles = self.links.get(peer).map_or(Roles::ALL, |link| link.roles);
        let declined = match message {
            Message::Grant { .. } => None,
            Message::Assign { piece, .. } => Some(*piece),
            Message::Held { runs, .. } if !roles.contain(Roles::FETCH) => {
                let all = runs[..] == [(0, self.works.geometry.piece_count())];
                if !all {
                    self.unlink(peer, Some(Fault::Protocol));
                    self.feed(Input::Timeout);
                }
                return all;
            }
            Message::Withdraw { .. } if !roles.contain(Roles::FETCH) => return false,
            _ => return true,
        };
        if !roles.may_send() {
            self.send(peer, Message::Decline { piece: declined });
        }
        roles.may_send()
    }

    /// Ends links whose peers' certificates have ended: they may come back with new ones.
    pub(super) fn end_expired(&mut self) {
        let expired = self.links.expired(super::unix_s());
        if expired.is_empty() {
            return;
        }
        expired.into_iter().for_each(|peer| self.unlink(peer, Some(Fault::Banned)));
        self.feed(Input::Timeout);
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Received { req } if self.fetches.contains_key(&req) => self.feed(Input::Received { req }),
            Report::Received { .. } => {}
            Report::Verified { req } => self.fetch_ended(req, FetchEnd::Verified),
            Report::Corrupt { req } => self.fetch_ended(req, FetchEnd::Corrupt),
            Report::Refused { req, reason, retry_after_ms } => self.fetch_ended(req, FetchEnd::Refused { reason, retry_after_ms }),
            Report::Commit { req, piece, end } => self.committed(req, piece, end),
            Report::ServeEnded { link, req, sent_bytes, damaged } => {
                if let Some(peer) = self.links.peer_of(link) {
                    if let Some(link) = self.links.get_mut(peer) {
                        link.serving.remove(&req);
                    }
                    self.feed(Input::ServeEnded { peer, req, sent_bytes, damaged });
                }
            }
            Report::DialEnded(end) => {
                self.dials = self.dials.saturating_sub(1);
                self.feed(end);
            }
            Report::WebUp { link } => self.web_up(link),
            Report::WebDown { link, why } => self.web_down(link, &why),
            Report::WebLied { link } => self.web_lied(link),
            Report::DiskProbed(end) => self.disk_probed(end),
            Report::Published(end) => self.published(end),
            Report::Resolved(resolved) => {
                self.bootstrap.resolved(resolved.clone());
                self.feed(Input::Candidates(resolved));
            }
        }
    }

    fn fetch_ended(&mut self, req: RequestId, end: FetchEnd) {
        if self.fetches.remove(&req).is_some() {
            self.feed(Input::FetchEnded { req, end });
        }
    }

    fn committed(&mut self, req: RequestId, piece: PieceIdx, end: CommitEnd) {
        let fetch = self.fetches.remove(&req);
        let end = match end {
            CommitEnd::Committed(evidence) => {
                self.works.assembly.finished(piece);
                self.disk_took();
                match fetch {
                    Some((from, span)) => {
                        self.webs.note(from, self.works.geometry.len_of_span(span));
                        FetchEnd::Committed(evidence)
                    }
                    // Nobody waited for it any more, but it is there.
                    None => return self.feed(Input::Found(evidence)),
                }
            }
            CommitEnd::Corrupt => {
                self.works.assembly.failed(piece);
                match &fetch {
                    // One sender, all of the piece: it is to blame.
                    Some((_, span)) if self.works.geometry.is_whole(*span) => FetchEnd::Corrupt,
                    // Each block was right when it came: our own memory.
                    _ => FetchEnd::Unwritten,
                }
            }
            CommitEnd::Unwritten(error) => {
                self.works.assembly.failed(piece);
                match error {
                    crate::Error::Content { .. } => self.leave_alone(),
                    error => self.disk_refused(&error),
                }
                FetchEnd::Unwritten
            }
        };
        if fetch.is_some() {
            self.feed(Input::FetchEnded { req, end });
        }
    }
}
