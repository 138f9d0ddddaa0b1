//! Options, understood: what each call was told, as values.
//!
//! A name that `options.rs` lists and that is not dealt with here is a bug that the test below finds.

use crate::failure::Failure;
use crate::options::{self, Call};
use crate::types::peas_level;
use crate::values::{self, Refusal};
use peas_core::config::{CreateOptions, EngineConfig, InstallOptions, SeedOptions};
use peas_core::unit::PeaId;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What any call may have been told. A call reads what its options can fill.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) engine: EngineConfig,
    pub(crate) install: InstallOptions,
    pub(crate) seed: SeedOptions,
    pub(crate) create: CreateOptions,
    /// Files that hold keys to sign with; read when the pea is made.
    pub(crate) sign_files: Vec<PathBuf>,
    /// Files of certificate authorities; read when the engine is made.
    pub(crate) web_ca_files: Vec<PathBuf>,
    pub(crate) trust: TrustSettings,
    pub(crate) change: Change,
}

/// What makes a pea the right one.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrustSettings {
    pub(crate) file: bool,
    pub(crate) keys: Vec<[u8; 32]>,
    pub(crate) threshold: Option<u8>,
    pub(crate) pin: Option<PeaId>,
    pub(crate) channel: Option<String>,
    pub(crate) state_dir: Option<PathBuf>,
}

/// What may change while running.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    pub(crate) upload_bytes_per_s: Option<u64>,
    pub(crate) download_bytes_per_s: Option<u64>,
    pub(crate) paused: Option<bool>,
    pub(crate) peers: Vec<SocketAddr>,
    /// `Some(None)`: no log.
    pub(crate) log: Option<Option<peas_level>>,
    /// Test builds: where to panic.
    pub(crate) panic: Option<String>,
}

/// Options each read twice are refused, unless made to be several.
pub(crate) fn read(call: Call, texts: &[String]) -> Result<Settings, Failure> {
    let mut settings = Settings::default();
    settings.seed.origin = true;
    let mut seen: Vec<&str> = Vec::new();
    for text in texts {
        let (option, value) = options::find(call, text)?;
        if !option.many && seen.contains(&option.name) {
            return Err(Failure::invalid(format!("option \"{}\" is given twice", option.name)));
        }
        seen.push(option.name);
        settings.put(call, option.name, value).map_err(|why| refuse(option.name, option.kind, &why))?;
    }
    settings.check(call)?;
    Ok(settings)
}

/// A message that does not repeat the value, which may be a secret or long.
fn refuse(name: &str, kind: &str, why: &str) -> Failure {
    Failure::invalid(format!("option \"{name}\" ({kind}): {why}"))
}

