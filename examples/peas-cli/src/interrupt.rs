//! SIGINT, SIGTERM and SIGHUP.
//!
//! A command that has something to say goodbye to calls [`graceful`] and ends by itself, shortly; all others are ended here, at
//! once, which is harmless because every file is written beside its place and renamed. One signal is always enough: who promised
//! to end within a time and has not is ended here too.

use crate::exit::INTERRUPTED;
use std::io::Read;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// Milliseconds that the command has promised to end within; 0: it has not.
static GRACE_MS: AtomicU64 = AtomicU64::new(0);
static ASKED: OnceLock<watch::Sender<bool>> = OnceLock::new();

fn asked() -> &'static watch::Sender<bool> {
    ASKED.get_or_init(|| watch::Sender::new(false))
}

/// Begins to listen for signals. Without it (no thread to be had) the system's own handling stays in force.
pub fn watch() {
    let (ready, armed) = std::sync::mpsc::sync_channel(1);
    let listener = std::thread::Builder::new().name("signals".into()).spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(listen(ready));
    });
    if listener.is_ok() {
        // Until the handlers are in place a signal would end the program without a word. An error: there is no runtime to be had.
        let _ = armed.recv();
    }
}

/// From now on the caller ends by itself, within this time, when this says true.
pub fn graceful(within: Duration) -> watch::Receiver<bool> {
    GRACE_MS.store(within.as_millis() as u64, Ordering::SeqCst);
    asked().subscribe()
}

/// Whether the process was asked to end.
pub fn is_asked() -> bool {
    *asked().borrow()
}

/// Takes the end of standard input for a signal.
pub fn watch_stdin() {
    let _ = std::thread::Builder::new().name("stdin".into()).spawn(|| {
        let mut ignored = [0; 4096];
        let mut stdin = std::io::stdin().lock();
        while matches!(stdin.read(&mut ignored), Ok(1..)) {}
        end();
    });
}

#[cfg(unix)]
async fn listen(ready: std::sync::mpsc::SyncSender<()>) {
    use tokio::signal::unix::{SignalKind, signal};
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = kinds else { return };
    let _ = ready.send(());
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        end();
    }
}

#[cfg(not(unix))]
async fn listen(ready: std::sync::mpsc::SyncSender<()>) {
    let _ = ready.send(());
    while tokio::signal::ctrl_c().await.is_ok() {
        end();
    }
}

fn end() {
    let grace_ms = GRACE_MS.load(Ordering::SeqCst);
    if grace_ms == 0 || asked().send_replace(true) {
        eprintln!("interrupted: the same command resumes");
        std::process::exit(i32::from(INTERRUPTED));
    }
    let _ = std::thread::Builder::new().name("last resort".into()).spawn(move || {
        std::thread::sleep(Duration::from_millis(grace_ms));
        std::process::exit(i32::from(INTERRUPTED));
    });
}
