//! peas: peer-assisted downloads to embed in a program.
//!
//! A publisher turns a file or a folder into a small *pea*; whoever has the pea installs the content from the origin and from
//! everybody else who is installing it, and serves it on. The map of the house is in
//! [`docs::architecture`].
// ground floor: pure
pub mod config;
pub mod error;
pub mod event;
pub mod hash;
pub mod manifest;
pub mod swarm;
pub mod unit;
pub mod wire;
// upper floor: hands
#[cfg(feature = "engine")]
mod discovery;
#[cfg(feature = "engine")]
mod engine;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "engine")]
pub mod session;
#[cfg(feature = "engine")]
mod source;
#[cfg(feature = "engine")]
pub mod storage;
#[cfg(feature = "engine")]
pub mod transport;

pub use error::Error;
pub use event::{Event, PauseReason, Progress, State};
pub use manifest::{Manifest, ManifestError, Trust, TrustedManifest};
#[cfg(feature = "engine")]
pub use session::{Departure, Engine, Session};

/// How peas works, and why.
pub mod docs {
    #[doc = include_str!("docs/architecture.md")]
    pub mod architecture {}
    #[doc = include_str!("docs/dependencies.md")]
    pub mod dependencies {}
    #[doc = include_str!("docs/durability.md")]
    pub mod durability {}
    #[doc = include_str!("docs/format.md")]
    pub mod format {}
    #[doc = include_str!("docs/limits.md")]
    pub mod limits {}
    #[doc = include_str!("docs/performance.md")]
    pub mod performance {}
    #[doc = include_str!("docs/protocol.md")]
    pub mod protocol {}
    #[doc = include_str!("docs/simulator.md")]
    #[doc = ""]
    #[doc = include_str!("docs/quality.svg")]
    #[doc = ""]
    #[doc = include_str!("docs/quality.md")]
    pub mod simulator {}
    #[doc = include_str!("docs/testing.md")]
    pub mod testing {}
    #[doc = include_str!("docs/trust.md")]
    pub mod trust {}
    #[doc = include_str!("docs/tuning.md")]
    pub mod tuning {}
    #[doc = include_str!("docs/hostile.md")]
    pub mod hostile {}
}
