//! A pea whose trust was asked and given, as Python holds it.

use crate::errors;
use peas_core::config::Access;
use peas_core::manifest::{EntryKind, TrustContext};
use peas_core::unit::PeaId;
use peas_core::{Manifest, Trust, TrustedManifest};
use pyo3::prelude::*;
use std::sync::Arc;

/// One entry of the tree: path, kind, bytes, executable, BLAKE3 in hexadecimal (or link target).
type Entry = (String, &'static str, u64, bool, String);

/// A trusted manifest. Immutable.
#[pyclass(frozen, name = "Pea", module = "peas._peas")]
pub struct RawPea {
    pub(crate) manifest: Arc<TrustedManifest>,
}

#[pymethods]
impl RawPea {
    /// Decodes `data` and asks for trust: `pin` (64 hexadecimal digits), else `keys`, else the file as it is.
    #[new]
    #[pyo3(signature = (data, pin, keys, threshold, now_unix_s, channel, release_at_least))]
    #[allow(clippy::too_many_arguments, reason = "the package is the only caller, and it names every one of them")]
    fn new(
        py: Python<'_>,
        data: &[u8],
        pin: Option<&str>,
        keys: Vec<[u8; 32]>,
        threshold: u8,
        now_unix_s: Option<u64>,
        channel: Option<String>,
        release_at_least: Option<(u64, String)>,
    ) -> PyResult<RawPea> {
        let how = match pin {
            Some(text) => Trust::Pin(pea_id(py, text)?),
            None if keys.is_empty() => Trust::File,
            None => Trust::Keys { keys, threshold },
        };
        let release_at_least = match release_at_least {
            Some((release, id)) => Some((release, pea_id(py, &id)?)),
            None => None,
        };
        let context = TrustContext { now_unix_s, channel, release_at_least };
        let decoded = py.detach(|| Manifest::decode(data).and_then(|manifest| manifest.trust(&how, &context)));
        decoded.map(RawPea::from).map_err(|error| errors::manifest(py, error))
    }

    /// Content id, in hexadecimal.
    #[getter]
    fn id(&self) -> String {
        self.manifest.id().to_string()
    }

    /// Name shown to people.
    #[getter]
    fn name(&self) -> &str {
        self.manifest.name()
    }

    /// Whether it is installed as a file, not as a folder.
    #[getter]
    fn single_file(&self) -> bool {
        self.manifest.is_single_file()
    }

    /// (bytes, bytes per piece, pieces).
    #[getter]
    fn sizes(&self) -> (u64, u32, u32) {
        let geometry = self.manifest.geometry();
        (geometry.total_bytes(), geometry.piece_bytes(), geometry.piece_count())
    }

    /// The tree, in canonical order.
    #[getter]
    fn entries(&self) -> Vec<Entry> {
        self.manifest.entries().iter().map(|entry| (entry.path.clone(), &entry.kind)).map(entry_of).collect()
    }

    /// (address, peer id in hexadecimal).
    #[getter]
    fn owners(&self) -> Vec<(String, Option<String>)> {
        self.manifest.owners().iter().map(|owner| (owner.addr.clone(), owner.peer.map(|peer| peer.to_string()))).collect()
    }

    /// HTTP addresses.
    #[getter]
    fn web(&self) -> Vec<String> {
        self.manifest.web().to_vec()
    }

    /// Who may join: "open", "secret", or "members" and their authority's public key in hexadecimal.
    #[getter]
    fn access(&self) -> (&'static str, Option<String>) {
        match self.manifest.access() {
            Access::Open => ("open", None),
            Access::Secret => ("secret", None),
            Access::Members { authority } => ("members", Some(hex(&authority))),
        }
    }

    /// (channel, release).
    #[getter]
    fn release(&self) -> (&str, u64) {
        (self.manifest.channel(), self.manifest.release())
    }

    /// (created, expires): seconds since 1970; expires 0: never.
    #[getter]
    fn times(&self) -> (u64, u64) {
        (self.manifest.created_unix_s(), self.manifest.expires_unix_s())
    }

    /// First eight bytes of the BLAKE3 of each key that is said to have signed; only `Trust::Keys` checks.
    #[getter]
    fn key_ids(&self) -> Vec<String> {
        self.manifest.signature_key_ids().iter().map(|key| hex(key)).collect()
    }
}

impl From<TrustedManifest> for RawPea {
    fn from(manifest: TrustedManifest) -> RawPea {
        RawPea { manifest: Arc::new(manifest) }
    }
}

fn entry_of((path, kind): (String, &EntryKind)) -> Entry {
    match kind {
        EntryKind::File { bytes, executable, hash, .. } => (path, "file", *bytes, *executable, hex(hash)),
        EntryKind::Directory => (path, "directory", 0, false, String::new()),
        EntryKind::Symlink { target } => (path, "symlink", 0, false, target.clone()),
    }
}

pub(crate) fn pea_id(py: Python<'_>, text: &str) -> PyResult<PeaId> {
    text.parse().map_err(|error| errors::misuse(py, format!("{text:?} is no content id: {error}")))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
