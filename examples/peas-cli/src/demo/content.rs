//! A folder to distribute: thousands of small files and some large ones, the same for the same seed.

use crate::exit::Failure;
use crate::interrupt;
use peas_core::unit::Rng;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

const MIB: u64 = 1 << 20;
/// Bytes made at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// Small files per MiB of content: 3,072 of them in 256 MiB, a tenth of the bytes.
const SMALL_FILES_PER_MIB: u64 = 12;
/// Small files in a folder.
const FILES_PER_FOLDER: u64 = 64;
/// Files that share what small and middle ones leave.
const LARGE_FILES: u64 = 3;

/// Makes the folder. Returns how many files it has.
pub fn generate(folder: &Path, size_bytes: u64, seed: u64) -> Result<u64, Failure> {
    let mut maker = Maker { rng: Rng::new(seed), folder, left_bytes: size_bytes, files: 0 };
    let small_files = (size_bytes / MIB * SMALL_FILES_PER_MIB).min(50_000);
    for at in 0..small_files {
        let bytes = 1 + maker.rng.below(16 * 1024) as u64;
        maker.file(&format!("assets/{:03}/item-{at:05}.dat", at / FILES_PER_FOLDER), bytes)?;
    }
    for at in 0..size_bytes / MIB / 8 {
        let bytes = MIB / 4 + maker.rng.below(MIB as usize) as u64;
        maker.file(&format!("maps/map-{at:03}.bin"), bytes)?;
    }
    let share = maker.left_bytes / LARGE_FILES;
    for at in 1..LARGE_FILES {
        maker.file(&format!("data-{at}.pack"), share)?;
    }
    maker.file(&format!("data-{LARGE_FILES}.pack"), maker.left_bytes)?;
    Ok(maker.files)
}

struct Maker<'a> {
    rng: Rng,
    folder: &'a Path,
    left_bytes: u64,
    files: u64,
}

impl Maker<'_> {
    /// A file of this size, as far as bytes are left.
    fn file(&mut self, name: &str, bytes: u64) -> Result<(), Failure> {
        if interrupt::is_asked() {
            return Err(Failure::interrupted(false));
        }
        let bytes = bytes.min(self.left_bytes);
        self.left_bytes -= bytes;
        self.files += 1;
        let path = self.folder.join(name);
        self.write(&path, bytes).map_err(|source| Failure::file("write", &path, source))
    }

    fn write(&mut self, path: &Path, bytes: u64) -> std::io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = File::create(path)?;
        let mut chunk = [0; CHUNK_BYTES];
        let mut left = bytes;
        while left > 0 {
            let now = left.min(CHUNK_BYTES as u64) as usize;
            for word in chunk[..now.next_multiple_of(8)].chunks_exact_mut(8) {
                word.copy_from_slice(&self.rng.next_u64().to_le_bytes());
            }
            file.write_all(&chunk[..now])?;
            left -= now as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_size_asked_for_and_the_same_bytes() {
        let folders = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
        for folder in &folders {
            generate(folder.path(), 2 * MIB + 5, 7).expect("made");
        }
        let [first, second] = folders.each_ref().map(|folder| contents(folder.path()));
        assert_eq!(first.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>(), 2 * MIB + 5);
        assert!(first.len() > 20, "{} files", first.len());
        assert!(first == second);
    }

    fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
        let mut all = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(at) = folders.pop() {
            for entry in fs::read_dir(at).expect("a folder").flatten() {
                let path = entry.path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => all.push((path.strip_prefix(folder).expect("inside").display().to_string(), fs::read(&path).expect("a file"))),
                }
            }
        }
        all.sort();
        all
    }
}
