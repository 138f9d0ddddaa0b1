//! Exported functions: the three ways to get the same events, and two ways to be woken.

use crate::api::on;
use crate::board::Hook;
use crate::capi::capi;
use crate::failure::Failure;
use crate::host::{Host, blank};
use crate::types::*;
use crate::{board::Deadline, handle};
use macro_rules_attribute::apply;
use std::ffi::c_void;

/// Events copied out at a time, so that a caller's capacity need not be trusted with memory.
const BATCH: usize = 64;

#[apply(capi)]
/// Takes events from the queue, waiting for the first. Each event goes to one caller.
///
/// @param engine      the engine
/// @param events      receives at most capacity events
/// @param capacity    how many events fit there, at least 1
/// @param timeout_ms  how long to wait for the first; 0 does not block, -1 waits without end
/// @return            how many were written to events; 0: time is up; or a negative peas_status (PEAS_BUSY while a callback is set)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peas_poll(engine: *mut peas_engine, events: *mut peas_event, capacity: i32, timeout_ms: i32) -> i32 {
    let until = Deadline::after_ms(timeout_ms);
    counted(engine, |host| {
        let capacity = match usize::try_from(capacity) {
            Ok(capacity @ 1..) if !events.is_null() => capacity,
            _ => return Err(Failure::invalid("events is NULL or capacity is not positive")),
        };
        let mut batch: [peas_event; BATCH] = std::array::from_fn(|_| blank());
        let mut count = 0;
        while count < capacity {
            let room = BATCH.min(capacity - count);
            let until = if count == 0 { until } else { Deadline::after_ms(0) };
            let got = host.take(&mut batch[..room], until)? as usize;
            // SAFETY: the host says that `capacity` events may be written, and `count + got` is at most that.
            unsafe { std::ptr::copy_nonoverlapping(batch.as_ptr(), events.add(count), got) };
            count += got;
            if got < room {
                break;
            }
        }
        Ok(count as i32)
    })
}

#[apply(capi)]
/// Calls `callback` on this thread for each waiting event, waiting for the first. For programs with a main loop: call it every
/// frame with timeout 0. Any function of peas may be called from the callback.
///
/// @param engine      the engine
/// @param callback    the function to call, once for each event; not kept
/// @param user_data   handed to it as it is
/// @param timeout_ms  how long to wait for the first; 0 does not block, -1 waits without end
/// @return            how many events were delivered, or a negative peas_status (PEAS_BUSY while a callback is set)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peas_dispatch(engine: *mut peas_engine, callback: peas_event_fn, user_data: *mut c_void, timeout_ms: i32) -> i32 {
    let until = Deadline::after_ms(timeout_ms);
    counted(engine, |host| {
        let function = callback.ok_or_else(|| Failure::invalid("callback is NULL"))?;
        host.dispatch(Hook { function, user_data }, until)
    })
}

#[apply(capi)]
/// Has events delivered by callback, on a thread that does nothing else, instead of by peas_poll or peas_dispatch; NULL goes
/// back. Never two calls at once; a slow callback delays only later callbacks (progress folds, final events are kept). Any
/// function of peas may be called from it, peas_engine_close too. Once this returns, the former callback is not running and
/// will not be called again - unless it was called from that callback itself. Do not call it while holding a lock that the
/// callback takes.
///
/// @param engine     the engine
/// @param callback   the function to call, or NULL; kept until it is replaced or the engine is closed
/// @param user_data  handed to it as it is; must stay usable as long
/// @return           PEAS_OK, or PEAS_IO (no thread could be made)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peas_set_callback(engine: *mut peas_engine, callback: peas_event_fn, user_data: *mut c_void) -> peas_status {
    on(engine, std::ptr::null_mut(), |host| host.set_callback(callback.map(|function| Hook { function, user_data })))
}

#[apply(capi)]
/// A descriptor that is readable exactly while events wait, for select, poll, epoll, kqueue, asyncio. Only wait on it: do not
/// read it, write it or close it. It lives as long as the engine, and becomes readable a last time when peas_engine_close
/// begins, so that a thread asleep on it wakes up. Take it out of an epoll set before that: its number may be used again.
///
/// @param engine  the engine
/// @return        the descriptor, or -1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peas_pollable(engine: *mut peas_engine) -> isize {
    let made = handle::get(engine).and_then(|host| host.call(|| host.board.pollable()));
    made.unwrap_or(-1)
}

#[apply(capi)]
/// Sets the wake function, or removes it with NULL. Once this returns, the former one is not running and will not be called
/// again.
///
/// @param engine     the engine
/// @param wake       the function to call when the queue stops being empty, or NULL; kept until it is replaced or the engine is closed
/// @param user_data  handed to it as it is; must stay usable as long
/// @return           PEAS_OK
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peas_set_wake(engine: *mut peas_engine, wake: peas_wake_fn, user_data: *mut c_void) -> peas_status {
    on(engine, std::ptr::null_mut(), |host| {
        host.board.set_wake(wake.map(|function| Hook { function, user_data }));
        Ok(())
    })
}

/// A count, or why there is none.
fn counted(engine: *mut peas_engine, body: impl FnOnce(&Host) -> Result<i32, Failure>) -> i32 {
    let answer = handle::get(engine).and_then(|host| host.call(|| body(&host)));
    answer.unwrap_or_else(|failure| failure.status as i32)
}
