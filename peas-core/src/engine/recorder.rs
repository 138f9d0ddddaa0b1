//! The flight recorder: the last inputs of a machine, as text.
//!
//! Inputs carry no payload, so an entry is some tens of bytes. Memory is bounded by the number and by the length of entries.

use crate::swarm::Input;
use crate::unit::Time;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Mutex;

/// How many inputs are kept: several seconds of a busy session.
const ENTRIES_MAX: usize = 8192;

/// Longest text of one input, in bytes.
const ENTRY_BYTES_MAX: usize = 256;

/// Ring of inputs; writes by the driver, read by whoever asks.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    entries: Mutex<VecDeque<(Time, String)>>,
}

impl Recorder {
    pub(super) fn note(&self, now: Time, input: &Input) {
        let mut text = format!("{input:?}");
        if text.len() > ENTRY_BYTES_MAX {
            let end = (0..=ENTRY_BYTES_MAX).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
            text.truncate(end);
        }
        let mut entries = self.entries.lock().expect("nothing panics while holding it");
        if entries.len() == ENTRIES_MAX {
            entries.pop_front();
        }
        entries.push_back((now, text));
    }

    /// One line per input: microseconds since the driver started, and what came in.
    pub(super) fn text(&self) -> String {
        let entries = self.entries.lock().expect("nothing panics while holding it");
        entries.iter().fold(String::new(), |mut text, (time, input)| {
            let _ = writeln!(text, "{} {input}", time.0);
            text
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_ones() {
        let recorder = Recorder::default();
        for at in 0..ENTRIES_MAX as u64 + 5 {
            recorder.note(Time(at), &Input::Timeout);
        }
        let text = recorder.text();
        assert_eq!(text.lines().count(), ENTRIES_MAX);
        assert_eq!(text.lines().next(), Some("5 Timeout"));
    }
}
