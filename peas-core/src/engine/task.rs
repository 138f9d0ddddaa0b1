//! A session from its first look at the disk to its last word.
//!
//! What the host's side and the driver's side share lives here, and the frame around the driver: opening the disk before it,
//! ending links and storage after it, and the wall that a panic does not pass.

use super::access::Lock;
use super::clock::unix_s;
use super::disks::DiskInUse;
use super::driver::Driver;
use super::face::Face;
use super::life::{Exit, Wish};
use super::recorder::Recorder;
use super::throttle::Throttle;
use super::web::WebPicture;
use super::{Shared, without_signals};
use crate::Error;
use crate::config::{Credentials, SeedPolicy, WebPolicy};
use crate::discovery::Remembered;
use crate::event::{Departure, Progress, State};
use crate::manifest::TrustedManifest;
use crate::storage::{Opened, Storage, StorageOptions};
use crate::swarm::{Fault, Input, Limits, Order, Role, Snapshot};
use crate::unit::PeerId;
use crate::wire::MemberRecord;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Piece buffers that storage keeps for reuse.
const POOLED_BYTES_MAX: u64 = 16 << 20;

/// How long a check of the disk that was told to stop is waited for; it looks up after each piece. Beyond it, it is left behind.
const STOP_MAX: Duration = Duration::from_secs(1);

/// When an engine is dropped and not closed: how long its sessions may take.
const DROPPED_MAX: Duration = Duration::from_secs(2);

/// Where a session's bytes lie.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// To be made here.
    Install(PathBuf),
    /// To be served from here.
    Seed { source: PathBuf, check_first: bool },
}

/// What a session is to do.
pub(crate) struct Task {
    pub(crate) pea: Arc<TrustedManifest>,
    pub(crate) place: Place,
    pub(crate) policy: SeedPolicy,
    pub(crate) peers: Vec<SocketAddr>,
    pub(crate) limits: Limits,
    pub(crate) region: u32,
    pub(crate) role: Role,
    pub(crate) chance: u64,
    pub(crate) web: WebPolicy,
    pub(crate) credentials: Credentials,
}

/// What the host's side and the driver's side share.
pub(crate) struct Handle {
    pub(crate) wish: watch::Sender<Wish>,
    pub(crate) face: Face,
    pub(crate) picture: Mutex<Picture>,
    pub(super) recorder: Option<Recorder>,
    pub(super) upload: Arc<Throttle>,
    pub(super) download: Arc<Throttle>,
}

/// Slow facts for whoever asks.
#[derive(Default)]
pub(crate) struct Picture {
    pub(crate) snapshot: Snapshot,
    pub(crate) members: Vec<MemberRecord>,
    pub(crate) web: Vec<WebPicture>,
    /// Address of some linked peer.
    pub(crate) near: Option<SocketAddr>,
    pub(crate) departure: Option<Departure>,
}

impl Handle {
    pub(crate) fn new(paused: bool, record: bool) -> Self {
        Self {
            wish: watch::channel(Wish { paused, ..Wish::default() }).0,
            face: Face::default(),
            picture: Mutex::default(),
            recorder: record.then(Recorder::default),
            upload: Arc::new(Throttle::new(0)),
            download: Arc::new(Throttle::new(0)),
        }
    }

    pub(crate) fn set_limits(&self, upload_bytes_per_s: u64, download_bytes_per_s: u64) {
        self.upload.set(upload_bytes_per_s);
        self.download.set(download_bytes_per_s);
        self.wish.send_modify(|wish| wish.limits = (upload_bytes_per_s, download_bytes_per_s));
    }

    pub(crate) fn flight_record(&self) -> String {
        self.recorder.as_ref().map(Recorder::text).unwrap_or_default()
    }
}

impl Task {
    /// How the session will know its own.
    pub(super) fn lock(&self, me: PeerId) -> Result<Lock, Error> {
        Lock::new(&self.pea, &self.credentials, me, matches!(self.place, Place::Install(_)), unix_s())
    }
}

/// Whether a task has what its swarm asks for.
pub(crate) fn check_access(shared: &Shared, task: &Task) -> Result<(), Error> {
    task.lock(shared.me).map(drop)
}

/// How a session came out.
pub(crate) struct Ending {
    failure: Option<Error>,
    departure: Departure,
}

/// Runs a session to its end, whatever happens in it: a panic ends this session alone.
pub(crate) async fn run(shared: Arc<Shared>, handle: Arc<Handle>, task: Task, disk: DiskInUse) {
    let content = task.pea.id();
    let ending = contained(session(shared.clone(), handle.clone(), task, disk)).await;
    shared.close_room(content);
    shared.aborted.fetch_add(ending.departure.tasks_aborted, Ordering::Relaxed);
    handle.picture.lock().expect("nothing panics while holding it").departure = Some(ending.departure);
    handle.face.end(ending.failure);
}

/// The wall that a panic does not pass: it becomes the ending of this one session.
async fn contained(session: impl Future<Output = Ending> + Send + 'static) -> Ending {
    tokio::spawn(session).await.unwrap_or_else(|error| Ending {
        failure: error.is_panic().then(|| Error::Internal { place: "driver".into() }),
        departure: Departure { drained: false, tasks_aborted: 1 },
    })
}

