//! An engine inside a host: the core engine, the board, and the thread that delivers callbacks.

pub(crate) use crate::board::in_wake;
use crate::board::{Board, Deadline, Hook};
use crate::failure::Failure;
use crate::panics::{self, Place};
use crate::settings::{Change, Settings};
use crate::types::*;
use peas_core::Engine;
use std::cell::Cell;
use std::ffi::c_void;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

type Callback = Hook<unsafe extern "C" fn(*mut c_void, *const peas_event)>;

/// What a handle stands for.
pub(crate) struct Host {
    pub(crate) engine: Engine,
    pub(crate) board: Arc<Board>,
    /// Where accepted releases are remembered, unless a job says otherwise.
    pub(crate) state_dir: Option<PathBuf>,
    /// The thread that delivers callbacks.
    courier: Mutex<Option<JoinHandle<()>>>,
}

thread_local! {
    /// The board whose callbacks this thread delivers, as a number.
    static COURIER_OF: Cell<usize> = const { Cell::new(0) };
}

/// Runs the body of a call. A panic becomes PEAS_INTERNAL and its text.
pub(crate) fn guarded<T>(body: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let answer = panics::caught(|| {
        panics::panic_if_armed(Place::Inside);
        body()
    });
    answer.unwrap_or_else(|said| Err(Failure::new(peas_status::PEAS_INTERNAL, format!("a bug in peas: {said}"))))
}

impl Host {
    pub(crate) fn start(settings: Settings) -> Result<Self, Failure> {
        let mut config = settings.engine;
        config.upload_bytes_per_s = settings.change.upload_bytes_per_s.unwrap_or(0);
        config.download_bytes_per_s = settings.change.download_bytes_per_s.unwrap_or(0);
        for file in &settings.web_ca_files {
            config.web_authorities.extend(crate::web_ca::read(file)?);
        }
        let state_dir = config.state_dir.clone();
        let host = Self { engine: Engine::new(config)?, board: Arc::default(), state_dir, courier: Mutex::default() };
        host.board.lock().log = settings.change.log.flatten();
        Ok(host)
    }

    /// Runs the body of a call on this engine. After a panic the engine is failed: it is never half-alive.
    pub(crate) fn call<T>(&self, body: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        let answered = guarded(|| {
            self.board.lock().check()?;
            // An answer of PEAS_INTERNAL (why a job ended) is no panic of this call.
            Ok(body())
        });
        match answered {
            Ok(answer) => answer,
            Err(failure) => {
                if failure.status == peas_status::PEAS_INTERNAL {
                    self.board.lock().failed.get_or_insert_with(|| failure.message.clone());
                    self.board.notify();
                }
                Err(failure)
            }
        }
    }

    pub(crate) fn change(&self, change: &Change) -> Result<(), Failure> {
        if let Some(place) = &change.panic {
            panics::arm(place);
        }
        let (upload, download) = self.engine.limits();
        if change.upload_bytes_per_s.is_some() || change.download_bytes_per_s.is_some() {
            self.engine.set_limits(change.upload_bytes_per_s.unwrap_or(upload), change.download_bytes_per_s.unwrap_or(download));
        }
        if let Some(log) = change.log {
            self.board.lock().log = log;
        }
        Ok(())
    }

    pub(crate) fn info(&self) -> peas_engine_info {
        let jobs = self.board.lock().jobs.values().filter(|job| job.ended.is_none()).count();
        let (upload_limit, download_limit) = self.engine.limits();
        let listen = self.engine.listen_addr();
        peas_engine_info {
            upload_limit,
            download_limit,
            jobs: jobs as u32,
            port: listen.map_or(0, |addr| u32::from(addr.port())),
            listen: crate::failure::text(&listen.map_or(String::new(), |addr| addr.to_string())),
            peer_id: crate::failure::text(&self.engine.peer_id().to_string()),
            reserved: [0; 12],
        }
    }

    /// Calls `callback` on this thread for each waiting event, waiting for the first.
    pub(crate) fn dispatch(&self, callback: Callback, until: Deadline) -> Result<i32, Failure> {
        let mut count = 0;
        let mut first = [blank()];
        while self.take(&mut first, if count == 0 { until } else { Deadline::after_ms(0) })? == 1 {
            // SAFETY: the host gave both for this call.
            unsafe { (callback.function)(callback.user_data, &first[0]) };
            count += 1;
        }
        Ok(count)
    }

    /// Takes events, waiting for the first.
    pub(crate) fn take(&self, into: &mut [peas_event], until: Deadline) -> Result<i32, Failure> {
        let mut state = self.board.lock();
        loop {
            state.check()?;
            if state.delivery.active {
                return Err(Failure::new(peas_status::PEAS_BUSY, "a callback takes the events"));
            }
            if state.has_events() {
                break;
            }
            state = match self.board.wait(state, until) {
                Ok(state) => state,
                Err(_) => return Ok(0),
            };
        }
        let mut count = 0;
        while count < into.len()
            && let Some(event) = state.take_event()
        {
            into[count] = event;
            count += 1;
        }
        Ok(count as i32)
    }

