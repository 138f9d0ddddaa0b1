//! A volume in memory that loses power and fails on command.
//!
//! It keeps two trees: what a running system shows, and what survives. Every change is applied to the first at once and waits in a list for
//! the second: bytes until the file is synced, names until their directory is. A crash applies any chosen part of the list, in
//! order, with writes whole, absent or torn in the middle. A failed sync throws the waiting bytes away while the running system goes
//! on showing them, as Linux does. Nothing is kinder than a real disk; a rename is one step, as POSIX wants.

use super::faulty_nodes::{Change, Ino, Node, Nodes};
use super::volume::{Access, Kind, LockGuard, Stat, Volume, VolumeFile};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// What happens at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// From this call on nothing works: the machine is off.
    PowerOff,
    /// This call fails with this errno; later ones work.
    Once(i32),
    /// This call and all later ones that change something fail with this errno.
    From(i32),
}

struct Machine {
    live: Nodes,
    durable: Nodes,
    waiting: Vec<Change>,
    next_ino: Ino,
    calls: u64,
    fault: Option<(u64, Fault)>,
    no_exchange: bool,
    no_links: bool,
    locked: Vec<PathBuf>,
    free_bytes: u64,
    total_bytes: u64,
    marks: BTreeMap<Ino, Vec<u8>>,
    transfer_max: usize,
}

/// The volume. Clones are the same machine.
#[derive(Clone)]
pub(crate) struct FaultyVolume(Arc<Mutex<Machine>>);

const ROOT: Ino = 1;

fn errno(raw: rustix::io::Errno) -> io::Error {
    io::Error::from_raw_os_error(raw.raw_os_error())
}
use rustix::io::Errno;

impl FaultyVolume {
    pub fn new() -> Self {
        let root = Nodes(BTreeMap::from([(ROOT, Node::Directory(BTreeMap::new()))]));
        Self(Arc::new(Mutex::new(Machine {
            live: root.clone(),
            durable: root,
            waiting: Vec::new(),
            next_ino: ROOT + 1,
            calls: 0,
            fault: None,
            no_exchange: false,
            no_links: false,
            locked: Vec::new(),
            free_bytes: u64::MAX,
            total_bytes: u64::MAX,
            marks: BTreeMap::new(),
            transfer_max: usize::MAX,
        })))
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().expect("no test thread panics while it holds this")
    }

    /// A separate machine in the same state.
    pub fn fork(&self) -> Self {
        let m = self.machine();
        Self(Arc::new(Mutex::new(Machine {
            live: m.live.clone(),
            durable: m.durable.clone(),
            waiting: m.waiting.clone(),
            next_ino: m.next_ino,
            calls: 0,
            fault: None,
            no_exchange: m.no_exchange,
            no_links: m.no_links,
            locked: Vec::new(),
            free_bytes: m.free_bytes,
            total_bytes: m.total_bytes,
            marks: m.marks.clone(),
            transfer_max: m.transfer_max,
        })))
    }

    pub fn calls(&self) -> u64 {
        self.machine().calls
    }

    /// The fault comes at this call (counted from the making or fork of the machine).
    pub fn fail_at(&self, call: u64, fault: Fault) {
        self.machine().fault = Some((call, fault));
    }

    pub fn heal(&self) {
        self.machine().fault = None;
    }

    pub fn without_exchange(&self) {
        self.machine().no_exchange = true;
    }

    pub fn without_links(&self) {
        self.machine().no_links = true;
    }

    pub fn set_free_bytes(&self, bytes: u64) {
        self.machine().free_bytes = bytes;
    }

    pub fn set_total_bytes(&self, bytes: u64) {
        self.machine().total_bytes = bytes;
    }

    /// Reads and writes move at most this many bytes at once.
    pub fn short_transfers(&self, bytes: usize) {
        self.machine().transfer_max = bytes;
    }

    pub fn forget_marks(&self) {
        self.machine().marks.clear();
    }