async fn session(shared: Arc<Shared>, handle: Arc<Handle>, task: Task, disk: DiskInUse) -> Ending {
    let gone = |failure| Ending { failure, departure: Departure { drained: true, tasks_aborted: 0 } };
    handle.face.show(Progress {
        state: State::Checking,
        pieces_total: task.pea.geometry().piece_count(),
        bytes_total: task.pea.geometry().total_bytes(),
        ..Progress::default()
    });
    let mut wish = handle.wish.subscribe();
    let stop = Arc::new(AtomicBool::new(false));
    let mut opening = tokio::task::spawn_blocking({
        let (pea, place, stop, threads) = (task.pea.clone(), task.place.clone(), stop.clone(), shared.disk_threads);
        move || {
            let opened = without_signals(|| open(pea, &place, threads, &stop));
            opened.inspect(|opened| opened.storage.keep_until_closed(Box::new(disk)))
        }
    });
    let opened = tokio::select! {
        opened = &mut opening => match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => return gone(Some(error)),
            Err(_) => return gone(Some(Error::Internal { place: "opening".into() })),
        },
        () = told_to_go(&mut wish, &shared.token) => {
            stop.store(true, Ordering::Relaxed);
            // Whoever closes the engine said how long it may take.
            let until = shared.close_by.get().copied().unwrap_or_else(|| Instant::now() + STOP_MAX);
            let let_go = async {
                match (&mut opening).await {
                    Ok(Ok(opened)) => let_go(opened.storage, until).await,
                    _ => true,
                }
            };
            let tasks_aborted = u32::from(!tokio::time::timeout_at(until, let_go).await.unwrap_or(false));
            return Ending { failure: None, departure: Departure { drained: true, tasks_aborted } };
        }
    };
    // It was fine when the session was started; a certificate may have ended since.
    let lock = match task.lock(shared.me) {
        Ok(lock) => Arc::new(lock),
        Err(error) => {
            let_go(opened.storage, Instant::now() + STOP_MAX).await;
            return gone(Some(error));
        }
    };
    let remembered = shared.state_dir.as_ref().map(|dir| Remembered::new(dir, task.pea.id()));
    let mut driver = Driver::new(shared, handle, task, lock, &opened, remembered.as_ref(), wish);
    let _guard = driver.token.clone().drop_guard();
    let exit = driver.run(opened.installed, opened.room_short).await;
    driver.finish(exit, opened.storage, remembered).await
}

/// Closes a storage that nothing was done with. False: the disk hangs. Dropped half-way the storage closes all the same.
async fn let_go(storage: Storage, until: Instant) -> bool {
    let left = until.saturating_duration_since(Instant::now());
    tokio::task::spawn_blocking(move || storage.close(left)).await.unwrap_or(false)
}

fn open(pea: Arc<TrustedManifest>, place: &Place, threads: usize, stop: &AtomicBool) -> Result<Opened, Error> {
    let options = StorageOptions { threads, pooled_bytes_max: POOLED_BYTES_MAX };
    let on_bytes = |_, _| !stop.load(Ordering::Relaxed);
    match place {
        Place::Install(dest) => Storage::open_install(pea, dest, &options, &on_bytes),
        Place::Seed { source, check_first } => Storage::open_seed(pea, source, *check_first, &options, &on_bytes),
    }
}

async fn told_to_go(wish: &mut watch::Receiver<Wish>, token: &CancellationToken) {
    tokio::select! {
        () = token.cancelled() => {}
        _ = wish.wait_for(|wish| wish.cancel || wish.leave.is_some()) => {}
    }
}

impl Driver {
    /// The exit when the engine is closed.
    pub(super) fn closed(&mut self) -> Exit {
        self.feed(Input::Order(Order::Leave));
        let deadline = self.shared.close_by.get().copied().unwrap_or_else(|| Instant::now() + DROPPED_MAX);
        Exit { failure: None, drained: false, deadline }
    }

    /// Ends links and storage, never later than the exit's deadline.
    async fn finish(mut self, exit: Exit, storage: Storage, remembered: Option<Remembered>) -> Ending {
        let now = self.clock.now();
        self.show(now);
        self.shared.close_room(self.works.pea.id());
        self.links.peers().into_iter().for_each(|peer| self.links.end(peer, Some(Fault::Leaving)));
        if let (Some(remembered), members) = (remembered, self.swarm.members(now, 64))
            && !members.is_empty()
        {
            // On a thread that nobody waits for: a slow start is all that hangs on it.
            self.tracker.spawn_blocking(move || remembered.store(&members));
        }
        self.tracker.close();
        self.reports.close();
        self.news.close();
        // Goodbyes get a part of the time that is left, the disk the rest.
        let left = exit.deadline.saturating_duration_since(Instant::now());
        let _ = tokio::time::timeout(left / 4, self.tracker.wait()).await;
        self.token.cancel();
        let left = exit.deadline.saturating_duration_since(Instant::now());
        let closing = tokio::task::spawn_blocking(move || storage.close(left));
        let closed = tokio::time::timeout_at(exit.deadline, async {
            self.tracker.wait().await;
            closing.await.unwrap_or(false)
        });
        let closed = closed.await.unwrap_or(false);
        let tasks_aborted = self.tracker.len() as u32 + u32::from(!closed);
        Ending { departure: Self::departure(&exit, tasks_aborted), failure: exit.failure }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_the_end_of_one_session_and_of_nothing_else() {
        let ending = contained(async { panic!("a bug of ours") }).await;
        assert_eq!(ending.failure.unwrap().code(), 10);
        let fine = contained(async { Ending { failure: None, departure: Departure { drained: true, tasks_aborted: 0 } } }).await;
        assert!(fine.failure.is_none(), "the control");
    }
}
