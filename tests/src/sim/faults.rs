//! What goes wrong. Each seed draws which kinds of fault are on and how strong they are (swarm testing, Groce et al. 2012: runs
//! that leave some kinds out find more than runs with a little of everything), then when and whom they hit.
//!
//! Faults end at the plan's heal time; what is left then must become whole within a bound in virtual time.

use super::workload::{Conduct, Plan, Trunk, mbit};
use peas_core::unit::Rng;

/// One thing that happens to the world.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// When, seconds.
    pub at_s: f64,
    /// What.
    pub what: What,
}

/// Kinds of things. Nodes are numbers, 0 is the origin. Whatever lasts is ended by an entry of its own.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// The link between two nodes breaks, if there is one.
    Cut(u32, u32),
    /// Nothing from the first arrives at the second for this long, seconds; above 20 s the link breaks.
    Stall(u32, u32, f64),
    /// Everything to and from a node takes this much longer, seconds.
    Latency(u32, f64),
    /// The process dies; its disk stays.
    Kill(u32),
    /// The disk of a dead node is emptied.
    Wipe(u32),
    /// A dead node starts again.
    Start(u32),
    /// The disk is this many times slower than normal.
    DiskSlowness(u32, f64),
    /// The disk takes nothing for this long, seconds.
    DiskFull(u32, f64),
    /// A committed piece (chosen by this number) rots; found when it is read.
    Rot(u32, u64),
    /// The same, found by a check of the disk.
    Scrub(u32, u64),
    /// The host says so.
    Order(u32, peas_core::swarm::Order),
    /// All faults have ended: dead nodes start, and the origin comes back if some piece is nowhere.
    Heal,
}

/// Seconds of faults in a drawn plan.
pub const FAULTS_UNTIL_S: f64 = 60.0;

/// A small swarm with faults drawn from the seed.
pub fn draw(seed: u64) -> Plan {
    let mut rng = Rng::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let most = if rng.chance(0.1) { 60 } else { 14 };
    let clients = 2 + rng.below(most);
    let pieces = [1, 3, 17, 48, 96][rng.below(5)];
    let piece_bytes = 65_536 << rng.below(3);
    let mut plan = Plan::equal(clients, pieces, piece_bytes, mbit([2.0, 12.5, 100.0][rng.below(3)]), seed);
    plan.one_way_s = [0.000_2, 0.02, 0.15][rng.below(3)];
    plan.remembered = 2;
    plan.limits.neighbors = [4, 8, 32][rng.below(3)];
    plan.limits.links_max = plan.limits.neighbors * 4;
    plan.ends_s = FAULTS_UNTIL_S + 900.0;
    let late = rng.chance(0.4);
    let uneven = rng.chance(0.4);
    for client in &mut plan.clients {
        if late {
            client.arrives_s = rng.unit() * FAULTS_UNTIL_S;
        }
        if uneven {
            client.up_bytes_per_s *= 0.1 + rng.unit() * 2.0;
        }
    }
    if rng.chance(0.3) {
        let kinds = [Conduct::Poisoner, Conduct::Liar, Conduct::Staller, Conduct::Hoarder];
        let conduct = kinds[rng.below(kinds.len())];
        plan = plan.with_conduct([0.1, 0.3, 0.5][rng.below(3)], conduct);
        plan.clients[0].conduct = Conduct::Honest;
    }
    plan.faults = faults(&mut rng, clients as u32 + 1);
    if rng.chance(0.15) {
        let bytes_per_s = plan.origin_up_bytes_per_s * (0.2 + rng.unit() * 2.0);
        plan = plan.two_regions(Trunk { bytes_per_s, one_way_s: 0.040 });
    }
    plan
}

fn faults(rng: &mut Rng, nodes: u32) -> Vec<Fault> {
    let mut list = Vec::new();
    let mut add = |at_s: f64, what: What| list.push(Fault { at_s, what });
    let rate = [0.5, 2.0, 8.0][rng.below(3)];
    for kind in 0..9 {
        if !rng.chance(0.35) {
            continue;
        }
        for _ in 0..(rate * (1.0 + rng.unit() * 8.0)) as u32 {
            let at_s = rng.unit() * FAULTS_UNTIL_S * 0.9;
            let end_s = (at_s + rng.unit() * 30.0).min(FAULTS_UNTIL_S);
            let node = rng.below(nodes as usize) as u32;
            let other = (node + 1 + rng.below(nodes as usize - 1) as u32) % nodes;
            match kind {
                0 => add(at_s, What::Cut(node, other)),
                1 => add(at_s, What::Stall(node, other, end_s - at_s)),
                2 => {
                    add(at_s, What::Latency(node, rng.unit() * 2.0));
                    add(end_s, What::Latency(node, 0.0));
                }
                3 => {
                    add(at_s, What::Kill(node));
                    if node != 0 && rng.chance(0.3) {
                        add(at_s, What::Wipe(node));
                    }
                    add(end_s, What::Start(node));
                }
                4 => {
                    add(at_s, What::DiskSlowness(node, 10.0 + rng.unit() * 1000.0));
                    add(end_s, What::DiskSlowness(node, 1.0));
                }
                5 => add(at_s, if rng.chance(0.5) { What::Rot(node, rng.next_u64()) } else { What::Scrub(node, rng.next_u64()) }),
                6 => {
                    add(at_s, What::Order(node, peas_core::swarm::Order::Pause));
                    add(end_s, What::Order(node, peas_core::swarm::Order::Resume));
                }
                7 => {
                    add(at_s, What::DiskFull(node, end_s - at_s));
                    add(at_s, What::Order(node, peas_core::swarm::Order::HoldFetches));
                    add(end_s, What::Order(node, peas_core::swarm::Order::ReleaseFetches));
                }
                // The origin for good: it comes back at the heal only if some piece is nowhere else.
                _ => add(at_s, What::Kill(0)),
            }
        }
    }
    list.push(Fault { at_s: FAULTS_UNTIL_S, what: What::Heal });
    list.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
    list
}
