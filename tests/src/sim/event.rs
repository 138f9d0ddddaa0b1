//! The event queue: what happens next in virtual time. Events of one moment happen in the order in which they were put in, so a
//! run never depends on how a heap breaks ties.

use peas_core::unit::PieceIdx;
use peas_core::wire::Message;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::net::SocketAddr;

/// Virtual nanoseconds since the world began: a 16 KiB block on 10 Gbit/s takes 13 µs, so microseconds would be too coarse.
pub(super) type Ns = u64;

/// One second.
pub(super) const SECOND: Ns = 1_000_000_000;
/// One millisecond.
pub(super) const MS: Ns = 1_000_000;

/// A length of time from seconds.
pub(super) fn ns(seconds: f64) -> Ns {
    (seconds * 1e9) as Ns
}

/// An end of a link at the time the event was made; it is void when the slot has been given to another link since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HalfRef {
    pub half: u32,
    pub generation: u32,
}

/// Why an address is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To have a link.
    Link,
    /// To know who listens there.
    Probe,
}

/// What happens.
#[derive(Debug)]
pub(super) enum Event {
    /// A node comes up (or up again).
    Start { node: u32 },
    /// A machine's deadline.
    Timer { node: u32, incarnation: u32 },
    /// An uplink may have room for the next quantum.
    Pump { node: u32 },
    /// A control message arrives.
    Deliver { to: HalfRef, message: Box<Message> },
    /// Bytes of a fetch arrived.
    Arrived { at: HalfRef, req: u64, bytes: u32 },
    /// The last byte of a fetch arrived, or the first that is provably wrong.
    Last { at: HalfRef, req: u64 },
    /// The disk is done with the oldest piece in its queue.
    Stored { node: u32, incarnation: u32 },
    /// A serve left, or the disk turned out to have rotted under it.
    ServeEnded { at: HalfRef, req: u64, sent_bytes: u32, damaged: Option<PieceIdx> },
    /// A dial ends, one way or the other.
    Dialed { dialer: u32, incarnation: u32, addr: Box<SocketAddr>, target: Option<u32>, purpose: Purpose },
    /// This end learns that the link is gone.
    Closed { at: HalfRef },
    /// A node ends without a word.
    Kill { node: u32 },
    /// A node is told to leave.
    Leave { node: u32, incarnation: u32 },
    /// The next thing in the fault plan.
    Fault { index: u32 },
    /// Look at everything: statistics and periodic checks.
    Sample,
}

#[derive(Debug)]
struct Entry {
    at: Ns,
    number: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// Events by time, then by the order in which they were pushed.
#[derive(Debug, Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Entry>,
    pushed: u64,
    now: Ns,
}

impl Queue {
    /// The time of the last event that was taken.
    pub fn now(&self) -> Ns {
        self.now
    }

    /// How many events were ever put in.
    pub fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Puts an event in; one in the past happens now.
    pub fn push(&mut self, at: Ns, event: Event) {
        self.pushed += 1;
        self.heap.push(Entry { at: at.max(self.now), number: self.pushed, event });
    }

    /// Takes the next event and moves the clock to it.
    pub fn pop(&mut self) -> Option<Event> {
        let entry = self.heap.pop()?;
        self.now = entry.at;
        Some(entry.event)
    }
}
