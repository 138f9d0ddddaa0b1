//! The engine as Python holds it.

use crate::errors;
use crate::job::{Goal, RawJob};
use crate::pea::RawPea;
use peas_core::config::{Credentials, EngineConfig, InstallOptions, Scope, SeedOptions, SeedPolicy, WebPolicy};
use peas_core::{Engine, Error};
use pyo3::prelude::*;
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// An engine, and the process it was started in: its threads exist in no other.
#[pyclass(frozen, name = "Engine", module = "peas._peas")]
pub struct RawEngine {
    engine: ManuallyDrop<Engine>,
    pid: u32,
}

#[pymethods]
impl RawEngine {
    #[new]
    #[pyo3(signature = (listen, no_listen, identity, upload, download, threads, disk_threads, plain, scope, web_authorities, state_dir))]
    #[allow(clippy::too_many_arguments, reason = "the package is the only caller, and it names every one of them")]
    fn new(
        py: Python<'_>,
        listen: Option<&str>,
        no_listen: bool,
        identity: Option<[u8; 32]>,
        upload: u64,
        download: u64,
        threads: usize,
        disk_threads: usize,
        plain: bool,
        scope: &str,
        web_authorities: Vec<Vec<u8>>,
        state_dir: Option<PathBuf>,
    ) -> PyResult<RawEngine> {
        let config = EngineConfig {
            listen: listen.map(|text| address(py, text)).transpose()?,
            no_listen,
            identity,
            upload_bytes_per_s: upload,
            download_bytes_per_s: download,
            threads,
            disk_threads,
            plain,
            scope: scope_of(py, scope)?,
            web_authorities,
            state_dir,
        };
        let engine = py.detach(|| Engine::new(config)).map_err(|error| errors::to_python(py, &error))?;
        Ok(RawEngine { engine: ManuallyDrop::new(engine), pid: std::process::id() })
    }

    /// This peer's public key, in hexadecimal.
    #[getter]
    fn peer_id(&self) -> String {
        self.engine.peer_id().to_string()
    }

    /// Where links are accepted.
    #[getter]
    fn listen_addr(&self) -> Option<String> {
        self.engine.listen_addr().map(|addr| addr.to_string())
    }

    #[pyo3(signature = (pea, dest, peers, seed, seed_value, from_web, secret, certificate, region, paused, chance))]
    #[allow(clippy::too_many_arguments, reason = "the package is the only caller, and it names every one of them")]
    fn install(
        &self,
        py: Python<'_>,
        pea: &RawPea,
        dest: PathBuf,
        peers: Vec<String>,
        seed: &str,
        seed_value: f64,
        from_web: &str,
        secret: Option<[u8; 32]>,
        certificate: Option<Vec<u8>>,
        region: u32,
        paused: bool,
        chance: Option<u64>,
    ) -> PyResult<RawJob> {
        let seed = policy(py, seed, seed_value)?;
        let (web, credentials) = (web_policy(py, from_web)?, Credentials { secret, certificate });
        let peers = addresses(py, &peers)?;
        let options = InstallOptions { peers, seed, web, credentials, region, paused, chance, ..InstallOptions::default() };
        let engine = self.here(py)?;
        let session = py.detach(|| engine.install(pea.manifest.clone(), &dest, options));
        self.job(py, session, Goal::Install)
    }

    #[pyo3(signature = (pea, source, peers, origin, check_first, secret, certificate, region, chance))]
    #[allow(clippy::too_many_arguments, reason = "the package is the only caller, and it names every one of them")]
    fn share(
        &self,
        py: Python<'_>,
        pea: &RawPea,
        source: PathBuf,
        peers: Vec<String>,
        origin: bool,
        check_first: bool,
        secret: Option<[u8; 32]>,
        certificate: Option<Vec<u8>>,
        region: u32,
        chance: Option<u64>,
    ) -> PyResult<RawJob> {
        let (peers, credentials) = (addresses(py, &peers)?, Credentials { secret, certificate });
        let options = SeedOptions { peers, origin, credentials, check_first, region, chance, ..SeedOptions::default() };
        let engine = self.here(py)?;
        let session = py.detach(|| engine.seed(pea.manifest.clone(), &source, options));
        self.job(py, session, Goal::Share)
    }

    /// 0: no limit.
    fn set_limits(&self, py: Python<'_>, upload: u64, download: u64) -> PyResult<()> {
        self.here(py)?.set_limits(upload, download);
        Ok(())
    }

    /// (upload, download) in force.
    fn limits(&self, py: Python<'_>) -> PyResult<(u64, u64)> {
        Ok(self.here(py)?.limits())
    }

    /// Whether everything ended in time.
    fn close(&self, py: Python<'_>, timeout_s: f64) -> PyResult<bool> {
        let engine = self.here(py)?;
        let timeout = Duration::try_from_secs_f64(timeout_s).map_err(|error| errors::misuse(py, format!("timeout: {error}")))?;
        Ok(py.detach(|| engine.close(timeout)))
    }
}

impl RawEngine {
    fn here(&self, py: Python<'_>) -> PyResult<&Engine> {
        if self.pid == std::process::id() { Ok(&self.engine) } else { Err(errors::closed(py)) }
    }

    fn job(&self, py: Python<'_>, session: Result<peas_core::Session, Error>, goal: Goal) -> PyResult<RawJob> {
        let session = session.map_err(|error| errors::to_python(py, &error))?;
        Ok(RawJob::new(session, self.engine.runtime(), goal))
    }
}

impl Drop for RawEngine {
    /// In the child of a fork the threads do not exist, and to wait for them would be for ever: there the handle is leaked.
    fn drop(&mut self) {
        if self.pid == std::process::id() {
            // SAFETY: `drop` runs once and nobody uses the field afterwards.
            unsafe { ManuallyDrop::drop(&mut self.engine) }
        }
    }
}

pub(crate) fn addresses(py: Python<'_>, texts: &[String]) -> PyResult<Vec<SocketAddr>> {
    texts.iter().map(|text| address(py, text)).collect()
}

fn address(py: Python<'_>, text: &str) -> PyResult<SocketAddr> {
    text.parse()
        .map_err(|_| errors::misuse(py, format!("{text:?} is no address: expected IP:PORT, as in 192.0.2.1:7000 or [2001:db8::1]:7000")))
}

fn scope_of(py: Python<'_>, name: &str) -> PyResult<Scope> {
    match name {
        "auto" => Ok(Scope::Auto),
        "public" => Ok(Scope::Public),
        "any" => Ok(Scope::Any),
        other => Err(errors::misuse(py, format!("scope {other:?}: expected auto, public or any"))),
    }
}

fn web_policy(py: Python<'_>, name: &str) -> PyResult<WebPolicy> {
    match name {
        "starved" => Ok(WebPolicy::WhenStarved),
        "always" => Ok(WebPolicy::Always),
        "never" => Ok(WebPolicy::Never),
        other => Err(errors::misuse(py, format!("from_web {other:?}: expected starved, always or never"))),
    }
}

fn policy(py: Python<'_>, name: &str, value: f64) -> PyResult<SeedPolicy> {
    match name {
        "leave" => Ok(SeedPolicy::Leave),
        "forever" => Ok(SeedPolicy::Forever),
        "ratio" => Ok(SeedPolicy::Ratio(value)),
        "for" => Duration::try_from_secs_f64(value).map(SeedPolicy::For).map_err(|error| errors::misuse(py, error.to_string())),
        other => Err(errors::misuse(py, format!("no way to share: {other:?}"))),
    }
}
