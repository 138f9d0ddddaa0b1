//! A session's stages: from receiving to publishing to sharing to leaving, and standing still when a disk refuses.
//!
//! Part of the driver, in a file of its own: what happens when, seen from the host. The machine knows none of it.

use super::driver::Driver;
use super::runtime::without_signals;
use super::task::Place;
use super::works::Report;
use crate::Error;
use crate::config::SeedPolicy;
use crate::event::{Departure, Event, PauseReason, Progress, State};
use crate::storage::PublishError;
use crate::swarm::{Input, Order};
use crate::unit::{Span, Time};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// What the host wants, as state: the latest counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    pub(crate) paused: bool,
    /// Own (upload, download) limits, 0: none.
    pub(crate) limits: (u64, u64),
    /// More addresses, in the order given.
    pub(crate) peers: Vec<SocketAddr>,
    /// Leave within this time of `left_at`.
    pub(crate) leave: Option<(Instant, Duration)>,
    /// Leave now, serving nothing more.
    pub(crate) cancel: bool,
}

/// How long a session that leaves when whole stays for pieces that nobody else has.
const STAY_MAX: Span = Span::s(10);

/// Without such pieces: until nothing has been served for this long.
const QUIET: Span = Span::ms(300);

/// After saying goodbye: how long nothing must be served to count as drained. Requests that were on their way arrive in it.
const DRAIN_QUIET: Span = Span::ms(100);

/// Grace of a session that ends by itself.
const GRACE: Duration = Duration::from_secs(5);

/// Grace of one that was cancelled: for the goodbye and the journal.
const CANCEL_GRACE: Duration = Duration::from_secs(2);

/// How often a disk that refused is asked whether it takes writes again: a small write that costs the network nothing.
const PROBE_EVERY: Span = Span::ms(500);

/// Longest wait after a disk that took the small write and then refused a piece once more.
const PROBE_MAX: Span = Span::s(8);

/// How often the picture for the host is renewed, and how often when nothing happens.
const SHOW_EVERY: Span = Span::ms(100);
const SHOW_IDLE: Span = Span::s(1);

/// How often the list of members is renewed.
const MEMBERS_EVERY: Span = Span::s(2);

/// Most members shown.
const MEMBERS_MAX: usize = 64;

/// First and longest pause between tries of the addresses we started from.
const BOOT_FIRST: Span = Span::s(1);
const BOOT_MAX: Span = Span::s(30);

/// A disk that refuses.
pub(super) struct Trouble {
    reason: PauseReason,
    probe_at: Time,
    wait: Span,
    held_back: bool,
    /// The disk is being asked.
    asking: bool,
}

/// Why the driver's loop ended.
pub(super) struct Exit {
    pub(super) failure: Option<Error>,
    pub(super) drained: bool,
    /// When everything must be over.
    pub(super) deadline: Instant,
}

struct Leaving {
    since: Time,
    grace: Duration,
    deadline: Instant,
    drain: bool,
}

/// The stage and its timers.
pub(super) struct Life {
    pub(super) state: State,
    pub(super) installing: bool,
    policy: SeedPolicy,
    bytes_reused: u64,
    publishing: bool,
    host_paused: bool,
    trouble: Option<Trouble>,
    /// A file was changed by somebody else: no more repairs.
    left_alone: bool,
    leaving: Option<Leaving>,
    whole_at: Option<Time>,
    served_at: Time,
    show_at: Time,
    members_at: Time,
    boot_at: Time,
    boot_wait: Span,
    peers_given: usize,
    limits: (u64, u64),
    pub(super) failure: Option<Error>,
    pub(super) dirty: bool,
}

impl Life {
    pub(super) fn new(place: &Place, policy: SeedPolicy, bytes_reused: u64) -> Self {
        Self {
            state: State::Receiving,
            installing: matches!(place, Place::Install(_)),
            policy,
            bytes_reused,
            publishing: false,
            host_paused: false,
            trouble: None,
            left_alone: false,
            leaving: None,
            whole_at: None,
            served_at: Time::ZERO,
            show_at: Time::ZERO,
            members_at: Time::ZERO,
            boot_at: Time::ZERO,
            boot_wait: BOOT_FIRST,
            peers_given: 0,
            limits: (0, 0),
            failure: None,
            dirty: true,
        }
    }

    /// Whether the session is on its way out.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// When the driver must look again.
    pub(super) fn deadline(&self) -> Time {
        let probe = self.trouble.as_ref().map_or(self.show_at, |trouble| trouble.probe_at);
        self.show_at.min(probe).min(self.boot_at)
    }
}

