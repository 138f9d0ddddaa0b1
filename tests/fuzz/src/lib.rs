//! The bodies of the fuzz targets. Those in `targets` are also run over the committed corpora by `tests/tests/corpora.rs`.

pub mod ffi;
pub mod targets;

/// Takes what a stranger sends. Panics if a promise is broken; says whether the input got past the first checks, which is where the
/// planted bug of each target lies.
pub type Target = fn(&[u8]) -> bool;
