//! Exported functions: engines, jobs, texts. The events are in `api_events.rs`.
//!
//! Bodies turn arguments into values, call one thing, and turn the answer into a number; whatever else happens, happens elsewhere.
//! The order here is the order of the header.

use crate::capi::capi;
use crate::failure::Failure;
use crate::host::{Host, guarded};
use crate::jobs::Places;
use crate::options::Call;
use crate::types::*;
use crate::{handle, settings, text};
use macro_rules_attribute::apply;
use safer_ffi::c_char;
use std::sync::Arc;
use std::time::Duration;

#[apply(capi)]
/// The version of the library that runs, to compare with that of the header: functions may have come since.
///
/// @return a number as PEAS_VERSION
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peas_version() -> u32 {
    PEAS_VERSION
}

#[apply(capi)]
/// The version of the library, for people: "0.1.0".
///
/// @return static storage
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peas_version_string() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

#[apply(capi)]
/// The name of a status, for logs: "PEAS_FULL".
///
/// @param status  any number
/// @return        static storage; never NULL, not for unknown numbers either
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peas_status_string(status: i32) -> *const c_char {
    let name = match status {
        0 => c"PEAS_OK",
        -1 => c"PEAS_INVALID",
        -2 => c"PEAS_NOT_FOUND",
        -3 => c"PEAS_CORRUPT",
        -4 => c"PEAS_IO",
        -5 => c"PEAS_FULL",
        -6 => c"PEAS_BUSY",
        -7 => c"PEAS_UNREACHABLE",
        -8 => c"PEAS_UNTRUSTED",
        -9 => c"PEAS_CANCELLED",
        -10 => c"PEAS_TIMEOUT",
        -11 => c"PEAS_CLOSED",
        -12 => c"PEAS_FORKED",
        -13 => c"PEAS_INTERNAL",
        -14 => c"PEAS_ROLLBACK",
        -15 => c"PEAS_EXPIRED",
        -16 => c"PEAS_WRONG_CHANNEL",
        -17 => c"PEAS_EQUIVOCATION",
        _ => c"a status that this version does not know",
    };
    name.as_ptr().cast()
}

#[apply(capi)]
/// Starts an engine: its threads and its listener. Takes some milliseconds. The only thing to free, with peas_engine_close.
///
/// Errors: PEAS_INVALID (an option; the message names it), PEAS_NOT_FOUND (a file of web_ca), PEAS_IO (the address cannot be listened on, or no threads or descriptors
/// are left; os_code says why), PEAS_BUSY (1,024 engines in this process).
///
/// @param options  settings of the engine, or NULL
/// @param engine   receives the engine, or NULL on failure
/// @param error    receives the reason on failure; may be NULL
/// @return         PEAS_OK, or why not
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peas_engine_new(
    options: *const *const c_char,
    engine: *mut *mut peas_engine,
    error: *mut peas_error,
) -> peas_status {
    put(engine, std::ptr::null_mut());
    answer(error, || {
        if engine.is_null() {
            return Err(Failure::invalid("engine is NULL: nowhere to put it"));
        }
        if crate::host::in_wake() {
            return Err(Failure::invalid("called from the wake function"));
        }
        let options = text::list(options)?;
        let host = Arc::new(guarded(|| Host::start(settings::read(Call::Engine, &options)?))?);
        let made = handle::put(host.clone()).inspect_err(|_| {
            host.close(Duration::ZERO);
        })?;
        put(engine, made);
        Ok(())
    })
}

#[apply(capi)]
/// Stops an engine and frees it, whatever is returned. What was verified stays on disk for the next run.
///
/// Calls that wait in other threads return PEAS_CLOSED, and so does every later call. Waits at most timeout_ms (and 100 ms) for
/// the disk and for peers to be told; PEAS_TIMEOUT says that this was not enough and that a thread was left behind. After PEAS_OK the
/// targets of its jobs are free for other engines and processes. May be called from the event function, not from the wake function.
///
/// @param engine      the engine, or NULL for nothing to do
/// @param timeout_ms  0 to leave at once
/// @return            PEAS_OK; PEAS_TIMEOUT; or PEAS_CLOSED, PEAS_FORKED, PEAS_INVALID: there was nothing to close
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peas_engine_close(engine: *mut peas_engine, timeout_ms: u32) -> peas_status {
    if engine.is_null() {
        return peas_status::PEAS_OK;
    }
    answer(std::ptr::null_mut(), || {
        let host = handle::take(engine)?;
        let in_time = guarded(|| Ok(host.close(Duration::from_millis(u64::from(timeout_ms)))))?;
        if in_time { Ok(()) } else { Err(Failure::new(peas_status::PEAS_TIMEOUT, "")) }
    })
}

