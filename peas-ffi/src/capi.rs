//! One spelling, two readers: what stands in front of every exported function.
//!
//! rustc sees an exported function whose types are proven C-safe and whose body cannot unwind into the host; cbindgen reads the
//! same text and sees a C function with its documentation. The panic barrier is *inside* the `extern "C"` function: a panic that
//! leaves one aborts the process.

use crate::panics::{self, Place};
use crate::types::peas_status;

/// Wraps an exported function: export for the linker, entry for the generated bindings, panic barrier.
macro_rules! capi {(
    $(#[doc = $doc:expr])*
    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn $name:ident ( $($arg:ident : $ty:ty),* $(,)? ) -> $ret:ty $body:block
) => (
    $(#[doc = $doc])*
    #[allow(clippy::missing_safety_doc)] // The contract of pointers stands once, at the head of the header.
    #[::safer_ffi::ffi_export]
    pub unsafe extern "C" fn $name ( $($arg : $ty),* ) -> $ret {
        $crate::capi::barrier(stringify!($name), move || $body)
    }
)}
pub(crate) use capi;

/// Nothing unwinds out of this.
pub(crate) fn barrier<T: OnPanic>(export: &'static str, body: impl FnOnce() -> T) -> T {
    let answer = panics::caught(|| {
        panics::enter(export);
        panics::panic_if_armed(Place::Entry);
        body()
    });
    answer.unwrap_or_else(|_| T::on_panic())
}

/// What a function answers when it panicked.
pub(crate) trait OnPanic {
    /// The answer.
    fn on_panic() -> Self;
}

impl OnPanic for peas_status {
    fn on_panic() -> Self {
        peas_status::PEAS_INTERNAL
    }
}

impl OnPanic for i32 {
    fn on_panic() -> Self {
        peas_status::PEAS_INTERNAL as i32
    }
}

impl OnPanic for u32 {
    fn on_panic() -> Self {
        0
    }
}

impl OnPanic for usize {
    fn on_panic() -> Self {
        0
    }
}

impl OnPanic for isize {
    fn on_panic() -> Self {
        -1
    }
}

impl<T> OnPanic for *const T {
    fn on_panic() -> Self {
        std::ptr::null()
    }
}
