//! Getting a pea, judging it, and saying whom it was trusted for.

use crate::args::PeaArgs;
use crate::exit::{Failure, PEA, USAGE};
use crate::fetch_pea;
use crate::keys;
use crate::output::Output;
use crate::units;
use peas_core::Error;
use peas_core::config::Access;
use peas_core::manifest::{EntryKind, Manifest, Trust, TrustContext, TrustedManifest};
use peas_core::session::{self, TrustState};
use serde_json::{Value, json};
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Most that is read from standard input: more than any pea has.
const BYTES_MAX: u64 = 64 << 20;

/// A pea that was judged and accepted.
pub struct Pea {
    pub manifest: Arc<TrustedManifest>,
    /// Where it lies, if it lies on this machine.
    pub path: Option<PathBuf>,
    /// Why it is trusted, in words.
    pub trust: String,
}

impl Pea {
    /// `state_dir`: where accepted releases are remembered, if anywhere.
    pub fn open(args: &PeaArgs, state_dir: Option<&Path>) -> Result<Pea, Failure> {
        let manifest = Arc::new(trusted(args, &read(&args.pea)?, state_dir)?);
        let path = (args.pea != "-" && !fetch_pea::is_address(&args.pea)).then(|| PathBuf::from(&args.pea));
        let trust = trust_text(args, &manifest);
        Ok(Pea { manifest, path, trust })
    }

    /// What it is and why it is trusted.
    pub fn announce(&self, out: &Output) {
        out.field("content", &content_text(&self.manifest));
        out.field("id", &self.manifest.id().to_string());
        out.field("trusts", &self.trust);
        if let Some(who) = access_text(&self.manifest) {
            out.field("lets in", &who);
        }
        out.event(&json!({
            "event": "pea", "id": self.manifest.id().to_string(), "name": self.manifest.name(),
            "bytes": self.manifest.geometry().total_bytes(), "key_ids": key_ids(&self.manifest), "trust": self.trust,
        }));
    }

    /// Where the content goes or lies: as told, or under its own name in the current folder.
    pub fn place(&self, told: Option<&Path>) -> Result<PathBuf, Failure> {
        let name = file_name(&self.manifest)?;
        Ok(match told {
            // As `cp` does: a file goes into a folder that exists.
            Some(folder) if self.manifest.is_single_file() && folder.is_dir() => folder.join(name),
            Some(path) => path.to_owned(),
            None => Path::new(".").join(name),
        })
    }
}

/// The bytes of a pea at a path, an address, or on standard input.
pub fn read(from: &str) -> Result<Vec<u8>, Failure> {
    if from == "-" {
        let mut bytes = Vec::new();
        std::io::stdin()
            .lock()
            .take(BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| Failure::file("read", Path::new("standard input"), source))?;
        return Ok(bytes);
    }
    if fetch_pea::is_address(from) {
        return fetch_pea::get(from);
    }
    let path = Path::new(from);
    if path.is_dir() {
        return Err(Failure::usage(format!("{from}: a folder, not a pea"), "a pea is the file that \"peas create\" writes"));
    }
    session::read_pea(path).map_err(|error| match error {
        Error::Content { .. } => {
            Failure::new(PEA, error.to_string(), "check the path: a pea is the small file that \"peas create\" writes")
        }
        other => other.into(),
    })
}

/// The pea, if the command line's word on it is yes.
pub fn trusted(args: &PeaArgs, bytes: &[u8], state_dir: Option<&Path>) -> Result<TrustedManifest, Failure> {
    let how = match (&args.trust_keys[..], args.pin) {
        ([], None) => Trust::File,
        ([], Some(id)) => Trust::Pin(id),
        (keys, _) => Trust::Keys { keys: keys.iter().map(|key| key.0).collect(), threshold: args.threshold },
    };
    let mut state = state_dir.map(TrustState::open).transpose()?;
    // The latest time ever seen: a clock that was set back does not revive what has expired. The release is judged below, when
    // the channel is known.
    let now_unix_s = state.as_ref().map_or(Some(now_unix_s()), |state| state.context(&how, None).now_unix_s);
    let context = TrustContext { now_unix_s, channel: args.channel.clone(), release_at_least: None };
    let manifest = Manifest::decode_trusted(bytes, &how, &context).map_err(|error| {
        let failure = refused(&args.pea, &error);
        match how {
            Trust::Keys { .. } if bytes_are_fine(bytes) => Failure { hint: KEYS_HINT.into(), ..failure },
            Trust::Pin(_) if bytes_are_fine(bytes) => Failure { hint: PIN_HINT.into(), ..failure },
            _ => failure,
        }
    })?;
    if args.pin.is_some_and(|id| id != manifest.id()) {
        return Err(Failure::new(PEA, format!("{}: another content than the pinned one: {}", args.pea, manifest.id()), PIN_HINT));
    }
    if let Some(state) = &mut state {
        state.check_and_record(&how, &manifest).map_err(|error| not_the_newest(&args.pea, error))?;
    }
    Ok(manifest)
}