#[apply(capi)]
/// Reads where an engine listens, who it is, and its limits. Does not block.
///
/// @param engine  the engine
/// @param info    receives the numbers; untouched on failure
/// @return        PEAS_OK, or PEAS_INVALID, PEAS_CLOSED, PEAS_FORKED, PEAS_INTERNAL, as from every function that takes an engine
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peas_engine_get_info(engine: *mut peas_engine, info: *mut peas_engine_info) -> peas_status {
    on(engine, std::ptr::null_mut(), |host| {
        if info.is_null() {
            return Err(Failure::invalid("info is NULL"));
        }
        put(info, host.info());
        Ok(())
    })
}

#[apply(capi)]
/// Changes settings while running: limits, paused, peers, log. Takes effect within 100 ms. Does not block.
///
/// Errors: PEAS_INVALID (an option that is unknown or not for this; nothing was changed), PEAS_NOT_FOUND (no such job, or it is
/// over).
///
/// @param engine   the engine
/// @param job      the job, or 0 for the engine
/// @param options  what to change, and to what
/// @param error    receives the reason on failure; may be NULL
/// @return         PEAS_OK, or why not
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peas_set(
    engine: *mut peas_engine,
    job: peas_job,
    options: *const *const c_char,
    error: *mut peas_error,
) -> peas_status {
    on(engine, error, |host| {
        let options = text::list(options)?;
        let call = if job == 0 { Call::SetEngine } else { Call::SetJob };
        let change = settings::read(call, &options)?.change;
        if job == 0 { host.change(&change) } else { host.change_job(job, &change) }
    })
}

#[apply(capi)]
/// Makes a pea: hashes the file or folder at source, writes its description to pea.
///
/// Like all calls that start a job, this touches no disk and does not block: what is wrong with a path arrives as
/// PEAS_EVENT_ENDED, and from peas_wait. What is at pea is replaced when all is hashed, in one step.
///
/// @param engine   the engine
/// @param source   the file or folder to describe; not changed
/// @param pea      path of the pea to write
/// @param options  settings of the job, or NULL
/// @param job      receives the job, or 0 on failure; may be NULL
/// @param error    receives the reason on failure; may be NULL
/// @return         PEAS_OK when the job has begun; PEAS_INVALID (an argument), PEAS_BUSY (1,024 jobs are not over)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peas_create(
    engine: *mut peas_engine,
    source: *const c_char,
    pea: *const c_char,
    options: *const *const c_char,
    job: *mut peas_job,
    error: *mut peas_error,
) -> peas_status {
    start(peas_verb::PEAS_VERB_CREATE, engine, (pea, source, "source"), options, job, error)
}

#[apply(capi)]
/// Shares what lies at source, which must be what the pea says. Goes on until cancelled. Each piece is hashed before it is sent:
/// one that was changed on disk is not sent, and nothing here is ever repaired.
///
/// @param engine   the engine
/// @param pea      path of the pea
/// @param source   the file or folder that it describes
/// @param options  settings of the job, or NULL
/// @param job      receives the job, or 0 on failure; may be NULL
/// @param error    receives the reason on failure; may be NULL
/// @return         PEAS_OK when the job has begun; PEAS_INVALID (an argument), PEAS_BUSY (1,024 jobs are not over)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peas_share(
    engine: *mut peas_engine,
    pea: *const c_char,
    source: *const c_char,
    options: *const *const c_char,
    job: *mut peas_job,
    error: *mut peas_error,
) -> peas_status {
    start(peas_verb::PEAS_VERB_SHARE, engine, (pea, source, "source"), options, job, error)
}

