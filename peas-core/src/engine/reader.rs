//! The receiving half of a link: control to the driver, payload straight into piece buffers.
//!
//! One task per link. It owns the fetches that are expected on its link; the driver hands it notes through a small box. When
//! the driver, the disk or a rate limit is slow the task waits, stops reading, and the peer feels it by flow control. Nothing
//! that comes is believed: whole pieces are checked by storage, parts block by block here.

use super::assembly::Put;
use super::budget::Share;
use super::clock::Clock;
use super::works::{LinkNo, News, Report, What, Works};
use crate::hash::{SpanProof, SpanVerifier};
use crate::storage::PieceBuf;
use crate::swarm::Fault;
use crate::transport::{Incoming, LinkError, LinkReader};
use crate::unit::{BLOCK_BYTES, BlockSpan, RequestId, Span, Time};
use crate::wire::Message;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// How often the driver hears that bytes come in.
const ARRIVED_EVERY: Span = Span::ms(50);

/// Messages about members that a link may bring: this many at once, then so many a second. Ours brings one a second and a few when
/// newcomers come; each costs the machine a look at its whole table. What is beyond it is not listened to.
const GOSSIP_BURST: f64 = 64.0;
const GOSSIP_PER_S: f64 = 5.0;

/// Notes of the driver to the reader. As many as fetches are begun or dropped between two frames of the link.
#[derive(Default)]
pub(super) struct FetchBox {
    notes: Mutex<Vec<Note>>,
    changed: Notify,
}

enum Note {
    Expect(RequestId, BlockSpan),
    Forget(RequestId),
}

impl FetchBox {
    pub(super) fn expect(&self, req: RequestId, span: BlockSpan) {
        self.note(Note::Expect(req, span));
    }

    pub(super) fn forget(&self, req: RequestId) {
        self.note(Note::Forget(req));
    }

    /// For links whose tasks learn what to fetch in another way.
    pub(super) fn clear(&self) {
        self.take();
    }

    fn note(&self, note: Note) {
        self.notes.lock().expect("nothing panics while holding it").push(note);
        self.changed.notify_one();
    }

    fn take(&self) -> Vec<Note> {
        std::mem::take(&mut *self.notes.lock().expect("nothing panics while holding it"))
    }
}

/// Why reading ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The peer broke the protocol.
    Fault(Fault),
    /// The network, or the peer by its own wish.
    Link,
    /// The driver is gone.
    Driver,
}

impl From<LinkError> for Ended {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Protocol(_) => Ended::Fault(Fault::Protocol),
            _ => Ended::Link,
        }
    }
}

struct Fetch {
    span: BlockSpan,
    bytes: u32,
    received: u32,
    sink: Sink,
    /// Of the byte budget, once there is a buffer.
    share: Option<Share>,
}

enum Sink {
    /// Nothing came yet.
    None,
    /// All of a piece.
    Whole(PieceBuf),
    /// Some blocks of it, each verified as it comes.
    Part { verifier: SpanVerifier, bytes: Vec<u8>, verified: u32 },
}

/// The task's state.
pub(super) struct Reader {
    link: LinkNo,
    notes: Arc<FetchBox>,
    works: Arc<Works>,
    fetches: BTreeMap<RequestId, Fetch>,
    clock: Clock,
    told: Time,
    gossip: f64,
    gossip_at: Time,
}

impl Reader {
    pub(super) fn new(link: LinkNo, notes: Arc<FetchBox>, works: Arc<Works>) -> Self {
        Self {
            link,
            notes,
            works,
            fetches: BTreeMap::new(),
            clock: Clock::start(),
            told: Time::ZERO,
            gossip: GOSSIP_BURST,
            gossip_at: Time::ZERO,
        }
    }

    /// Reads until the link ends. Dropping it half-way is right only together with the link.
    pub(super) async fn run<R: LinkReader>(mut self, mut link: R) -> Ended {
        loop {
            if let Err(ended) = self.step(&mut link).await {
                return ended;
            }
        }
    }

    async fn step<R: LinkReader>(&mut self, link: &mut R) -> Result<(), Ended> {
        let incoming = {
            let mut next = std::pin::pin!(link.next());
            loop {
                tokio::select! { biased;
                    incoming = &mut next => break incoming?,
                    () = self.notes.changed.notified() => {}
                }
                // A fetch that was dropped gives its buffer back at once, even if its link stands still.
                Self::heed(&self.notes, &self.works, &mut self.fetches);
            }
        };
        Self::heed(&self.notes, &self.works, &mut self.fetches);
        match incoming {
            Incoming::Message(Message::Hello(_)) => Err(Ended::Fault(Fault::Protocol)),
            Incoming::Message(Message::Refuse { req, reason, retry_after_ms }) => {
                let req = RequestId(req);
                match self.fetches.remove(&req) {
                    Some(_) => self.report(Report::Refused { req, reason, retry_after_ms }).await,
                    None => Ok(()),
                }
            }
            Incoming::Message(Message::Members(_)) if !self.listens_to_gossip() => Ok(()),
            Incoming::Message(message) => self.tell(What::Message(message)).await,
            Incoming::Proof { req, nodes } => self.proof(req, nodes).await,
            Incoming::Payload { req, len } => self.payload(link, req, len).await,
        }
    }

    fn listens_to_gossip(&mut self) -> bool {
        let now = self.clock.now();
        let saved = self.gossip + now.since(self.gossip_at).as_s() * GOSSIP_PER_S;
        (self.gossip, self.gossip_at) = (saved.min(GOSSIP_BURST), now);
        let some = self.gossip >= 1.0;
        self.gossip -= f64::from(u8::from(some));
        some
    }

