//! The public face: an engine, its sessions, and the plain calls that make and check peas.
//!
//! Thin: options are checked here and handed on; everything that runs is in the engine's room. No call here blocks unless its
//! text says so, and no code of the host's ever runs on a thread that does our work.

mod create;
mod trust;
mod verify;

pub use crate::event::Departure;
pub use create::{Created, create, read_pea, write_pea};
pub use trust::TrustState;
pub use verify::{Verified, verify};

use crate::Error;
use crate::config::{EngineConfig, InstallOptions, SeedOptions, SeedPolicy, WebPolicy};
use crate::engine::{self, Handle, Place, Shared, Task};
use crate::event::{Event, Progress};
use crate::manifest::{OwnerHint, TrustedManifest, owner_hint_message};
use crate::swarm::Role;
use crate::unit::PeerId;
use crate::wire::MemberRecord;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Most owners that a refreshed pea names.
const OWNERS_MAX: usize = 64;

/// Seconds for which our own entry in a refreshed pea is good.
const OWNER_TTL_S: u32 = 600;

/// Most addresses that a host may add to a session.
const PEERS_MAX: usize = 256;

/// Threads, a listener, an identity, a bandwidth budget. Any number per process. Cheap to clone (a handle).
///
/// When the last handle and the last session are dropped everything ends without waiting; use [`close`](Engine::close) to wait.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    /// Our own, until it is shut down; `None` on a host's runtime.
    runtime: Mutex<Option<Runtime>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.token.cancel();
        if let Ok(Some(runtime)) = self.runtime.get_mut().map(Option::take) {
            runtime.shutdown_background();
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("peer", &self.peer_id()).field("listen", &self.listen_addr()).finish_non_exhaustive()
    }
}