    /// Shows the other's tree, none of which is durable.
    pub fn copy_unsynced(&self, other: &Self) {
        let (mut m, other) = (self.machine(), other.machine());
        m.live = other.live.clone();
        m.marks = other.marks.clone();
        m.next_ino = other.next_ino;
        for (&ino, node) in &other.live.0 {
            let change = match node {
                Node::File(bytes) => {
                    m.durable.0.insert(ino, Node::File(Vec::new()));
                    m.waiting.push(Change::Write { ino, offset: 0, bytes: bytes.clone() });
                    continue;
                }
                Node::Directory(names) => names.iter().map(|(name, &at)| Change::Name { dir: ino, name: name.clone(), ino: at }).collect(),
                Node::Symlink(_) => Vec::new(),
            };
            let empty = if let Node::Directory(_) = node { Node::Directory(BTreeMap::new()) } else { node.clone() };
            m.durable.0.insert(ino, empty);
            m.waiting.extend(change);
        }
    }

    pub fn waiting(&self) -> usize {
        self.machine().waiting.len()
    }

    /// The machine after the power came back: `survives` says for each waiting change what became of it.
    pub fn after_power_loss(&self, survives: &dyn Fn(usize) -> Survival) -> Self {
        let fork = self.fork();
        {
            let mut m = fork.machine();
            let waiting = std::mem::take(&mut m.waiting);
            for (at, change) in waiting.iter().enumerate() {
                match (survives(at), change) {
                    (Survival::Lost, _) => {}
                    (Survival::Torn, Change::Write { ino, offset, bytes }) => {
                        let half = bytes[..bytes.len() / 2].to_vec();
                        m.durable.apply(&Change::Write { ino: *ino, offset: *offset, bytes: half });
                    }
                    _ => m.durable.apply(change),
                }
            }
            m.live = m.durable.clone();
        }
        fork
    }

    /// The machine after the process was killed: the system keeps what was written.
    pub fn after_kill(&self) -> Self {
        self.fork()
    }

    /// Makes all durable.
    pub fn settle(&self) {
        let mut m = self.machine();
        m.durable = m.live.clone();
        m.waiting.clear();
    }

    /// Writes a file behind everybody's back, durable at once; makes its directories.
    pub fn plant(&self, path: &str, bytes: &[u8]) {
        let path = Path::new(path);
        super::volume::make_dirs(self, path.parent().expect("a file has a parent")).expect("made");
        let file = self.open(path, Access::Create).expect("opened");
        file.set_len(0).expect("cut");
        super::volume::write_all_at(&*file, bytes, 0).expect("written");
        self.settle();
    }

    /// All bytes of a file as the running system shows them.
    pub fn bytes_at(&self, path: &Path) -> Option<Vec<u8>> {
        let m = self.machine();
        let ino = m.find(path).ok()?;
        match m.live.0.get(&ino) {
            Some(Node::File(data)) => Some(data.clone()),
            _ => None,
        }
    }

    fn enter(&self, changes: bool) -> io::Result<MutexGuard<'_, Machine>> {
        let mut m = self.machine();
        let call = m.calls;
        m.calls += 1;
        match m.fault {
            Some((at, Fault::PowerOff)) if call >= at => Err(errno(Errno::NODEV)),
            Some((at, Fault::Once(raw))) if call == at => Err(io::Error::from_raw_os_error(raw)),
            Some((at, Fault::From(raw))) if call >= at && changes => Err(io::Error::from_raw_os_error(raw)),
            _ => Ok(m),
        }
    }
}

/// What became of a change when the power went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Survival {
    Lost,
    /// Half of a write; other changes survive.
    Torn,
    Kept,
}

impl Machine {
    fn change(&mut self, change: Change) {
        self.live.apply(&change);
        self.waiting.push(change);
    }

    fn find(&self, path: &Path) -> io::Result<Ino> {
        let mut at = ROOT;
        for name in path.components() {
            match self.live.0.get(&at) {
                Some(Node::Directory(names)) => at = *names.get(name.as_os_str()).ok_or_else(|| errno(Errno::NOENT))?,
                Some(Node::Symlink(_)) => return Err(errno(Errno::LOOP)),
                _ => return Err(errno(Errno::NOTDIR)),
            }
        }
        Ok(at)
    }

