//! A session as Python holds it: snapshots, waits in slices, and a way to be called when something changes.

use crate::engine::addresses;
use crate::errors;
use crate::work::SLICE;
use peas_core::{Error, Event, PauseReason, Progress, Session, State};
use pyo3::prelude::*;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// When a job has done what it was made for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// The content is in place.
    Install,
    /// The session is over.
    Share,
}

/// A fact for Python: kind, number, text.
type Fact = (&'static str, u64, String);

/// The numbers of a `Progress`, in the order of the Python class.
type Numbers =
    ((u8, Option<&'static str>, u32, u32, u64, u64, u64), (u64, u64, u64, u64, u64, u64, u64), (Option<f64>, u32, u32, u32, u32, bool));

/// A session. Dropping it cancels the session; the package keeps it as long as it runs.
#[pyclass(frozen, name = "Job", module = "peas._peas")]
pub struct RawJob {
    slot: Mutex<Slot>,
    runtime: Handle,
    goal: Goal,
    pid: u32,
}

/// The session, or, when it was left, how it looked at the end.
enum Slot {
    Live(Arc<Session>),
    Left(Progress),
}

/// A promise to call back; `abort` takes it back.
#[pyclass(frozen, module = "peas._peas")]
pub struct Watch(AbortHandle);

/// Calls the function when dropped: after the wait, after an abort, or because the engine closed. So nobody waits for ever.
struct CallOnDrop(Option<Py<PyAny>>);

#[pymethods]
impl RawJob {
    /// The latest.
    fn progress(&self, py: Python<'_>) -> PyResult<Numbers> {
        self.here(py)?;
        Ok(match &*self.slot() {
            Slot::Live(session) => numbers(&session.progress()),
            Slot::Left(progress) => numbers(progress),
        })
    }

    /// The next fact if one waits.
    fn try_event(&self, py: Python<'_>) -> PyResult<Option<Fact>> {
        self.here(py)?;
        Ok(self.live().and_then(|session| session.try_next_event()).map(|event| fact(&event)))
    }

    /// Whether the goal was reached within `timeout_s` (`None`: as long as it takes). Raises why it never will be.
    #[pyo3(signature = (timeout_s))]
    fn wait(&self, py: Python<'_>, timeout_s: Option<f64>) -> PyResult<bool> {
        match self.goal {
            Goal::Install => self.in_slices(py, timeout_s, |session, slice| session.wait_installed_timeout(slice)),
            Goal::Share => self.until_over(py, timeout_s, verdict),
        }
    }

    /// Whether the session was over within `timeout_s`.
    #[pyo3(signature = (timeout_s))]
    fn wait_ended(&self, py: Python<'_>, timeout_s: Option<f64>) -> PyResult<bool> {
        self.until_over(py, timeout_s, |_| Ok(()))
    }

    /// Calls `function` once, from some thread, when the progress may have changed or the session is over.
    fn when_changed(&self, py: Python<'_>, function: Py<PyAny>) -> PyResult<Watch> {
        let call = CallOnDrop(Some(function));
        self.watch(py, call, |session| async move { session.progress_changed().await })
    }

    /// Calls `function` once, from some thread, when `wait` has an answer.
    fn when_done(&self, py: Python<'_>, function: Py<PyAny>) -> PyResult<Watch> {
        let (goal, call) = (self.goal, CallOnDrop(Some(function)));
        self.watch(py, call, move |session| async move {
            match goal {
                Goal::Install => drop(session.wait_installed().await),
                Goal::Share => session.wait_ended().await,
            }
        })
    }

    fn pause(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, Session::pause)
    }

    fn resume(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, Session::resume)
    }

    fn cancel(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, Session::cancel)
    }

    /// 0: only the engine's.
    fn set_limits(&self, py: Python<'_>, upload: u64, download: u64) -> PyResult<()> {
        self.with(py, |session| session.set_limits(upload, download))
    }

    fn add_peers(&self, py: Python<'_>, peers: Vec<String>) -> PyResult<()> {
        let peers = addresses(py, &peers)?;
        self.with(py, |session| session.add_peers(&peers))
    }

    /// Statistics as JSON.
    fn stats_json(&self, py: Python<'_>) -> PyResult<String> {
        self.here(py)?;
        let session = self.live().ok_or_else(|| errors::closed(py))?;
        Ok(session.stats_json())
    }

    /// The pea file with the live members in its unsigned tail.
    fn refreshed_pea(&self, py: Python<'_>) -> PyResult<Vec<u8>> {
        self.here(py)?;
        let session = self.live().ok_or_else(|| errors::closed(py))?;
        Ok(session.refreshed_pea())
    }

    /// Goes politely: (drained, tasks aborted). Waits at most `grace_s`.
    fn leave(&self, py: Python<'_>, grace_s: f64) -> PyResult<(bool, u32)> {
        self.here(py)?;
        let grace = Duration::try_from_secs_f64(grace_s).map_err(|error| errors::misuse(py, format!("grace: {error}")))?;
        let Some(session) = self.take() else { return Ok((true, 0)) };
        py.detach(|| match Arc::try_unwrap(session) {
            Ok(session) => {
                let departure = self.runtime.block_on(session.leave(grace));
                Ok((departure.drained, departure.tasks_aborted))
            }
            // Somebody waits on it in another thread; they see it end.
            Err(session) => {
                session.cancel();
                Ok((false, 0))
            }
        })
    }
}

