//! Named workloads and what is printed about them: the table of the quality phase, the line of one run, its course over time.

use super::workload::{Conduct, PeerPlan, Plan, Trunk, mbit};
use super::{Machine, Outcome, Sample, World};
use std::fmt::Write;

/// A workload with its name.
#[derive(Clone, Debug)]
pub struct Row {
    /// What it is.
    pub name: String,
    /// The world.
    pub plan: Plan,
}

fn row(name: impl Into<String>, plan: Plan) -> Row {
    Row { name: name.into(), plan }
}

/// The workloads of the quality phase. `clients_max` leaves the larger ones out: 2,048 clients take a minute.
pub fn rows(seed: u64, clients_max: usize) -> Vec<Row> {
    let crowd = |clients, pieces| Plan::flash_crowd(clients, pieces, seed);
    let mut rows: Vec<Row> =
        [8, 32, 128, 512, 2048].map(|clients| row(format!("{clients} equal clients, 512 pieces"), crowd(clients, 512))).into();
    rows.extend([128, 256, 1024, 2048].map(|pieces| row(format!("128 clients, {pieces} pieces"), crowd(128, pieces))));
    let uneven = |at: usize| if at.is_multiple_of(8) { mbit(50.0) } else { mbit(5.0) };
    rows.push(row("128 clients, one in 8 uploads 50 Mbit/s, the others 5", {
        crowd(128, 512).with_clients(|at, client| (client.up_bytes_per_s, client.down_bytes_per_s) = (uneven(at), mbit(50.0)))
    }));
    rows.push(row("128 clients, the origin uploads a quarter of what each of them does, 256 pieces", {
        Plan { origin_up_bytes_per_s: mbit(12.5) / 4.0, ..crowd(128, 256) }
    }));
    let homes = |slow: usize| {
        let mut plan = Plan::equal(16, 512, 32 << 10, mbit(4.0), seed).with_clients(|at, client| {
            (client.up_bytes_per_s, client.down_bytes_per_s) = (mbit(if at < slow { 4.0 } else { 20.0 }), mbit(40.0));
        });
        plan.origin_up_bytes_per_s = mbit(20.0);
        plan
    };
    rows.push(row("14 clients upload 4 Mbit/s and two 20, all take 40, the origin 20; pieces of 32 KiB", homes(14)));
    rows.push(row("16 clients upload 4 Mbit/s and take 40, the origin 20; pieces of 32 KiB", homes(16)));
    for (rate, name) in [(25.0, "twice"), (13.75, "1.1 times")] {
        let thin = Trunk { bytes_per_s: mbit(rate), one_way_s: 0.040 };
        rows.push(row(format!("16 clients, pieces of 32 KiB, two regions, {name} a client's rate between"), {
            Plan { one_way_s: 0.002, ..Plan::equal(16, 512, 32 << 10, mbit(12.5), seed) }.two_regions(thin)
        }));
        rows.push(row(format!("128 clients, two regions, {name} a client's rate between"), crowd(128, 512).two_regions(thin)));
    }
    rows.push(row("16 clients upload 4 Mbit/s and take 40, pieces of 32 KiB, two regions, a wide link between", {
        let narrow = |_: usize, client: &mut PeerPlan| client.up_bytes_per_s = mbit(4.0);
        let wide = Trunk { bytes_per_s: mbit(400.0), one_way_s: 0.040 };
        Plan { one_way_s: 0.002, ..Plan::equal(16, 512, 32 << 10, mbit(40.0), seed) }.with_clients(narrow).two_regions(wide)
    }));
    rows.push(row("128 clients come one by one (Poisson, 1 per 4 s)", crowd(128, 512).poisson(0.25)));
    rows.push(row("128 clients, one in 4 comes when half is done", {
        crowd(128, 512).with_clients(|at, client| client.arrives_s = if at % 4 == 3 { 170.0 } else { 0.0 })
    }));
    for copies in [1.0, 1.02] {
        rows.push(row(
            format!("128 clients, the origin dies at {copies:.2} F"),
            Plan { origin_dies_at_copies: Some(copies), ..crowd(128, 512) },
        ));
    }
    rows.push(row("the same, clients leave 2 s after they are whole", {
        Plan { origin_dies_at_copies: Some(1.02), ..crowd(128, 512) }.with_clients(|_, client| client.leaves_after_s = Some(2.0))
    }));
    rows.push(row("128 clients, one in 4 dies and a new one comes", {
        crowd(160, 512).with_clients(|at, client| match at {
            0..32 => client.dies_at_s = Some(60.0 + 6.0 * at as f64),
            32..64 => client.arrives_s = 60.0 + 6.0 * (at - 32) as f64,
            _ => {}
        })
    }));
    for share in [0.3, 0.5] {
        rows.push(row(format!("40 clients, {:.0} % poisoners", share * 100.0), crowd(40, 512).with_conduct(share, Conduct::Poisoner)));
    }
    rows.push(row("40 clients, 30 % liars", crowd(40, 512).with_conduct(0.3, Conduct::Liar)));
    rows.push(row("40 clients, 30 % stallers", crowd(40, 512).with_conduct(0.3, Conduct::Staller)));
    rows.push(row("40 clients, 30 % hoarders", crowd(40, 512).with_conduct(0.3, Conduct::Hoarder)));
    rows.push(row("1,000 clients in 1 s, 50 Mbit/s, origin 800 Mbit/s", {
        let mut plan = Plan::equal(1000, 512, 1 << 20, mbit(50.0), seed).with_clients(|at, client| client.arrives_s = at as f64 / 1000.0);
        plan.origin_up_bytes_per_s = mbit(800.0);
        plan
    }));
    rows.push(row(
        "128 clients, 10 Gbit/s, 0.1 ms, disks of 5 GB/s",
        Plan { one_way_s: 0.000_1, disk_bytes_per_s: 5e9, ..Plan::equal(128, 512, 1 << 20, mbit(10_000.0), seed) },
    ));
    rows.push(row("128 clients, 1 Gbit/s, 50 ms", Plan { one_way_s: 0.050, ..Plan::equal(128, 512, 1 << 20, mbit(1000.0), seed) }));
    rows.push(row("16 clients, 128 pieces of 256 KiB, 100 Mbit/s, 20 ms (a piece takes half a round trip)", {
        Plan::equal(16, 128, 256 << 10, mbit(100.0), seed)
    }));
    rows.retain(|row| row.plan.clients.len() <= clients_max);
    for row in &mut rows {
        row.plan.ends_s = 10.0 * super::bound::last_client_s(&row.plan);
        // Events are payload quanta: larger ones keep a crowd's run below a minute.
        row.plan.quantum_bytes = if row.plan.clients.len() > 256 { 64 << 10 } else { 16 << 10 };
    }
    rows
}

