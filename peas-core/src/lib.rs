//! peas: peer-assisted downloads to embed in a program.
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
#[cfg(feature = "engine")]
pub mod session;
#[cfg(feature = "engine")]
pub mod storage;
#[cfg(feature = "engine")]
pub mod transport;

pub use error::Error;
pub use event::{Event, PauseReason, Progress, State};
pub use manifest::{Manifest, ManifestError, Trust, TrustedManifest};
#[cfg(feature = "engine")]
pub use session::{Departure, Engine, Session};