#[apply(capi)]
/// Makes target (a file, or a folder if the pea describes one) what the pea says: keeps what is right, receives what is not, and
/// shares what it has. Also resumes, repairs and updates. The target changes only when all is verified and durable.
///
/// The options must say what makes the pea the right one: trust=key:HEX, pin=HEX or trust=file. An engine shares or installs
/// each content once at a time: another job ends with PEAS_BUSY, unless the first one is complete and does not share, or was
/// cancelled.
///
/// @param engine   the engine
/// @param pea      path of the pea
/// @param target   path that the content shall have; folders above it are made
/// @param options  settings of the job, or NULL
/// @param job      receives the job, or 0 on failure; may be NULL
/// @param error    receives the reason on failure; may be NULL
/// @return         PEAS_OK when the job has begun; PEAS_INVALID (an argument), PEAS_BUSY (1,024 jobs are not over)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peas_install(
    engine: *mut peas_engine,
    pea: *const c_char,
    target: *const c_char,
    options: *const *const c_char,
    job: *mut peas_job,
    error: *mut peas_error,
) -> peas_status {
    start(peas_verb::PEAS_VERB_INSTALL, engine, (pea, target, "target"), options, job, error)
}

#[apply(capi)]
/// Hashes what lies at place against the pea, and changes nothing. Complete: all is right. Ends with PEAS_CORRUPT otherwise,
/// with a notice for each bad file and the count of bad pieces in peas_info.
///
/// @param engine   the engine
/// @param pea      path of the pea
/// @param place    the file or folder that it describes
/// @param options  settings of the job, or NULL
/// @param job      receives the job, or 0 on failure; may be NULL
/// @param error    receives the reason on failure; may be NULL
/// @return         PEAS_OK when the job has begun; PEAS_INVALID (an argument), PEAS_BUSY (1,024 jobs are not over)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peas_verify(
    engine: *mut peas_engine,
    pea: *const c_char,
    place: *const c_char,
    options: *const *const c_char,
    job: *mut peas_job,
    error: *mut peas_error,
) -> peas_status {
    start(peas_verb::PEAS_VERB_VERIFY, engine, (pea, place, "place"), options, job, error)
}

#[apply(capi)]
/// Ends a job. What was verified stays on disk. PEAS_EVENT_ENDED follows. Does not block. Of a job that is over: nothing to do.
///
/// @param engine  the engine
/// @param job     the job
/// @return        PEAS_OK, or PEAS_NOT_FOUND
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peas_cancel(engine: *mut peas_engine, job: peas_job) -> peas_status {
    on(engine, std::ptr::null_mut(), |host| host.cancel(job))
}

#[apply(capi)]
/// Waits until the job is complete, or over. Takes no event from the queue. Any number of threads may wait.
///
/// @param engine      the engine
/// @param job         the job
/// @param timeout_ms  how long; 0 does not block, -1 waits without end
/// @param error       receives why the job ended; may be NULL
/// @return            PEAS_OK when complete, PEAS_TIMEOUT, PEAS_NOT_FOUND, or why the job ended
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peas_wait(engine: *mut peas_engine, job: peas_job, timeout_ms: i32, error: *mut peas_error) -> peas_status {
    let until = crate::board::Deadline::after_ms(timeout_ms);
    on(engine, error, |host| host.wait(job, until))
}

#[apply(capi)]
/// Reads what a job is doing. Does not block; cheap enough to call every frame. Jobs that are over are remembered, the last
/// 4,096 of them.
///
/// @param engine  the engine
/// @param job     the job
/// @param info    receives the numbers; untouched on failure
/// @return        PEAS_OK, or PEAS_NOT_FOUND
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peas_job_info(engine: *mut peas_engine, job: peas_job, info: *mut peas_info) -> peas_status {
    on(engine, std::ptr::null_mut(), |host| {
        if info.is_null() {
            return Err(Failure::invalid("info is NULL"));
        }
        let now = host.board.lock().job(job)?.info();
        put(info, now);
        Ok(())
    })
}