impl Driver {
    /// First words: what the disk holds and what the host asked for.
    pub(super) fn begin(&mut self, installed: bool, room_short: Option<u64>) {
        self.face().emit(Event::Started { bytes_reused: self.life.bytes_reused });
        self.heed_wish();
        match (self.life.installing, installed) {
            // What does not fit is not begun: the disk would be full to the brim, and everybody else on it would stand still, too.
            (true, false) if room_short.is_some() => {
                let full = std::io::ErrorKind::StorageFull.into();
                self.disk_refused(&Error::Storage { op: "write", path: self.works.storage.dest(), source: full });
            }
            (true, false) => {}
            (true, true) => self.installed(),
            (false, _) => {
                self.life.state = if self.swarm.held().is_full() { State::Sharing } else { State::Receiving };
                self.life.whole_at = Some(self.clock.now());
            }
        }
    }

    /// Takes over what the host wants by now.
    pub(super) fn heed_wish(&mut self) {
        let wish = self.wish.borrow_and_update().clone();
        if wish.paused != self.life.host_paused {
            self.life.host_paused = wish.paused;
            let (order, event) = match wish.paused {
                true => (Order::Pause, Event::Paused(PauseReason::Host)),
                false => (Order::Resume, Event::Resumed),
            };
            self.feed(Input::Order(order));
            self.face().emit(event);
        }
        let limits = self.limits_in_force(wish.limits);
        if limits != self.life.limits {
            self.life.limits = limits;
            self.feed(Input::Order(Order::UploadLimit { bytes_per_s: limits.0 }));
            self.feed(Input::Order(Order::DownloadLimit { bytes_per_s: limits.1 }));
        }
        if wish.peers.len() > self.life.peers_given {
            let new = wish.peers[self.life.peers_given..].to_vec();
            self.life.peers_given = wish.peers.len();
            self.bootstrap.give(&new);
            (self.life.boot_at, self.life.boot_wait) = (Time::ZERO, BOOT_FIRST);
        }
        match (wish.cancel, wish.leave) {
            (true, _) => self.leave(CANCEL_GRACE, Instant::now() + CANCEL_GRACE, false),
            (false, Some((asked, grace))) => self.leave(grace, asked + grace, true),
            (false, None) => {}
        }
        self.life.dirty = true;
    }

    /// The smaller of the engine's and the session's, 0 being the greatest.
    fn limits_in_force(&mut self, own: (u64, u64)) -> (u64, u64) {
        let engine = *self.engine_limits.borrow_and_update();
        let least = |a: u64, b: u64| if a == 0 || b == 0 { a.max(b) } else { a.min(b) };
        (least(engine.0, own.0), least(engine.1, own.1))
    }

    fn leave(&mut self, grace: Duration, deadline: Instant, drain: bool) {
        if self.life.leaving.as_ref().is_some_and(|leaving| leaving.deadline <= deadline && leaving.drain <= drain) {
            return;
        }
        let since = self.clock.now();
        self.life.leaving = Some(Leaving { since, grace, deadline, drain });
        self.life.show_at = since;
        self.feed(Input::Order(Order::Leave));
    }

    /// What is due by the clock; the exit when the session is over.
    pub(super) fn tend(&mut self) -> Option<Exit> {
        let now = self.clock.now();
        if self.life.failure.is_some() {
            let failure = self.life.failure.take();
            return Some(Exit { failure, drained: false, deadline: Instant::now() + CANCEL_GRACE });
        }
        self.publish_if_whole();
        self.probe_disk(now);
        self.boot(now);
        self.tend_web(now);
        if self.life.show_at <= now {
            self.show(now);
            self.end_expired();
            self.leave_by_policy(now);
            let soon = self.life.leaving.is_some() || (self.life.state == State::Sharing && self.life.policy == SeedPolicy::Leave);
            let every = if std::mem::take(&mut self.life.dirty) || soon { SHOW_EVERY } else { SHOW_IDLE };
            self.life.show_at = now + every;
        }
        if self.links.serving() > 0 {
            self.life.served_at = now;
        }
        let leaving = self.life.leaving.as_ref()?;
        let drained = self.links.serving() == 0 && now.since(leaving.since) >= DRAIN_QUIET;
        let over = !leaving.drain || drained || now.since(leaving.since) >= Span::from(leaving.grace / 2);
        over.then(|| Exit { failure: None, drained: drained || self.links.serving() == 0, deadline: leaving.deadline })
    }

