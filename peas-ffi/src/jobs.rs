//! Jobs at work: one task each on the engine's runtime, which opens the pea, then forwards what the session says to the board.
//!
//! A call that starts a job touches no disk: what is wrong with a pea or a target arrives as the job's end. Tasks hold the board,
//! never the engine, and end with their session; closing the engine aborts what is left.

use crate::board::Board;
use crate::failure::Failure;
use crate::host::{Host, panic_if_asked};
use crate::job::{Hashing, Job, pause_of};
use crate::settings::{Change, Settings};
use crate::types::*;
use peas_core::config::SeedPolicy;
use peas_core::unit::PeaId;
use peas_core::{Engine, Event, Session};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What a job works on.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    pub(crate) pea: PathBuf,
    /// Source or target.
    pub(crate) content: PathBuf,
}

impl Host {
    /// Starts a job and returns at once.
    pub(crate) fn start_job(&self, verb: peas_verb, places: Places, mut settings: Settings) -> Result<peas_job, Failure> {
        if settings.trust.state_dir.is_none() {
            settings.trust.state_dir = self.state_dir.clone();
        }
        let mut job = Job::new(verb);
        job.paused = settings.change.paused.unwrap_or(false);
        job.limits = (settings.change.upload_bytes_per_s.unwrap_or(0), settings.change.download_bytes_per_s.unwrap_or(0));
        job.leaves = verb == peas_verb::PEAS_VERB_INSTALL && settings.install.seed == SeedPolicy::Leave;
        let hashing = job.hashing.clone();
        let id = self.board.lock().add(job)?;
        let (board, engine) = (self.board.clone(), self.engine.clone());
        self.engine.runtime().spawn(async move {
            board.post(|state| {
                state.log(id, peas_level::PEAS_LEVEL_INFO, || {
                    format!("{} of {} at {}", noun(verb), places.pea.display(), places.content.display())
                });
            });
            let end = match verb {
                peas_verb::PEAS_VERB_CREATE | peas_verb::PEAS_VERB_VERIFY => {
                    let forward = Forward { board: board.clone(), id, hashing };
                    blocking(move || forward.hash(verb, &places, settings)).await
                }
                peas_verb::PEAS_VERB_SHARE | peas_verb::PEAS_VERB_INSTALL => work(&board, id, engine, verb, places, settings).await,
            };
            finish(&board, id, end);
        });
        Ok(id)
    }

    pub(crate) fn cancel(&self, id: peas_job) -> Result<(), Failure> {
        let mut state = self.board.lock();
        let job = state.job(id)?;
        job.cancelled = true;
        job.hashing.stop.store(true, Ordering::Relaxed);
        let session = job.session.clone();
        drop(state);
        if let Some(session) = session {
            session.cancel();
        }
        Ok(())
    }

    pub(crate) fn change_job(&self, id: peas_job, change: &Change) -> Result<(), Failure> {
        let mut state = self.board.lock();
        let job = state.job(id)?;
        if job.ended.is_some() {
            return Err(Failure::new(peas_status::PEAS_NOT_FOUND, format!("job {id} is over")));
        }
        job.paused = change.paused.unwrap_or(job.paused);
        job.limits = (change.upload_bytes_per_s.unwrap_or(job.limits.0), change.download_bytes_per_s.unwrap_or(job.limits.1));
        let Some(session) = job.session.clone() else {
            job.peers.extend_from_slice(&change.peers);
            return Ok(());
        };
        let limits = job.limits;
        drop(state);
        match change.paused {
            Some(true) => session.pause(),
            Some(false) => session.resume(),
            None => {}
        }
        if change.upload_bytes_per_s.is_some() || change.download_bytes_per_s.is_some() {
            session.set_limits(limits.0, limits.1);
        }
        if !change.peers.is_empty() {
            session.add_peers(&change.peers);
        }
        Ok(())
    }
}

/// Runs something that blocks on a thread made for it.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(move || crate::host::guarded(work)).await {
        Ok(answer) => answer,
        Err(error) => Err(Failure::new(peas_status::PEAS_INTERNAL, format!("a bug in peas: {error}"))),
    }
}

/// Opens the pea, makes room for it, and runs its session to the end.
async fn work(board: &Board, id: peas_job, engine: Engine, verb: peas_verb, places: Places, settings: Settings) -> Result<(), Failure> {
    let Settings { mut install, seed, trust, change, .. } = settings;
    install.paused = change.paused.unwrap_or(false);
    let began_paused = install.paused;
    let pea_file = places.pea.clone();
    let pea = blocking(move || {
        panic_if_asked(&change, "open");
        crate::trust::open(&pea_file, &trust)
    });
    let pea = Arc::new(pea.await?);
    make_room(board, id, pea.id()).await?;
    let session = match verb {
        peas_verb::PEAS_VERB_INSTALL => engine.install(pea, &places.content, install)?,
        _ => engine.seed(pea, &places.content, seed)?,
    };
    drop(engine);
    run(board, id, Arc::new(session), began_paused).await
}

