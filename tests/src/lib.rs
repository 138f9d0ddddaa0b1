//! Proofs of peas that need more than one room: a simulator of whole swarms and what is built on it.
//!
//! The simulator runs the very machine that ships ([`peas_core::swarm::Swarm`]) against a pretended world: clock, network, disks,
//! faults. Nothing here opens a socket or a file, and nothing depends on the real clock, so a seed replays for ever.

pub mod sim;