    fn publish_if_whole(&mut self) {
        let due = self.life.installing && self.life.state == State::Receiving && !self.life.publishing;
        if !due || self.life.trouble.is_some() || !self.swarm.held().is_full() {
            return;
        }
        // Nothing else reports through this slot, so that it is free whenever the channel is not brim-full; if it is, next turn.
        let Ok(slot) = self.works.reports.clone().try_reserve_owned() else { return };
        (self.life.state, self.life.publishing) = (State::Publishing, true);
        self.life.dirty = true;
        self.works.storage.publish(Box::new(move |end| drop(slot.send(Report::Published(end)))));
    }

    /// Storage's answer to `publish`.
    pub(super) fn published(&mut self, end: Result<(), PublishError>) {
        self.life.publishing = false;
        match end {
            Ok(()) => {
                self.disk_took();
                self.installed();
            }
            Err(PublishError::Damaged(pieces)) => {
                self.life.state = State::Receiving;
                pieces.into_iter().for_each(|piece| self.feed(Input::Damaged(piece)));
            }
            Err(PublishError::Failed(error @ Error::Storage { .. })) => {
                self.life.state = State::Receiving;
                self.disk_refused(&error);
            }
            Err(PublishError::Failed(error)) => self.life.failure = Some(error),
        }
    }

    fn installed(&mut self) {
        self.life.state = State::Sharing;
        self.life.whole_at = Some(self.clock.now());
        self.show(self.clock.now());
        self.face().emit(Event::Installed);
    }

    /// A write failed: nothing more is fetched until the disk takes writes again.
    pub(super) fn disk_refused(&mut self, error: &Error) {
        let reason = pause_reason(error);
        let now = self.clock.now();
        let known = self.life.trouble.as_ref();
        let wait = known.map_or(PROBE_EVERY, |trouble| match trouble.held_back {
            true => trouble.wait,
            false => Span((trouble.wait.0 * 2).min(PROBE_MAX.0)),
        });
        let (told, held_back, asking) =
            known.map_or((None, false, false), |trouble| (Some(trouble.reason), trouble.held_back, trouble.asking));
        self.life.trouble = Some(Trouble { reason, probe_at: now + wait, wait, held_back: true, asking });
        if !held_back {
            self.feed(Input::Order(Order::HoldFetches));
        }
        if told != Some(reason) {
            self.face().emit(Event::Paused(reason));
        }
    }

    /// Somebody changed a file under us: it is theirs now. What is wrong in it is not served, and nothing is fetched for it again and
    /// again that could never be written.
    pub(super) fn leave_alone(&mut self) {
        if !std::mem::replace(&mut self.life.left_alone, true) {
            self.feed(Input::Order(Order::HoldFetches));
        }
    }

    /// A write went well.
    pub(super) fn disk_took(&mut self) {
        let Some(trouble) = self.life.trouble.take() else { return };
        if trouble.held_back && !self.life.left_alone {
            self.feed(Input::Order(Order::ReleaseFetches));
        }
        self.face().emit(Event::Resumed);
    }

    fn probe_disk(&mut self, now: Time) {
        let Some(trouble) = &mut self.life.trouble else { return };
        if trouble.probe_at > now {
            return;
        }
        trouble.probe_at = now + PROBE_EVERY;
        if !trouble.held_back || trouble.asking {
            return;
        }
        // When the channel is brim-full, the next turn asks.
        let Ok(slot) = self.works.reports.clone().try_reserve_owned() else { return };
        trouble.asking = true;
        self.works.storage.probe(Box::new(move |end| drop(slot.send(Report::DiskProbed(end)))));
    }

    /// The disk's answer to a probe.
    pub(super) fn disk_probed(&mut self, end: Result<(), Error>) {
        let now = self.clock.now();
        let Some(trouble) = &mut self.life.trouble else { return };
        trouble.asking = false;
        match end {
            Err(error) => {
                // The cause may have become another.
                let reason = pause_reason(&error);
                if std::mem::replace(&mut trouble.reason, reason) != reason {
                    self.face().emit(Event::Paused(reason));
                }
            }
            Ok(()) if !trouble.held_back => {}
            // Only the publishing is missing: it is the real test.
            Ok(()) if self.swarm.held().is_full() => self.disk_took(),
            Ok(()) => {
                // The next piece is the real test: its commit says whether the trouble is over.
                trouble.held_back = false;
                trouble.probe_at = now + PROBE_MAX;
                if self.life.left_alone {
                    return;
                }
                self.feed(Input::Order(Order::ReleaseFetches));
            }
        }
    }

