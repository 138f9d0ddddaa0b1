//! Sequences of calls of the C interface, right and wrong: NULL, nonsense for handles, texts that are no UTF-8, jobs of others, calls
//! after the end. Nothing but a status may come of it.

use peas::*;
use std::ffi::CString;
use std::ptr::{null, null_mut};

/// By name.
pub const ALL: [(&str, fn(&[u8]) -> bool); 1] = [("ffi_sequence", ffi_sequence)];

struct Tape<'a>(&'a [u8]);

impl Tape<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        byte
    }

    /// A text of a few bytes, often one that means something.
    fn text(&mut self) -> CString {
        const KNOWN: [&str; 12] =
            ["trust", "file", "limit.up", "1000", "listen", "127.0.0.1:0", "/nonexistent/peas", "threads", "1", "paused", "true", "peer"];
        match self.byte() {
            known @ 0..=199 => CString::new(KNOWN[usize::from(known) % KNOWN.len()]).expect("no zeros"),
            len => {
                let bytes: Vec<u8> = (0..len % 16).map(|_| self.byte().max(1)).collect();
                CString::new(bytes).expect("no zeros")
            }
        }
    }
}

/// Calls as the bytes say, on one engine that lives as long as the sequence does, on dead ones and on none.
pub fn ffi_sequence(data: &[u8]) -> bool {
    let mut tape = Tape(data);
    let mut engine: *mut peas_engine = null_mut();
    let mut dead: *mut peas_engine = null_mut();
    let (mut job, mut good) = (0, 0);
    // SAFETY: every pointer is NULL, a handle (which is never followed), or points to live memory of the right type and length.
    unsafe {
        let mut error: peas_error = std::mem::zeroed();
        let mut calls = 0;
        while !tape.0.is_empty() && calls < 24 {
            calls += 1;
            let (op, how) = (tape.byte(), tape.byte());
            let target = match how % 8 {
                0 => null_mut(),
                1 => dead,
                2 => std::ptr::without_provenance_mut(usize::from(how) << 8 | 7),
                _ => engine,
            };
            let error: *mut peas_error = if how & 64 == 0 { &mut error } else { null_mut() };
            let [one, two, three, four] = [tape.text(), tape.text(), tape.text(), tape.text()];
            let list: [*const _; 3] = [one.as_ptr().cast(), two.as_ptr().cast(), null()];
            let options: *const *const _ = if how & 16 == 0 { null() } else { list.as_ptr() };
            let path = if how & 32 == 0 { three.as_ptr().cast() } else { null() };
            let place = if how & 8 == 0 { four.as_ptr().cast() } else { null() };
            let number = if how & 128 == 0 { job } else { u64::from(op) << 32 | 9 };
            let mut room = [0u8; 64];
            let status = match op % 18 {
                0 | 1 if engine.is_null() => {
                    let here = [c"listen", c"127.0.0.1:0", c"threads", c"1"].map(|word| word.as_ptr().cast());
                    let here = [here[0], here[1], here[2], here[3], null()];
                    peas_engine_new(if op & 64 == 0 { here.as_ptr() } else { options }, &mut engine, error) as i32
                }
                0 => peas_engine_new(options, null_mut(), error) as i32,
                1 => peas_engine_get_info(target, null_mut()) as i32,
                2 => {
                    let status = peas_engine_close(target, u32::from(how) / 8);
                    if target == engine && !engine.is_null() {
                        (dead, engine) = (engine, null_mut());
                    }
                    status as i32
                }
                3 => peas_set(target, number, options, error) as i32,
                4 => peas_create(target, path, place, options, &mut job, error) as i32,
                5 => peas_share(target, path, place, options, &mut job, error) as i32,
                6 => peas_install(target, path, place, options, &mut job, error) as i32,
                7 => peas_verify(target, path, place, options, &mut job, error) as i32,
                8 => peas_cancel(target, number) as i32,
                9 => peas_wait(target, number, i32::from(how % 4), error) as i32,
                10 => {
                    let mut info: peas_info = std::mem::zeroed();
                    peas_job_info(target, number, if op & 64 == 0 { &mut info } else { null_mut() }) as i32
                }
                11 => peas_refresh(target, number, path, error) as i32,
                12 => peas_describe(path, room.as_mut_ptr().cast(), usize::from(how) % 64, error) as i32,
                13 => peas_stats(target, number, room.as_mut_ptr().cast(), usize::from(how) % 64) as i32,
                14 => {
                    let mut events: [peas_event; 4] = std::mem::zeroed();
                    peas_poll(target, events.as_mut_ptr(), i32::from(how as i8).min(4), i32::from(op >> 7))
                }
                15 => peas_dispatch(target, None, null_mut(), 0),
                16 => peas_pollable(target) as i32,
                _ => {
                    assert!(!peas_status_string(i32::from(how as i8)).is_null());
                    peas_set_wake(target, None, null_mut()) as i32
                }
            };
            good += i32::from(status == 0);
        }
        peas_engine_close(engine, 1000);
    }
    good > 3
}