impl Engine {
    /// With its own threads (they block all signals). Binds the listener before it returns. Blocking.
    ///
    /// # Errors
    /// [`Error::Storage`] when threads cannot be started or the address cannot be listened on.
    pub fn new(config: EngineConfig) -> Result<Engine, Error> {
        let runtime = engine::build_runtime(config.threads)?;
        match Shared::start(runtime.handle().clone(), config) {
            Ok(shared) => Ok(Engine { inner: Arc::new(Inner { shared, runtime: Mutex::new(Some(runtime)) }) }),
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    /// On a runtime of the host's (needs its time and io drivers).
    ///
    /// # Errors
    /// As [`new`](Engine::new).
    pub fn on(runtime: tokio::runtime::Handle, config: EngineConfig) -> Result<Engine, Error> {
        let shared = Shared::start(runtime, config)?;
        Ok(Engine { inner: Arc::new(Inner { shared, runtime: Mutex::new(None) }) })
    }

    /// Who we are to others: the public half of our identity.
    pub fn peer_id(&self) -> PeerId {
        self.inner.shared.me
    }

    /// Where links are accepted; `None` with `no_listen`.
    pub fn listen_addr(&self) -> Option<SocketAddr> {
        self.inner.shared.listen_addr()
    }

    /// The runtime that drives the engine; for bindings that forward events.
    pub fn runtime(&self) -> tokio::runtime::Handle {
        self.inner.shared.handle.clone()
    }

    /// Makes `dest` what the pea says: resumes, repairs, receives. Returns at once; opening and checking the disk happen on
    /// threads of the engine, and their errors arrive as `Event::Failed`. The bytes at `dest` appear under their final
    /// names only when all is verified and durable.
    ///
    /// # Errors
    /// [`Error::Misuse`] for options that make no sense or a second session of the same content, [`Error::Closed`].
    pub fn install(&self, pea: Arc<TrustedManifest>, dest: &Path, options: InstallOptions) -> Result<Session, Error> {
        if let SeedPolicy::Ratio(ratio) = options.seed
            && !(ratio.is_finite() && ratio >= 0.0)
        {
            return Err(Error::Misuse("the ratio to seed to must be a number that is not negative".into()));
        }
        let handle = Arc::new(Handle::new(options.paused, options.record));
        let task = Task {
            pea,
            place: Place::Install(dest.to_path_buf()),
            policy: options.seed,
            peers: options.peers,
            limits: options.limits,
            region: options.region,
            role: Role::Peer,
            chance: options.chance.unwrap_or_else(engine::chance),
            web: options.web,
            credentials: options.credentials,
        };
        self.start(handle, task)
    }

    /// Serves what lies at `source`, which must be what the pea says.
    ///
    /// # Errors
    /// As [`install`](Engine::install); what is wrong with the source arrives as `Event::Failed`.
    pub fn seed(&self, pea: Arc<TrustedManifest>, source: &Path, options: SeedOptions) -> Result<Session, Error> {
        let handle = Arc::new(Handle::new(false, false));
        let task = Task {
            pea,
            place: Place::Seed { source: source.to_path_buf(), check_first: options.check_first },
            policy: SeedPolicy::Forever,
            peers: options.peers,
            limits: options.limits,
            region: options.region,
            role: if options.origin { Role::Origin } else { Role::Peer },
            chance: options.chance.unwrap_or_else(engine::chance),
            web: WebPolicy::Never,
            credentials: options.credentials,
        };
        self.start(handle, task)
    }

    fn start(&self, handle: Arc<Handle>, task: Task) -> Result<Session, Error> {
        let shared = &self.inner.shared;
        // Before the look at the token: a close that this look does not see waits for it.
        let disk = shared.disks.take();
        if shared.token.is_cancelled() {
            return Err(Error::Closed);
        }
        let limits = &task.limits;
        if limits.neighbors == 0 || limits.links_max == 0 || limits.fetches_max == 0 || limits.uploads_max == 0 {
            return Err(Error::Misuse("neighbors, links, fetches and uploads must be allowed at least one each".into()));
        }
        engine::check_access(shared, &task)?;
        if !shared.reserve(task.pea.id()) {
            return Err(Error::Misuse("this engine already has a session of this content".into()));
        }
        let pea = task.pea.clone();
        shared.tracker.spawn_on(engine::run(shared.clone(), handle.clone(), task, disk), &shared.handle);
        Ok(Session { engine: self.clone(), handle, pea })
    }

    /// 0: no limit. Takes effect within 100 ms.
    pub fn set_limits(&self, upload_bytes_per_s: u64, download_bytes_per_s: u64) {
        self.inner.shared.set_limits(upload_bytes_per_s, download_bytes_per_s);
    }

    /// (upload, download) in force.
    pub fn limits(&self) -> (u64, u64) {
        self.inner.shared.limits()
    }

    /// Ends all sessions and threads. True: all was done in time, and whatever was installed or served here is free for another engine or
    /// process; false: something hung and was left behind. From any state, never later than `timeout` + 100 ms. Blocking: not from a
    /// thread of the runtime.
    pub fn close(&self, timeout: Duration) -> bool {
        let start = Instant::now();
        let left = || timeout.saturating_sub(start.elapsed());
        let shared = &self.inner.shared;
        // Sessions end a little earlier, so that threads have time to end, too.
        shared.close_by.get_or_init(|| tokio::time::Instant::now() + timeout.mul_f64(0.9));
        shared.token.cancel();
        shared.tracker.close();
        let (done_tx, done) = std::sync::mpsc::channel();
        let tracker = shared.tracker.clone();
        if !tracker.is_empty() {
            shared.handle.spawn(async move {
                tracker.wait().await;
                // The receiver is gone when time is up.
                let _ = done_tx.send(());
            });
        }
        let in_time = shared.tracker.is_empty() || done.recv_timeout(left()).is_ok();
        let runtime = self.inner.runtime.lock().expect("nothing panics while holding it").take();
        if let Some(runtime) = runtime {
            runtime.shutdown_timeout(left());
        }
        let let_go = shared.disks.wait(left());
        in_time && let_go && shared.aborted.load(Ordering::Relaxed) == 0 && start.elapsed() < timeout.max(Duration::from_millis(1))
    }
}

/// One content at work. Dropping it cancels the session (what is verified stays on disk).
pub struct Session {
    engine: Engine,
    handle: Arc<Handle>,
    pea: Arc<TrustedManifest>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("content", &self.pea.id()).field("progress", &self.progress()).finish_non_exhaustive()
    }
}

impl Session {
    /// Never blocks.
    pub fn progress(&self) -> Progress {
        self.handle.face.progress()
    }

