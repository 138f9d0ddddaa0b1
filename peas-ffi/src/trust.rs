//! From a pea file to a manifest that may be acted on: read, decode, ask what the host said about trust.
//!
//! With a state folder the core's memory of accepted releases is asked and kept (THREATS: rollback and equivocation), one process
//! and one thread at a time. It is written before the pea is acted on.

use crate::failure::Failure;
use crate::settings::TrustSettings;
use peas_core::manifest::TrustContext;
use peas_core::session::TrustState;
use peas_core::{Error, Manifest, Trust, TrustedManifest};
use std::fs::File;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Reads the pea file and asks. Blocking.
pub(crate) fn open(pea: &Path, settings: &TrustSettings) -> Result<TrustedManifest, Failure> {
    let bytes = peas_core::session::read_pea(pea)?;
    judge(Manifest::decode(&bytes)?, settings)
}

fn judge(manifest: Manifest, settings: &TrustSettings) -> Result<TrustedManifest, Failure> {
    let keys = Trust::Keys { keys: settings.keys.clone(), threshold: settings.threshold.unwrap_or(1) };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let context = TrustContext { now_unix_s: Some(now), channel: settings.channel.clone(), release_at_least: None };
    let how = match settings.pin {
        Some(pin) if settings.keys.is_empty() => Trust::Pin(pin),
        Some(pin) => {
            // Both were asked for: another content is refused whoever signed it.
            manifest.clone().trust(&Trust::Pin(pin), &context)?;
            keys
        }
        None if settings.keys.is_empty() => Trust::File,
        None => keys,
    };
    let Some(dir) = &settings.state_dir else { return Ok(manifest.trust(&how, &context)?) };
    let _lock = lock(dir)?;
    let mut memory = TrustState::open(dir)?;
    let remembered = memory.context(&how, Some(manifest.channel()));
    let trusted = manifest.trust(&how, &TrustContext { channel: context.channel, ..remembered })?;
    // Peas without a number are judged (a signed one from before the first release is a rollback), but there is nothing to keep.
    if trusted.release() > 0 {
        memory.check_and_record(&how, &trusted)?;
    }
    Ok(trusted)
}

/// One judge at a time: between reading what was accepted and writing what is now.
fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join("trust.lock");
    let locked = std::fs::create_dir_all(dir)
        .and_then(|()| File::options().create(true).truncate(false).write(true).open(&path))
        .and_then(|file| file.lock().map(|()| file));
    locked.map_err(|source| Error::Storage { op: "lock", path, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::peas_status::{self, *};
    use peas_core::config::CreateOptions;
    use peas_core::transport::Identity;
    use std::path::PathBuf;

    /// A folder with a file to make peas of.
    struct Studio(tempfile::TempDir);

    impl Studio {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        /// A pea of a content, signed by keys made of these bytes.
        fn pea(&self, content: &str, release: u64, sign: &[u8], more: CreateOptions) -> PathBuf {
            let source = self.0.path().join("game");
            std::fs::write(&source, content).unwrap();
            let sign_with = sign.iter().map(|&byte| [byte; 32]).collect();
            let options = CreateOptions { release, sign_with, ..more };
            let created = peas_core::session::create(&source, &options, &|_, _| true).unwrap();
            let pea = self.0.path().join(format!("{content}-{release}.peas"));
            std::fs::write(&pea, &created.bytes).unwrap();
            pea
        }

        fn keys(&self, keys: &[u8], threshold: u8) -> TrustSettings {
            let public = |&byte: &u8| Identity::from_secret([byte; 32]).peer_id().0;
            TrustSettings { keys: keys.iter().map(public).collect(), threshold: Some(threshold), ..Default::default() }
        }

        fn remembering(&self, settings: TrustSettings) -> TrustSettings {
            TrustSettings { state_dir: Some(self.0.path().join("state")), ..settings }
        }
    }

    fn status(pea: &Path, settings: &TrustSettings) -> peas_status {
        open(pea, settings).map_or_else(|failure| failure.status, |_| PEAS_OK)
    }

    fn stable() -> CreateOptions {
        CreateOptions { channel: "stable".into(), ..Default::default() }
    }

    #[test]
    fn a_threshold_counts_distinct_keys() {
        let studio = Studio::new();
        let pea = studio.pea("one", 1, &[1, 2], stable());
        assert_eq!(status(&pea, &studio.keys(&[1, 2, 3], 2)), PEAS_OK);
        assert_eq!(status(&pea, &studio.keys(&[1, 3], 2)), PEAS_UNTRUSTED);
        assert_eq!(status(&pea, &studio.keys(&[3], 1)), PEAS_UNTRUSTED);
        assert_eq!(status(&pea, &TrustSettings::default()), PEAS_OK, "the file itself, unsigned or not");
    }

    #[test]
    fn a_pin_and_keys_must_both_be_right() {
        let studio = Studio::new();
        let (pea, other) = (studio.pea("one", 1, &[1], stable()), studio.pea("two", 1, &[1], stable()));
        let pin = open(&pea, &TrustSettings::default()).unwrap().id();
        for settings in [TrustSettings::default(), studio.keys(&[1], 1)] {
            let pinned = TrustSettings { pin: Some(pin), ..settings };
            assert_eq!(status(&pea, &pinned), PEAS_OK);
            assert_eq!(status(&other, &pinned), PEAS_UNTRUSTED);
        }
        assert_eq!(status(&pea, &TrustSettings { pin: Some(pin), ..studio.keys(&[2], 1) }), PEAS_UNTRUSTED);
    }

    #[test]
    fn what_was_accepted_is_not_taken_back() {
        let studio = Studio::new();
        let keys = studio.remembering(studio.keys(&[1], 1));
        let (old, new) = (studio.pea("old", 1, &[1], stable()), studio.pea("new", 2, &[1], stable()));
        assert_eq!((status(&old, &keys), status(&new, &keys), status(&new, &keys)), (PEAS_OK, PEAS_OK, PEAS_OK));
        assert_eq!(status(&old, &keys), PEAS_ROLLBACK);
        assert_eq!(status(&studio.pea("before", 0, &[1], stable()), &keys), PEAS_ROLLBACK, "from before releases had numbers");
        assert_eq!(status(&studio.pea("twin", 2, &[1], stable()), &keys), PEAS_EQUIVOCATION);
        let beta = CreateOptions { channel: "beta".into(), ..Default::default() };
        assert_eq!(status(&studio.pea("beta", 1, &[1], beta), &keys), PEAS_OK, "channels count apart");
        assert_eq!(status(&old, &studio.keys(&[1], 1)), PEAS_OK, "the control: without memory nothing is refused");
    }

    /// Peas without a number are not remembered: two of them are no equivocation.
    #[test]
    fn unnumbered_peas_do_not_exclude_each_other() {
        let studio = Studio::new();
        let keys = studio.remembering(studio.keys(&[1], 1));
        assert_eq!(status(&studio.pea("one", 0, &[1], stable()), &keys), PEAS_OK);
        assert_eq!(status(&studio.pea("two", 0, &[1], stable()), &keys), PEAS_OK);
    }

    #[test]
    fn time_and_channel_have_their_own_answers() {
        let studio = Studio::new();
        let late = studio.pea("late", 1, &[1], CreateOptions { expires_unix_s: 1_000_000, ..stable() });
        assert_eq!(status(&late, &TrustSettings::default()), PEAS_EXPIRED);
        let beta = TrustSettings { channel: Some("beta".into()), ..Default::default() };
        assert_eq!(status(&studio.pea("one", 1, &[], stable()), &beta), PEAS_WRONG_CHANNEL);
    }
}
