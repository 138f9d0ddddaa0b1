//! Work that ends by itself: hashing a folder into a pea, hashing an installation against one, signing. What takes long runs on a thread of its
//! own; the calling thread looks every 100 ms for Ctrl-C and tells the caller's function how far it is.

use crate::errors;
use crate::pea::{RawPea, pea_id};
use peas_core::config::{Access, CreateOptions, Owner};
use peas_core::manifest::{Certificate, Roles};
use peas_core::session::{self, Verified};
use peas_core::{Error, TrustedManifest};
use pyo3::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// How long a blocked call goes without looking for Ctrl-C: quick for a person, nothing for a processor.
pub const SLICE: Duration = Duration::from_millis(100);

/// What a worker says about itself.
#[derive(Default)]
struct Gauge {
    done: AtomicU64,
    total: AtomicU64,
    stop: AtomicBool,
}

impl Gauge {
    fn on_bytes(&self, done: u64, total: u64) -> bool {
        self.done.store(done, Relaxed);
        self.total.store(total, Relaxed);
        !self.stop.load(Relaxed)
    }
}

/// Hashes `source`, writes the pea to `path`.
#[pyfunction]
#[pyo3(signature = (source, path, name, piece_bytes, owners, web, access, authority, channel, release, expires_unix_s, sign_with, threads, on_bytes))]
#[allow(clippy::too_many_arguments, reason = "the package is the only caller, and it names every one of them")]
pub fn create(
    py: Python<'_>,
    source: PathBuf,
    path: PathBuf,
    name: Option<String>,
    piece_bytes: Option<u32>,
    owners: Vec<(String, Option<String>)>,
    web: Vec<String>,
    access: &str,
    authority: Option<[u8; 32]>,
    channel: String,
    release: u64,
    expires_unix_s: u64,
    sign_with: Vec<[u8; 32]>,
    threads: usize,
    on_bytes: Option<Py<PyAny>>,
) -> PyResult<RawPea> {
    let owners = owners.into_iter().map(|owner| owner_of(py, owner)).collect::<PyResult<Vec<Owner>>>()?;
    let access = access_of(py, access, authority)?;
    let options = CreateOptions { name, piece_bytes, owners, web, access, channel, release, expires_unix_s, sign_with, threads };
    attended(py, on_bytes, move |gauge| create_and_write(&source, &path, &options, gauge)).map(RawPea::from)
}

/// Hashes what lies at `place`: (good pieces, bad pieces, bad files).
#[pyfunction]
#[pyo3(signature = (pea, place, on_bytes))]
pub fn verify(py: Python<'_>, pea: &RawPea, place: PathBuf, on_bytes: Option<Py<PyAny>>) -> PyResult<(u32, u32, Vec<String>)> {
    let manifest = pea.manifest.clone();
    let found = attended(py, on_bytes, move |gauge| session::verify(&manifest, &place, &|done, total| gauge.on_bytes(done, total)))?;
    let Verified { pieces_good, pieces_bad, bad_files } = found;
    Ok((pieces_good, pieces_bad, bad_files))
}

/// An authority's word that a key may take part: the certificate.
#[pyfunction]
#[pyo3(signature = (authority, peer, roles, content, not_before_unix_s, not_after_unix_s))]
pub fn admit(
    py: Python<'_>,
    authority: [u8; 32],
    peer: &str,
    roles: Vec<String>,
    content: Option<&str>,
    not_before_unix_s: u64,
    not_after_unix_s: u64,
) -> PyResult<Vec<u8>> {
    let peer = peer.parse().map_err(|error| errors::misuse(py, format!("peer {peer:?}: {error}")))?;
    let content = content.map(|text| pea_id(py, text)).transpose()?;
    let roles = roles.iter().map(|name| role_of(py, name)).collect::<PyResult<Vec<Roles>>>()?;
    let roles = roles.into_iter().reduce(Roles::and).unwrap_or(Roles::ALL);
    let certificate = Certificate { peer, content, roles, not_before_unix_s, not_after_unix_s };
    certificate.issue(&authority).map_err(|error| errors::misuse(py, format!("content: {error}")))
}

