//! `peas inspect`: prints what a pea says. Trusts nothing and touches nothing; with `--trust-key` or `--pin` it also judges.

use crate::args::InspectArgs;
use crate::exit::Failure;
use crate::keys;
use crate::output::{field, say};
use crate::pea::{self, printable};
use crate::units;
use peas_core::Manifest;
use peas_core::config::Access;
use peas_core::manifest::{EntryKind, FileEntry};
use serde_json::{Value, json};

pub fn run(args: InspectArgs) -> Result<(), Failure> {
    let bytes = pea::read(&args.pea.pea)?;
    let manifest = Manifest::decode(&bytes).map_err(|error| pea::refused(&args.pea.pea, &error))?;
    let asked: Vec<[u8; 32]> = args.pea.trust_keys.iter().map(|key| key.0).collect();
    let signed_by: Vec<String> = manifest.signed_by(&asked).iter().map(keys::hex).collect();
    if args.json {
        let mut text = as_json(&manifest, bytes.len(), args.files);
        text["signed_by"] = signed_by.into();
        say(&text.to_string());
    } else {
        print(&manifest, &signed_by, bytes.len(), args.files);
    }
    if !asked.is_empty() || args.pea.pin.is_some() || args.pea.channel.is_some() {
        pea::trusted(&args.pea, &bytes, None)?;
    }
    Ok(())
}

fn print(manifest: &Manifest, signed_by: &[String], pea_bytes: usize, with_files: bool) {
    let line = |label: &str, value: &str| say(&field(label, &printable(value)));
    let geometry = manifest.geometry();
    line("content", &pea::content_text(manifest));
    line("id", &manifest.id().to_string());
    line("pieces", &format!("{} of {}", units::count(geometry.piece_count().into()), units::bytes(geometry.piece_bytes().into())));
    line("pea", &units::bytes(pea_bytes as u64));
    line("created", &format!("{} UTC", units::date(manifest.created_unix_s())));
    match manifest.expires_unix_s() {
        0 => {}
        at => line("expires", &format!("{} UTC", units::date(at))),
    }
    if !manifest.channel().is_empty() {
        line("channel", &format!("{}, release {}", manifest.channel(), manifest.release()));
    }
    for key in signed_by {
        line("signed by", key);
    }
    match &pea::key_ids(manifest)[..] {
        [] => line("signed by", "nobody"),
        _ if !signed_by.is_empty() => {}
        ids => ids.iter().for_each(|id| line("signature", &format!("said to be by the key with id {id} (check with --trust-key)"))),
    }
    for owner in manifest.owners() {
        line("owner", &owner.addr);
    }
    for address in manifest.web() {
        line("web", address);
    }
    if let Some(who) = pea::access_text(manifest) {
        line("lets in", &who);
    }
    for hint in manifest.owner_hints() {
        let held = f64::from(hint.record.held_permille) / 10.0;
        line("seen", &format!("{} with {held} % (a hint, not signed by the publisher)", hint.record.addr));
    }
    if with_files {
        say("");
        for entry in manifest.entries() {
            say(&printable(&entry_text(entry)));
        }
    }
}

fn entry_text(entry: &FileEntry) -> String {
    match &entry.kind {
        EntryKind::File { bytes, executable, .. } => {
            format!("{:>9} {} {}", units::bytes(*bytes), if *executable { "x" } else { " " }, entry.path)
        }
        EntryKind::Directory => format!("{:>9}   {}/", "", entry.path),
        EntryKind::Symlink { target } => format!("{:>9}   {} -> {target}", "", entry.path),
    }
}

fn as_json(manifest: &Manifest, pea_bytes: usize, with_files: bool) -> Value {
    let geometry = manifest.geometry();
    let mut text = json!({
        "id": manifest.id().to_string(),
        "name": manifest.name(),
        "single_file": manifest.is_single_file(),
        "bytes": geometry.total_bytes(),
        "pieces": geometry.piece_count(),
        "piece_bytes": geometry.piece_bytes(),
        "pea_bytes": pea_bytes,
        "root": keys::hex(manifest.root()),
        "entries": manifest.entries().len(),
        "owners": pea::owners_json(manifest),
        "web": manifest.web(),
        "access": match manifest.access() {
            Access::Open => "open",
            Access::Secret => "secret",
            Access::Members { .. } => "members",
        },
        "authority": match manifest.access() {
            Access::Members { authority } => Some(keys::hex(&authority)),
            Access::Open | Access::Secret => None,
        },
        "channel": manifest.channel(),
        "release": manifest.release(),
        "created_unix_s": manifest.created_unix_s(),
        "expires_unix_s": manifest.expires_unix_s(),
        "key_ids": pea::key_ids(manifest),
        "hints": manifest.owner_hints().iter().map(|hint| json!({
            "peer": keys::hex(&hint.record.peer),
            "addr": hint.record.addr.to_string(),
            "age_s": hint.record.age_s,
            "ttl_s": hint.record.ttl_s,
            "held_permille": hint.record.held_permille,
            "region": hint.record.region,
        })).collect::<Vec<_>>(),
    });
    if with_files {
        text["files"] = manifest.entries().iter().map(entry_json).collect();
    }
    text
}

fn entry_json(entry: &FileEntry) -> Value {
    match &entry.kind {
        EntryKind::File { offset, bytes, executable, hash } => json!({
            "path": entry.path, "kind": "file", "offset": offset, "bytes": bytes, "executable": executable, "hash": keys::hex(hash),
        }),
        EntryKind::Directory => json!({"path": entry.path, "kind": "directory"}),
        EntryKind::Symlink { target } => json!({"path": entry.path, "kind": "symlink", "target": target}),
    }
}