impl RawJob {
    pub(crate) fn new(session: Session, runtime: Handle, goal: Goal) -> RawJob {
        RawJob { slot: Mutex::new(Slot::Live(Arc::new(session))), runtime, goal, pid: std::process::id() }
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn live(&self) -> Option<Arc<Session>> {
        match &*self.slot() {
            Slot::Live(session) => Some(session.clone()),
            Slot::Left(_) => None,
        }
    }

    fn take(&self) -> Option<Arc<Session>> {
        let mut slot = self.slot();
        let progress = match &*slot {
            Slot::Live(session) => Progress { state: State::Ended, ..session.progress() },
            Slot::Left(_) => return None,
        };
        match std::mem::replace(&mut *slot, Slot::Left(progress)) {
            Slot::Live(session) => Some(session),
            Slot::Left(_) => None,
        }
    }

    fn here(&self, py: Python<'_>) -> PyResult<()> {
        if self.pid == std::process::id() { Ok(()) } else { Err(errors::closed(py)) }
    }

    fn with(&self, py: Python<'_>, act: impl FnOnce(&Session) + Send) -> PyResult<()> {
        self.here(py)?;
        if let Some(session) = self.live() {
            py.detach(|| act(&session));
        }
        Ok(())
    }

    /// Waits for the end, and asks `judge` then. A channel carries the end here: it also closes when the runtime is gone.
    fn until_over(&self, py: Python<'_>, timeout_s: Option<f64>, judge: fn(&Session) -> Result<(), Error>) -> PyResult<bool> {
        self.here(py)?;
        let session = self.live().ok_or_else(|| errors::closed(py))?;
        let (sender, receiver) = channel::<()>();
        let task = self.runtime.spawn(async move {
            let _open = sender;
            session.wait_ended().await;
        });
        let receiver = Mutex::new(receiver);
        let outcome = self.in_slices(py, timeout_s, |session, slice| {
            let receiver = receiver.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            matches!(receiver.recv_timeout(slice), Err(RecvTimeoutError::Disconnected)).then(|| judge(session))
        });
        task.abort();
        outcome
    }

    fn in_slices(
        &self,
        py: Python<'_>,
        timeout_s: Option<f64>,
        wait: impl Fn(&Session, Duration) -> Option<Result<(), Error>> + Sync,
    ) -> PyResult<bool> {
        self.here(py)?;
        // A time beyond what the clock can hold is the same as none.
        let deadline = timeout_s.and_then(|s| Duration::try_from_secs_f64(s.max(0.0)).ok()).and_then(|s| Instant::now().checked_add(s));
        let session = self.live().ok_or_else(|| errors::closed(py))?;
        loop {
            let slice = deadline.map_or(SLICE, |end| end.saturating_duration_since(Instant::now()).min(SLICE));
            match py.detach(|| wait(&session, slice)) {
                Some(result) => return result.map(|()| true).map_err(|error| errors::to_python(py, &error)),
                None if deadline.is_some_and(|end| Instant::now() >= end) => return Ok(false),
                None => py.check_signals()?,
            }
        }
    }

    fn watch<F: Future<Output = ()> + Send + 'static>(
        &self,
        py: Python<'_>,
        call: CallOnDrop,
        wait: impl FnOnce(Arc<Session>) -> F,
    ) -> PyResult<Watch> {
        self.here(py)?;
        let session = self.live().ok_or_else(|| errors::closed(py))?;
        let (waiting, runtime) = (wait(session), self.runtime.clone());
        let task = self.runtime.spawn(async move {
            // Held by the task, so it is called whatever ends it; handed to a blocking thread, so the engine never waits
            // for the interpreter.
            let call = call;
            waiting.await;
            runtime.spawn_blocking(move || drop(call));
        });
        Ok(Watch(task.abort_handle()))
    }
}