/// An engine works on each content once. A job that is complete and only says goodbye, or was cancelled, makes room.
async fn make_room(board: &Board, id: peas_job, content: PeaId) -> Result<(), Failure> {
    loop {
        let moved = board.moved.notified();
        tokio::pin!(moved);
        moved.as_mut().enable();
        let session = {
            let mut state = board.lock();
            let same = |(other, job): &(&peas_job, &Job)| **other != id && job.content == Some(content) && job.ended.is_none();
            match state.jobs.iter().find(same) {
                None => {
                    state.job(id)?.content = Some(content);
                    return Ok(());
                }
                Some((_, job)) if job.cancelled || job.complete && job.leaves => job.session.clone(),
                Some((other, _)) => {
                    let message = format!("job {other} of this engine is at work on the same content; cancel it, or wait until it ends");
                    return Err(Failure::new(peas_status::PEAS_BUSY, message));
                }
            }
        };
        if let Some(session) = session {
            session.cancel();
        }
        moved.await;
    }
}

/// Forwards until the session is over; says how it ended.
async fn run(board: &Board, id: peas_job, session: Arc<Session>, began_paused: bool) -> Result<(), Failure> {
    let wishes = {
        let mut state = board.lock();
        // The engine is closing: the session ends with it.
        let Ok(job) = state.job(id) else { return Err(Failure::new(peas_status::PEAS_CLOSED, "the engine is closed")) };
        job.session = Some(session.clone());
        board.moved.notify_waiters();
        (job.limits, job.paused, std::mem::take(&mut job.peers), job.cancelled)
    };
    let (limits, paused, peers, cancelled) = wishes;
    if limits != (0, 0) {
        session.set_limits(limits.0, limits.1);
    }
    // The host may have changed its mind while the pea was opened.
    match (began_paused, paused) {
        (false, true) => session.pause(),
        (true, false) => session.resume(),
        _ => {}
    }
    if !peers.is_empty() {
        session.add_peers(&peers);
    }
    if cancelled {
        session.cancel();
    }
    let mut end = Ok(());
    loop {
        tokio::select! {
            biased;
            event = session.next_event() => match event {
                Some(Event::Failed { code, message }) => end = Err(why(&session, code, message).await),
                Some(event) => tell(board, id, &event),
                None => return end,
            },
            () = session.progress_changed() => board.post(|state| state.progressed(id)),
        }
    }
}

/// The error behind `Event::Failed`: with the system's number, if the session still has it.
async fn why(session: &Session, code: u32, message: String) -> Failure {
    match tokio::time::timeout(Duration::from_millis(100), session.wait_installed()).await {
        Ok(Err(error)) if error.code() == code => error.into(),
        _ => Failure::of_code(code, message),
    }
}

fn tell(board: &Board, id: peas_job, event: &Event) {
    use peas_level::*;
    use peas_notice_type::*;
    let (notice, value, level, message) = match event {
        Event::Started { bytes_reused } => {
            (PEAS_NOTICE_STARTED, *bytes_reused, PEAS_LEVEL_INFO, format!("started; {bytes_reused} bytes are here already"))
        }
        Event::OriginLost => (PEAS_NOTICE_ORIGIN_LOST, 0, PEAS_LEVEL_WARNING, "the origin cannot be reached; other peers go on".into()),
        Event::OriginBack => (PEAS_NOTICE_ORIGIN_BACK, 0, PEAS_LEVEL_INFO, "the origin is back".into()),
        Event::PeerBanned { peer } => {
            (PEAS_NOTICE_PEER_BANNED, 0, PEAS_LEVEL_WARNING, format!("peer {peer} sent what is not the content, and was banned"))
        }
        Event::WebFailed { url, message } => (PEAS_NOTICE_WEB_FAILED, 0, PEAS_LEVEL_WARNING, format!("{url}: {message}")),
        Event::Unavailable { missing_pieces: 0 } => (PEAS_NOTICE_UNAVAILABLE, 0, PEAS_LEVEL_INFO, "all pieces have a holder again".into()),
        Event::Unavailable { missing_pieces } => (
            PEAS_NOTICE_UNAVAILABLE,
            u64::from(*missing_pieces),
            PEAS_LEVEL_WARNING,
            format!("{missing_pieces} missing pieces have no holder within reach"),
        ),
        Event::Paused(reason) => {
            let pause = pause_of(*reason);
            let (level, message) = match pause {
                peas_pause::PEAS_PAUSE_DISK_FULL => (PEAS_LEVEL_WARNING, "paused: the disk is full; goes on when there is room"),
                peas_pause::PEAS_PAUSE_DISK_ERROR => (PEAS_LEVEL_WARNING, "paused: the disk refuses; goes on when it takes writes"),
                _ => (PEAS_LEVEL_INFO, "paused"),
            };
            (PEAS_NOTICE_PAUSED, pause as u64, level, message.into())
        }
        Event::Resumed => (PEAS_NOTICE_RESUMED, 0, PEAS_LEVEL_INFO, "goes on".into()),
        Event::Damaged { piece } => (
            PEAS_NOTICE_DAMAGED,
            u64::from(*piece),
            PEAS_LEVEL_WARNING,
            format!("piece {piece} on this disk was damaged; it is received again"),
        ),
        Event::Lagged { missed } => (PEAS_NOTICE_DROPPED, *missed, PEAS_LEVEL_WARNING, format!("{missed} events were dropped")),
        Event::Installed => return board.post(|state| state.completed(id)),
        // What follows is the end of the stream, and the job's.
        Event::Failed { .. } | Event::Left => return,
    };
    board.post(|state| {
        state.notice(id, notice, value, level, message);
        let shares = state.jobs.get(&id).is_some_and(|job| job.verb == peas_verb::PEAS_VERB_SHARE);
        if shares && matches!(event, Event::Started { .. }) {
            state.completed(id);
        }
    });
}

