//! The `peas` program: make a pea, serve it, install it, check it.
//!
//! An example of an embedder that is also useful: it calls the public face of `peas-core` and nothing that another program could
//! not call. This file only picks the command and turns its end into an exit code; each command is a module. It is a library so
//! that the `peas` of the Python wheel is the same code; a process runs one command and ends.

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
use std::ffi::OsString;

/// Runs one command; its exit code, as the help lists them.
///
/// `words`: the command line, the program's own name first. `program`: the words that start this program once more, for the
/// demo's processes. Takes over SIGINT, SIGTERM and SIGHUP, and may end the process by itself when one of them comes: call it
/// once, from a program that has nothing else to do.
pub fn main(words: Vec<OsString>, program: Vec<OsString>) -> u8 {
    let args = match Args::try_parse_from(words) {
        Ok(args) => args,
        Err(told) => {
            // Help goes to standard output and is a success. Nobody is left to hear that it could not be printed.
            let _ = told.print();
            return u8::try_from(told.exit_code()).unwrap_or(exit::USAGE);
        }
    };
    let json = args.json();
    match std::panic::catch_unwind(|| run(args, &program)) {
        Ok(Ok(())) => 0,
        Ok(Err(failure)) => {
            output::report_failure(&failure, json);
            failure.exit
        }
        // The panic's own message went to standard error already.
        Err(_) => {
            output::report_failure(&Failure::bug(), json);
            exit::BUG
        }
    }
}

fn run(args: Args, program: &[OsString]) -> Result<(), Failure> {
    interrupt::watch();
    match args.command {
        Command::Create(args) => create::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Seed(args) => seed::run(args),
        Command::Install(args) => install::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Status(args) => status::run(args),
        Command::Demo(args) => demo::run(args, program),
        Command::Keygen(args) => keygen::run(args),
        Command::Admit(args) => admit::run(args),
    }
}
