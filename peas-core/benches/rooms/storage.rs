//! The way of a piece to the disk and back, by one storage thread. The directory is the system's for temporary files (`TMPDIR`).

use divan::Bencher;
use divan::counter::BytesCount;
use peas_core::TrustedManifest;
use peas_core::config::CreateOptions;
use peas_core::session::create;
use peas_core::storage::{CommitEnd, ReadEnd, Storage, StorageOptions};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tempfile::TempDir;

const CONTENT_BYTES: usize = 64 << 20;
const KIB: u32 = 1024;
const OPTIONS: StorageOptions = StorageOptions { threads: 1, pooled_bytes_max: 16 << 20 };

/// A content of one file, which lies in a directory of its own.
struct Content {
    dir: TempDir,
    bytes: Vec<u8>,
    pea: Arc<TrustedManifest>,
}

impl Content {
    fn new(piece_bytes: u32) -> Self {
        let (dir, bytes) = (TempDir::new().expect("a directory"), super::noise(CONTENT_BYTES));
        let source = dir.path().join("source");
        std::fs::write(&source, &bytes).expect("room for it");
        let options = CreateOptions { piece_bytes: Some(piece_bytes), ..CreateOptions::default() };
        let pea = Arc::new(create(&source, &options, &|_, _| true).expect("a pea").manifest);
        Self { dir, bytes, pea }
    }

    fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    /// Where nothing lies yet.
    fn install(&self) -> (TempDir, Storage) {
        let dir = TempDir::new_in(&self.dir).expect("a directory");
        let opened = Storage::open_install(self.pea.clone(), &dir.path().join("copy"), &OPTIONS, &|_, _| true).expect("an empty place");
        (dir, opened.storage)
    }
}

/// Each piece verified, written, and durable in the journal: what a client does with what comes in.
#[divan::bench(args = [64 * KIB, 1024 * KIB], sample_count = 10)]
fn commit(bencher: Bencher, piece_bytes: u32) {
    let content = Content::new(piece_bytes);
    bencher.counter(BytesCount::new(CONTENT_BYTES)).with_inputs(|| content.install()).bench_local_refs(|(_, storage)| {
        let (done, ends) = mpsc::channel();
        for (piece, bytes) in content.pea.geometry().pieces().zip(content.bytes.chunks(piece_bytes as usize)) {
            let mut buf = storage.buffer(piece);
            buf.copy_from_slice(bytes);
            let done = done.clone();
            storage.commit(piece, buf, Box::new(move |end| done.send(end).expect("somebody waits")));
            // One at a time: a queue of all of it would be memory that no client has.
            assert!(matches!(ends.recv(), Ok(CommitEnd::Committed(_))));
        }
        let (done, end) = mpsc::channel();
        storage.flush(Box::new(move |flushed| done.send(flushed).expect("somebody waits")));
        end.recv().expect("an answer").expect("a disk that takes it");
    });
}

/// Each piece read and verified: what a server does with what it is asked for.
#[divan::bench(args = [64 * KIB, 1024 * KIB], sample_count = 10)]
fn read(bencher: Bencher, piece_bytes: u32) {
    let content = Content::new(piece_bytes);
    let storage = Storage::open_seed(content.pea.clone(), &content.source(), false, &OPTIONS, &|_, _| true).expect("whole").storage;
    bencher.counter(BytesCount::new(CONTENT_BYTES)).bench_local(|| {
        let geometry = content.pea.geometry();
        let (done, ends) = mpsc::channel();
        for piece in geometry.pieces() {
            let done = done.clone();
            storage.read(geometry.whole(piece), false, Box::new(move |end| done.send(end).map_err(drop).expect("somebody waits")));
            assert!(matches!(ends.recv(), Ok(ReadEnd::Bytes { .. })));
        }
    });
    assert!(storage.close(Duration::from_secs(10)));
}
