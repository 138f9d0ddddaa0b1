//! What lies in an old tree and is the user's: settings, saved games, files of the content that somebody changed and that it has no more.
//!
//! An update gives each of these a second name in the new tree before the names change, so that nothing is lost with the old
//! tree. What an earlier installation put there and nobody changed (`mark.rs`) goes with the old tree. Where a file system or its rules allow no second name, the file is copied. What cannot have a place in the new tree, because the
//! content has another kind of entry there, is an error before anything is fetched.

use super::store::Store;
use super::volume::{Access, Kind, make_dirs, write_all_at};
use crate::Error;
use crate::manifest::EntryKind;
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

impl Store {
    /// Everything beneath `old` that is the user's and that the content does not name, directories before what is in them. Errors: `Content` when the
    /// content has no place for it.
    pub fn foreign(&self, old: &Path) -> Result<Vec<(PathBuf, Kind)>, Error> {
        let is_dir = |kind: &EntryKind| matches!(kind, EntryKind::Directory);
        let entries = self.pea.entries();
        let ours: HashSet<&Path> = entries.iter().filter(|entry| !is_dir(&entry.kind)).map(|entry| Path::new(&entry.path)).collect();
        let our_dirs: HashSet<&Path> =
            entries.iter().flat_map(|entry| Path::new(&entry.path).ancestors().skip(usize::from(!is_dir(&entry.kind)))).collect();
        let (mut found, mut dirs) = (Vec::new(), vec![PathBuf::new()]);
        while let Some(dir) = dirs.pop() {
            let at = join(old, &dir);
            for (name, kind) in self.volume.list(&at).map_err(self.failure("list", &at))? {
                let path = dir.join(name);
                let below_ours = path.ancestors().skip(1).any(|above| ours.contains(above));
                if kind == Kind::Directory {
                    if !our_dirs.contains(path.as_path()) && !ours.contains(path.as_path()) && !below_ours {
                        found.push((path.clone(), kind));
                    }
                    // A directory that is a file now may hold nothing but old content - or it may not: judged at its files.
                    dirs.push(path);
                } else if !ours.contains(path.as_path()) && self.is_marked(&join(old, &path), kind) {
                    // Of a version before: it goes.
                } else if below_ours || our_dirs.contains(path.as_path()) {
                    let what = "would be lost: the content has another kind of entry at this place; move it away first";
                    return Err(Error::Content { path: self.root.join(join(old, &path)), what: what.into() });
                } else if !ours.contains(path.as_path()) {
                    found.push((path, kind));
                }
            }
        }
        // A directory that an installation made stays for what is kept in it.
        let kept: HashSet<PathBuf> = found
            .iter()
            .filter(|(path, kind)| *kind != Kind::Directory || !self.is_marked(&join(old, path), Kind::Directory))
            .flat_map(|(path, _)| path.ancestors().map(Path::to_path_buf))
            .collect();
        found.retain(|(path, kind)| *kind != Kind::Directory || kept.contains(path));
        Ok(found)
    }

    /// Gives everything in the old tree that is the user's a place in the new one. What is there already stays.
    pub fn carry_over(&self, old: &Path, new: &Path) -> Result<(), Error> {
        for (path, kind) in self.foreign(old)? {
            let (from, to) = (join(old, &path), join(new, &path));
            if kind == Kind::Directory {
                self.state().dirty_dirs.extend(make_dirs(&*self.volume, &to).map_err(self.failure("make", &to))?);
                continue;
            }
            let placed = match self.volume.link(&from, &to) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                Err(error) if !super::volume::is_missing(&error) => self.copy(&from, &to, kind, error),
                other => other,
            };
            placed.map_err(self.failure("carry over", &from))?;
            self.state().dirty_dirs.insert(to.parent().unwrap_or(Path::new("")).to_path_buf());
        }
        Ok(())
    }

    /// The second best, where a second name is not allowed. `why` is what forbade it.
    fn copy(&self, from: &Path, to: &Path, kind: Kind, why: io::Error) -> io::Result<()> {
        match kind {
            Kind::Symlink => {
                let target = self.volume.read_link(from)?;
                let target = target.to_str().ok_or(why)?;
                self.volume.make_symlink(target, to)
            }
            Kind::File => {
                // Under a passing name first: a copy that breaks off must not pass for the file.
                let passing = self.staging.join("carried");
                let (source, copy) = (self.volume.open(from, Access::Read)?, self.volume.open(&passing, Access::Create)?);
                copy.set_len(0)?;
                let (mut buf, mut at) = (vec![0; 1 << 20], 0);
                loop {
                    let count = source.read_at(&mut buf, at)?;
                    if count == 0 {
                        break;
                    }
                    write_all_at(&*copy, &buf[..count], at)?;
                    at += count as u64;
                }
                copy.set_mode(source.stat()?.mode)?;
                copy.sync_data()?;
                self.volume.rename(&passing, to)
            }
            _ => Err(why),
        }
    }
}

fn join(base: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { base.to_path_buf() } else { base.join(path) }
}
