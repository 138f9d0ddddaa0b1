//! The record of what is durable.
//!
//! A journal is a sequence of records, each with its length and CRC-32, behind a first one that binds it to one content and to the
//! staged tree. It is believed up to the first record that is torn or wrong, and only for files that are still the same (device
//! and inode). It never says more than what was synced before the record was written; whoever appends has to see to that.

use super::volume::{Access, Volume, VolumeFile, write_all_at};
use crate::unit::{Geometry, PeaId, PieceSet, Run};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

const MAGIC: &[u8; 15] = b"peas journal 1\n";
/// Longest record: device and inode of each of a million files fit.
const RECORD_BYTES_MAX: usize = 32 << 20;
/// Longest journal read: some records of the largest kind. A longer one is not ours.
const JOURNAL_BYTES_MAX: u64 = 256 << 20;

/// Device and inode.
pub(crate) type Identity = (u64, u64);

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// First record: whose journal this is, and the inode of the staged folder (0 for a single file).
    Start { pea: PeaId, data_inode: u64 },
    /// These files are the ones that later records speak of.
    Files(Vec<(u32, Identity)>),
    /// These pieces are durable.
    Pieces(Vec<Run>),
    /// All is durable and in order; only the change of names was missing.
    Complete,
}

/// What a journal says, as far as it can be believed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    pub data_inode: u64,
    pub files: BTreeMap<usize, Identity>,
    pub pieces: PieceSet,
    pub complete: bool,
}

/// Reads the believable start of a journal. `None`: it is not this content's journal at all.
pub(crate) fn parse(bytes: &[u8], pea: PeaId, geometry: &Geometry) -> Option<Contents> {
    let mut rest = bytes;
    let Record::Start { pea: found, data_inode } = next_record(&mut rest)? else { return None };
    if found != pea {
        return None;
    }
    let mut contents = Contents { data_inode, files: BTreeMap::new(), pieces: PieceSet::empty(geometry), complete: false };
    while let Some(record) = next_record(&mut rest) {
        match record {
            Record::Start { .. } => break,
            Record::Files(files) => contents.files.extend(files.into_iter().map(|(file, identity)| (file as usize, identity))),
            Record::Pieces(runs) => match PieceSet::from_runs(geometry, &runs) {
                Some(more) => contents.pieces.union_with(&more),
                None => break,
            },
            Record::Complete => contents.complete = true,
        }
    }
    Some(contents)
}

/// Of any content's journal: the inode of its staged folder, if it says that all was complete.
pub(crate) fn completed(bytes: &[u8]) -> Option<u64> {
    let mut rest = bytes;
    let Record::Start { data_inode, .. } = next_record(&mut rest)? else { return None };
    std::iter::from_fn(|| next_record(&mut rest)).any(|record| record == Record::Complete).then_some(data_inode)
}

fn next_record(rest: &mut &[u8]) -> Option<Record> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let (checksum, after) = after.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    let payload = after.get(..length).filter(|_| length <= RECORD_BYTES_MAX)?;
    if crc32fast::hash(payload) != u32::from_le_bytes(*checksum) {
        return None;
    }
    *rest = &after[length..];
    let (&tag, body) = payload.split_first()?;
    match tag {
        0 => {
            let body = body.strip_prefix(MAGIC)?;
            let (pea, body) = body.split_first_chunk::<32>()?;
            Some(Record::Start { pea: PeaId(*pea), data_inode: u64::from_le_bytes(body.try_into().ok()?) })
        }
        1 => Some(Record::Files(numbers::<20, _>(body, |n| {
            (u32::from_le_bytes(at(n, 0)), (u64::from_le_bytes(at(n, 4)), u64::from_le_bytes(at(n, 12))))
        })?)),
        2 => Some(Record::Pieces(numbers::<8, _>(body, |n| (u32::from_le_bytes(at(n, 0)), u32::from_le_bytes(at(n, 4))))?)),
        3 if body.is_empty() => Some(Record::Complete),
        _ => None,
    }
}

fn numbers<const N: usize, T>(body: &[u8], read: impl Fn(&[u8; N]) -> T) -> Option<Vec<T>> {
    let (entries, rest) = body.as_chunks::<N>();
    rest.is_empty().then(|| entries.iter().map(read).collect())
}

fn at<const N: usize>(bytes: &[u8], start: usize) -> [u8; N] {
    bytes[start..start + N].try_into().expect("a slice of N bytes is an array of N bytes")
}

