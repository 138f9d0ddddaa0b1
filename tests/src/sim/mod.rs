//! A discrete-event simulator of swarms.
//!
//! [`Plan`] says what the world is like, [`World`] runs it in virtual time, [`Outcome`] says how it went. Every event has a time
//! and a number, so the same plan gives the same run to the last bit; [`Outcome::fold`] is the fingerprint that proves it.

pub mod bound;
pub mod checks;
mod disk;
mod driver;
mod event;
pub mod faults;
mod life;
mod link;
pub mod naive;
mod node;
pub mod origin_death;
pub mod plot;
pub mod report;
mod stats;
mod traffic;
pub mod workload;
pub mod world;

pub use checks::Violation;
pub use stats::{Outcome, Sample, Unavailable};
pub use workload::{Conduct, PeerPlan, Plan, Trunk};
pub use world::World;

use peas_core::swarm::{Input, Output, Setup, Snapshot, Swarm};
use peas_core::unit::{PieceSet, Time};

/// What the world asks of a machine. [`Swarm`] is the one that matters; others stand beside it for comparison and as controls.
pub trait Machine {
    /// Ready for its first input.
    fn new(setup: Setup) -> Self;
    /// Takes one fact.
    fn handle(&mut self, now: Time, input: Input);
    /// Gives the next request; `None` when all are given.
    fn poll(&mut self) -> Option<Output>;
    /// When it wants a `Timeout` if nothing else happens before.
    fn deadline(&self) -> Option<Time>;
    /// How far it is.
    fn snapshot(&self, now: Time) -> Snapshot;
    /// What it holds.
    fn held(&self) -> &PieceSet;
}

impl Machine for Swarm {
    fn new(setup: Setup) -> Self {
        Swarm::new(setup)
    }

    fn handle(&mut self, now: Time, input: Input) {
        Swarm::handle(self, now, input);
    }

    fn poll(&mut self) -> Option<Output> {
        Swarm::poll(self)
    }

    fn deadline(&self) -> Option<Time> {
        Swarm::deadline(self)
    }

    fn snapshot(&self, now: Time) -> Snapshot {
        Swarm::snapshot(self, now)
    }

    fn held(&self) -> &PieceSet {
        Swarm::held(self)
    }
}