fn finish(board: &Board, id: peas_job, end: Result<(), Failure>) {
    let mut session = None;
    board.post(|state| {
        let Some(job) = state.jobs.get(&id) else { return };
        let end = match end {
            Ok(()) if job.complete => Failure::new(peas_status::PEAS_OK, ""),
            Ok(()) => Failure::new(peas_status::PEAS_CANCELLED, "cancelled"),
            Err(_) if job.cancelled && !job.complete => Failure::new(peas_status::PEAS_CANCELLED, "cancelled"),
            Err(failure) => failure,
        };
        let level = if end.status == peas_status::PEAS_OK { peas_level::PEAS_LEVEL_INFO } else { peas_level::PEAS_LEVEL_ERROR };
        state.log(id, level, || format!("over: {:?} {}", end.status, end.message));
        session = state.ended(id, end);
    });
    drop(session);
    board.moved.notify_waiters();
}

fn noun(verb: peas_verb) -> &'static str {
    match verb {
        peas_verb::PEAS_VERB_CREATE => "create",
        peas_verb::PEAS_VERB_SHARE => "share",
        peas_verb::PEAS_VERB_INSTALL => "install",
        peas_verb::PEAS_VERB_VERIFY => "verify",
    }
}

/// Hashing without a session, and what it tells.
struct Forward {
    board: Arc<Board>,
    id: peas_job,
    hashing: Arc<Hashing>,
}

impl Forward {
    /// Blocking.
    fn hash(&self, verb: peas_verb, places: &Places, settings: Settings) -> Result<(), Failure> {
        let told = std::sync::Mutex::new(Instant::now());
        let on_bytes = |done: u64, total: u64| {
            self.hashing.bytes_done.store(done, Ordering::Relaxed);
            self.hashing.bytes_total.store(total, Ordering::Relaxed);
            // Ten times a second is what a person sees.
            if let Ok(mut told) = told.try_lock()
                && told.elapsed() >= Duration::from_millis(100)
            {
                *told = Instant::now();
                self.board.post(|state| state.progressed(self.id));
            }
            !self.hashing.stop.load(Ordering::Relaxed)
        };
        match verb {
            peas_verb::PEAS_VERB_CREATE => create(places, settings, &on_bytes)?,
            _ => self.verify(places, settings, &on_bytes)?,
        }
        self.board.post(|state| state.completed(self.id));
        Ok(())
    }

    fn verify(&self, places: &Places, settings: Settings, on_bytes: peas_core::session::OnBytes<'_>) -> Result<(), Failure> {
        let pea = crate::trust::open(&places.pea, &settings.trust)?;
        let found = peas_core::session::verify(&pea, &places.content, on_bytes)?;
        self.hashing.pieces_good.store(found.pieces_good, Ordering::Relaxed);
        self.hashing.pieces_bad.store(found.pieces_bad, Ordering::Relaxed);
        if found.pieces_bad == 0 && found.bad_files.is_empty() {
            return Ok(());
        }
        self.board.post(|state| {
            for path in &found.bad_files {
                state.notice(self.id, peas_notice_type::PEAS_NOTICE_BAD_FILE, 0, peas_level::PEAS_LEVEL_WARNING, path.clone());
            }
        });
        let what =
            format!("{} of {} pieces are missing or wrong; peas_install repairs", found.pieces_bad, found.pieces_bad + found.pieces_good);
        Err(Failure::new(peas_status::PEAS_CORRUPT, what))
    }
}

fn create(places: &Places, settings: Settings, on_bytes: peas_core::session::OnBytes<'_>) -> Result<(), Failure> {
    let mut options = settings.create;
    for file in &settings.sign_files {
        options.sign_with.push(read_key(file)?);
    }
    let created = peas_core::session::create(&places.content, &options, on_bytes)?;
    Ok(peas_core::session::write_pea(&places.pea, &created.bytes)?)
}

fn read_key(file: &Path) -> Result<[u8; 32], Failure> {
    let text = std::fs::read_to_string(file).map_err(|source| peas_core::Error::Storage { op: "read", path: file.into(), source })?;
    crate::values::key_file(&text).map_err(|why| Failure::invalid(format!("{}: {why}", file.display())))
}
