//! The sending half of a link: control first, then what peers asked for.
//!
//! One task per link. Control messages overtake payload at each frame. The next piece is read from disk while the current one
//! is being sent; bytes read and not yet sent are counted against the session's budget. Whom to serve is not decided here.

use super::budget::Share;
use super::clock::Clock;
use super::throttle::Place;
use super::turns::Turn;
use super::works::{LinkNo, Report, Works};
use crate::storage::ReadEnd;
use crate::transport::{LinkError, LinkWriter};
use crate::unit::{BlockSpan, RequestId, Span, Time};
use crate::wire::Message;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use tokio::sync::{Notify, mpsc, oneshot};

/// Payload of one frame: the most that transport takes.
const FRAME_BYTES: usize = 64 * 1024;

/// Payload of one frame on a slow link, so that control waits some milliseconds and not some tenths of a second.
const FRAME_BYTES_SLOW: usize = 16 * 1024;

/// Payload of one frame where a slow rate is set and all links move in turn: the shorter, the less stands in the queue before a slow uplink.
/// 8 KiB: the last of sixteen clients at 95 % of 12.5 Mbit/s is whole at 1.137 times the bound, with 16 at 1.143 (medians of three, in turn).
const FRAME_BYTES_IN_TURN: usize = 8 * 1024;

/// Above this a link counts as fast: 64 KiB take less than 4 ms.
pub(super) const FAST_BYTES_PER_S: f64 = 16e6;

/// What a fast link may keep in the system's buffers: 128 KiB, some milliseconds, so that the network never runs dry.
const BACKLOG_FAST: u32 = 128 * 1024;

/// What any other link may keep there: a control message waits behind it, and a serve counts as sent although it lies there.
const BACKLOG_SLOW: u32 = 16 * 1024;

/// Time or bytes that make one measurement of a link: long enough to see past the system's buffers.
const MEASURE_S: f64 = 0.1;
const MEASURE_BYTES: usize = 4 << 20;

/// 100 ms between two questions how far it is to the peer.
const MEASURE_EVERY: Span = Span::ms(100);

/// No length of time.
const UNKNOWN: Span = Span(u64::MAX);

/// Control messages that leave together, in one packet if they are short: 16.
const SAID_AT_ONCE: usize = 16;

/// What is to be sent on a link, as long as the swarm machine lets it grow (`uploads_max`); and what sending it tells.
pub(super) struct ServeBox {
    inner: Mutex<Serves>,
    changed: Notify,
    /// Least time to the peer and back, until the driver takes it.
    nearer_us: AtomicU64,
}

impl Default for ServeBox {
    fn default() -> Self {
        Self { inner: Mutex::default(), changed: Notify::new(), nearer_us: AtomicU64::new(UNKNOWN.0) }
    }
}

#[derive(Default)]
struct Serves {
    queue: VecDeque<(RequestId, BlockSpan)>,
    /// The serve that the writer has taken, and whether it is to be dropped.
    taken: Vec<(RequestId, bool)>,
}

/// Where a serve was when it was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// In the queue: it is gone, and nothing was sent.
    Queued,
    /// At work: the writer drops it and reports.
    AtWork,
    /// Nowhere: it has ended.
    Ended,
}

impl ServeBox {
    pub(super) fn push(&self, req: RequestId, span: BlockSpan) {
        self.inner.lock().expect("nothing panics while holding it").queue.push_back((req, span));
        self.changed.notify_one();
    }

    pub(super) fn stop(&self, req: RequestId) -> Stopped {
        let mut inner = self.inner.lock().expect("nothing panics while holding it");
        let before = inner.queue.len();
        inner.queue.retain(|&(queued, _)| queued != req);
        if inner.queue.len() < before {
            return Stopped::Queued;
        }
        match inner.taken.iter_mut().find(|(taken, _)| *taken == req) {
            Some((_, stopped)) => {
                *stopped = true;
                Stopped::AtWork
            }
            None => Stopped::Ended,
        }
    }

    /// What the way to the peer and back takes, if that is less than it was last said to.
    pub(super) fn nearer(&self) -> Option<Span> {
        let took = Span(self.nearer_us.swap(UNKNOWN.0, Ordering::Relaxed));
        (took != UNKNOWN).then_some(took)
    }

