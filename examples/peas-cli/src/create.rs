//! `peas create`: reads a file or folder and writes the pea that describes it.

use crate::args::{AccessArg, CreateArgs};
use crate::exit::{Failure, USAGE};
use crate::keys::{self, PublicKey};
use crate::output::{self, Output};
use crate::pea;
use crate::units;
use peas_core::Manifest;
use peas_core::config::{Access, CreateOptions};
use peas_core::session::{self, Created};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};

pub fn run(args: CreateArgs) -> Result<(), Failure> {
    let out = Output::new(args.json);
    let target = target(&args)?;
    let options = options(&args)?;
    let created = session::create(&args.source, &options, &|done, total| {
        out.hashing(done, total);
        true
    });
    out.clear();
    let created = created?;
    match &target {
        Some(path) => session::write_pea(path, &created.bytes)?,
        None => {
            let written = std::io::stdout().lock().write_all(&created.bytes);
            return written.map_err(|source| Failure::file("write", Path::new("standard output"), source));
        }
    }
    let signers = options.sign_with.iter().map(|secret| keys::hex(&keys::public_of(secret))).collect();
    report(&args, target.as_deref().unwrap_or(Path::new("-")), &created, signers, &out);
    Ok(())
}

/// Where the pea goes; `None`: standard output.
fn target(args: &CreateArgs) -> Result<Option<PathBuf>, Failure> {
    let source = args.source.canonicalize().map_err(|error| Failure::file("read", &args.source, error))?;
    let path = match &args.output {
        Some(path) if path == Path::new("-") => return Ok(None),
        Some(path) => path.clone(),
        None => {
            let name = source.file_name().ok_or_else(|| Failure::usage("the root folder has no name", "say where with --output PEA"))?;
            let mut name = name.to_owned();
            name.push(".peas");
            PathBuf::from(name)
        }
    };
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let folder = folder.canonicalize().map_err(|error| Failure::file("write to", folder, error))?;
    if folder.starts_with(&source) || path.canonicalize().is_ok_and(|path| path == source) {
        let message = format!("{}: would lie inside the content that it describes", path.display());
        return Err(Failure::usage(message, "choose another place with --output PEA"));
    }
    if path.exists() && !args.force && !is_pea(&path) {
        let message = format!("{}: exists and is not a pea", path.display());
        return Err(Failure::usage(message, "choose another place with --output, or use --force to replace it"));
    }
    Ok(Some(path))
}

fn is_pea(path: &Path) -> bool {
    session::read_pea(path).is_ok_and(|bytes| Manifest::decode(&bytes).is_ok())
}

fn options(args: &CreateArgs) -> Result<CreateOptions, Failure> {
    let piece_bytes = match args.piece_size {
        None => None,
        Some(bytes) => {
            Some(u32::try_from(bytes).map_err(|_| Failure::new(USAGE, "--piece-size is too large", "use a power of two from 16K to 16M"))?)
        }
    };
    if let Some(name) = args.name.as_ref().filter(|name| !pea::is_file_name(name)) {
        return Err(Failure::usage(format!("{name:?} cannot be a file's name"), "it is what an install is called without --output"));
    }
    Ok(CreateOptions {
        name: args.name.clone(),
        piece_bytes,
        owners: args.owners.clone(),
        web: args.web.clone(),
        access: match (args.access, args.authority) {
            (AccessArg::Open, None) => Access::Open,
            (AccessArg::Secret, None) => Access::Secret,
            (AccessArg::Members, Some(PublicKey(authority))) => Access::Members { authority },
            _ => return Err(Failure::usage("--authority goes with --access members", "give both or neither")),
        },
        channel: args.channel.clone(),
        release: args.release,
        expires_unix_s: args.expires.map_or(0, |time| pea::now_unix_s().saturating_add(time.as_secs())),
        sign_with: args.sign_with.iter().map(|path| keys::read_secret(path)).collect::<Result<_, _>>()?,
        threads: args.threads,
    })
}

fn report(args: &CreateArgs, path: &Path, created: &Created, signers: Vec<String>, out: &Output) {
    let manifest = &created.manifest;
    let geometry = manifest.geometry();
    out.event(&json!({
        "event": "created", "path": path.display().to_string(), "id": manifest.id().to_string(), "name": manifest.name(),
        "bytes": geometry.total_bytes(), "pieces": geometry.piece_count(), "piece_bytes": geometry.piece_bytes(),
        "pea_bytes": created.bytes.len(), "owners": pea::owners_json(manifest),
        "signers": signers,
    }));
    out.field("pea", &format!("{} ({})", path.display(), units::bytes(created.bytes.len() as u64)));
    out.field("content", &pea::content_text(manifest));
    out.field("id", &manifest.id().to_string());
    for key in &signers {
        out.field("signed by", key);
    }
    for owner in manifest.owners() {
        out.field("owner", &owner.addr);
    }
    for address in manifest.web() {
        out.field("web", address);
    }
    if let Some(who) = pea::access_text(manifest) {
        out.field("lets in", &who);
    }
    let port = manifest.owners().first().and_then(|owner| owner.addr.rsplit_once(':')).map_or("7000", |(_, port)| port);
    if manifest.owners().is_empty() && manifest.web().is_empty() {
        out.note("nobody is named in it: clients need --peer HOST:PORT, or create it with --owner HOST:PORT");
    }
    out.say("");
    out.say(&output::field("serve it", &format!("peas seed {} --file {} --listen 0.0.0.0:{port}", path.display(), args.source.display())));
    out.say(&output::field("get it", &format!("peas install {}", path.file_name().unwrap_or_default().display())));
}
