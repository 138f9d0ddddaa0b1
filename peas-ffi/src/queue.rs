//! What waits to be told: a queue that cannot overflow and loses nothing that matters.
//!
//! Per job at most one PROGRESS (its numbers are read when it is taken), one COMPLETE and one ENDED; notices and log lines sit in
//! a ring that drops its oldest and counts them. Order is the order of facts. Pure: no lock, no clock, no thread.

use crate::types::{peas_job, peas_level, peas_notice_type};
use std::collections::VecDeque;

/// Notices and log lines that wait. 256: some seconds of a busy log, 100 KiB at most.
pub(crate) const TEXTS_MAX: usize = 256;

/// One thing to tell.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Item {
    Progress(peas_job),
    Complete(peas_job),
    Ended(peas_job),
    Notice { job: peas_job, notice: peas_notice_type, value: u64, level: peas_level, message: String },
    Log { job: peas_job, level: peas_level, message: String },
}

#[derive(Default)]
pub(crate) struct Queue {
    facts: VecDeque<(u64, Item)>,
    texts: VecDeque<(u64, Item)>,
    dropped: u64,
    next: u64,
}

impl Queue {
    pub(crate) fn is_empty(&self) -> bool {
        self.facts.is_empty() && self.texts.is_empty()
    }

    /// The caller sees to it that each job has at most one of each fact waiting.
    pub(crate) fn push(&mut self, item: Item) {
        let at = self.next;
        self.next += 1;
        if matches!(item, Item::Notice { .. } | Item::Log { .. }) {
            if self.texts.len() == TEXTS_MAX {
                self.texts.pop_front();
                self.dropped += 1;
            }
            self.texts.push_back((at, item));
        } else {
            self.facts.push_back((at, item));
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Item> {
        let from_texts = match (self.facts.front(), self.texts.front()) {
            (Some((fact, _)), Some((text, _))) => text < fact,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        if !from_texts {
            return self.facts.pop_front().map(|(_, item)| item);
        }
        if self.dropped > 0 {
            // Before the first line that survived, where the gap is.
            let value = std::mem::take(&mut self.dropped);
            let message = format!("{value} older notices and log lines were dropped: nobody took them");
            return Some(Item::Notice {
                job: 0,
                notice: peas_notice_type::PEAS_NOTICE_DROPPED,
                value,
                level: peas_level::PEAS_LEVEL_WARNING,
                message,
            });
        }
        self.texts.pop_front().map(|(_, item)| item)
    }

    /// Forgets what waits about a job that is no longer remembered.
    pub(crate) fn forget(&mut self, job: peas_job) {
        self.facts.retain(|(_, item)| !matches!(item, Item::Progress(of) | Item::Complete(of) | Item::Ended(of) if *of == job));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: usize) -> Item {
        Item::Log { job: 1, level: peas_level::PEAS_LEVEL_INFO, message: n.to_string() }
    }

    #[test]
    fn order_is_the_order_of_facts() {
        let mut queue = Queue::default();
        let items = [line(0), Item::Progress(1), line(1), Item::Complete(1), Item::Ended(1), line(2)];
        items.iter().cloned().for_each(|item| queue.push(item));
        assert_eq!(std::iter::from_fn(|| queue.pop()).collect::<Vec<_>>(), items);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_flood_of_lines_drops_the_oldest_and_says_how_many() {
        let mut queue = Queue::default();
        queue.push(Item::Complete(1));
        (0..TEXTS_MAX + 37).for_each(|n| queue.push(line(n)));
        queue.push(Item::Ended(1));
        assert_eq!(queue.pop(), Some(Item::Complete(1)));
        assert!(matches!(queue.pop(), Some(Item::Notice { value: 37, notice: peas_notice_type::PEAS_NOTICE_DROPPED, .. })));
        (37..TEXTS_MAX + 37).for_each(|n| assert_eq!(queue.pop(), Some(line(n))));
        assert_eq!((queue.pop(), queue.pop()), (Some(Item::Ended(1)), None));
    }

    #[test]
    fn a_forgotten_job_leaves_only_its_lines() {
        let mut queue = Queue::default();
        [Item::Progress(1), Item::Ended(2), Item::Ended(1), line(0)].into_iter().for_each(|item| queue.push(item));
        queue.forget(1);
        assert_eq!(std::iter::from_fn(|| queue.pop()).collect::<Vec<_>>(), [Item::Ended(2), line(0)]);
    }
}