impl Settings {
    fn put(&mut self, call: Call, name: &str, value: &str) -> Result<(), Refusal> {
        match name {
            "listen" if value == "off" => self.engine.no_listen = true,
            "listen" => self.engine.listen = Some(values::address(value)?),
            "upload_limit" => self.change.upload_bytes_per_s = Some(values::rate(value)?),
            "download_limit" => self.change.download_bytes_per_s = Some(values::rate(value)?),
            "threads" if call == Call::Create => self.create.threads = within(value, 1024)?,
            "threads" => self.engine.threads = within(value, 64)?,
            "disk_threads" => self.engine.disk_threads = within(value, 64)?,
            "identity" => self.engine.identity = Some(values::key(value)?),
            "plain" => self.engine.plain = values::yes_or_no(value)?,
            "scope" => self.engine.scope = values::scope(value)?,
            "state_dir" => {
                let dir = Some(PathBuf::from(not_empty(value)?));
                if call == Call::Engine { self.engine.state_dir = dir } else { self.trust.state_dir = dir }
            }
            "log" => self.change.log = Some(level(value)?),
            "trust" if value == "file" => self.trust.file = true,
            "trust" => {
                let key = value.strip_prefix("key:").ok_or("expected file, or key: and 64 hexadecimal digits")?;
                self.trust.keys.push(values::key(key)?);
            }
            "threshold" => self.trust.threshold = Some(values::number(value)?),
            "pin" => self.trust.pin = Some(PeaId(values::key(value)?)),
            "channel" if call == Call::Create => self.create.channel = value.into(),
            "channel" => self.trust.channel = Some(value.into()),
            "peer" => {
                let peer = values::address(value)?;
                self.install.peers.push(peer);
                self.seed.peers.push(peer);
                self.change.peers.push(peer);
            }
            "swarm_secret" => {
                let secret = Some(values::key(value)?);
                (self.install.credentials.secret, self.seed.credentials.secret) = (secret, secret);
            }
            "certificate" => {
                let certificate = values::certificate(value)?;
                self.install.credentials.certificate = Some(certificate.clone());
                self.seed.credentials.certificate = Some(certificate);
            }
            "access" => self.create.access = values::access(value)?,
            "from_web" => self.install.web = values::from_web(value)?,
            "web_ca" => self.web_ca_files.push(PathBuf::from(not_empty(value)?)),
            "share" => self.install.seed = values::share(value)?,
            "paused" => self.change.paused = Some(values::yes_or_no(value)?),
            "memory_limit" => self.limits(|limits, bytes| limits.buffered_bytes_max = bytes, values::size(value)?.max(8 << 20)),
            "neighbors" => self.limits(|limits, count| limits.neighbors = count, within(value, 1024)?.max(1) as u16),
            "links" => self.limits(|limits, count| limits.links_max = count, within(value, 4096)?.max(1) as u16),
            "region" => (self.install.region, self.seed.region) = (values::number(value)?, values::number(value)?),
            "origin" => self.seed.origin = values::yes_or_no(value)?,
            "check_first" => self.seed.check_first = values::yes_or_no(value)?,
            "copies_limit" => self.seed.limits.origin_copies_max_permille = Some(values::permille(value)?),
            "name" => self.create.name = Some(not_empty(value)?.into()),
            "piece_size" => self.create.piece_bytes = Some(u32::try_from(values::size(value)?).map_err(|_| "too large")?),
            "owner" => self.create.owners.push(values::owner(value)?),
            "web" => self.create.web.push(not_empty(value)?.into()),
            "release" => self.create.release = values::number(value)?,
            "expires" => self.create.expires_unix_s = values::number(value)?,
            "sign" => self.create.sign_with.push(values::key(value)?),
            "sign_file" => self.sign_files.push(PathBuf::from(not_empty(value)?)),
            "chance" => (self.install.chance, self.seed.chance) = (Some(values::number(value)?), Some(values::number(value)?)),
            "test.panic" => self.change.panic = Some(value.into()),
            _ => return Err("not known here: a bug in peas".into()),
        }
        Ok(())
    }

    fn limits<T: Copy>(&mut self, set: impl Fn(&mut peas_core::swarm::Limits, T), to: T) {
        set(&mut self.install.limits, to);
        set(&mut self.seed.limits, to);
    }

    /// What no single option can say.
    fn check(&mut self, call: Call) -> Result<(), Failure> {
        let trust = &mut self.trust;
        match call {
            Call::Install if !trust.file && trust.keys.is_empty() && trust.pin.is_none() => {
                return Err(Failure::invalid(
                    "say what makes this pea the right one: trust=key:HEX, pin=HEX, or trust=file if you trust the file itself",
                ));
            }
            Call::Share | Call::Verify if trust.keys.is_empty() && trust.pin.is_none() => trust.file = true,
            _ => {}
        }
        if trust.file && !trust.keys.is_empty() {
            return Err(Failure::invalid("trust=file and trust=key:HEX exclude each other"));
        }
        let mut keys = trust.keys.clone();
        keys.sort_unstable();
        keys.dedup();
        match trust.threshold {
            Some(0) => Err(Failure::invalid("threshold must be at least 1")),
            Some(count) if usize::from(count) > keys.len() => {
                Err(Failure::invalid(format!("threshold={count} needs that many different trust=key:HEX, and there are {}", keys.len())))
            }
            _ => Ok(()),
        }
    }
}

fn within(value: &str, max: usize) -> Result<usize, Refusal> {
    match values::number(value)? {
        count if count <= max => Ok(count),
        _ => Err(format!("at most {max}")),
    }
}

fn not_empty(value: &str) -> Result<&str, Refusal> {
    if value.is_empty() { Err("empty".into()) } else { Ok(value) }
}

