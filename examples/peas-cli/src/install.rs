//! `peas install`: makes a place what the pea says, then helps others for as long as asked.

use crate::args::{InstallArgs, NetArgs, StayArgs};
use crate::exit::Failure;
use crate::output::Output;
use crate::pea::Pea;
use crate::seed;
use crate::sharing::{self, Job, Purpose};
use crate::units;
use peas_core::config::{InstallOptions, SeedPolicy};
use std::path::PathBuf;
use std::time::Duration;

pub fn run(args: InstallArgs) -> Result<(), Failure> {
    seed::stdin_is_free(&args.pea.pea, args.net.while_stdin)?;
    let pea = Pea::open(&args.pea, args.net.state_dir.as_deref())?;
    let place = pea.place(args.output.as_deref())?;
    let out = Output::new(args.net.json);
    pea.announce(&out);
    install(pea, place, args.stay, args.give_up, args.net, out)
}

/// Also what repairs.
pub fn install(pea: Pea, place: PathBuf, stay: StayArgs, give_up: Option<Duration>, net: NetArgs, out: Output) -> Result<(), Failure> {
    let (seed, afterwards) = policy(&stay);
    let (web, credentials) = (net.from_web.into(), sharing::credentials(&net, &pea.manifest)?);
    let options = InstallOptions { peers: net.peer_addrs(), seed, region: net.region, web, credentials, ..InstallOptions::default() };
    let job = Job { purpose: Purpose::Install, pea, place, net, give_up, afterwards, out };
    job.out.field("writes to", &job.place.display().to_string());
    let engine = sharing::engine(&job.net)?;
    job.announce_engine(&engine);
    let session = engine.install(job.pea.manifest.clone(), &job.place, options)?;
    job.run(engine, session)
}

/// How long to stay, and how to say it.
fn policy(stay: &StayArgs) -> (SeedPolicy, String) {
    if stay.keep_seeding {
        return (SeedPolicy::Forever, "sharing until stopped (Ctrl-C)".into());
    }
    if let Some(time) = stay.seed_time {
        return (SeedPolicy::For(time), format!("sharing for {} (Ctrl-C stops)", units::time(time)));
    }
    if let Some(ratio) = stay.seed_ratio {
        return (SeedPolicy::Ratio(ratio), format!("sharing until {ratio} times the content was sent (Ctrl-C stops)"));
    }
    (SeedPolicy::Leave, String::new())
}
