//! Contents, engines and waiting, for tests with real sockets and disks.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod attackers;
pub mod node;

use peas_core::config::{CreateOptions, EngineConfig, Scope, SeedOptions};
use peas_core::manifest::TrustContext;
use peas_core::{Engine, Manifest, Session, Trust, TrustedManifest, session};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest wait for something that must happen. Only a failing test waits that long.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A content on disk and its pea.
pub struct Made {
    pub dir: TempDir,
    pub source: PathBuf,
    pub pea: Arc<TrustedManifest>,
}

impl Made {
    fn of(dir: TempDir, source: PathBuf, piece_bytes: u32) -> Self {
        let options = CreateOptions { piece_bytes: Some(piece_bytes), ..Default::default() };
        let created = session::create(&source, &options, &|_, _| true).unwrap();
        let pea = trusted(&created.bytes);
        Self { dir, source, pea }
    }

    /// Compares a file or a tree with the source, byte for byte, both ways.
    pub fn assert_same(&self, place: &Path) {
        let (expected, found) = (listing(&self.source), listing(place));
        assert_eq!(names(&expected), names(&found));
        for ((name, expected), (_, found)) in expected.iter().zip(&found) {
            assert!(expected == found, "{name} differs");
        }
    }
}

type Listing = Vec<(String, Vec<u8>)>;

fn names(listing: &Listing) -> Vec<&str> {
    listing.iter().map(|(name, _)| name.as_str()).collect()
}

fn listing(place: &Path) -> Listing {
    if place.is_file() {
        return vec![(String::new(), std::fs::read(place).unwrap())];
    }
    let mut found = Vec::new();
    let mut left = vec![place.to_path_buf()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                let name = path.strip_prefix(place).unwrap().to_string_lossy().into_owned();
                found.push((name, std::fs::read(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// Bytes that repeat nowhere.
pub fn bytes(len: usize, salt: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&salt.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

pub fn single_file(len: usize) -> Made {
    single_file_in_pieces(len, 64 * 1024)
}

pub fn single_file_in_pieces(len: usize, piece_bytes: u32) -> Made {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("content.bin");
    std::fs::write(&source, bytes(len, len as u64)).unwrap();
    Made::of(dir, source, piece_bytes)
}

pub fn folder(files: usize) -> Made {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("content");
    for at in 0..files {
        let path = source.join(format!("part{}/{}/file{at}", at % 7, at % 3));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes(at * 37 % 20_000, at as u64)).unwrap();
    }
    Made::of(dir, source, 64 * 1024)
}

pub fn trusted(bytes: &[u8]) -> Arc<TrustedManifest> {
    Arc::new(Manifest::decode(bytes).unwrap().trust(&Trust::File, &TrustContext::default()).unwrap())
}

pub fn config() -> EngineConfig {
    EngineConfig { listen: Some("127.0.0.1:0".parse().unwrap()), scope: Scope::Any, threads: 2, disk_threads: 1, ..Default::default() }
}

pub fn engine() -> Engine {
    Engine::new(config()).unwrap()
}

pub fn origin(made: &Made) -> (Engine, Session) {
    let engine = engine();
    let session = engine.seed(made.pea.clone(), &made.source, SeedOptions { origin: true, ..Default::default() }).unwrap();
    (engine, session)
}

/// Waits for an installation.
pub fn wait(session: &Session) {
    match session.wait_installed_timeout(PATIENCE) {
        Some(Ok(())) => {}
        other => panic!("{other:?}; {}\n{:?}", session.stats_json(), std::iter::from_fn(|| session.try_next_event()).collect::<Vec<_>>()),
    }
}

/// Waits until it is so.
pub fn until(so: impl Fn() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < PATIENCE, "it never was so");
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Removes a place now, with its errors shown.
pub fn scatter(place: &TempDir) {
    std::fs::remove_dir_all(place.path()).unwrap();
}
