//! The bodies of the fuzz targets: `run` builds and runs each over its corpus.

pub mod ffi;
pub mod targets;

/// Takes what a stranger sends. Panics if a promise is broken; says whether the input got past the first checks, which is where the
/// planted bug of each target lies.
pub type Target = fn(&[u8]) -> bool;
