//! One job as the host sees it: from the call that asked for it to long after it ended.

use crate::failure::Failure;
use crate::types::{peas_info, peas_job, peas_pause, peas_state, peas_status, peas_verb};
use peas_core::unit::PeaId;
use peas_core::{PauseReason, Progress, Session, State};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// What hashing without a session (create, verify) says and hears.
#[derive(Default)]
pub(crate) struct Hashing {
    pub(crate) bytes_done: AtomicU64,
    pub(crate) bytes_total: AtomicU64,
    pub(crate) pieces_good: AtomicU32,
    pub(crate) pieces_bad: AtomicU32,
    pub(crate) stop: AtomicBool,
}

/// A job in the table.
pub(crate) struct Job {
    pub(crate) verb: peas_verb,
    /// From the opening of the pea to the end.
    pub(crate) session: Option<Arc<Session>>,
    pub(crate) hashing: Arc<Hashing>,
    /// Which content it is at work on, once the pea is read. An engine works on each content once.
    pub(crate) content: Option<PeaId>,
    /// An install that does not go on sharing: complete, it only says goodbye.
    pub(crate) leaves: bool,
    pub(crate) paused: bool,
    /// (upload, download), 0: only the engine's.
    pub(crate) limits: (u64, u64),
    /// Addresses given before there was a session.
    pub(crate) peers: Vec<SocketAddr>,
    pub(crate) complete: bool,
    pub(crate) cancelled: bool,
    /// Why it ended, status PEAS_OK included.
    pub(crate) ended: Option<Failure>,
    /// The last numbers of the session that was.
    pub(crate) last: Option<Progress>,
    pub(crate) progress_waits: bool,
}

impl Job {
    pub(crate) fn new(verb: peas_verb) -> Self {
        Self {
            verb,
            session: None,
            hashing: Arc::default(),
            content: None,
            leaves: false,
            paused: false,
            limits: (0, 0),
            peers: Vec::new(),
            complete: false,
            cancelled: false,
            ended: None,
            last: None,
            progress_waits: false,
        }
    }

    /// The answer of peas_wait, once there is one.
    pub(crate) fn answer(&self) -> Option<Result<(), Failure>> {
        match &self.ended {
            _ if self.complete => Some(Ok(())),
            Some(end) if end.status == peas_status::PEAS_OK => Some(Ok(())),
            Some(end) => Some(Err(end.clone())),
            None => None,
        }
    }

    /// The job now. Never blocks.
    pub(crate) fn info(&self) -> peas_info {
        // SAFETY: a struct of integers, for which zero is a value; it is what reserved fields are promised to be.
        let mut info: peas_info = unsafe { std::mem::zeroed() };
        info.verb = self.verb as u32;
        info.state = peas_state::PEAS_STATE_CHECKING as u32;
        info.remaining_ms = -1;
        match self.session.as_ref().map(|session| session.progress()).or(self.last) {
            Some(progress) => fill(&mut info, &progress),
            None => self.fill_from_hashing(&mut info),
        }
        if self.paused && info.paused == 0 {
            info.paused = peas_pause::PEAS_PAUSE_HOST as u32;
        }
        info.complete = u32::from(self.complete);
        if let Some(end) = &self.ended {
            info.state = peas_state::PEAS_STATE_ENDED as u32;
            info.status = end.status as i32;
            (info.peers, info.origin_linked, info.rate_received, info.rate_sent) = (0, 0, 0, 0);
            (info.remaining_ms, info.paused) = (-1, 0);
        }
        info
    }

    fn fill_from_hashing(&self, info: &mut peas_info) {
        let hashing = &self.hashing;
        info.bytes_done = hashing.bytes_done.load(Ordering::Relaxed);
        info.bytes_total = hashing.bytes_total.load(Ordering::Relaxed);
        info.pieces_done = hashing.pieces_good.load(Ordering::Relaxed);
        info.pieces_bad = hashing.pieces_bad.load(Ordering::Relaxed);
        info.pieces_total = info.pieces_done + info.pieces_bad;
    }
}

fn fill(info: &mut peas_info, progress: &Progress) {
    info.state = match progress.state {
        State::Checking => peas_state::PEAS_STATE_CHECKING,
        State::Receiving => peas_state::PEAS_STATE_RECEIVING,
        State::Publishing => peas_state::PEAS_STATE_PUBLISHING,
        State::Sharing => peas_state::PEAS_STATE_SHARING,
        State::Ended => peas_state::PEAS_STATE_ENDED,
    } as u32;
    info.paused = progress.paused.map_or(peas_pause::PEAS_PAUSE_NONE, pause_of) as u32;
    info.pieces_done = progress.pieces_done;
    info.pieces_total = progress.pieces_total;
    info.pieces_bad = progress.pieces_unavailable;
    info.bytes_done = progress.bytes_done;
    info.bytes_total = progress.bytes_total;
    info.bytes_reused = progress.bytes_reused;
    info.bytes_from_origin = progress.bytes_from_origin;
    info.bytes_from_peers = progress.bytes_from_peers;
    info.bytes_from_web = progress.bytes_from_web;
    info.bytes_wasted = progress.bytes_wasted;
    info.bytes_sent = progress.bytes_sent;
    info.rate_received = progress.receive_bytes_per_s;
    info.rate_sent = progress.send_bytes_per_s;
    info.remaining_ms = progress.remaining_s.filter(|s| s.is_finite() && *s >= 0.0).map_or(-1, |s| (s * 1000.0) as i64);
    info.peers = progress.peers;
    info.members = progress.members;
    info.origin_linked = u32::from(progress.origin_linked);
}

pub(crate) fn pause_of(reason: PauseReason) -> peas_pause {
    match reason {
        PauseReason::Host => peas_pause::PEAS_PAUSE_HOST,
        PauseReason::DiskFull => peas_pause::PEAS_PAUSE_DISK_FULL,
        PauseReason::DiskError => peas_pause::PEAS_PAUSE_DISK_ERROR,
    }
}

/// A job that names nothing here.
pub(crate) fn unknown(job: peas_job) -> Failure {
    Failure::new(peas_status::PEAS_NOT_FOUND, format!("there is no job {job}"))
}