    fn heed(notes: &FetchBox, works: &Works, fetches: &mut BTreeMap<RequestId, Fetch>) {
        for note in notes.take() {
            match note {
                Note::Expect(req, span) => {
                    let bytes = works.geometry.len_of_span(span);
                    fetches.insert(req, Fetch { span, bytes, received: 0, sink: Sink::None, share: None });
                }
                Note::Forget(req) => {
                    if let Some(fetch) = fetches.remove(&req) {
                        works.wasted_bytes.fetch_add(fetch.received.into(), Ordering::Relaxed);
                    }
                }
            }
        }
    }

    async fn proof(&mut self, req: RequestId, nodes: Vec<crate::hash::Cv>) -> Result<(), Ended> {
        let Some(fetch) = self.fetches.get_mut(&req) else { return Ok(()) };
        let geometry = &self.works.geometry;
        if geometry.is_whole(fetch.span) || fetch.received > 0 {
            return Err(Ended::Fault(Fault::Protocol));
        }
        let piece_cv = self.works.pea.piece_cv(fetch.span.piece());
        match SpanVerifier::new(geometry, fetch.span, &SpanProof { nodes }, piece_cv) {
            Ok(verifier) => {
                fetch.share = Some(self.works.budget_in.take(fetch.bytes).await);
                fetch.sink = Sink::Part { verifier, bytes: vec![0; fetch.bytes as usize], verified: 0 };
                Ok(())
            }
            Err(_) => self.corrupt(req).await,
        }
    }

    async fn payload<R: LinkReader>(&mut self, link: &mut R, req: RequestId, len: u32) -> Result<(), Ended> {
        Works::take(&self.works.download, len).await;
        let Some(fetch) = self.fetches.get_mut(&req) else {
            self.works.wasted_bytes.fetch_add(len.into(), Ordering::Relaxed);
            return Ok(link.skip().await?);
        };
        if len == 0 || len > fetch.bytes - fetch.received {
            return Err(Ended::Fault(Fault::Protocol));
        }
        if matches!(fetch.sink, Sink::None) {
            if !self.works.geometry.is_whole(fetch.span) {
                return Err(Ended::Fault(Fault::Protocol)); // The proof comes first.
            }
            fetch.share = Some(self.works.budget_in.take(fetch.bytes).await);
            fetch.sink = Sink::Whole(self.works.storage.buffer(fetch.span.piece()));
        }
        let range = fetch.received as usize..(fetch.received + len) as usize;
        match &mut fetch.sink {
            Sink::Whole(buf) => link.payload(&mut buf[range]).await?,
            Sink::Part { bytes, .. } => link.payload(&mut bytes[range]).await?,
            Sink::None => {}
        }
        fetch.received += len;
        let (received, whole) = (fetch.received, fetch.received == fetch.bytes);
        if let Sink::Part { verifier, bytes, verified } = &mut fetch.sink {
            while *verified < received {
                let end = (*verified + BLOCK_BYTES).min(fetch.bytes);
                if end > received {
                    break;
                }
                let block = fetch.span.first() + (*verified / BLOCK_BYTES) as u16;
                if verifier.block(block, &bytes[*verified as usize..end as usize]).is_err() {
                    return self.corrupt(req).await;
                }
                *verified = end;
            }
        }
        match whole {
            true => self.complete(req).await,
            false => self.arrived(req, received).await,
        }
    }

    async fn complete(&mut self, req: RequestId) -> Result<(), Ended> {
        self.report(Report::Received { req }).await?;
        let Some(Fetch { span, bytes: len, sink, share, .. }) = self.fetches.remove(&req) else { return Ok(()) };
        let piece = span.piece();
        let buf = match sink {
            Sink::Whole(buf) => buf,
            Sink::Part { bytes, .. } => match self.works.assembly.put(span, &bytes, &self.works.storage) {
                Put::Whole(buf) => buf,
                Put::Kept => return self.report(Report::Verified { req }).await,
                Put::Late => {
                    self.works.wasted_bytes.fetch_add(len.into(), Ordering::Relaxed);
                    return self.report(Report::Verified { req }).await;
                }
            },
            Sink::None => return Ok(()),
        };
        // The place for the disk's answer is taken before the work is given: its thread never waits.
        let slot = self.works.reports.clone().reserve_owned().await.map_err(|_| Ended::Driver)?;
        let done = move |end| {
            slot.send(Report::Commit { req, piece, end });
            drop(share);
        };
        self.works.storage.commit(piece, buf, Box::new(done));
        Ok(())
    }

    async fn corrupt(&mut self, req: RequestId) -> Result<(), Ended> {
        self.fetches.remove(&req);
        self.report(Report::Corrupt { req }).await?;
        Err(Ended::Fault(Fault::Corrupt))
    }

    async fn arrived(&mut self, req: RequestId, bytes: u32) -> Result<(), Ended> {
        let now = self.clock.now();
        if now.since(self.told) < ARRIVED_EVERY {
            return Ok(());
        }
        self.told = now;
        self.tell(What::Arrived { req, bytes }).await
    }

    async fn report(&self, report: Report) -> Result<(), Ended> {
        self.works.reports.send(report).await.map_err(|_| Ended::Driver)
    }

    async fn tell(&self, what: What) -> Result<(), Ended> {
        self.works.news.send(News { link: self.link, what }).await.map_err(|_| Ended::Driver)
    }
}
