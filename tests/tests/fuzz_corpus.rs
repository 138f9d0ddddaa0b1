//! Every file of the fuzzers' corpora (`tests/fuzz/corpus`) through its target, without a fuzzer (THREATS D1, E5): what they once found or
//! reached still ends well, and takes no more memory than it is worth. Costs some seconds, so each change is tried; `tests/fuzz/run`
//! looks for new ones.

#[path = "common/counting.rs"]
mod counting;
#[allow(clippy::type_complexity, reason = "the lists of targets name their type once, in each crate that includes them")]
#[path = "../fuzz/src/ffi.rs"]
mod ffi;
#[allow(clippy::type_complexity, reason = "as above")]
#[path = "../fuzz/src/targets.rs"]
mod targets;

use counting::Counting;
use std::path::{Path, PathBuf};

#[global_allocator]
static MEMORY: Counting = Counting::new();

/// No single allocation for anything that a stranger says in at most 8 KiB. 1 MiB: a piece's buffer is the largest that peas ever needs
/// for one peer, and nothing here is a piece.
const ONE_BYTES_MAX: usize = 1 << 20;

/// And all of them together.
const ALL_BYTES_MAX: usize = 8 << 20;

type Target = fn(&[u8]) -> bool;

fn files(target: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{target} has no corpus: {error}"))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

/// What became of a target's files.
struct Replayed {
    calls: usize,
    /// Past the first checks, where the planted bug of `tests/fuzz/run` lies.
    reached: usize,
    largest: (usize, PathBuf),
    most: (usize, PathBuf),
}

fn replay(name: &str, target: Target) -> Replayed {
    let none = || (0, PathBuf::new());
    let mut replayed = Replayed { calls: 0, reached: 0, largest: none(), most: none() };
    for path in files(name) {
        let bytes = std::fs::read(&path).unwrap();
        let before = MEMORY.live();
        MEMORY.forget();
        let reached = target(&bytes);
        let (largest, most) = (MEMORY.largest(), MEMORY.peak().saturating_sub(before));
        replayed.calls += 1;
        replayed.reached += usize::from(reached);
        if largest > replayed.largest.0 {
            replayed.largest = (largest, path.clone());
        }
        if most > replayed.most.0 {
            replayed.most = (most, path);
        }
    }
    replayed
}

/// One test and not one for each target: the allocator counts for all threads.
#[test]
fn every_file_through_its_target() {
    let targets: Vec<(&str, Target)> = targets::ALL.into_iter().chain(ffi::ALL).collect();
    for &(name, target) in &targets {
        // Whatever is made once and kept is not the first file's.
        target(&[]);
        let replayed = replay(name, target);
        println!(
            "{name}: {} files, {} of them past the first checks; largest allocation {}, most memory {} bytes",
            replayed.calls, replayed.reached, replayed.largest.0, replayed.most.0
        );
        assert!(replayed.calls > 0, "{name} has no corpus");
        assert!(replayed.reached > 0, "the control: no file of {name} gets to where a planted bug would lie");
        let (largest, by) = replayed.largest;
        assert!(largest <= ONE_BYTES_MAX, "{name}: an allocation of {largest} bytes for {}", by.display());
        let (most, by) = replayed.most;
        assert!(most <= ALL_BYTES_MAX, "{name}: {most} bytes in use for {}", by.display());
    }
    // Each folder has its target: a renamed target would leave its corpus behind, and nobody would notice.
    let corpora = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")).unwrap();
    let mut corpora: Vec<String> = corpora.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let mut names: Vec<String> = targets.iter().map(|(name, _)| name.to_string()).collect();
    corpora.sort();
    names.sort();
    assert_eq!(corpora, names);

    // The control of the allocator: a decoder that believes a length of 40 bits is seen (THREATS S1), whether it is used or not.
    let careless: Target =
        |bytes| Vec::<u8>::with_capacity(bytes.iter().fold(0, |len, &byte| len << 8 | usize::from(byte)) & 0x3FF_FFFF).capacity() > 9;
    MEMORY.forget();
    assert!(careless(&[0xFF; 8]));
    assert!(MEMORY.largest() > ONE_BYTES_MAX, "the planted allocation was not counted");
}