    fn find_dir(&self, path: &Path) -> io::Result<Ino> {
        let ino = self.find(path)?;
        match self.live.0.get(&ino) {
            Some(Node::Directory(_)) => Ok(ino),
            Some(Node::Symlink(_)) => Err(errno(Errno::LOOP)),
            _ => Err(errno(Errno::NOTDIR)),
        }
    }

    fn place(&self, path: &Path) -> io::Result<(Ino, OsString)> {
        let dir = self.find_dir(path.parent().unwrap_or(Path::new("")))?;
        Ok((dir, path.file_name().ok_or_else(|| errno(Errno::INVAL))?.to_os_string()))
    }

    fn make(&mut self, path: &Path, node: Node) -> io::Result<Ino> {
        let (dir, name) = self.place(path)?;
        if self.find(path).is_ok() {
            return Err(errno(Errno::EXIST));
        }
        let ino = self.next_ino;
        self.next_ino += 1;
        // The inode itself without its bytes is there at once; whether a name leads to it is what counts.
        self.live.0.insert(ino, node.clone());
        self.durable.0.insert(ino, node);
        self.change(Change::Name { dir, name, ino });
        Ok(ino)
    }

    fn stat_of(&self, ino: Ino) -> Stat {
        let (kind, bytes) = match &self.live.0[&ino] {
            Node::File(data) => (Kind::File, data.len() as u64),
            Node::Directory(_) => (Kind::Directory, 0),
            Node::Symlink(_) => (Kind::Symlink, 0),
        };
        Stat { kind, device: 1, inode: ino, bytes, modified_ns: 0, mode: 0o600 }
    }

    fn persist(&mut self, which: impl Fn(&Change) -> bool) {
        let (now, later): (Vec<Change>, Vec<Change>) = std::mem::take(&mut self.waiting).into_iter().partition(which);
        now.iter().for_each(|change| self.durable.apply(change));
        self.waiting = later;
    }
}

struct FaultyFile {
    volume: FaultyVolume,
    ino: Ino,
}

impl VolumeFile for FaultyFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let m = self.volume.enter(false)?;
        let Some(Node::File(data)) = m.live.0.get(&self.ino) else { return Err(errno(Errno::IO)) };
        let from = data.get(offset as usize..).unwrap_or_default();
        let count = from.len().min(buf.len()).min(m.transfer_max);
        buf[..count].copy_from_slice(&from[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut m = self.volume.enter(true)?;
        let bytes = &bytes[..bytes.len().min(m.transfer_max)];
        m.change(Change::Write { ino: self.ino, offset, bytes: bytes.to_vec() });
        Ok(bytes.len())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut m = self.volume.enter(true)?;
        m.change(Change::SetLen { ino: self.ino, bytes });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let ino = self.ino;
        match self.volume.enter(true) {
            Ok(mut m) => {
                m.persist(|change| change.is_data_of(ino));
                Ok(())
            }
            Err(error) => {
                // The system forgets what it could not write and shows it all the same.
                self.volume.machine().waiting.retain(|change| !change.is_data_of(ino));
                Err(error)
            }
        }
    }

    fn stat(&self) -> io::Result<Stat> {
        Ok(self.volume.enter(false)?.stat_of(self.ino))
    }

    fn set_mode(&self, _mode: u32) -> io::Result<()> {
        self.volume.enter(true).map(|_| ())
    }

    fn set_mark(&self, mark: &[u8]) -> io::Result<()> {
        // Durable at once: a mark that is lost makes a file the user's, which harms nothing.
        self.volume.enter(true)?.marks.insert(self.ino, mark.to_vec());
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        let m = self.volume.enter(false)?;
        Ok(Some(offset).filter(|&offset| offset < m.stat_of(self.ino).bytes))
    }
}

impl Volume for FaultyVolume {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn VolumeFile>> {
        let mut m = self.enter(access == Access::Create)?;
        let ino = match m.find(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && access == Access::Create => m.make(path, Node::File(Vec::new()))?,
            other => other?,
        };
        match m.live.0[&ino] {
            Node::File(_) => Ok(Arc::new(FaultyFile { volume: self.clone(), ino })),
            Node::Directory(_) => Err(errno(Errno::ISDIR)),
            Node::Symlink(_) => Err(errno(Errno::LOOP)),
        }
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        let m = self.enter(false)?;
        let ino = m.find(path)?;
        Ok(m.stat_of(ino))
    }

