//! The `peas` program: all of it is in the library beside.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    // Without a path of its own the system still finds it by name.
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("peas")).into_os_string();
    ExitCode::from(peas_cli::main(words, vec![program]))
}
