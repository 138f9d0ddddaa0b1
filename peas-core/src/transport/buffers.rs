//! Buffers for records on their way, shared by all links of a transport.
//!
//! A link has one only while it has bytes in hand: an idle link costs no buffer, so that a thousand neighbours do not cost a
//! hundred megabytes. What always holds: a buffer has all its bytes and one owner. What must not come in: whose bytes they are;
//! a buffer comes with what its last owner left in it, and each owner keeps count of what it has written itself.

use std::sync::{Arc, Mutex, PoisonError};

/// 66 KiB: a payload frame of 64 KiB, its head and what sealing adds to its five records (110 bytes) in one system call, and room
/// for a change of keys and a farewell behind it.
pub(super) const BUFFER_BYTES: usize = 66 << 10;

/// 32 buffers are kept for later, 2 MiB: more than threads that could use one at once.
const KEPT_MAX: usize = 32;

/// See the module. Clones are the same store.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffers {
    kept: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Buffers {
    /// A buffer of [`BUFFER_BYTES`].
    pub(super) fn take(&self) -> Vec<u8> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| vec![0; BUFFER_BYTES])
    }

    /// What is returned is not looked at again by who had it. An empty vector is none.
    pub(super) fn give_back(&self, buffer: Vec<u8>) {
        if buffer.len() == BUFFER_BYTES {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() < KEPT_MAX {
                kept.push(buffer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_kept() {
        let buffers = Buffers::default();
        let taken: Vec<_> = (0..KEPT_MAX * 2).map(|_| buffers.take()).collect();
        taken.into_iter().for_each(|buffer| buffers.give_back(buffer));
        buffers.give_back(Vec::new());
        assert_eq!(buffers.kept.lock().unwrap().len(), KEPT_MAX);
        assert_eq!(buffers.take().len(), BUFFER_BYTES);
    }
}