    fn read_link(&self, path: &Path) -> io::Result<OsString> {
        let m = self.enter(false)?;
        match &m.live.0[&m.find(path)?] {
            Node::Symlink(target) => Ok(target.into()),
            _ => Err(errno(Errno::INVAL)),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(OsString, Kind)>> {
        let m = self.enter(false)?;
        let ino = m.find_dir(dir)?;
        let Node::Directory(names) = &m.live.0[&ino] else { return Err(errno(Errno::NOTDIR)) };
        Ok(names.iter().map(|(name, ino)| (name.clone(), m.stat_of(*ino).kind)).collect())
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.enter(true)?.make(path, Node::Directory(BTreeMap::new())).map(|_| ())
    }

    fn make_symlink(&self, target: &str, path: &Path) -> io::Result<()> {
        self.enter(true)?.make(path, Node::Symlink(target.into())).map(|_| ())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut m = self.enter(true)?;
        if m.no_links {
            return Err(errno(Errno::PERM));
        }
        let ino = m.find(from)?;
        let (dir, name) = m.place(to)?;
        if m.find(to).is_ok() {
            return Err(errno(Errno::EXIST));
        }
        m.change(Change::Name { dir, name, ino });
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut m = self.enter(true)?;
        let ino = m.find(from)?;
        let (from, to) = (m.place(from)?, m.place(to)?);
        m.change(Change::Rename { from, to, ino });
        Ok(())
    }

    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        let mut m = self.enter(true)?;
        if m.no_exchange {
            return Err(errno(Errno::INVAL));
        }
        m.find(a)?;
        m.find(b)?;
        let (a, b) = (m.place(a)?, m.place(b)?);
        m.change(Change::Exchange { a, b });
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut m = self.enter(true)?;
        m.find(path)?;
        let (dir, name) = m.place(path)?;
        m.change(Change::Unname { dir, name });
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut m = self.enter(true)?;
        let ino = m.find_dir(path)?;
        if m.live.dir(ino).is_some_and(|names| !names.is_empty()) {
            return Err(errno(Errno::NOTEMPTY));
        }
        let (dir, name) = m.place(path)?;
        m.change(Change::Unname { dir, name });
        Ok(())
    }

    fn set_mode(&self, path: &Path, _mode: u32) -> io::Result<()> {
        self.enter(true)?.find(path).map(|_| ())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut m = self.enter(true)?;
        let ino = m.find_dir(path)?;
        m.persist(|change| change.touches(ino));
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        match self.enter(true) {
            Ok(mut m) => {
                m.persist(|_| true);
                Ok(())
            }
            Err(error) => {
                self.machine().waiting.retain(|change| !matches!(change, Change::Write { .. } | Change::SetLen { .. }));
                Err(error)
            }
        }
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.enter(false)?.free_bytes)
    }

    fn total_bytes(&self) -> io::Result<u64> {
        Ok(self.enter(false)?.total_bytes)
    }

    fn set_mark(&self, path: &Path, mark: &[u8]) -> io::Result<()> {
        let mut m = self.enter(true)?;
        let ino = m.find(path)?;
        m.marks.insert(ino, mark.to_vec());
        Ok(())
    }

    fn mark(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let m = self.enter(false)?;
        let ino = m.find(path)?;
        Ok(m.marks.get(&ino).cloned())
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<LockGuard>> {
        let mut m = self.enter(true)?;
        if m.find(path).is_err() {
            m.make(path, Node::File(Vec::new()))?;
        }
        if m.locked.iter().any(|locked| locked == path) {
            return Ok(None);
        }
        m.locked.push(path.to_path_buf());
        Ok(Some(Box::new(Unlock { volume: self.clone(), path: path.to_path_buf() })))
    }
}

struct Unlock {
    volume: FaultyVolume,
    path: PathBuf,
}

impl Drop for Unlock {
    fn drop(&mut self) {
        self.volume.machine().locked.retain(|locked| *locked != self.path);
    }
}
