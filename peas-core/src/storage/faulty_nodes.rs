//! The trees of the volume in memory: files, directories and links, and the changes that make one tree from another.
//!
//! Plain data; when a change is applied to which tree is decided in `faulty.rs`.

use std::collections::BTreeMap;
use std::ffi::OsString;

pub(super) type Ino = u64;

#[derive(Clone, Debug)]
pub(super) enum Node {
    File(Vec<u8>),
    Directory(BTreeMap<OsString, Ino>),
    Symlink(String),
}

/// One change that may or may not survive.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { ino: Ino, offset: u64, bytes: Vec<u8> },
    SetLen { ino: Ino, bytes: u64 },
    Name { dir: Ino, name: OsString, ino: Ino },
    Unname { dir: Ino, name: OsString },
    Rename { from: (Ino, OsString), to: (Ino, OsString), ino: Ino },
    Exchange { a: (Ino, OsString), b: (Ino, OsString) },
}

impl Change {
    pub fn is_data_of(&self, file: Ino) -> bool {
        matches!(self, Change::Write { ino, .. } | Change::SetLen { ino, .. } if *ino == file)
    }

    pub fn touches(&self, directory: Ino) -> bool {
        match self {
            Change::Name { dir, .. } | Change::Unname { dir, .. } => *dir == directory,
            Change::Rename { from: a, to: b, .. } | Change::Exchange { a, b } => a.0 == directory || b.0 == directory,
            _ => false,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Nodes(pub BTreeMap<Ino, Node>);

impl Nodes {
    pub fn dir(&mut self, ino: Ino) -> Option<&mut BTreeMap<OsString, Ino>> {
        match self.0.get_mut(&ino) {
            Some(Node::Directory(names)) => Some(names),
            _ => None,
        }
    }

    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { ino, offset, bytes } => {
                if let Some(Node::File(data)) = self.0.get_mut(ino) {
                    let end = *offset as usize + bytes.len();
                    data.resize(data.len().max(end), 0);
                    data[*offset as usize..end].copy_from_slice(bytes);
                }
            }
            Change::SetLen { ino, bytes } => {
                if let Some(Node::File(data)) = self.0.get_mut(ino) {
                    data.resize(*bytes as usize, 0);
                }
            }
            Change::Name { dir, name, ino } => {
                self.dir(*dir).map(|names| names.insert(name.clone(), *ino));
            }
            Change::Unname { dir, name } => {
                self.dir(*dir).map(|names| names.remove(name));
            }
            Change::Rename { from, to, ino } => {
                self.dir(from.0).map(|names| names.remove(&from.1));
                self.dir(to.0).map(|names| names.insert(to.1.clone(), *ino));
            }
            Change::Exchange { a, b } => {
                let first = self.dir(a.0).and_then(|names| names.get(&a.1).copied());
                let second = self.dir(b.0).and_then(|names| names.get(&b.1).copied());
                if let (Some(first), Some(second)) = (first, second) {
                    self.dir(a.0).map(|names| names.insert(a.1.clone(), second));
                    self.dir(b.0).map(|names| names.insert(b.1.clone(), first));
                }
            }
        }
    }
}
