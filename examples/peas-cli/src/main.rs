//! The `peas` program: make a pea, serve it, install it, check it.
//!
//! An example of an embedder that is also useful: it calls the public face of `peas-core` and nothing that another program could
//! not call. This file only picks the command and turns its end into an exit code; each command is a module.

mod admit;
mod args;
mod create;
mod demo;
mod exit;
mod fetch_pea;
mod inspect;
mod install;
mod interrupt;
mod keygen;
mod keys;
mod output;
mod pea;
mod progress;
mod refresh;
mod seed;
mod sharing;
mod status;
mod units;
mod verify;

use args::{Args, Command};
use clap::Parser;
use exit::Failure;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = Args::parse();
    let json = args.json();
    match std::panic::catch_unwind(|| run(args)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) => {
            output::report_failure(&failure, json);
            ExitCode::from(failure.exit)
        }
        // The panic's own message went to standard error already.
        Err(_) => {
            output::report_failure(&Failure::bug(), json);
            ExitCode::from(exit::BUG)
        }
    }
}

fn run(args: Args) -> Result<(), Failure> {
    interrupt::watch();
    match args.command {
        Command::Create(args) => create::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Seed(args) => seed::run(args),
        Command::Install(args) => install::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Status(args) => status::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Keygen(args) => keygen::run(args),
        Command::Admit(args) => admit::run(args),
    }
}
