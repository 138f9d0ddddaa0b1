//! Which address has which bytes of a content. Pure.

use super::{Address, WebError};
use crate::manifest::{EntryKind, FileEntry, TrustedManifest};
use std::ops::Range;
use std::sync::Arc;

/// The content as a web server has it: one file at the address, or a tree below it.
pub(crate) struct Places {
    base: Address,
    pea: Arc<TrustedManifest>,
    /// Entries that are files with bytes in them, by offset.
    files: Vec<u32>,
}

/// A stretch of one file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) address: Address,
    /// Bytes of the file.
    pub(super) range: Range<u64>,
    /// Size of the file.
    pub(super) file_bytes: u64,
}

impl Places {
    pub(crate) fn new(pea: Arc<TrustedManifest>, address: &str) -> Result<Self, WebError> {
        let base = Address::parse(address)?;
        let entries = pea.entries().iter().enumerate();
        let files =
            entries.filter(|(_, entry)| matches!(entry.kind, EntryKind::File { bytes: 1.., .. })).map(|(at, _)| at as u32).collect();
        Ok(Self { base, pea, files })
    }

    /// The file at or after this place of the content, as far as the range goes.
    pub(super) fn part(&self, range: &Range<u64>) -> Option<Part> {
        let bounds = |at: u32| match self.pea.entries()[at as usize].kind {
            EntryKind::File { offset, bytes, .. } => (offset, bytes),
            _ => unreachable!("only files are listed"),
        };
        let first = self.files.partition_point(|&at| {
            let (offset, bytes) = bounds(at);
            offset + bytes <= range.start
        });
        let &at = self.files.get(first)?;
        let (offset, file_bytes) = bounds(at);
        let end = range.end.min(offset + file_bytes);
        (range.start >= offset && range.start < end).then(|| Part {
            address: self.address(&self.pea.entries()[at as usize]),
            range: range.start - offset..end - offset,
            file_bytes,
        })
    }

    fn address(&self, entry: &FileEntry) -> Address {
        if self.pea.is_single_file() && !self.base.target.ends_with('/') {
            return self.base.clone();
        }
        let slash = if self.base.target.ends_with('/') { "" } else { "/" };
        self.base.at(format!("{}{slash}{}", self.base.target, escaped(&entry.path)))
    }
}

/// A path as it is written in an address (RFC 3986, 2.1): what is not unreserved, slashes apart, as its bytes in hexadecimal.
fn escaped(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => text.push(byte.into()),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CreateOptions;
    use crate::session::create;

    fn pea(files: &[(&str, usize)], single: bool) -> Arc<TrustedManifest> {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = dir.path().join("tree").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, vec![7; *bytes]).unwrap();
        }
        let source = if single { dir.path().join("tree").join(files[0].0) } else { dir.path().join("tree") };
        Arc::new(create(&source, &CreateOptions::default(), &|_, _| true).unwrap().manifest)
    }

    fn parts(places: &Places, mut range: Range<u64>) -> Vec<(String, Range<u64>, u64)> {
        let mut parts = Vec::new();
        while let Some(part) = places.part(&range) {
            range.start += part.range.end - part.range.start;
            parts.push((part.address.to_string(), part.range, part.file_bytes));
        }
        assert!(range.is_empty(), "the whole range is somewhere");
        parts
    }

    #[test]
    fn a_file_is_at_its_address_and_below_one_that_ends_with_a_slash() {
        let pea = pea(&[("some data", 100)], true);
        for (address, there) in
            [("http://h/x?token=1", "http://h/x?token=1"), ("http://h/", "http://h/some%20data"), ("http://h", "http://h/some%20data")]
        {
            let places = Places::new(pea.clone(), address).unwrap();
            assert_eq!(parts(&places, 10..100), [(there.to_owned(), 10..100, 100)]);
            assert_eq!(places.part(&(100..101)), None);
        }
    }

    #[test]
    fn a_range_of_a_folder_falls_into_its_files() {
        let pea = pea(&[("a/\u{e9}", 10), ("b", 0), ("c", 5), ("d#e", 20)], false);
        let places = Places::new(pea, "https://h/base").unwrap();
        let found = parts(&places, 3..20);
        let expected = [
            ("https://h/base/a/%C3%A9".to_owned(), 3..10, 10),
            ("https://h/base/c".to_owned(), 0..5, 5),
            ("https://h/base/d%23e".to_owned(), 0..5, 20),
        ];
        assert_eq!(found, expected);
    }
}