/// Appends the record's bytes.
pub(crate) fn encode(record: &Record, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend([0; 8]);
    match record {
        Record::Start { pea, data_inode } => {
            out.push(0);
            out.extend(MAGIC);
            out.extend(pea.0);
            out.extend(data_inode.to_le_bytes());
        }
        Record::Files(files) => {
            out.push(1);
            for (file, (device, inode)) in files {
                out.extend(file.to_le_bytes());
                out.extend(device.to_le_bytes());
                out.extend(inode.to_le_bytes());
            }
        }
        Record::Pieces(runs) => {
            out.push(2);
            for (first, count) in runs {
                out.extend(first.to_le_bytes());
                out.extend(count.to_le_bytes());
            }
        }
        Record::Complete => out.push(3),
    }
    let length = (out.len() - start - 8) as u32;
    let checksum = crc32fast::hash(&out[start + 8..]);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
}

fn encode_all(records: &[Record]) -> Vec<u8> {
    let mut bytes = Vec::new();
    records.iter().for_each(|record| encode(record, &mut bytes));
    bytes
}

/// The journal as a file that grows.
pub(crate) struct Journal {
    file: Arc<dyn VolumeFile>,
    end: u64,
}

impl Journal {
    /// What lies in this directory; `None` if there is no journal of this content.
    pub fn read(volume: &dyn Volume, dir: &Path, pea: PeaId, geometry: &Geometry) -> io::Result<Option<Contents>> {
        let file = match volume.open(&dir.join("journal"), Access::Read) {
            Ok(file) => file,
            Err(error) if super::volume::is_missing(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let bytes = file.stat()?.bytes;
        if bytes > JOURNAL_BYTES_MAX {
            return Ok(None);
        }
        let mut buf = vec![0; bytes as usize];
        super::volume::read_exact_at(&*file, &mut buf, 0)?;
        Ok(parse(&buf, pea, geometry))
    }

    /// A new journal that says exactly this, in the place of any old one; durable when this returns.
    pub fn replace(volume: &dyn Volume, dir: &Path, records: &[Record]) -> io::Result<Self> {
        let fresh = dir.join("journal.new");
        let file = volume.open(&fresh, Access::Create)?;
        file.set_len(0)?;
        let bytes = encode_all(records);
        write_all_at(&*file, &bytes, 0)?;
        file.sync_data()?;
        volume.rename(&fresh, &dir.join("journal"))?;
        volume.sync_dir(dir)?;
        Ok(Self { file, end: bytes.len() as u64 })
    }

    /// Says more; durable when this returns. After an error nobody knows how the file ends: it has to be replaced.
    pub fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let bytes = encode_all(records);
        write_all_at(&*self.file, &bytes, self.end)?;
        self.file.sync_data()?;
        self.end += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> (Geometry, Vec<u8>, Contents) {
        let geometry = Geometry::new(100 * 65_536, 65_536).unwrap();
        let records = [
            Record::Start { pea: PeaId([7; 32]), data_inode: 99 },
            Record::Files(vec![(0, (1, 2)), (5, (1, 77))]),
            Record::Pieces(vec![(0, 3), (9, 1)]),
            Record::Files(vec![(6, (1, 78))]),
            Record::Pieces(vec![(50, 50)]),
            Record::Complete,
        ];
        let bytes = encode_all(&records);
        let contents = parse(&bytes, PeaId([7; 32]), &geometry).unwrap();
        (geometry, bytes, contents)
    }

    #[test]
    fn says_what_was_written_and_only_to_its_owner() {
        let (geometry, bytes, contents) = sample();
        assert_eq!((contents.pieces.len(), contents.files.len(), contents.complete, contents.data_inode), (54, 3, true, 99));
        assert_eq!(parse(&bytes, PeaId([8; 32]), &geometry), None);
        assert_eq!(parse(&[], PeaId([7; 32]), &geometry), None);
    }

    #[test]
    fn a_cut_journal_says_less_never_more() {
        let (geometry, bytes, whole) = sample();
        for end in 0..bytes.len() {
            if let Some(cut) = parse(&bytes[..end], PeaId([7; 32]), &geometry) {
                assert!(!cut.complete && !cut.pieces.has_more_than(&whole.pieces));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn a_damaged_journal_says_less_never_more(changes in proptest::collection::vec((0usize..10_000, 1u8..), 1..6)) {
            let (geometry, mut bytes, whole) = sample();
            for (at, flip) in changes {
                let at = at % bytes.len();
                bytes[at] ^= flip;
            }
            if let Some(found) = parse(&bytes, PeaId([7; 32]), &geometry) {
                prop_assert!(!found.pieces.has_more_than(&whole.pieces));
                prop_assert!(found.files.iter().all(|(file, identity)| whole.files.get(file) == Some(identity)));
                prop_assert_eq!(found.data_inode, whole.data_inode);
            }
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (geometry, _, _) = sample();
            prop_assert_eq!(parse(&bytes, PeaId([7; 32]), &geometry), None);
        }
    }
}