/// Runs a plan with a machine.
pub fn run<M: Machine>(plan: &Plan) -> Outcome {
    World::<M>::new(plan.clone()).run()
}

/// Head of the table.
pub const TABLE_HEAD: &str = "| workload | last / bound | last, s | median, s | origin copies | over the thin link | control | waste |\n|---|---|---|---|---|---|---|---|\n";

/// One line of the table. `-` stands for what never came to pass.
pub fn table_line(name: &str, outcome: &Outcome) -> String {
    let number = |value: Option<f64>, digits: usize| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"));
    let median_s = outcome.durations_s.get(outcome.durations_s.len() / 2).copied().filter(|median_s| median_s.is_finite());
    let last = outcome.last_whole_s.map_or_else(|| format!("{} short", outcome.short), |last_s| format!("{last_s:.1}"));
    let over_trunk = if outcome.trunk_copies > 0.0 { format!("{:.2}", outcome.trunk_copies) } else { String::new() };
    format!(
        "| {name} | {} | {last} | {} | {:.2} | {over_trunk} | {:.3} % | {:.2} % |\n",
        number(outcome.last_whole_s.map(|_| outcome.ratio()), 3),
        number(median_s, 1),
        outcome.origin_copies,
        outcome.control_share * 100.0,
        outcome.waste_share * 100.0,
    )
}

/// Everything about one run, in lines.
pub fn describe(outcome: &Outcome) -> String {
    let mut text = String::new();
    let seconds = |value: Option<f64>| value.map_or_else(|| "never".to_owned(), |at_s| format!("{at_s:.2} s"));
    let mut line = |what: &str, value: String| writeln!(text, "{what:<22}{value}").expect("writing to a string cannot fail");
    line("last / bound", format!("{:.4}  ({} / {:.2} s)", outcome.ratio(), seconds(outcome.last_whole_s), outcome.bound_s));
    line("clients short", outcome.short.to_string());
    line("hand-out ended", format!("{}, every piece at a client {}", seconds(outcome.handed_out_s), seconds(outcome.spread_s)));
    line("origin copies", format!("{:.3}", outcome.origin_copies));
    line("first piece", format!("p99 {:.2} s, last {:.2} s", outcome.first_piece_p99_s, outcome.first_piece_s));
    line("control / payload", format!("{:.4} %", outcome.control_share * 100.0));
    line("wasted payload", format!("{:.3} %", outcome.waste_share * 100.0));
    line("thin link copies", format!("{:.2}", outcome.trunk_copies));
    line("uplinks", uplinks(&outcome.uplinks));
    line("messages", format!("{:?}", outcome.messages));
    line("most links, serves", format!("{}, {}", outcome.links_max, outcome.serves_max));
    line("inputs, events", format!("{}, {} in {:.1} virtual s", outcome.inputs, outcome.events, outcome.virtual_s));
    line("fold", format!("{:016x}", outcome.fold));
    for violation in &outcome.violations {
        line("VIOLATION", format!("{:.6} s node {}: {}", violation.at_s, violation.node, violation.what));
    }
    text
}

fn uplinks(shares: &super::stats::Uplinks) -> String {
    let percent = |value: f64| value * 100.0;
    format!(
        "busy {:.1} %; silent: empty {:.1}, unneeded {:.1}, unanswered {:.1}, declined {:.1}, pushed back {:.1}, unused {:.1}",
        percent(shares.busy),
        percent(shares.empty),
        percent(shares.unneeded),
        percent(shares.unanswered),
        percent(shares.declined),
        percent(shares.pushed_back),
        percent(shares.unused)
    )
}

/// The course of a run in about `lines` lines.
pub fn course(samples: &[Sample], lines: usize) -> String {
    let mut text = String::from("   time  whole  out   held  links fetches  busy empty unneeded unanswered declined pushed unused (%)\n");
    let step = samples.len().div_ceil(lines.max(1)).max(1);
    for group in samples.chunks(step) {
        let Some(last) = group.last() else { continue };
        let mut mean = super::stats::Uplinks::default();
        group.iter().for_each(|sample| mean.add(&sample.uplinks, 100.0 / group.len() as f64));
        let written = writeln!(
            text,
            "{:7.2} {:6} {:4} {:6.3} {:6.1} {:7.2} {:5.1} {:5.1} {:8.1} {:10.1} {:8.1} {:6.1} {:6.1}",
            last.at_s,
            last.whole,
            last.pieces_out,
            last.held,
            last.links,
            last.fetches,
            mean.busy,
            mean.empty,
            mean.unneeded,
            mean.unanswered,
            mean.declined,
            mean.pushed_back,
            mean.unused
        );
        written.expect("writing to a string cannot fail");
    }
    text
}
