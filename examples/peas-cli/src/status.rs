//! `peas status`: how far an unfinished install is, read from what it leaves on disk. Needs no pea and disturbs nobody.

use crate::args::StatusArgs;
use crate::exit::{DISK, Failure, UNREACHABLE};
use crate::output::{field, say};
use crate::pea::printable;
use crate::progress;
use crate::units;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Name of the folder in which an install works, up to its id.
const STAGING: &str = ".peas-";
/// Staging folders that are looked at.
const FOUND_MAX: usize = 64;
/// Largest state file that is read: it has a dozen short fields.
const STATE_BYTES_MAX: u64 = 64 * 1024;

pub fn run(args: StatusArgs) -> Result<(), Failure> {
    let found = unfinished(&args.path);
    if args.json {
        let all: Vec<Value> =
            found.iter().map(|(folder, state)| json!({"staging": folder.display().to_string(), "state": state})).collect();
        say(&json!({"path": args.path.display().to_string(), "exists": args.path.exists(), "unfinished": all}).to_string());
    } else {
        for (folder, state) in &found {
            print(folder, state);
        }
    }
    if !found.is_empty() {
        return Ok(());
    }
    if args.path.exists() {
        if !args.json {
            say(&field("in place", &format!("{}: no install is under way", args.path.display())));
            say(&field("check it", &format!("peas verify PEA {}", args.path.display())));
        }
        return Ok(());
    }
    Err(Failure::new(
        if args.path.parent().is_some_and(|folder| folder != Path::new("") && !folder.exists()) { DISK } else { UNREACHABLE },
        format!("{}: nothing is there, and no install of it is under way", args.path.display()),
        "name the place as it was given to --output, or start with \"peas install\"",
    ))
}

/// Whether an install to this place, now or broken off, has a folder beside it. One without a state was killed while it was removed,
/// and may be anybody's.
pub fn is_unfinished(place: &Path) -> bool {
    let place = absolute(place);
    stagings(&place).any(|staging| match read_state(&staging.join("state.json")) {
        Some(state) => is_for(&state, &place),
        None => staging.is_dir(),
    })
}

/// Staging folders, beside this place, of installs that write to it.
fn unfinished(place: &Path) -> Vec<(PathBuf, Value)> {
    let place = absolute(place);
    let states = stagings(&place).filter_map(|staging| {
        let state = read_state(&staging.join("state.json"))?;
        Some((staging, state))
    });
    states.filter(|(_, state)| is_for(state, &place)).take(FOUND_MAX).collect()
}

/// Everything beside the place that is called like a staging folder.
fn stagings(place: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = place.parent().and_then(|beside| fs::read_dir(beside).ok());
    let entries = entries.into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(STAGING)).map(|entry| entry.path())
}

fn read_state(path: &Path) -> Option<Value> {
    if fs::metadata(path).ok()?.len() > STATE_BYTES_MAX {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Whether a state beside the place is about this place. One that does not say is shown.
fn is_for(state: &Value, place: &Path) -> bool {
    state["destination"].as_str().is_none_or(|dest| absolute(Path::new(dest)) == *place)
}

/// As absolute as can be for what may not exist yet: at least the folder that it lies in does.
fn absolute(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match (path.parent().and_then(|folder| folder.canonicalize().ok()), path.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => path,
    }
}

fn print(folder: &Path, state: &Value) {
    let line = |label: &str, value: &str| say(&field(label, &printable(value)));
    let number = |name: &str| state[name].as_u64();
    if let Some(name) = state["name"].as_str() {
        line("content", name);
    }
    if let Some(id) = state["pea"].as_str() {
        line("id", id);
    }
    if let (Some(done), Some(total)) = (number("pieces_held"), number("pieces")) {
        let percent = progress::percent(done, total);
        line("done", &format!("{percent} %: {} of {} pieces", units::count(done), units::count(total)));
    }
    line("works in", &folder.display().to_string());
    line("go on with", "the same \"peas install\" as before: what is verified is kept");
}
