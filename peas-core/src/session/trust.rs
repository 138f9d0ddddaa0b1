//! What was accepted before: the memory that rollback protection needs.
//!
//! A small text file in the state directory holds the latest time ever seen and, for each (keys, channel), the highest release
//! accepted with its content. It is written whole under a temporary name, flushed and renamed, so that a crash leaves the old
//! or the new one. Other keys are another entry: rotating keys starts the count anew.

use crate::Error;
use crate::engine::unix_s;
use crate::manifest::{Trust, TrustContext, TrustedManifest};
use crate::unit::PeaId;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// Most (keys, channel) pairs remembered; beyond it new ones are refused rather than old ones forgotten.
const ENTRIES_MAX: usize = 4096;

/// Longest file that is read: an entry takes about 300 bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// First line of the file.
const HEADER: &str = "peas trust state 1";

/// The memory. One per state directory and process.
#[derive(Clone, Debug)]
pub struct TrustState {
    path: PathBuf,
    seen_unix_s: u64,
    /// By keys and channel: release and content.
    entries: BTreeMap<(String, String), (u64, PeaId)>,
}

impl TrustState {
    /// Reads what is kept in the directory, which is made if need be.
    ///
    /// # Errors
    /// [`Error::Storage`]; a file that is not ours or damaged is an error too, because forgetting silently would be a rollback.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("trust");
        let failed = |op, source| Error::Storage { op, path: path.clone(), source };
        std::fs::create_dir_all(dir).map_err(|source| failed("create", source))?;
        let mut text = String::new();
        match std::fs::File::open(&path) {
            Ok(file) => file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(|source| failed("read", source)).map(drop)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { path, seen_unix_s: 0, entries: BTreeMap::new() });
            }
            Err(error) => return Err(failed("open", error)),
        }
        let (seen_unix_s, entries) = parse(&text).ok_or_else(|| failed("read", io::ErrorKind::InvalidData.into()))?;
        Ok(Self { path, seen_unix_s, entries })
    }

    /// What to judge a pea by under this trust, besides its keys: the time as far as it is known, and, with keys, the release
    /// that was accepted last. `channel` of `None` asks for the empty channel's memory.
    pub fn context(&self, how: &Trust, channel: Option<&str>) -> TrustContext {
        let key = (keys_of(how), channel.unwrap_or_default().to_owned());
        TrustContext {
            now_unix_s: Some(unix_s().max(self.seen_unix_s)),
            channel: channel.map(str::to_owned),
            release_at_least: matches!(how, Trust::Keys { .. }).then(|| self.entries.get(&key).copied()).flatten(),
        }
    }

    /// Judges a pea once more by what is remembered and remembers it. To be called after `trust` said yes, before anything is
    /// installed.
    ///
    /// # Errors
    /// [`Error::Misuse`] if the release is lower than one accepted before, or the same release has another content (callers that
    /// used [`context`](TrustState::context) have learnt it from `trust` already); [`Error::Storage`] if it cannot be kept.
    pub fn check_and_record(&mut self, how: &Trust, pea: &TrustedManifest) -> Result<(), Error> {
        let now = unix_s().max(self.seen_unix_s);
        let mut next = Self { seen_unix_s: now, ..self.clone() };
        if matches!(how, Trust::Keys { .. }) {
            next.advance((keys_of(how), pea.channel().to_owned()), pea.release(), pea.id())?;
        }
        next.store()?;
        *self = next;
        Ok(())
    }

    fn advance(&mut self, key: (String, String), release: u64, id: PeaId) -> Result<(), Error> {
        match self.entries.get(&key) {
            Some(&(known, _)) if release < known => {
                return Err(Error::Misuse(format!("release {release} is older than release {known}, which was accepted before")));
            }
            Some(&(known, content)) if release == known && id != content => {
                return Err(Error::Misuse(format!("release {release} was accepted before with another content")));
            }
            None if self.entries.len() >= ENTRIES_MAX => {
                return Err(Error::Misuse("too many channels are remembered in the state directory".into()));
            }
            _ => {}
        }
        self.entries.insert(key, (release, id));
        Ok(())
    }

    fn store(&self) -> Result<(), Error> {
        let mut text = format!("{HEADER}\nseen {}\n", self.seen_unix_s);
        for ((keys, channel), (release, id)) in &self.entries {
            let _ = writeln!(text, "{keys} {release} {id} {channel}");
        }
        text.push_str("end\n");
        let temporary = self.path.with_extension(format!("{}.tmp", std::process::id()));
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let write = || {
            let mut file = std::fs::File::create(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&temporary, &self.path)?;
            #[cfg(unix)]
            std::fs::File::open(dir)?.sync_all()?;
            io::Result::Ok(())
        };
        write().map_err(|source| Error::Storage { op: "write", path: self.path.clone(), source })
    }
}