fn not_the_newest(from: &str, error: Error) -> Failure {
    match error {
        Error::Misuse(why) => Failure::new(PEA, format!("{from}: {why}"), "get the newest pea"),
        other => other.into(),
    }
}

const KEYS_HINT: &str = "get the pea from whoever holds that key, or check the key given to --trust-key";
const PIN_HINT: &str = "get the right pea, or check the id given to --pin";

/// Whether it was refused for what it is, not for damage.
fn bytes_are_fine(bytes: &[u8]) -> bool {
    Manifest::decode(bytes).is_ok()
}

/// A pea that is not accepted, and why.
pub fn refused(from: &str, error: &peas_core::ManifestError) -> Failure {
    let failure = Failure::session(peas_core::Error::from(error.clone()).code(), format!("{from}: {error}"));
    Failure { exit: PEA, ..failure }
}

/// Seconds since 1970 as this machine believes.
pub fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn trust_text(args: &PeaArgs, manifest: &Manifest) -> String {
    if !args.trust_keys.is_empty() {
        let asked: Vec<[u8; 32]> = args.trust_keys.iter().map(|key| key.0).collect();
        let ours: Vec<String> = manifest.signed_by(&asked).iter().map(short).collect();
        let many = if ours.len() == 1 { "key" } else { "keys" };
        return format!("{many} {} as you asked: signed", ours.join(", "));
    }
    if args.pin.is_some() {
        return "this content alone, as you pinned it".into();
    }
    match &key_ids(manifest)[..] {
        [] => "this file itself, unsigned".into(),
        [_, ..] => "this file itself, signed (checked only with --trust-key)".into(),
    }
}

/// Which keys are said to have signed it.
pub fn key_ids(manifest: &Manifest) -> Vec<String> {
    manifest.signature_key_ids().iter().map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect()).collect()
}

/// The first digits of a key: enough to tell keys apart, and a line stays a line.
fn short(key: &[u8; 32]) -> String {
    format!("{}...", &keys::hex(key)[..16])
}

/// "data: 1.21 GiB in 3,214 files".
pub fn content_text(manifest: &Manifest) -> String {
    let bytes = units::bytes(manifest.geometry().total_bytes());
    let name = printable(manifest.name());
    if manifest.is_single_file() {
        return format!("{name}: {bytes}, one file");
    }
    let files = manifest.entries().iter().filter(|entry| matches!(entry.kind, EntryKind::File { .. })).count();
    format!("{name}: {bytes} in {} file{}", units::count(files as u64), if files == 1 { "" } else { "s" })
}

/// Who may join the swarm, if not everybody.
pub fn access_text(manifest: &Manifest) -> Option<String> {
    match manifest.access() {
        Access::Open => None,
        Access::Secret => Some("whoever has its secret (--swarm-secret FILE)".into()),
        Access::Members { authority } => Some(format!("members certified by {}", keys::hex(&authority))),
    }
}

/// Addresses that a pea names, signed ones first.
pub fn addresses(manifest: &Manifest) -> Vec<String> {
    let hints = manifest.owner_hints().iter().map(|hint| hint.record.addr.to_string());
    manifest.owners().iter().map(|owner| owner.addr.clone()).chain(hints).collect()
}

/// The signed owners as JSON.
pub fn owners_json(manifest: &Manifest) -> Value {
    let owners = manifest.owners().iter();
    owners.map(|owner| json!({"addr": owner.addr, "peer": owner.peer.map(|peer| peer.to_string())})).collect()
}

/// The content's name, if it can be a file's name here.
fn file_name(manifest: &Manifest) -> Result<&str, Failure> {
    let name = manifest.name();
    if is_file_name(name) {
        return Ok(name);
    }
    Err(Failure::new(USAGE, format!("{name:?} cannot be a file's name here"), "say where with --output PATH"))
}

/// Whether this names something in a folder, and not the folder, its parent or another place.
pub fn is_file_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(only)), None) if only == name)
}

/// A text from a pea, without what could steer a terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