fn level(value: &str) -> Result<Option<peas_level>, Refusal> {
    match value {
        "off" => Ok(None),
        "error" => Ok(Some(peas_level::PEAS_LEVEL_ERROR)),
        "warning" => Ok(Some(peas_level::PEAS_LEVEL_WARNING)),
        "info" => Ok(Some(peas_level::PEAS_LEVEL_INFO)),
        "debug" => Ok(Some(peas_level::PEAS_LEVEL_DEBUG)),
        _ => Err("expected off, error, warning, info or debug".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_one(call: Call, text: &str) -> Result<Settings, Failure> {
        read(call, &[text.to_owned(), "trust=file".to_owned()][..if call == Call::Install { 2 } else { 1 }])
    }

    /// No option of the table may end in "a bug in peas".
    #[test]
    fn every_option_is_understood() {
        for call in Call::ALL {
            for option in options::OPTIONS.iter().filter(|option| option.calls.contains(&call)) {
                let tries = ["1", "file", "auto", "off", "open", "never", &"a".repeat(64), &"a".repeat(292), "192.0.2.1:7", "1K"];
                let known = tries.iter().any(|value| {
                    let message = read_one(call, &format!("{}={value}", option.name)).err().map_or(String::new(), |error| error.message);
                    assert!(!message.contains("a bug in peas"), "{}: {message}", option.name);
                    message.is_empty()
                });
                assert!(known || option.name == "threshold" || option.name == "trust", "{} takes nothing", option.name);
            }
        }
    }

    #[test]
    fn trust_must_be_said_and_make_sense() {
        let install = |options: &[&str]| read(Call::Install, &options.iter().map(|&option| option.into()).collect::<Vec<_>>());
        let key = format!("trust=key:{}", "a1".repeat(32));
        let other = format!("trust=key:{}", "b2".repeat(32));
        assert!(install(&[]).is_err_and(|error| error.message.contains("trust=")));
        assert!(install(&["trust=file", &key]).is_err());
        assert!(install(&[&key, "threshold=2"]).is_err() && install(&[&key, &key, "threshold=2"]).is_err());
        assert!(install(&[&key, "threshold=0"]).is_err() && install(&[&key, "threshold=1", "threshold=1"]).is_err());
        assert_eq!(install(&[&key, &other, "threshold=2"]).map(|settings| settings.trust.keys.len()).ok(), Some(2));
        assert!(read(Call::Share, &[]).is_ok_and(|settings| settings.trust.file && settings.seed.origin));
    }

    #[test]
    fn swarms_that_are_not_open_are_asked_for_and_entered() {
        use peas_core::config::{Access, WebPolicy};
        let access = |value: &str| read(Call::Create, &[format!("access={value}")]).map(|settings| settings.create.access).ok();
        assert_eq!(access("secret"), Some(Access::Secret));
        assert_eq!(access(&format!("members:{}", "a1".repeat(32))), Some(Access::Members { authority: [0xa1; 32] }));
        assert!(access("members").is_none() && access("members:a1").is_none() && access("closed").is_none());
        let mine = [format!("swarm_secret={}", "b2".repeat(32)), format!("certificate={}", "c3".repeat(146)), "trust=file".into()];
        let install = read(Call::Install, &mine).unwrap().install.credentials;
        let seed = read(Call::Share, &mine).unwrap().seed.credentials;
        for credentials in [install, seed] {
            assert_eq!((credentials.secret, credentials.certificate), (Some([0xb2; 32]), Some(vec![0xc3; 146])));
        }
        assert!(read(Call::Share, &["certificate=c3".into()]).is_err());
        let web = |value: &str| read(Call::Install, &[format!("from_web={value}"), "trust=file".into()]).map(|all| all.install.web).ok();
        assert_eq!([web("always"), web("starved"), web("x")], [Some(WebPolicy::Always), Some(WebPolicy::WhenStarved), None]);
    }

    /// A key in an error message would end up in logs.
    #[test]
    fn errors_do_not_repeat_values() {
        let secret = "5ec2e7".repeat(10);
        assert!(read(Call::Create, &[format!("sign={secret}")]).is_err_and(|error| !error.message.contains("5ec2e7")));
    }
}
