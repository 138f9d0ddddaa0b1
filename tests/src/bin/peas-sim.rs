//! The simulator at the command line: single runs, seeds with faults, the quality table.

use clap::{Args, Parser, Subcommand, ValueEnum};
use peas_core::swarm::Swarm;
use peas_tests::sim::naive::Naive;
use peas_tests::sim::workload::{Conduct, Plan, Trunk, mbit};
use peas_tests::sim::{Machine, Outcome, World, faults, origin_death, plot, report};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Simulates swarms of peas in virtual time.
#[derive(Parser)]
#[command(name = "peas-sim")]
struct Cli {
    /// Which machine runs in every node.
    #[arg(long, value_enum, default_value_t = Kind::Swarm, global = true)]
    machine: Kind,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// The one that ships.
    Swarm,
    /// Greedy pull without grants, for comparison.
    Naive,
}

#[derive(Subcommand)]
enum Command {
    /// One flash crowd of equal clients.
    Run(RunArgs),
    /// Swarms with faults drawn from seeds.
    Seeds {
        /// First seed.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// How many.
        #[arg(long, default_value_t = 200)]
        count: u64,
    },
    /// Swarms whose origin dies at each hundredth of what they take.
    OriginDies {
        /// First seed.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// How many, each a swarm of its own.
        #[arg(long, default_value_t = 20)]
        count: u64,
        /// Per cent between two deaths.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
        step: u32,
    },
    /// One swarm with faults, in full.
    Replay {
        /// The seed.
        #[arg(long)]
        seed: u64,
        /// Print every input and output of this node (0 is the origin) on standard error.
        #[arg(long)]
        trace: Option<u32>,
    },
    /// The table of the quality phase, as Markdown.
    Report(ReportArgs),
    /// Draw the picture of a table again, quality.svg from quality.md, after the way of drawing changed.
    Redraw {
        /// The folder that both are in.
        dir: PathBuf,
    },
}

#[derive(Args)]
struct ReportArgs {
    /// Seed of all rows.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Leave larger swarms out.
    #[arg(long, default_value_t = 512)]
    clients_max: usize,
    /// Only rows whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Print everything about each row.
    #[arg(long)]
    verbose: bool,
    /// Also write the table and its picture into this folder: quality.md and quality.svg.
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
}

#[derive(Args)]
struct RunArgs {
    /// Clients.
    #[arg(long, default_value_t = 32)]
    clients: usize,
    /// Pieces of the content.
    #[arg(long, default_value_t = 512)]
    pieces: u32,
    /// Size of a piece, KiB.
    #[arg(long, default_value_t = 1024)]
    piece_kib: u32,
    /// Upload rate of clients, Mbit/s.
    #[arg(long, default_value_t = 12.5)]
    up_mbit: f64,
    /// Download rate of clients, Mbit/s; the upload rate if not given.
    #[arg(long)]
    down_mbit: Option<f64>,
    /// Upload rate of the origin, Mbit/s; the clients' if not given.
    #[arg(long)]
    origin_mbit: Option<f64>,
    /// One-way latency, ms.
    #[arg(long, default_value_t = 20.0)]
    one_way_ms: f64,
    /// The origin dies when it has sent this many copies.
    #[arg(long)]
    origin_dies_at: Option<f64>,
    /// Clients come at random, this many per second, instead of at once.
    #[arg(long)]
    poisson_per_s: Option<f64>,
    /// Every other client is in a second region, behind a link of this rate, Mbit/s.
    #[arg(long)]
    trunk_mbit: Option<f64>,
    /// What that link adds to the one-way latency, ms.
    #[arg(long, default_value_t = 40.0)]
    trunk_ms: f64,
    /// Share of poisoners.
    #[arg(long, default_value_t = 0.0)]
    poisoners: f64,
    /// Neighbours of each machine.
    #[arg(long)]
    neighbors: Option<u16>,
    /// Quantum of payload, KiB.
    #[arg(long, default_value_t = 16)]
    quantum_kib: u32,
    /// Seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The run ends here, virtual seconds.
    #[arg(long)]
    ends_s: Option<f64>,
    /// Print every input and output of this node (0 is the origin) on standard error.
    #[arg(long)]
    trace: Option<u32>,
    /// Print the course of the run.
    #[arg(long)]
    verbose: bool,
}

impl RunArgs {
    fn plan(&self) -> Plan {
        let mut plan = Plan::equal(self.clients, self.pieces, self.piece_kib << 10, mbit(self.up_mbit), self.seed)
            .with_clients(|_, client| client.down_bytes_per_s = mbit(self.down_mbit.unwrap_or(self.up_mbit)))
            .with_conduct(self.poisoners, Conduct::Poisoner);
        if let Some(per_s) = self.poisson_per_s {
            plan = plan.poisson(per_s);
        }
        if let Some(trunk_mbit) = self.trunk_mbit {
            plan = plan.two_regions(Trunk { bytes_per_s: mbit(trunk_mbit), one_way_s: self.trunk_ms / 1000.0 });
        }
        plan.origin_up_bytes_per_s = mbit(self.origin_mbit.unwrap_or(self.up_mbit));
        plan.one_way_s = self.one_way_ms / 1000.0;
        plan.origin_dies_at_copies = self.origin_dies_at;
        plan.quantum_bytes = self.quantum_kib << 10;
        plan.trace = self.trace;
        if let Some(neighbors) = self.neighbors {
            plan.limits.neighbors = neighbors;
            plan.limits.links_max = plan.limits.links_max.max(neighbors * 2);
        }
        if let Some(ends_s) = self.ends_s {
            plan.ends_s = ends_s;
        }
        plan
    }
}

