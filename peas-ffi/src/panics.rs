//! What becomes of a panic: an answer, with its text in it, and not on the host's standard error.
//!
//! Two barriers stand behind each other. The outer one is in every exported function (`capi`), so nothing unwinds into the host.
//! The inner one (`Host::call`) is around what works on an engine, and fails that engine: it is never half-alive.
//! Test builds may arm one panic, at either barrier of any export, to prove both.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// Whether this thread is inside a call, and what a panic in it said.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs a body; a panic comes back as its text. A thread that is ending has no place for the text any more, which must not
/// matter: hosts call from the destructors of their threads.
pub(crate) fn caught<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    listen();
    let outer = replace(Some(String::new()));
    let answer = catch_unwind(AssertUnwindSafe(body));
    let said = replace(outer).unwrap_or_default();
    answer.map_err(|_| said.replace('\n', " "))
}

fn replace(text: Option<String>) -> Option<String> {
    SAID.try_with(|said| said.try_borrow_mut().map_or(None, |mut said| std::mem::replace(&mut *said, text))).unwrap_or_default()
}

/// Keeps the text of a panic inside a call; others go to whoever listened before.
fn listen() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let ours = SAID.try_with(|said| match said.try_borrow_mut() {
                Ok(mut said) if said.is_some() => {
                    *said = Some(info.to_string());
                    true
                }
                _ => false,
            });
            if !ours.unwrap_or(false) {
                before(info);
            }
        }));
    });
}

/// Where an armed panic goes off.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    /// In the exported function, before its body.
    Entry,
    /// Behind the inner barrier.
    Inside,
}

#[cfg(feature = "test-hooks")]
mod armed {
    use super::Place;
    use std::cell::Cell;
    use std::sync::{Mutex, PoisonError};

    static ARMED: Mutex<Option<String>> = Mutex::new(None);

    thread_local! {
        static EXPORT: Cell<&'static str> = const { Cell::new("") };
    }

    /// "entry:peas_poll" or "inside:peas_poll": the next such call panics there, once.
    pub(crate) fn arm(place: &str) {
        *ARMED.lock().unwrap_or_else(PoisonError::into_inner) = Some(place.into());
    }

    pub(crate) fn enter(export: &'static str) {
        EXPORT.set(export);
    }

    pub(crate) fn panic_if_armed(place: Place) {
        let place = match place {
            Place::Entry => "entry",
            Place::Inside => "inside",
        };
        let here = format!("{place}:{}", EXPORT.get());
        let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
        if armed.as_deref() == Some(here.as_str()) {
            *armed = None;
            drop(armed);
            panic!("asked to, at {here}");
        }
    }
}

#[cfg(not(feature = "test-hooks"))]
mod armed {
    pub(crate) fn arm(_: &str) {}
    pub(crate) fn enter(_: &'static str) {}
    pub(crate) fn panic_if_armed(_: super::Place) {}
}

pub(crate) use armed::{arm, enter, panic_if_armed};
