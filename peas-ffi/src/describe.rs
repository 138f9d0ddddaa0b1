//! What a pea says, as JSON. Fields are only ever added; `docs/DESCRIBE.md` lists them.

use crate::failure::Failure;
use peas_core::Manifest;
use peas_core::config::Access;
use peas_core::manifest::EntryKind;
use peas_core::unit::PeerId;
use serde_json::{Value, json};
use std::path::Path;

/// Entries listed; `files` counts all.
const ENTRIES_MAX: usize = 10_000;

/// Blocking: reads the file. Nobody is asked whether it can be trusted.
pub(crate) fn describe(pea: &Path) -> Result<String, Failure> {
    let manifest = Manifest::decode(&peas_core::session::read_pea(pea)?)?;
    let geometry = manifest.geometry();
    let owners: Vec<Value> =
        manifest.owners().iter().map(|owner| json!({ "addr": owner.addr, "peer_id": owner.peer.map(|id| id.to_string()) })).collect();
    // Names of keys only: whether a signature is right can be said only to somebody who knows the key.
    let signed_by: Vec<String> =
        manifest.signature_key_ids().iter().map(|id| id.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
    let files = manifest.entries().iter().filter(|entry| matches!(entry.kind, EntryKind::File { .. })).count();
    let (access, authority) = match manifest.access() {
        Access::Open => ("open", None),
        Access::Secret => ("secret", None),
        Access::Members { authority } => ("members", Some(PeerId(authority).to_string())),
    };
    let text = json!({
        "id": manifest.id().to_string(),
        "name": manifest.name(),
        "single_file": manifest.is_single_file(),
        "bytes": geometry.total_bytes(),
        "pieces": geometry.piece_count(),
        "piece_bytes": geometry.piece_bytes(),
        "root": PeerId(*manifest.root()).to_string(),
        "channel": manifest.channel(),
        "release": manifest.release(),
        "created_unix_s": manifest.created_unix_s(),
        "expires_unix_s": manifest.expires_unix_s(),
        "signed_by": signed_by,
        "owners": owners,
        "web": manifest.web(),
        "access": access,
        "authority": authority,
        "owner_hints": manifest.owner_hints().len(),
        "files": files,
        "entries": manifest.entries().iter().take(ENTRIES_MAX).map(entry).collect::<Vec<_>>(),
    });
    Ok(text.to_string())
}

fn entry(entry: &peas_core::manifest::FileEntry) -> Value {
    match &entry.kind {
        EntryKind::File { bytes, executable, hash, .. } => {
            json!({ "path": entry.path, "bytes": bytes, "executable": executable, "blake3": PeerId(*hash).to_string() })
        }
        EntryKind::Directory => json!({ "path": entry.path, "directory": true }),
        EntryKind::Symlink { target } => json!({ "path": entry.path, "link": target }),
    }
}