impl Kind {
    fn run(self, plan: Plan) -> Outcome {
        match self {
            Self::Swarm => World::<Swarm>::new(plan).run(),
            Self::Naive => World::<Naive>::new(plan).run(),
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Command::Run(args) => one(cli.machine, args.plan(), args.verbose),
        Command::Replay { seed, trace } => one(cli.machine, Plan { trace, ..faults::draw(seed) }, true),
        Command::Seeds { from, count } => seeds(cli.machine, from, count),
        Command::OriginDies { from, count, step } => match cli.machine {
            Kind::Swarm => origin_dies::<Swarm>(from, count, step),
            Kind::Naive => origin_dies::<Naive>(from, count, step),
        },
        Command::Report(args) => table(cli.machine, &args),
        Command::Redraw { dir } => told(redraw(&dir)),
    }
}

fn one(machine: Kind, plan: Plan, verbose: bool) -> ExitCode {
    for fault in plan.faults.iter().filter(|_| verbose) {
        println!("{:8.3} s {:?}", fault.at_s, fault.what);
    }
    let began = Instant::now();
    let outcome = machine.run(plan);
    if verbose {
        println!("{}", report::course(&outcome.samples, 40));
    }
    print!("{}", report::describe(&outcome));
    let real_s = began.elapsed().as_secs_f64();
    println!("{:<22}{real_s:.2} s, {:.0} inputs/s", "real time", outcome.inputs as f64 / real_s);
    if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn seeds(machine: Kind, from: u64, count: u64) -> ExitCode {
    let (mut failed, mut inputs, mut virtual_s) = (0, 0, 0.0);
    let began = Instant::now();
    for seed in from..from.saturating_add(count) {
        let Ok(outcome) = std::panic::catch_unwind(|| machine.run(faults::draw(seed))) else {
            failed += 1;
            println!("seed {seed}: panic");
            continue;
        };
        inputs += outcome.inputs;
        virtual_s += outcome.virtual_s;
        if let Some(violation) = outcome.violations.first() {
            failed += 1;
            println!(
                "seed {seed}: {:.3} s node {}: {} ({} in all)",
                violation.at_s,
                violation.node,
                violation.what,
                outcome.violations.len()
            );
        }
    }
    let real_s = began.elapsed().as_secs_f64();
    println!(
        "{count} seeds, {failed} with broken promises; {inputs} inputs, {:.1} virtual hours in {real_s:.1} s ({:.0} inputs/s)",
        virtual_s / 3600.0,
        inputs as f64 / real_s
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn origin_dies<M: Machine>(from: u64, count: u64, step: u32) -> ExitCode {
    let (mut swarms, mut holes, mut failed, mut inputs) = (0, 0, 0, 0);
    let (mut told_s, mut whole_s): (f64, f64) = (0.0, 0.0);
    let began = Instant::now();
    for seed in from..from.saturating_add(count) {
        let deaths = (step..=100).step_by(step as usize);
        let cases: Vec<_> = match origin_death::clean_s::<M>(seed) {
            Ok(clean_s) => deaths.map(|percent| origin_death::die::<M>(seed, clean_s, percent)).collect(),
            Err(what) => vec![Err(what)],
        };
        for case in cases {
            swarms += 1;
            match case {
                Ok(case) => {
                    holes += u32::from(case.hole > 0);
                    (told_s, inputs) = (told_s.max(case.told_s), inputs + case.inputs);
                    whole_s = whole_s.max(case.whole_s);
                }
                Err(what) => {
                    failed += 1;
                    println!("{what}");
                }
            }
        }
    }
    println!(
        "{swarms} swarms, {failed} with broken promises; {holes} with a hole, told of after {told_s:.1} s at most; the last whole {whole_s:.1} s \
         after the death or the return at most; {inputs} inputs in {:.1} s",
        began.elapsed().as_secs_f64()
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn table(machine: Kind, args: &ReportArgs) -> ExitCode {
    let mut table = report::TABLE_HEAD.to_owned();
    let mut end = ExitCode::SUCCESS;
    print!("{table}");
    for row in report::rows(args.seed, args.clients_max).into_iter().filter(|row| row.name.contains(&args.only)) {
        let outcome = machine.run(row.plan);
        let line = report::table_line(&row.name, &outcome);
        print!("{line}");
        table.push_str(&line);
        if args.verbose {
            println!("{}\n{}", report::course(&outcome.samples, 20), report::describe(&outcome));
        }
        if let Some(violation) = outcome.violations.first() {
            eprintln!("{}: {} promises broken, first: {}", row.name, outcome.violations.len(), violation.what);
            end = ExitCode::FAILURE;
        }
    }
    let written = args.into.as_ref().map_or(Ok(()), |dir| write(&dir.join("quality.md"), &table).and_then(|()| redraw(dir)));
    if written.is_ok() { end } else { told(written) }
}

fn redraw(dir: &Path) -> Result<(), String> {
    let table = dir.join("quality.md");
    let text = std::fs::read_to_string(&table).map_err(|error| format!("{}: {error}", table.display()))?;
    write(&dir.join("quality.svg"), &plot::svg(&text).map_err(|error| format!("{}: {error}", table.display()))?)
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn told(end: Result<(), String>) -> ExitCode {
    match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