    /// Tries the addresses we know of while we are alone or lack something that nobody linked has.
    fn boot(&mut self, now: Time) {
        if self.life.boot_at > now {
            return;
        }
        let first = self.life.boot_wait == BOOT_FIRST;
        let unavailable = !self.swarm.held().is_full() && (self.webs.linked() > 0 || self.swarm.snapshot(now).pieces_unavailable > 0);
        self.life.boot_at = now + self.life.boot_wait;
        if !first && self.links.peer_count() > 0 && !unavailable {
            self.life.boot_wait = Span(BOOT_FIRST.0 + 1);
            return;
        }
        self.life.boot_wait = Span((self.life.boot_wait.0 * 2).min(BOOT_MAX.0));
        self.look_up_names();
        let candidates = self.bootstrap.candidates();
        if !candidates.is_empty() && self.life.leaving.is_none() {
            self.feed(Input::Candidates(candidates));
        }
    }

    /// Looks host names up on a thread that nobody waits for: a resolver that hangs costs one thread and holds up no shutdown.
    fn look_up_names(&mut self) {
        let Some(look_up) = self.bootstrap.look_up() else { return };
        let reports = self.works.reports.clone();
        let work = move || drop(reports.blocking_send(Report::Resolved(look_up())));
        // A machine without room for a thread is asked again at the next try.
        if without_signals(|| std::thread::Builder::new().name("peas-resolve".into()).spawn(work)).is_err() {
            self.bootstrap.resolved(Vec::new());
        }
    }

    fn leave_by_policy(&mut self, now: Time) {
        let Some(whole_at) = self.life.whole_at else { return };
        if self.life.state != State::Sharing || self.life.leaving.is_some() || !self.life.installing {
            return;
        }
        let since = now.since(whole_at);
        let over = match self.life.policy {
            SeedPolicy::Forever => false,
            SeedPolicy::For(time) => since >= Span::from(time),
            SeedPolicy::Ratio(ratio) => {
                let total = self.works.geometry.total_bytes();
                self.swarm.snapshot(now).bytes_sent as f64 >= ratio * total as f64
            }
            SeedPolicy::Leave => {
                let snapshot = self.swarm.snapshot(now);
                let needed = snapshot.links_lacking > 0 && snapshot.pieces_alone > 0;
                since >= STAY_MAX || (!needed && now.since(self.life.served_at.max(whole_at)) >= QUIET) || snapshot.links_lacking == 0
            }
        };
        if over {
            self.leave(GRACE, Instant::now() + GRACE, true);
        }
    }

    /// Renews the picture that the host sees.
    pub(super) fn show(&mut self, now: Time) {
        let snapshot = self.swarm.snapshot(now);
        let total = self.works.geometry.total_bytes();
        let rate = snapshot.receive_bytes_per_s + self.webs.ahead_bytes_per_s(now);
        let missing = total - snapshot.bytes_held;
        let paused = if self.life.host_paused { Some(PauseReason::Host) } else { self.life.trouble.as_ref().map(|trouble| trouble.reason) };
        self.face().show(Progress {
            state: self.life.state,
            paused,
            pieces_done: snapshot.pieces_held,
            pieces_total: snapshot.pieces_total,
            bytes_done: snapshot.bytes_held,
            bytes_total: total,
            bytes_reused: self.life.bytes_reused,
            bytes_from_origin: snapshot.bytes_from_origin,
            bytes_from_peers: snapshot.bytes_from_peers - self.webs.counted(),
            bytes_from_web: self.webs.bytes(),
            bytes_wasted: snapshot.bytes_wasted + self.works.wasted_bytes.load(Ordering::Relaxed),
            bytes_sent: snapshot.bytes_sent,
            receive_bytes_per_s: rate,
            send_bytes_per_s: snapshot.send_bytes_per_s,
            remaining_s: (rate > 0 && missing > 0).then(|| missing as f64 / rate as f64),
            peers: self.links.peer_count() as u32,
            web_sources: self.webs.linked(),
            members: snapshot.members,
            pieces_unavailable: snapshot.pieces_unavailable,
            origin_linked: snapshot.origin_linked,
        });
        let mut picture = self.handle.picture.lock().expect("nothing panics while holding it");
        picture.snapshot = snapshot;
        picture.web = self.webs.picture();
        if self.life.members_at <= now {
            self.life.members_at = now + MEMBERS_EVERY;
            picture.members = self.swarm.members(now, MEMBERS_MAX);
            picture.near = self.links.iter().find(|link| !link.is_web).map(|link| link.addr);
        }
    }

    /// A departure as the host is told.
    pub(super) fn departure(exit: &Exit, tasks_aborted: u32) -> Departure {
        Departure { drained: exit.drained && tasks_aborted == 0, tasks_aborted }
    }
}

fn pause_reason(error: &Error) -> PauseReason {
    if error.code() == 4 { PauseReason::DiskFull } else { PauseReason::DiskError }
}