    fn pop(&self) -> Option<(RequestId, BlockSpan)> {
        let mut inner = self.inner.lock().expect("nothing panics while holding it");
        let (req, span) = inner.queue.pop_front()?;
        inner.taken.push((req, false));
        Some((req, span))
    }

    fn is_stopped(&self, req: RequestId) -> bool {
        self.inner.lock().expect("nothing panics while holding it").taken.contains(&(req, true))
    }

    fn ended(&self, req: RequestId) {
        self.inner.lock().expect("nothing panics while holding it").taken.retain(|&(taken, _)| taken != req);
    }
}

/// A span on its way from disk.
struct Reading {
    req: RequestId,
    read: Pin<Box<dyn Future<Output = (ReadEnd, Share)> + Send>>,
}

/// A span on its way to the network.
struct Sending {
    req: RequestId,
    end: ReadEnd,
    sent: usize,
    _share: Share,
}

/// The task's state.
pub(super) struct Writer {
    link: LinkNo,
    serves: Arc<ServeBox>,
    works: Arc<Works>,
    control: mpsc::Receiver<Message>,
    clock: Clock,
    pace: Pace,
    /// Of the next frame, in the rows before the rates that are set.
    places: [Place; 2],
    /// And in the row before this machine's network.
    turn: Turn,
    /// Least time to the peer and back, and when the system was last asked for it.
    round_trip: Span,
    measured_at: Time,
}

/// How fast the network takes what a link sends.
#[derive(Default)]
struct Pace {
    bytes: usize,
    busy_s: f64,
    is_fast: bool,
}

impl Pace {
    /// Takes note of a frame; says so when the link turned fast or slow.
    fn note(&mut self, bytes: usize, took_s: f64) -> Option<u32> {
        self.bytes += bytes;
        self.busy_s += took_s;
        if self.busy_s < MEASURE_S && self.bytes < MEASURE_BYTES {
            return None;
        }
        let was_fast = std::mem::replace(&mut self.is_fast, self.bytes as f64 / self.busy_s.max(1e-6) > FAST_BYTES_PER_S);
        (self.bytes, self.busy_s) = (0, 0.0);
        (was_fast != self.is_fast).then_some(if self.is_fast { BACKLOG_FAST } else { BACKLOG_SLOW })
    }
}

impl Writer {
    pub(super) fn new(link: LinkNo, serves: Arc<ServeBox>, control: mpsc::Receiver<Message>, works: Arc<Works>) -> Self {
        let (clock, pace, places, turn) = (Clock::start(), Pace::default(), Default::default(), Turn::default());
        Self { link, serves, works, control, clock, pace, places, turn, round_trip: UNKNOWN, measured_at: Time::ZERO }
    }

    /// Writes until the driver drops its end of `control` (then says goodbye politely) or the link breaks. Dropping it
    /// half-way is right only together with the link.
    pub(super) async fn run<W: LinkWriter>(mut self, mut link: W) -> Result<(), LinkError> {
        link.limit_backlog(BACKLOG_SLOW);
        let mut reading: Option<Reading> = None;
        let mut sending: Option<Sending> = None;
        let mut said = Vec::new();
        loop {
            while said.len() < SAID_AT_ONCE
                && let Ok(message) = self.control.try_recv()
            {
                said.push(message);
            }
            if !said.is_empty() {
                link.messages(&said).await?;
                said.clear();
                continue;
            }
            if self.control.is_closed() && self.control.is_empty() {
                link.flush().await?;
                link.finish().await;
                return Ok(());
            }
            self.measure(&link);
            if reading.is_none() {
                reading = self.serves.pop().map(|(req, span)| self.read(req, span));
            }
            if let Some(ahead) = &mut reading {
                let done = poll_once(ahead.read.as_mut()).await;
                if sending.is_none()
                    && let Some((end, share)) = done
                {
                    sending = Some(Sending { req: ahead.req, end, sent: 0, _share: share });
                    reading = None;
                    continue;
                } else if let Some(done) = done {
                    ahead.read = Box::pin(std::future::ready(done));
                }
            }
            if let Some(now) = &mut sending {
                let tight = self.works.turns.are_tight();
                let bytes = self.frame_bytes(now, tight);
                // Only where frames wait for each other does it matter whose goes first.
                let round_trip = if tight && self.turn.is_none() { link.round_trip() } else { None };
                let queue = round_trip.map_or(Span::ZERO, |round_trip| round_trip.queue().into());
                tokio::select! { biased;
                    message = self.control.recv() => said.extend(message),
                    () = Self::may_send(&self.works, &mut self.places, &mut self.turn, bytes as u32, queue) => {
                        if self.frame(&mut link, now, bytes).await? {
                            sending = None;
                        }
                    }
                }
                continue;
            }
            link.flush().await?;
            tokio::select! { biased;
                message = self.control.recv() => said.extend(message),
                (end, share) = async { reading.as_mut().expect("checked by the guard").read.as_mut().await }, if reading.is_some() => {
                    if let Some(Reading { req, .. }) = reading.take() {
                        sending = Some(Sending { req, end, sent: 0, _share: share });
                    }
                }
                () = self.serves.changed.notified(), if reading.is_none() => {}
            }
        }
    }

