//! The fluid lower bound: the time before which no system can have finished.
//!
//! Bits are a fluid that every host may forward the moment it arrives (Kumar and Ross, "Peer-assisted file distribution: the
//! minimum distribution time", 2006), with arrivals, a dying origin and a thin link added. A measured time below it means that
//! the simulator is wrong. Rates are those of payload: the overhead on the wire is taken off.

use super::workload::{OVERHEAD, PeerPlan, Plan};

/// Earliest second at which the last honest client can be whole.
pub fn last_client_s(plan: &Plan) -> f64 {
    let size = plan.geometry.total_bytes() as f64;
    let honest: Vec<&PeerPlan> = plan.honest().collect();
    let first_s = honest.iter().map(|client| client.arrives_s).fold(f64::INFINITY, f64::min);
    let mut bound_s = first_s + size / payload(plan.origin_up_bytes_per_s);
    for client in &honest {
        bound_s = bound_s.max(client.arrives_s + size / payload(client.down_bytes_per_s));
    }
    for since in &honest {
        let late = honest.iter().filter(|client| client.arrives_s >= since.arrives_s).count();
        bound_s = bound_s.max(upload_s(plan, &honest, since.arrives_s, late as f64 * size));
    }
    let far = honest.iter().filter(|client| client.region != plan.origin_region).map(|client| client.arrives_s).reduce(f64::min);
    match (plan.trunk, far) {
        (Some(trunk), Some(far_s)) => bound_s.max(far_s + size / payload(trunk.bytes_per_s)),
        _ => bound_s,
    }
}

fn payload(bytes_per_s: f64) -> f64 {
    bytes_per_s / OVERHEAD
}

/// When origin and clients together have sent `demand` bytes, from `since_s` on.
fn upload_s(plan: &Plan, clients: &[&PeerPlan], since_s: f64, demand: f64) -> f64 {
    let origin = payload(plan.origin_up_bytes_per_s);
    let budget = plan.origin_dies_at_copies.map_or(f64::INFINITY, |copies| copies * plan.geometry.total_bytes() as f64);
    let origin_until_s = since_s + budget / origin;
    let mut steps: Vec<f64> = clients.iter().map(|client| client.arrives_s).filter(|&at_s| at_s > since_s).collect();
    steps.push(since_s);
    if origin_until_s.is_finite() {
        steps.push(origin_until_s);
    }
    steps.sort_by(f64::total_cmp);
    steps.dedup();
    let mut sent = 0.0;
    for (at, &now_s) in steps.iter().enumerate() {
        let next_s = steps.get(at + 1).copied().unwrap_or(f64::INFINITY);
        let peers: f64 = clients.iter().filter(|client| client.arrives_s <= now_s).map(|client| payload(client.up_bytes_per_s)).sum();
        let rate = peers + if now_s < origin_until_s { origin } else { 0.0 };
        if rate > 0.0 && sent + rate * (next_s - now_s) >= demand {
            return now_s + (demand - sent) / rate;
        }
        sent += rate * (next_s - now_s);
    }
    f64::INFINITY
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::workload::mbit;

    fn near(measured: f64, expected: f64) {
        assert!((measured / expected - 1.0).abs() < 1e-9, "{measured} is not {expected}");
    }

    #[test]
    fn equal_clients_are_bound_by_one_copy_through_the_origin() {
        let plan = Plan::flash_crowd(32, 64, 1);
        near(last_client_s(&plan), plan.geometry.total_bytes() as f64 * OVERHEAD / mbit(12.5));
    }

    #[test]
    fn slow_uplinks_are_bound_by_the_sum_of_uploads() {
        let plan = Plan::flash_crowd(9, 64, 1).with_clients(|_, client| client.up_bytes_per_s = mbit(1.25));
        let total = plan.geometry.total_bytes() as f64;
        near(last_client_s(&plan), 9.0 * total * OVERHEAD / (mbit(12.5) + 9.0 * mbit(1.25)));
    }

    #[test]
    fn a_late_client_needs_its_own_time() {
        let mut plan = Plan::flash_crowd(4, 64, 1);
        plan.clients[3].arrives_s = 1000.0;
        near(last_client_s(&plan), 1000.0 + plan.geometry.total_bytes() as f64 * OVERHEAD / mbit(12.5));
    }

    #[test]
    fn an_origin_that_dies_leaves_the_rest_to_the_clients() {
        let mut plan = Plan::flash_crowd(2, 64, 1).with_clients(|_, client| client.up_bytes_per_s = mbit(6.25));
        plan.origin_dies_at_copies = Some(1.0);
        let one_copy_s = plan.geometry.total_bytes() as f64 * OVERHEAD / mbit(12.5);
        near(last_client_s(&plan), one_copy_s);
        plan.clients.iter_mut().for_each(|client| client.up_bytes_per_s = mbit(3.125));
        near(last_client_s(&plan), 2.0 * one_copy_s);
    }
}
