//! Peers in dense slots, so that chance can pick one by number, and an index that finds one by its id. Both change together, here only.

use crate::unit::PeerId;
use std::collections::BTreeMap;

/// Something that is kept for each peer.
pub(super) trait OfPeer {
    fn peer(&self) -> PeerId;
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Slots<T> {
    slots: Vec<T>,
    index: BTreeMap<PeerId, usize>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), index: BTreeMap::new() }
    }
}

impl<T: OfPeer> Slots<T> {
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn get(&self, peer: PeerId) -> Option<&T> {
        self.index.get(&peer).map(|&at| &self.slots[at])
    }

    pub fn get_mut(&mut self, peer: PeerId) -> Option<&mut T> {
        self.index.get(&peer).map(|&at| &mut self.slots[at])
    }

    pub fn at(&self, slot: usize) -> &T {
        &self.slots[slot]
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut()
    }

    /// Adds a peer that is not there yet.
    pub fn insert(&mut self, one: T) {
        debug_assert!(!self.index.contains_key(&one.peer()));
        self.index.insert(one.peer(), self.slots.len());
        self.slots.push(one);
    }

    pub fn remove(&mut self, peer: PeerId) -> Option<T> {
        let at = self.index.remove(&peer)?;
        let gone = self.slots.swap_remove(at);
        if let Some(moved) = self.slots.get(at) {
            self.index.insert(moved.peer(), at);
        }
        Some(gone)
    }
}