/// Reads a pea file, at most the size that a pea may have.
#[pyfunction]
pub fn read_pea(py: Python<'_>, path: PathBuf) -> PyResult<Vec<u8>> {
    py.detach(|| session::read_pea(&path)).map_err(|error| errors::to_python(py, &error))
}

fn create_and_write(source: &Path, path: &Path, options: &CreateOptions, gauge: &Gauge) -> Result<TrustedManifest, Error> {
    let created = session::create(source, options, &|done, total| gauge.on_bytes(done, total))?;
    session::write_pea(path, &created.bytes)?;
    Ok(created.manifest)
}

/// Runs `work` on its own thread and stays reachable meanwhile. Whatever interrupts it (Ctrl-C, an exception in the
/// caller's function) stops the work first, then goes on.
fn attended<T: Send>(py: Python<'_>, on_bytes: Option<Py<PyAny>>, work: impl FnOnce(&Gauge) -> Result<T, Error> + Send) -> PyResult<T> {
    let gauge = Gauge::default();
    let outcome = py.detach(|| {
        std::thread::scope(|scope| {
            let (sender, receiver) = channel();
            let (gauge, on_bytes) = (&gauge, on_bytes.as_ref());
            let worker = scope.spawn(move || {
                let _over = sender;
                work(gauge)
            });
            let mut interrupted = None;
            while matches!(receiver.recv_timeout(SLICE), Err::<(), _>(RecvTimeoutError::Timeout)) {
                if interrupted.is_none() {
                    interrupted = Python::attach(|py| look_around(py, gauge, on_bytes)).err();
                    gauge.stop.store(interrupted.is_some(), Relaxed);
                }
            }
            match (interrupted, worker.join()) {
                (Some(interruption), _) => Err(Ok(interruption)),
                (None, Ok(result)) => result.map_err(Err),
                (None, Err(panic)) => std::panic::resume_unwind(panic),
            }
        })
    });
    outcome.map_err(|failure| match failure {
        Ok(interruption) => interruption,
        Err(error) => errors::to_python(py, &error),
    })
}

fn look_around(py: Python<'_>, gauge: &Gauge, on_bytes: Option<&Py<PyAny>>) -> PyResult<()> {
    py.check_signals()?;
    match on_bytes {
        Some(function) => function.call1(py, (gauge.done.load(Relaxed), gauge.total.load(Relaxed))).map(drop),
        None => Ok(()),
    }
}

fn access_of(py: Python<'_>, name: &str, authority: Option<[u8; 32]>) -> PyResult<Access> {
    match (name, authority) {
        ("open", None) => Ok(Access::Open),
        ("secret", None) => Ok(Access::Secret),
        ("members", Some(authority)) => Ok(Access::Members { authority }),
        ("members", None) => Err(errors::misuse(py, "access 'members' needs their authority's public key".to_owned())),
        ("open" | "secret", Some(_)) => Err(errors::misuse(py, format!("access {name:?} has no authority: it goes with 'members'"))),
        _ => Err(errors::misuse(py, format!("access {name:?}: expected open, secret or members"))),
    }
}

fn role_of(py: Python<'_>, name: &str) -> PyResult<Roles> {
    match name {
        "seed" => Ok(Roles::SEED),
        "fetch" => Ok(Roles::FETCH),
        "relay" => Ok(Roles::RELAY),
        other => Err(errors::misuse(py, format!("role {other:?}: expected seed, fetch or relay"))),
    }
}

fn owner_of(py: Python<'_>, (addr, peer): (String, Option<String>)) -> PyResult<Owner> {
    let peer = peer.map(|text| text.parse()).transpose();
    let peer = peer.map_err(|error| errors::misuse(py, format!("key of owner {addr:?}: {error}")))?;
    Ok(Owner { addr, peer })
}