    /// The next event; `None` when the session is over and all were taken. Safe to drop half-way.
    pub async fn next_event(&self) -> Option<Event> {
        self.handle.face.next_event().await
    }

    /// The next event if one waits.
    pub fn try_next_event(&self) -> Option<Event> {
        self.handle.face.try_next_event()
    }

    /// Blocks the calling thread (not one of the runtime's) until there is an event, the session is over, or time is up.
    pub fn next_event_timeout(&self, timeout: Duration) -> Option<Event> {
        self.handle.face.next_event_timeout(timeout)
    }

    /// Whether the session is over. Events may still wait.
    pub fn is_ended(&self) -> bool {
        self.handle.face.is_ended()
    }

    /// Until installed (Ok) or over. Takes no event. Safe to drop half-way; may be called by several.
    ///
    /// # Errors
    /// What ended the session before it was installed; [`Error::Cancelled`] if it was left.
    pub async fn wait_installed(&self) -> Result<(), Error> {
        self.handle.face.wait_installed().await
    }

    /// Until the session is over. Takes no event. Safe to drop half-way.
    pub async fn wait_ended(&self) {
        self.handle.face.wait_ended().await;
    }

    /// As [`wait_ended`](Session::wait_ended) for threads. False: time is up.
    pub fn wait_ended_timeout(&self, timeout: Duration) -> bool {
        self.handle.face.wait_ended_timeout(timeout)
    }

    /// As [`wait_installed`](Session::wait_installed) for threads; `None`: time is up.
    pub fn wait_installed_timeout(&self, timeout: Duration) -> Option<Result<(), Error>> {
        self.handle.face.wait_installed_timeout(timeout)
    }

    /// Resolves when `progress()` may have changed (at most 10 times a second), or the session is over.
    pub async fn progress_changed(&self) {
        self.handle.face.progress_changed().await;
    }

    /// Neither asks nor serves until resumed; links stay.
    pub fn pause(&self) {
        self.handle.wish.send_modify(|wish| wish.paused = true);
    }

    /// Goes on.
    pub fn resume(&self) {
        self.handle.wish.send_modify(|wish| wish.paused = false);
    }

    /// Own limits within the engine's; 0: only the engine's.
    pub fn set_limits(&self, upload_bytes_per_s: u64, download_bytes_per_s: u64) {
        self.handle.set_limits(upload_bytes_per_s, download_bytes_per_s);
    }

    /// More addresses to try. Those beyond 256 in all are ignored.
    pub fn add_peers(&self, peers: &[SocketAddr]) {
        self.handle.wish.send_modify(|wish| {
            let room = PEERS_MAX.saturating_sub(wish.peers.len());
            wish.peers.extend(peers.iter().take(room));
        });
    }

    /// What is installed or served.
    pub fn pea(&self) -> &Arc<TrustedManifest> {
        &self.pea
    }

    /// The pea file with a fresh owners tail: live members, this peer included, expired ones dropped; signed bytes untouched.
    /// Entries of others carry no signature: they are addresses to try, and no more.
    pub fn refreshed_pea(&self) -> Vec<u8> {
        let (members, near, held, total) = {
            let picture = self.handle.picture.lock().expect("nothing panics while holding it");
            (picture.members.clone(), picture.near, picture.snapshot.pieces_held, picture.snapshot.pieces_total)
        };
        let mut hints: Vec<OwnerHint> = self.own_record(near, held, total).into_iter().map(|record| self.signed(record)).collect();
        let live = members.into_iter().filter(|member| member.age_s < member.ttl_s);
        hints.extend(live.map(|record| OwnerHint { record, signature: [0; 64] }));
        hints.truncate(OWNERS_MAX);
        self.pea.with_owner_hints(&hints)
    }

