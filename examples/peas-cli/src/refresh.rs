//! Keeping the pea file at hand current: its unsigned tail learns who serves now, so that the next one who gets it finds the swarm
//! even if the first server is gone.
//!
//! Only the tail is ever changed, only when the members changed, and only by replacing the whole file at once; several processes
//! may share one file. Whatever stands in the way (read-only, another pea there by now) is a reason to leave it alone, never an error.

use peas_core::manifest::{Manifest, OwnerHint};
use peas_core::unit::PeerId;
use peas_core::{Session, session};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// First rewrite by a session that only serves: by then it knows its neighbours.
const FIRST_AFTER: Duration = Duration::from_secs(20);
/// Between two rewrites: well below the time for which a member's record is good.
const EVERY: Duration = Duration::from_secs(180);

/// Rewrites one pea file.
pub struct Refresher {
    path: Option<PathBuf>,
    /// Who is about to leave, and is not to be named.
    leaving: Option<PeerId>,
    due: Instant,
}

impl Refresher {
    /// `path`: `None` if there is no file, or it shall stay as it is.
    pub fn new(path: Option<&Path>, leaving: Option<PeerId>) -> Self {
        // A link to a pea stays a link.
        let path = path.and_then(|path| path.canonicalize().ok());
        Self { path, leaving, due: Instant::now() + FIRST_AFTER }
    }

    /// Rewrites if it is time to.
    pub fn tick(&mut self, session: &Session) {
        if Instant::now() >= self.due {
            self.now(session);
        }
    }

    /// Rewrites now, if the members changed.
    pub fn now(&mut self, session: &Session) {
        self.due = Instant::now() + EVERY;
        if let Some(path) = &self.path {
            // Nobody waits for it, and the next try is minutes away.
            let _ = rewrite(path, &session.refreshed_pea(), self.leaving);
        }
    }
}

/// `None`: left alone.
fn rewrite(path: &Path, fresh: &[u8], leaving: Option<PeerId>) -> Option<()> {
    if std::fs::metadata(path).ok()?.permissions().readonly() {
        return None;
    }
    let old_bytes = session::read_pea(path).ok()?;
    let old = Manifest::decode(&old_bytes).ok()?;
    let new = Manifest::decode(fresh).ok()?;
    // Put another release there meanwhile, and these bytes differ.
    if old.with_owner_hints(new.owner_hints()) != fresh {
        return None;
    }
    let staying: Vec<OwnerHint> = new.owner_hints().iter().filter(|hint| Some(PeerId(hint.record.peer)) != leaving).cloned().collect();
    if staying.is_empty() || members(old.owner_hints()) == members(&staying) {
        return None;
    }
    session::write_pea(path, &old.with_owner_hints(&staying)).ok()
}

fn members(hints: &[OwnerHint]) -> BTreeSet<([u8; 32], SocketAddr)> {
    hints.iter().map(|hint| (hint.record.peer, hint.record.addr)).collect()
}
