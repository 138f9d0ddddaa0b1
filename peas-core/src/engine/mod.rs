//! The production driver: carries facts to the swarm machine and its requests to sockets and disks. Chooses nothing.
//!
//! Tasks and who ends them:
//! - `accept`: one loop per engine; a task per newcomer until its hello is answered, bounded by the transport's door.
//! - `driver`: one per session; owns the machine by value. It never waits for anything but its inputs.
//! - `reader`, `writer`: two per link; ended by the link's token, which the driver cancels.
//! - `web_link`: one per web source at work, with a task below it per connection; ended as a link is.
//! - `dial`: at most [`dial::DIALS_MAX`] per session.
//!
//! All are in one tracker and below one token. Disk threads belong to storage, and `disks` counts the storages that have not let go; name
//! look-ups belong to nobody (`discovery`).
//! Shutdown: each driver says goodbye, serves on for half of its grace, cancels its links, closes its storage on a thread that
//! is left behind when time is up; then the token is cancelled, the runtime is shut down with a limit, and the disks are waited for.
//!
//! What must not come in: an `if` that chooses whom or which. What happens when we run out of something (disk, descriptors,
//! queue places) is decided here, because the machine does not know these things.

mod accept;
mod access;
mod assembly;
mod budget;
mod clock;
mod dial;
mod disks;
mod driver;
mod face;
mod life;
mod links;
mod reader;
mod recorder;
mod runtime;
mod scope;
mod task;
mod throttle;
mod turns;
mod web;
mod web_link;
mod works;
mod writer;

pub(crate) use clock::unix_s;
pub(crate) use runtime::without_signals;
#[cfg(feature = "fuzzing")]
pub(crate) use scope::may_dial;
pub(crate) use task::{Handle, Place, Task, check_access, run};

use crate::Error;
use crate::config::{EngineConfig, Scope};
use crate::source::Tls;
use crate::transport::{Identity, LinkOf, TcpOptions, TcpTransport, Transport, descriptors_max};
use crate::unit::{PeaId, PeerId};
use crate::wire::Hello;
use access::{Admitted, Lock, Meeting};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use throttle::Throttle;
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The transport of this engine. The link tasks do not name it.
pub(crate) type Net = TcpTransport;
type NetLink = LinkOf<Net>;

/// How long a handshake, and after it a hello, may take.
const GREETING_MAX: Duration = Duration::from_secs(10);

/// How long a newcomer waits for a session that is being opened: most are within a moment, and he who calls has others to call.
const OPENING_MAX: Duration = Duration::from_secs(3);

/// Version of the protocol that our hello names.
const PROTOCOL_VERSION: u16 = 1;

/// Links that wait for their session's driver.
const NEWCOMERS_MAX: usize = 32;

/// Three eighths of the descriptors may be links, 4,096 at most: a quarter is for strangers in the door, the rest for files and for the
/// host.
fn links_max(descriptors_max: usize) -> usize {
    (descriptors_max / 8 * 3).clamp(8, 4096)
}

/// A link whose hellos are exchanged, on its way to a driver.
struct Newcomer {
    link: NetLink,
    admitted: Admitted,
    /// Where we dialled; `None`: it came to us.
    dialed: Option<SocketAddr>,
    place: OwnedSemaphorePermit,
}

/// A session as seen by the door.
#[derive(Clone)]
struct Room {
    lock: Arc<Lock>,
    hello: Hello,
    newcomers: mpsc::Sender<Newcomer>,
}

/// What all sessions of an engine share.
pub(crate) struct Shared {
    pub(crate) me: PeerId,
    pub(crate) identity: Identity,
    transport: Net,
    pub(crate) handle: tokio::runtime::Handle,
    pub(crate) tracker: TaskTracker,
    pub(crate) token: CancellationToken,
    upload: Arc<Throttle>,
    turns: Arc<turns::Turns>,
    download: Arc<Throttle>,
    /// (upload, download) in bytes per second, for drivers that plan by them.
    limits: watch::Sender<(u64, u64)>,
    /// `None`: being opened.
    rooms: watch::Sender<HashMap<PeaId, Option<Room>>>,
    /// Links that may still be made, by all sessions together.
    links: Arc<Semaphore>,
    scope: Scope,
    web_tls: Arc<Tls>,
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) disk_threads: usize,
    /// Those that sessions have not let go of.
    pub(crate) disks: Arc<disks::Disks>,
    /// When a close in progress must be over.
    pub(crate) close_by: OnceLock<Instant>,
    /// What sessions had to leave behind so far.
    pub(crate) aborted: AtomicU32,
}

