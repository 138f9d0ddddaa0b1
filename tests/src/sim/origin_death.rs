//! The origin dies when a distribution has come so and so far: test A2. What its clients hold together must reach all of them; what died with it
//! must be told of, and arrive when the origin is back.

use super::faults::{Fault, What};
use super::workload::{Plan, mbit};
use super::{Machine, Outcome, World};
use peas_core::unit::Rng;

/// Longest time from the origin's death until every client that misses something for good has said so, seconds.
const TOLD_WITHIN_S: f64 = 30.0;

/// What became of one swarm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Case {
    /// Pieces that died with the origin.
    pub hole: u32,
    /// The last client to tell the number of them, seconds after the origin's death; 0 without a hole.
    pub told_s: f64,
    /// The last client to be whole, seconds after the death, or after the origin's return where there was a hole.
    pub whole_s: f64,
    /// Inputs that machines took.
    pub inputs: u64,
}

/// A swarm whose origin is up to four times as fast as its clients, so that its hand-out ends early or late in the distribution.
fn plan(seed: u64) -> Plan {
    let mut rng = Rng::new(seed ^ 0xA2);
    let clients = 3 + rng.below(14);
    let mut plan = Plan::equal(clients, 100, 65_536 << rng.below(3), mbit([2.0, 12.5, 100.0][rng.below(3)]), seed);
    plan.origin_up_bytes_per_s *= 1.0 + 3.0 * rng.unit();
    plan.one_way_s = [0.000_2, 0.02, 0.15][rng.below(3)];
    plan.ends_s = 3600.0;
    plan
}

/// One seed's swarm: how long it takes if nothing goes wrong.
pub fn clean_s<M: Machine>(seed: u64) -> Result<f64, String> {
    World::<M>::new(plan(seed)).run().last_whole_s.ok_or_else(|| format!("seed {seed}: not whole although nothing went wrong"))
}

/// The same swarm, its origin dead at so many percent of that time; it comes back when the rest had twice the time that all takes.
pub fn die<M: Machine>(seed: u64, clean_s: f64, percent: u32) -> Result<Case, String> {
    let dies_s = clean_s * f64::from(percent) / 100.0;
    let back_s = dies_s + TOLD_WITHIN_S + 2.0 * clean_s;
    let plan = plan(seed);
    let clients = plan.clients.len() as u32;
    let faults = vec![Fault { at_s: dies_s, what: What::Kill(0) }, Fault { at_s: back_s, what: What::Start(0) }];
    let outcome = World::<M>::new(Plan { faults, ends_s: back_s + TOLD_WITHIN_S + 4.0 * clean_s, ..plan }).run();
    judge(&outcome, clients, dies_s, back_s).map_err(|what| format!("seed {seed}, origin dead at {percent} % of {clean_s:.2} s: {what}"))
}

fn judge(outcome: &Outcome, clients: u32, dies_s: f64, back_s: f64) -> Result<Case, String> {
    if let Some(violation) = outcome.violations.first() {
        return Err(format!("{violation:?}"));
    }
    let whole_s = outcome.last_whole_s.ok_or_else(|| format!("{} clients hang", outcome.short))?;
    let out = outcome.samples.iter().rev().find(|sample| sample.at_s < back_s).map_or(0, |sample| sample.pieces_out);
    let hole = outcome.pieces - out;
    if hole == 0 {
        let whole_s = whole_s - dies_s;
        return if dies_s + whole_s < back_s {
            Ok(Case { hole, told_s: 0.0, whole_s: whole_s.max(0.0), inputs: outcome.inputs })
        } else {
            Err(format!("the clients held everything, and the last was whole {whole_s:.1} s later"))
        };
    }
    // What a client said last while the origin was away is what its host believes.
    let mut told_s: f64 = 0.0;
    for client in 1..=clients {
        let last = outcome.unavailable.iter().rfind(|told| told.node == client && told.at_s < back_s);
        match last {
            Some(told) if told.pieces == hole && told.at_s - dies_s <= TOLD_WITHIN_S => told_s = told_s.max(told.at_s - dies_s),
            other => return Err(format!("{hole} pieces are nowhere; client {client} said {other:?} (the origin died at {dies_s:.2} s)")),
        }
    }
    Ok(Case { hole, told_s, whole_s: whole_s - back_s, inputs: outcome.inputs })
}
