//! One program with every target, so that everything is linked once: `PEAS_FUZZ_TARGET` says which one runs, and with
//! `PEAS_FUZZ_CANARY=1` each has a planted bug that must be found.
#![no_main]

use libfuzzer_sys::fuzz_target;
use peas_fuzz::{Target, ffi, targets};
use std::sync::OnceLock;

static CHOSEN: OnceLock<(Target, bool)> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let (target, canary) = *CHOSEN.get_or_init(|| {
        let name = std::env::var("PEAS_FUZZ_TARGET").expect("PEAS_FUZZ_TARGET names a target");
        let known = targets::ALL.iter().chain(&ffi::ALL).find(|(known, _)| *known == name);
        (known.unwrap_or_else(|| panic!("no target {name}")).1, std::env::var_os("PEAS_FUZZ_CANARY").is_some())
    });
    let reached = target(data);
    assert!(!(canary && reached), "the planted bug");
});