impl Shared {
    /// Binds the listener and starts to accept. `handle` must drive time and sockets.
    pub(crate) fn start(handle: tokio::runtime::Handle, config: EngineConfig) -> Result<Arc<Shared>, Error> {
        let identity = config.identity.map_or_else(Identity::generate, Identity::from_secret);
        let listen = (!config.no_listen).then(|| config.listen.unwrap_or((Ipv4Addr::UNSPECIFIED, 0).into()));
        let transport = {
            let _inside = handle.enter();
            TcpTransport::new(&identity, &TcpOptions { listen, plain: config.plain }).map_err(|source| {
                let path = listen.map_or_else(PathBuf::new, |addr| addr.to_string().into());
                Error::Storage { op: "listen on", path, source }
            })?
        };
        let outlet = transport.outlet().clone();
        let shared = Arc::new(Shared {
            me: identity.peer_id(),
            identity,
            transport,
            handle,
            tracker: TaskTracker::new(),
            token: CancellationToken::new(),
            upload: Arc::new(Throttle::new(config.upload_bytes_per_s)),
            turns: Arc::new(turns::Turns::new(move || outlet.queued_bytes())),
            download: Arc::new(Throttle::new(config.download_bytes_per_s)),
            limits: watch::channel((config.upload_bytes_per_s, config.download_bytes_per_s)).0,
            rooms: watch::Sender::default(),
            links: Arc::new(Semaphore::new(links_max(descriptors_max()))),
            scope: config.scope,
            web_tls: Arc::new(Tls::new(config.web_authorities)),
            state_dir: config.state_dir,
            disk_threads: if config.disk_threads == 0 { 2 } else { config.disk_threads },
            disks: Arc::default(),
            close_by: OnceLock::new(),
            aborted: AtomicU32::new(0),
        });
        if listen.is_some() {
            shared.tracker.spawn_on(accept::accept_all(shared.clone()), &shared.handle);
        }
        Ok(shared)
    }

    pub(crate) fn listen_addr(&self) -> Option<SocketAddr> {
        self.transport.listen_addr()
    }

    pub(crate) fn set_limits(&self, upload_bytes_per_s: u64, download_bytes_per_s: u64) {
        self.upload.set(upload_bytes_per_s);
        self.download.set(download_bytes_per_s);
        self.limits.send_replace((upload_bytes_per_s, download_bytes_per_s));
    }

    pub(crate) fn limits(&self) -> (u64, u64) {
        (self.upload.get(), self.download.get())
    }

    /// Takes the only place for this content; false if another session of this engine has it.
    pub(crate) fn reserve(&self, content: PeaId) -> bool {
        let entry = |rooms: &mut HashMap<_, _>| {
            let free = !rooms.contains_key(&content);
            if free {
                rooms.insert(content, None);
            }
            free
        };
        self.rooms.send_if_modified(entry)
    }

    /// The right to one more link, while there is one; given back when dropped.
    fn place_for_link(&self) -> Option<OwnedSemaphorePermit> {
        self.links.clone().try_acquire_owned().ok()
    }

    fn open_room(&self, content: PeaId, room: Room) {
        self.rooms.send_modify(|rooms| drop(rooms.insert(content, Some(room))));
    }

    pub(crate) fn close_room(&self, content: PeaId) {
        self.rooms.send_modify(|rooms| drop(rooms.remove(&content)));
    }

    /// The session that a hello means. While a session is being opened it may be the one, and is waited for.
    async fn room(&self, hello: &Hello, at: &Meeting) -> Option<Room> {
        let mut meant = None;
        let mut rooms = self.rooms.subscribe();
        let known = rooms.wait_for(|rooms| {
            meant = rooms.values().flatten().find(|room| room.lock.is_meant(hello, at)).cloned();
            meant.is_some() || rooms.values().all(Option::is_some)
        });
        let _ = tokio::time::timeout(OPENING_MAX, known).await;
        meant
    }
}

/// Threads of our own for an engine.
pub(crate) fn build_runtime(threads: usize) -> Result<Runtime, Error> {
    let failed = |source| Error::Storage { op: "start", path: PathBuf::from("threads"), source };
    runtime::build(threads).map_err(failed)
}

/// Chance from the system, for those who did not bring their own.
pub(crate) fn chance() -> u64 {
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        // A system without randomness: choices differ from run to run all the same. They are no secrets.
        Err(_) => unix_s().wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(std::process::id()),
    }
}