#[apply(capi)]
/// Writes the pea of a running share or install to path, with a fresh list of those who hold the content now, this peer
/// included. What was signed is unchanged. Blocks for a small durable write.
///
/// @param engine  the engine
/// @param job     the share or install
/// @param path    where to write; what is there is replaced in one step
/// @param error   receives the reason on failure; may be NULL
/// @return        PEAS_OK, PEAS_NOT_FOUND (no such job, or it is not at work), PEAS_IO, PEAS_FULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peas_refresh(engine: *mut peas_engine, job: peas_job, path: *const c_char, error: *mut peas_error) -> peas_status {
    on(engine, error, |host| {
        let path = text::path(path, "path")?;
        let session = host.board.lock().job(job)?.session.clone();
        let session = session.ok_or_else(|| Failure::new(peas_status::PEAS_NOT_FOUND, format!("job {job} shares nothing now")))?;
        Ok(peas_core::session::write_pea(&path, &session.refreshed_pea())?)
    })
}

#[apply(capi)]
/// Writes what a pea says - name, size, files, release, owners - as JSON, like snprintf: at most capacity bytes, with a NUL.
/// Needs no engine and no network; reads the file. Asks nobody whether the pea can be trusted. docs/DESCRIBE.md lists the fields.
///
/// @param pea       path of the pea
/// @param out_text  receives the text; may be NULL if capacity is 0
/// @param capacity  bytes at out_text
/// @param error     receives the reason on failure (PEAS_NOT_FOUND, PEAS_IO, PEAS_CORRUPT, PEAS_INVALID); may be NULL
/// @return          the length of the text without its NUL (more than capacity - 1: it was cut), or 0 on failure
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peas_describe(pea: *const c_char, out_text: *mut c_char, capacity: usize, error: *mut peas_error) -> usize {
    text::fill(out_text, capacity, "");
    written(error, out_text, capacity, || guarded(|| crate::describe::describe(&text::path(pea, "pea")?)))
}

#[apply(capi)]
/// Writes statistics as JSON, like snprintf: of a job, or with job 0 of the engine and all its running jobs. docs/STATS.md lists
/// the fields; they are only ever added. Does not block.
///
/// @param engine    the engine
/// @param job       the job, or 0
/// @param out_text  receives the text; may be NULL if capacity is 0
/// @param capacity  bytes at out_text
/// @return          the length of the text without its NUL (more than capacity - 1: it was cut), or 0 on failure
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peas_stats(engine: *mut peas_engine, job: peas_job, out_text: *mut c_char, capacity: usize) -> usize {
    text::fill(out_text, capacity, "");
    written(std::ptr::null_mut(), out_text, capacity, || {
        let host = handle::get(engine)?;
        host.call(|| crate::stats::stats(&host, job))
    })
}

/// Writes what a body gives; 0 if it gives none.
fn written(error: *mut peas_error, out: *mut c_char, capacity: usize, body: impl FnOnce() -> Result<String, Failure>) -> usize {
    let mut length = 0;
    answer(error, || {
        length = text::fill(out, capacity, &body()?);
        Ok(())
    });
    length
}

/// Starts a job at (pea, content, name of the content's argument).
fn start(
    verb: peas_verb,
    engine: *mut peas_engine,
    (pea, content, what): (*const c_char, *const c_char, &str),
    options: *const *const c_char,
    job: *mut peas_job,
    error: *mut peas_error,
) -> peas_status {
    put(job, 0);
    on(engine, error, |host| {
        let places = Places { pea: text::path(pea, "pea")?, content: text::path(content, what)? };
        let settings = settings::read(Call::of_verb(verb), &text::list(options)?)?;
        put(job, host.start_job(verb, places, settings)?);
        Ok(())
    })
}

/// Runs a body on the engine behind a handle.
pub(crate) fn on(engine: *mut peas_engine, error: *mut peas_error, body: impl FnOnce(&Host) -> Result<(), Failure>) -> peas_status {
    answer(error, || {
        let host = handle::get(engine)?;
        host.call(|| body(&host))
    })
}

/// Status of a body, with the reason written where the host wants it. The reason is cleared on success.
pub(crate) fn answer(error: *mut peas_error, body: impl FnOnce() -> Result<(), Failure>) -> peas_status {
    let failure = match body() {
        Ok(()) => Failure::new(peas_status::PEAS_OK, ""),
        Err(failure) => failure,
    };
    failure.write_to(error);
    failure.status
}

/// Writes where the host wants it, if anywhere.
fn put<T>(to: *mut T, value: T) {
    if !to.is_null() {
        // SAFETY: not NULL, and the host says that a T may be written there.
        unsafe { to.write(value) };
    }
}