    fn read(&self, req: RequestId, span: BlockSpan) -> Reading {
        let works = self.works.clone();
        let read = async move {
            let share = works.budget_out.take(works.geometry.len_of(span.piece())).await;
            let (tx, rx) = oneshot::channel();
            let with_proof = !works.geometry.is_whole(span);
            works.storage.read(span, with_proof, Box::new(move |end| drop(tx.send(end))));
            // A storage that was closed drops the question: to the peer it is as if the disk were gone.
            (rx.await.unwrap_or(ReadEnd::Failed(crate::Error::Closed)), share)
        };
        Reading { req, read: Box::pin(read) }
    }

    /// Waits until the rates that are set, and then the system's queue, have room for so much. Safe to drop half-way.
    async fn may_send(works: &Works, places: &mut [Place; 2], turn: &mut Turn, bytes: u32, queue: Span) {
        if turn.is_none() {
            Works::reach(&works.upload, places, bytes).await;
        }
        works.turns.reach(turn, bytes, queue).await;
    }

    /// Payload of the next frame.
    fn frame_bytes(&self, sending: &Sending, tight: bool) -> usize {
        let ReadEnd::Bytes { range, .. } = &sending.end else { return 0 };
        let limited = self.works.upload.iter().any(|throttle| (1..FAST_BYTES_PER_S as u64).contains(&throttle.get()));
        let in_turn = limited || tight;
        let most = if in_turn {
            FRAME_BYTES_IN_TURN
        } else if self.pace.is_fast {
            FRAME_BYTES
        } else {
            FRAME_BYTES_SLOW
        };
        most.min(range.len() - sending.sent)
    }

    /// Sends one frame; says whether the serve is over.
    async fn frame<W: LinkWriter>(&mut self, link: &mut W, sending: &mut Sending, bytes: usize) -> Result<bool, LinkError> {
        let req = sending.req;
        let ReadEnd::Bytes { buf, range, proof } = &sending.end else {
            self.ended(req, 0, true).await;
            return Ok(true);
        };
        if self.serves.is_stopped(req) {
            self.ended(req, sending.sent, false).await;
            return Ok(true);
        }
        if let (0, Some(proof)) = (sending.sent, proof) {
            link.proof(req, &proof.nodes).await?;
        }
        let start = range.start + sending.sent;
        let began = self.clock.now();
        link.payload(req, &buf[start..start + bytes]).await?;
        if let Some(backlog) = self.pace.note(bytes, self.clock.now().since(began).as_s()) {
            link.limit_backlog(backlog);
        }
        sending.sent += bytes;
        let over = sending.sent == range.len();
        if over {
            self.ended(req, sending.sent, false).await;
        }
        Ok(over)
    }

    /// Now and then asks the system how far it is to the peer.
    fn measure(&mut self, link: &impl LinkWriter) {
        let now = self.clock.now();
        if now.since(self.measured_at) < MEASURE_EVERY {
            return;
        }
        self.measured_at = now;
        if let Some(took) = link.round_trip().map(|round_trip| Span::from(round_trip.least)).filter(|&took| took < self.round_trip) {
            self.round_trip = took;
            self.serves.nearer_us.store(took.0, Ordering::Relaxed);
        }
    }

    async fn ended(&self, req: RequestId, sent: usize, damaged: bool) {
        self.serves.ended(req);
        // Nobody listens only while the session is being torn down.
        let _ = self.works.reports.send(Report::ServeEnded { link: self.link, req, sent_bytes: sent as u32, damaged }).await;
    }
}

/// Moves a future on without waiting for it.
async fn poll_once<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        Poll::Ready(match future.as_mut().poll(context) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}
