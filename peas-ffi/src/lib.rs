//! The C ABI of peas: `include/peas.h` is written from `types.rs` and `api*.rs`.
//!
//! Thin on purpose: options become the core's configuration, the core's events become plain structs in a queue, errors become
//! numbers with a line of text. Nothing here chooses anything about a download. What always holds: no panic leaves an exported
//! function, no pointer of the host's is kept after a call returned (the callbacks and their data excepted), no handle is
//! followed without being looked up, and no call but those that say so can block.
//!
//! Rooms: `capi` (what wraps an export), `types` (what crosses), `api*` (the exports), `handle` (pointer to engine), `host`
//! (an engine in a host), `board`, `queue`, `bell`, `job` (what the host may ask), `jobs` (what runs), `options`, `values`,
//! `settings` (what the host may say), `trust`, `web_ca`, `describe`, `failure`, `panics`, `text`.

#![allow(non_camel_case_types)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod api;
mod api_events;
mod bell;
mod board;
mod capi;
mod describe;
mod failure;
#[cfg(test)]
mod gate;
mod handle;
mod host;
mod job;
mod jobs;
mod options;
mod panics;
mod queue;
mod settings;
mod stats;
mod text;
mod trust;
mod types;
mod values;
mod web_ca;

pub use api::*;
pub use api_events::*;
pub use options::options_page;
pub use types::*;
