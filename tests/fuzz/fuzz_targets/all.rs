//! One program with every target, so that everything is linked once: `PEAS_FUZZ_TARGET` says which one runs, and with
//! `PEAS_FUZZ_CANARY=1` each has a planted bug that must be found.
#![no_main]

use libfuzzer_sys::fuzz_target;
use peas_fuzz::{Target, ffi, targets};
use std::sync::OnceLock;
use std::time::Duration;

static CHOSEN: OnceLock<(Target, bool)> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let (target, canary) = *CHOSEN.get_or_init(|| {
        let name = std::env::var("PEAS_FUZZ_TARGET").expect("PEAS_FUZZ_TARGET names a target");
        let known = targets::ALL.iter().chain(&ffi::ALL).find(|(known, _)| *known == name);
        (known.unwrap_or_else(|| panic!("no target {name}")).1, std::env::var_os("PEAS_FUZZ_CANARY").is_some())
    });
    let before = processor_time();
    let reached = target(data);
    assert!(!(canary && reached), "the planted bug");
    let used = processor_time() - before;
    assert!(used < USED_MAX, "one input took {used:?} of a processor");
});

/// No input is worth more, under AddressSanitizer and with debug assertions. Not by the clock: the machine may be busy.
const USED_MAX: Duration = Duration::from_secs(2);

/// What all threads of this process have had.
fn processor_time() -> Duration {
    let mut spec = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local of the right type.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut spec) }, 0);
    Duration::new(spec.tv_sec as u64, spec.tv_nsec as u32)
}