impl Drop for RawJob {
    /// In the child of a fork the handle is leaked: its tasks live elsewhere.
    fn drop(&mut self) {
        if self.pid != std::process::id() {
            std::mem::forget(self.take_quietly());
        }
    }
}

impl RawJob {
    /// Without looking at the session, which in a forked child may be locked for ever.
    fn take_quietly(&mut self) -> Slot {
        let slot = self.slot.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        std::mem::replace(slot, Slot::Left(Progress::default()))
    }
}

#[pymethods]
impl Watch {
    fn abort(&self) {
        self.0.abort();
    }
}

impl Drop for CallOnDrop {
    fn drop(&mut self) {
        let Some(function) = self.0.take() else { return };
        // No interpreter any more: nobody is left to be told.
        Python::try_attach(|py| {
            if let Err(error) = function.call0(py) {
                error.write_unraisable(py, None);
            }
            drop(function);
        });
    }
}

/// How a session that was to be shared ended: that it was told to is no failure.
fn verdict(session: &Session) -> Result<(), Error> {
    match session.wait_installed_timeout(Duration::ZERO) {
        None | Some(Ok(()) | Err(Error::Cancelled | Error::Closed)) => Ok(()),
        Some(failure) => failure,
    }
}

fn numbers(p: &Progress) -> Numbers {
    let state = match p.state {
        State::Checking => 1,
        State::Receiving => 2,
        State::Publishing => 3,
        State::Sharing => 4,
        State::Ended => 5,
    };
    (
        (state, p.paused.map(pause_name), p.pieces_done, p.pieces_total, p.bytes_done, p.bytes_total, p.bytes_reused),
        (
            p.bytes_from_origin,
            p.bytes_from_peers,
            p.bytes_from_web,
            p.bytes_wasted,
            p.bytes_sent,
            p.receive_bytes_per_s,
            p.send_bytes_per_s,
        ),
        (p.remaining_s, p.peers, p.web_sources, p.members, p.pieces_unavailable, p.origin_linked),
    )
}

fn pause_name(reason: PauseReason) -> &'static str {
    match reason {
        PauseReason::Host => "host",
        PauseReason::DiskFull => "disk-full",
        PauseReason::DiskError => "disk-error",
    }
}

fn fact(event: &Event) -> Fact {
    let none = String::new();
    match event {
        Event::Started { bytes_reused } => ("started", *bytes_reused, none),
        Event::Installed => ("installed", 0, none),
        Event::OriginLost => ("origin-lost", 0, none),
        Event::OriginBack => ("origin-back", 0, none),
        Event::PeerBanned { peer } => ("peer-banned", 0, peer.to_string()),
        Event::WebFailed { url, message } => ("web-failed", 0, format!("{url}: {message}")),
        Event::Unavailable { missing_pieces } => ("unavailable", u64::from(*missing_pieces), none),
        Event::Paused(reason) => ("paused", 0, pause_name(*reason).to_owned()),
        Event::Resumed => ("resumed", 0, none),
        Event::Damaged { piece } => ("damaged", u64::from(*piece), none),
        Event::Failed { code, message } => ("failed", u64::from(*code), message.clone()),
        Event::Left => ("left", 0, none),
        Event::Lagged { missed } => ("lagged", *missed, none),
    }
}
