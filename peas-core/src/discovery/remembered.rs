//! Peers of an earlier run, in the state directory.
//!
//! A text file per content, one peer a line: address, space, peer id. Losing it costs a slower start; what it says is believed
//! no more than any stranger's word. Written whole under a temporary name, then renamed.

use crate::swarm::{Candidate, Via};
use crate::unit::{PeaId, PeerId};
use crate::wire::MemberRecord;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Most peers kept.
const PEERS_MAX: usize = 64;

/// Longest file read: 64 lines of an IPv6 address and an id are less than this.
const FILE_BYTES_MAX: u64 = 16 * 1024;

/// The file of one content.
#[derive(Clone, Debug)]
pub(crate) struct Remembered {
    path: PathBuf,
}

impl Remembered {
    pub(crate) fn new(state_dir: &Path, content: PeaId) -> Self {
        Self { path: state_dir.join("peers").join(content.to_string()) }
    }

    /// What was kept; nothing if there is no file or it is damaged.
    pub(crate) fn load(&self) -> Vec<Candidate> {
        let mut text = String::new();
        let read = std::fs::File::open(&self.path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
        if read.is_err() {
            return Vec::new();
        }
        let candidate = |line: &str| {
            let (addr, peer) = line.split_once(' ')?;
            let peer: PeerId = peer.parse().ok()?;
            Some(Candidate { addr: addr.parse().ok()?, peer: Some(peer), via: Via::Remembered })
        };
        text.lines().filter_map(candidate).take(PEERS_MAX).collect()
    }

    /// Keeps these instead. An error is not worth more than a slower start.
    pub(crate) fn store(&self, members: &[MemberRecord]) -> std::io::Result<()> {
        let lines = members.iter().take(PEERS_MAX).map(|member| format!("{} {}\n", member.addr, member.peer_id()));
        let text: String = lines.collect();
        let dir = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir)?;
        let temporary = self.path.with_extension(format!("{}.tmp", std::process::id()));
        std::fs::write(&temporary, text)?;
        std::fs::rename(&temporary, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_come_back_and_damage_is_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let remembered = Remembered::new(dir.path(), PeaId([1; 32]));
        assert!(remembered.load().is_empty());
        let record = |at: u8| MemberRecord {
            peer: [at; 32],
            addr: format!("192.0.2.{at}:7000").parse().unwrap(),
            epoch: 0,
            age_s: 0,
            ttl_s: 600,
            held_permille: 0,
            region: 0,
        };
        remembered.store(&(1..100).map(record).collect::<Vec<_>>()).unwrap();
        let loaded = remembered.load();
        assert_eq!(loaded.len(), PEERS_MAX);
        assert_eq!(loaded[2].addr, record(3).addr);
        assert_eq!(loaded[2].peer, Some(PeerId([3; 32])));
        std::fs::write(&remembered.path, "1.2.3.4:5\n\u{fffd} x\n9.9.9.9:99 zz\n").unwrap();
        assert!(remembered.load().is_empty());
        std::fs::write(&remembered.path, [0xff; 100]).unwrap();
        assert!(remembered.load().is_empty());
    }
}