    fn own_record(&self, near: Option<SocketAddr>, held: u32, total: u32) -> Option<MemberRecord> {
        let mut addr = self.engine.listen_addr()?;
        if addr.ip().is_unspecified() {
            // The address from which our packets to a peer leave. Connecting a datagram socket sends nothing.
            let near = near?;
            let socket = UdpSocket::bind(if near.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).ok()?;
            socket.connect(near).ok()?;
            addr.set_ip(socket.local_addr().ok()?.ip());
        }
        let held_permille = (u64::from(held) * 1000).checked_div(total.into()).unwrap_or(1000) as u16;
        let peer = self.engine.peer_id().0;
        Some(MemberRecord { peer, addr, epoch: engine::unix_s(), age_s: 0, ttl_s: OWNER_TTL_S, held_permille, region: 0 })
    }

    fn signed(&self, record: MemberRecord) -> OwnerHint {
        let signature = self.engine.inner.shared.identity.sign(&owner_hint_message(self.pea.id(), &record));
        OwnerHint { record, signature }
    }

    /// Statistics as JSON: fields are only ever added.
    pub fn stats_json(&self) -> String {
        let progress = self.progress();
        let (snapshot, web, listen) = {
            let picture = self.handle.picture.lock().expect("nothing panics while holding it");
            (picture.snapshot, picture.web.clone(), self.engine.listen_addr())
        };
        serde_json::json!({
            "content": self.pea.id().to_string(),
            "name": self.pea.name(),
            "peer": self.engine.peer_id().to_string(),
            "listen": listen.map(|addr| addr.to_string()),
            "state": format!("{:?}", progress.state).to_lowercase(),
            "paused": progress.paused.map(|reason| format!("{reason:?}").to_lowercase()),
            "pieces_done": progress.pieces_done,
            "pieces_total": progress.pieces_total,
            "bytes_done": progress.bytes_done,
            "bytes_total": progress.bytes_total,
            "bytes_reused": progress.bytes_reused,
            "bytes_from_origin": progress.bytes_from_origin,
            "bytes_from_peers": progress.bytes_from_peers,
            "bytes_from_web": progress.bytes_from_web,
            "web": web,
            "bytes_wasted": progress.bytes_wasted,
            "bytes_sent": progress.bytes_sent,
            "receive_bytes_per_s": progress.receive_bytes_per_s,
            "send_bytes_per_s": progress.send_bytes_per_s,
            "remaining_s": progress.remaining_s,
            "peers": progress.peers,
            "peers_lacking": snapshot.links_lacking,
            "members": progress.members,
            "banned": snapshot.banned,
            "pieces_unavailable": progress.pieces_unavailable,
            "pieces_alone": snapshot.pieces_alone,
            "origin_linked": progress.origin_linked,
        })
        .to_string()
    }

    /// The last inputs of the machine, a line each, if the session was started with `record`.
    pub fn flight_record(&self) -> String {
        self.handle.flight_record()
    }

    /// Says goodbye, serves until `grace`/2, flushes the journal, aborts what is left at `grace`. Returns in time from any state.
    pub async fn leave(self, grace: Duration) -> Departure {
        let handle = self.handle.clone();
        handle.wish.send_modify(|wish| {
            wish.leave.get_or_insert((tokio::time::Instant::now(), grace));
        });
        let ended = {
            let handle = handle.clone();
            // On the engine's own timers, so that any executor may wait for it.
            let runtime = self.engine.runtime();
            runtime.spawn(async move { tokio::time::timeout(grace, handle.face.wait_ended()).await.is_ok() })
        };
        let ended = ended.await.unwrap_or(false);
        let departure = handle.picture.lock().expect("nothing panics while holding it").departure;
        departure.filter(|_| ended).unwrap_or(Departure { drained: false, tasks_aborted: 1 })
    }

    /// Asks the session to end, without waiting: `Left` follows.
    pub fn cancel(&self) {
        self.handle.wish.send_modify(|wish| wish.cancel = true);
    }
}

/// Progress of hashing, and the chance to stop it: called every few MiB with (bytes done, bytes total), returns false to stop.
pub type OnBytes<'a> = &'a (dyn Fn(u64, u64) -> bool + Sync);
