//! `peas seed`: serves what is on this disk until told to stop.

use crate::args::SeedArgs;
use crate::exit::{Failure, VERIFY};
use crate::output::Output;
use crate::pea::Pea;
use crate::sharing::{self, Job, Purpose};
use peas_core::Error;
use peas_core::config::SeedOptions;
use std::path::PathBuf;

pub fn run(args: SeedArgs) -> Result<(), Failure> {
    stdin_is_free(&args.pea.pea, args.net.while_stdin)?;
    let pea = Pea::open(&args.pea, args.net.state_dir.as_deref())?;
    let place = source(&pea, args.file)?;
    let options = SeedOptions {
        peers: args.net.peer_addrs(),
        origin: !args.no_origin,
        check_first: args.check_first,
        region: args.net.region,
        credentials: sharing::credentials(&args.net, &pea.manifest)?,
        ..SeedOptions::default()
    };
    let out = Output::new(args.net.json);
    let job = Job { purpose: Purpose::Seed, pea, place, net: args.net, give_up: None, afterwards: "sharing until stopped".into(), out };
    job.pea.announce(&job.out);
    job.out.field("serves", &format!("{} until stopped", job.place.display()));
    let engine = sharing::engine(&job.net)?;
    let session = engine.seed(job.pea.manifest.clone(), &job.place, options).map_err(not_the_content)?;
    job.announce_engine(&engine);
    job.run(engine, session).map_err(|failure| match failure.exit {
        crate::exit::DISK if failure.hint.contains("--output") => wrong_source(failure.message),
        _ => failure,
    })
}

/// Standard input cannot bring the pea and the end as well.
pub fn stdin_is_free(pea: &str, while_stdin: bool) -> Result<(), Failure> {
    if pea == "-" && while_stdin {
        return Err(Failure::usage("the pea on standard input and --while-stdin exclude each other", "give the pea as a path"));
    }
    Ok(())
}

/// As told; else under the content's name, here or beside the pea.
fn source(pea: &Pea, told: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let here = pea.place(told.as_deref())?;
    if told.is_some() || here.exists() {
        return Ok(here);
    }
    let beside = pea.path.as_ref().and_then(|path| Some(path.parent()?.join(here.file_name()?)));
    match beside {
        Some(beside) if beside.exists() => Ok(beside),
        _ => Err(Failure::usage(format!("{}: no such file or folder", here.display()), "say what to serve with --file PATH")),
    }
}

fn not_the_content(error: Error) -> Failure {
    match error {
        Error::Content { .. } => wrong_source(error.to_string()),
        other => other.into(),
    }
}

fn wrong_source(message: String) -> Failure {
    Failure::new(VERIFY, message, "this is not what the pea describes: make a new pea with \"peas create\", or serve the right file")
}