    pub(crate) fn wait(&self, job: peas_job, until: Deadline) -> Result<(), Failure> {
        let mut state = self.board.lock();
        loop {
            if let Some(answer) = state.job(job)?.answer() {
                return answer;
            }
            state = self.board.wait(state, until).map_err(|_| Failure::new(peas_status::PEAS_TIMEOUT, "not complete yet"))?;
        }
    }

    /// Replaces whoever takes events by callback. Once it returns the former one is not running, unless it is the caller.
    pub(crate) fn set_callback(&self, callback: Option<Callback>) -> Result<(), Failure> {
        let mut courier = if self.on_courier() { None } else { Some(self.courier.lock().unwrap_or_else(PoisonError::into_inner)) };
        let mut state = self.board.lock();
        state.delivery.generation += 1;
        state.delivery.active = callback.is_some();
        let generation = state.delivery.generation;
        self.board.notify();
        while state.delivery.running && !self.on_courier() {
            state = self.board.wait(state, Deadline::after_ms(-1)).unwrap_or_else(|state| state);
        }
        drop(state);
        if let Some(former) = courier.as_mut().and_then(|courier| courier.take()) {
            let _ = former.join();
        }
        if let Some(callback) = callback {
            let handle = self.start_courier(callback, generation)?;
            match courier.as_mut() {
                Some(courier) => **courier = Some(handle),
                // From the callback itself: this thread ends when it returns, and the new one takes its place.
                None => *self.courier.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle),
            }
        }
        Ok(())
    }

    fn on_courier(&self) -> bool {
        COURIER_OF.get() == Arc::as_ptr(&self.board).addr()
    }

    /// The thread is born from one of the engine's, and so blocks all signals as they do.
    fn start_courier(&self, callback: Callback, generation: u64) -> Result<JoinHandle<()>, Failure> {
        let board = self.board.clone();
        let (send, receive) = std::sync::mpsc::channel();
        self.engine.runtime().spawn(async move {
            let thread = std::thread::Builder::new().name("peas-callback".into());
            let _ = send.send(thread.spawn(move || deliver(&board, callback, generation)));
        });
        match receive.recv() {
            Ok(Ok(handle)) => Ok(handle),
            Ok(Err(error)) => {
                self.board.lock().delivery.active = false;
                Err(Failure {
                    status: peas_status::PEAS_IO,
                    os_code: error.raw_os_error().unwrap_or(0),
                    message: format!("no thread: {error}"),
                })
            }
            Err(_) => Err(Failure::new(peas_status::PEAS_CLOSED, "the engine is closing")),
        }
    }

    /// Ends everything within the time given (and 100 ms). True: nothing was left behind.
    pub(crate) fn close(&self, timeout: Duration) -> bool {
        let until = Deadline::after(timeout);
        let sessions: Vec<_> = {
            let mut state = self.board.lock();
            state.close();
            state.delivery.generation += 1;
            for job in state.jobs.values() {
                job.hashing.stop.store(true, std::sync::atomic::Ordering::Relaxed);
            }
            state.jobs.values_mut().filter_map(|job| job.session.take()).collect()
        };
        self.board.notify();
        // Before the callback: the host may be inside it, and the world should hear of our leaving meanwhile.
        let ended = self.engine.close(until.left().unwrap_or(Duration::ZERO));
        drop(sessions);
        ended && self.end_courier(until)
    }

    fn end_courier(&self, until: Deadline) -> bool {
        if self.on_courier() {
            // Closing from the callback: the thread ends when the callback returns.
            return true;
        }
        let mut state = self.board.lock();
        while state.delivery.running {
            match self.board.wait(state, until) {
                Ok(now) => state = now,
                Err(_) => return false,
            }
        }
        drop(state);
        // Not running, and of an older generation: it is on its way out.
        match self.courier.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(courier) => courier.join().is_ok(),
            None => true,
        }
    }
}

/// The life of the thread that delivers callbacks.
fn deliver(board: &Arc<Board>, callback: Callback, generation: u64) {
    COURIER_OF.set(Arc::as_ptr(board).addr());
    let mut state = board.lock();
    loop {
        if state.is_closed() || state.delivery.generation != generation {
            return;
        }
        // A former callback that replaced itself may still be running: never two at once.
        if state.delivery.running || !state.has_events() {
            state = board.wait(state, Deadline::after_ms(-1)).unwrap_or_else(|state| state);
            continue;
        }
        let Some(event) = state.take_event() else { continue };
        state.delivery.running = true;
        drop(state);
        // SAFETY: the host gave both, and they hold until a peas_set_callback returned, which waits for `running`.
        unsafe { (callback.function)(callback.user_data, &event) };
        state = board.lock();
        state.delivery.running = false;
        board.notify();
    }
}

/// An event with nothing in it.
pub(crate) fn blank() -> peas_event {
    // SAFETY: a struct of integers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

/// Test builds panic on request in the task of a job, to prove that it ends the job and nothing else.
pub(crate) fn panic_if_asked(change: &Change, place: &str) {
    if cfg!(feature = "test-hooks") && change.panic.as_deref() == Some(place) {
        panic!("asked to, in {place}");
    }
}