/// A name for a set of keys: the hash of the sorted keys and the threshold.
fn keys_of(how: &Trust) -> String {
    match how {
        Trust::Keys { keys, threshold } => {
            let mut sorted = keys.clone();
            sorted.sort_unstable();
            sorted.dedup();
            let mut hasher = blake3::Hasher::new_derive_key("peas 2026 key set");
            for key in &sorted {
                hasher.update(key);
            }
            hasher.update(&[*threshold]);
            hasher.finalize().to_hex().to_string()
        }
        Trust::File | Trust::Pin(_) => String::new(),
    }
}

type Kept = (u64, BTreeMap<(String, String), (u64, PeaId)>);

fn parse(text: &str) -> Option<Kept> {
    let mut lines = text.lines();
    (lines.next()? == HEADER).then_some(())?;
    let seen = lines.next()?.strip_prefix("seen ")?.parse().ok()?;
    let mut entries = BTreeMap::new();
    loop {
        let line = lines.next()?;
        if line == "end" {
            return lines.next().is_none().then_some((seen, entries));
        }
        let mut words = line.splitn(4, ' ');
        let (keys, release, id) = (words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        entries.insert((keys.to_owned(), words.next()?.to_owned()), (release, id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(channel: &str) -> (String, String) {
        (keys_of(&Trust::Keys { keys: vec![[1; 32]], threshold: 1 }), channel.into())
    }

    #[test]
    fn releases_only_rise_and_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = TrustState::open(dir.path()).unwrap();
        state.advance(key("stable channel"), 5, PeaId([5; 32])).unwrap();
        state.seen_unix_s = u64::MAX / 2;
        state.store().unwrap();
        let mut state = TrustState::open(dir.path()).unwrap();
        let trust = Trust::Keys { keys: vec![[1; 32], [1; 32]], threshold: 1 };
        let context = state.context(&trust, Some("stable channel"));
        assert_eq!(context.release_at_least, Some((5, PeaId([5; 32]))));
        assert_eq!(context.now_unix_s, Some(u64::MAX / 2), "a clock that was set back does not count");
        assert!(state.advance(key("stable channel"), 4, PeaId([5; 32])).is_err());
        assert!(state.advance(key("stable channel"), 5, PeaId([6; 32])).is_err());
        assert!(state.advance(key("stable channel"), 5, PeaId([5; 32])).is_ok());
        assert!(state.advance(key("beta"), 1, PeaId([6; 32])).is_ok(), "channels count apart");
        let rotated = Trust::Keys { keys: vec![[2; 32]], threshold: 1 };
        assert_eq!(state.context(&rotated, Some("stable channel")).release_at_least, None);
    }

    #[test]
    fn damage_is_an_error_and_not_a_fresh_start() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = TrustState::open(dir.path()).unwrap();
        state.advance(key("stable"), 5, PeaId([5; 32])).unwrap();
        state.store().unwrap();
        let path = dir.path().join("trust");
        let good = std::fs::read(&path).unwrap();
        assert!(TrustState::open(dir.path()).is_ok(), "the control");
        for damaged in [&good[..good.len() - 2], &good[1..], b"", &[good.as_slice(), b"x"].concat()] {
            std::fs::write(&path, damaged).unwrap();
            assert!(TrustState::open(dir.path()).is_err());
        }
    }
}
