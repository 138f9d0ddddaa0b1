//! What a web source does while it is a neighbour: grants, and fetches what the machine then asks for.
//!
//! One task per source, with a task below it for each of its few connections. It always fetches whole pieces: a server proves no
//! blocks, and storage checks pieces. Asked pieces that lie side by side are fetched in one range; small pieces that follow and are
//! missing come along, since a request costs a round trip and the machine asks in random order. What was fetched too much is
//! reported as found.

use super::assembly::Assembly;
use super::clock::Clock;
use super::reader::FetchBox;
use super::web::Control;
use super::works::{LinkNo, News, Report, What, Works};
use crate::source::{Fetcher, WebError};
use crate::storage::CommitEnd;
use crate::unit::{BLOCK_BYTES, BlockSpan, Geometry, PieceIdx, RequestId, Span};
use crate::wire::{Message, REFUSE_BUSY};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What one request to the server amounts to, at least, if that much is missing in one place. 1 MiB: a round trip of 100 ms is then
/// a tenth of the time on a link of 10 MB/s.
const RUN_BYTES: u64 = 1 << 20;

/// Grants outstanding and requests not answered, in all.
const ASKED_MAX: usize = 4;

/// How long after a refusal the machine is asked again whether it wants something.
const DECLINED_FOR: Duration = Duration::from_millis(250);

/// How long nothing is granted after a request for a piece that is being written.
const WRITING_FOR: Duration = Duration::from_millis(20);

/// How often the driver hears that bytes come in.
const ARRIVED_EVERY: Span = Span::ms(50);

/// The request of a piece that was not asked for: the machine numbers its own from 1.
const NOBODYS: RequestId = RequestId(0);

/// What came from a source.
#[derive(Default)]
pub(super) struct Got {
    /// In pieces that were right.
    pub(super) bytes: AtomicU64,
    /// In pieces that were not asked for, as they come.
    pub(super) ahead_bytes: AtomicU64,
}

/// A piece to fetch, and for which request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    req: RequestId,
    span: BlockSpan,
}

type Live = Arc<Mutex<BTreeSet<RequestId>>>;

/// See the module.
pub(super) struct WebLink {
    link: LinkNo,
    works: Arc<Works>,
    control: Control,
    notes: Arc<FetchBox>,
    active: watch::Receiver<bool>,
    idle: Vec<Fetcher>,
    got: Arc<Got>,
    ahead: bool,
    /// Asked for and not begun.
    asked: BTreeMap<RequestId, BlockSpan>,
    /// Pieces being fetched, and requests for them that came later.
    claimed: BTreeSet<PieceIdx>,
    late: Vec<Wanted>,
    /// Requests that somebody waits for.
    live: Live,
    granted: usize,
    grant_at: Instant,
}

impl WebLink {
    #[expect(clippy::too_many_arguments, reason = "a list of parts, all different, given once")]
    pub(super) fn new(
        link: LinkNo,
        works: Arc<Works>,
        control: Control,
        notes: Arc<FetchBox>,
        active: watch::Receiver<bool>,
        idle: Vec<Fetcher>,
        got: Arc<Got>,
        ahead: bool,
    ) -> Self {
        let (asked, claimed, late, live) = Default::default();
        Self { link, works, control, notes, active, idle, got, ahead, asked, claimed, late, live, granted: 0, grant_at: Instant::now() }
    }

    /// Until the driver lets go of it, or the source fails. Dropping it half-way closes its connections.
    pub(super) async fn run(mut self) -> Result<(), WebError> {
        self.first_answer().await?;
        if self.works.reports.send(Report::WebUp { link: self.link }).await.is_err() {
            return Ok(());
        }
        let mut running = JoinSet::new();
        loop {
            self.notes.clear();
            self.start(&mut running);
            let active = *self.active.borrow_and_update();
            let may_grant = active && self.granted + self.live().len() < ASKED_MAX;
            if may_grant && self.grant_at <= Instant::now() {
                self.grant().await;
                continue;
            }
            tokio::select! { biased;
                message = self.control.recv() => match message {
                    Some(message) => self.hear(message).await,
                    None => return Ok(()),
                },
                Some(end) = running.join_next(), if !running.is_empty() => {
                    // A task that panicked is a bug of ours, and takes its source with it.
                    let (fetcher, run, end) = end.map_err(|error| WebError::Io(std::io::Error::other(error)))?;
                    end?;
                    self.idle.push(fetcher);
                    self.ended(&run).await;
                }
                changed = self.active.changed() => if changed.is_err() { return Ok(()) },
                () = tokio::time::sleep_until(self.grant_at), if may_grant => {}
            }
        }
    }

    fn live(&self) -> std::sync::MutexGuard<'_, BTreeSet<RequestId>> {
        self.live.lock().expect("nothing panics while holding it")
    }

    /// A source that does not give the first byte is not worth a place among the neighbours.
    async fn first_answer(&mut self) -> Result<(), WebError> {
        let fetcher = self.idle.last_mut().expect("a source has connections");
        fetcher.begin(0..1);
        while fetcher.next().await?.is_some() {}
        Ok(())
    }

    async fn grant(&mut self) {
        let blocks = (self.works.geometry.piece_bytes() / BLOCK_BYTES) as u16;
        let what = What::Message(Message::Grant { blocks, spare: true });
        // Nobody listens only while the session is being torn down.
        let _ = self.works.news.send(News { link: self.link, what }).await;
        self.granted += 1;
    }

    async fn hear(&mut self, message: Message) {
        match message {
            Message::Request { req, piece, first, count } => {
                self.granted = self.granted.saturating_sub(1);
                let geometry = &self.works.geometry;
                let Some(span) = geometry.piece(piece).and_then(|piece| geometry.span(piece, first, count)) else { return };
                let wanted = Wanted { req: RequestId(req), span };
                if self.works.assembly.is_done(span.piece()) {
                    // It came along with another and is being written; the machine does not know yet.
                    self.grant_at = Instant::now() + WRITING_FOR;
                    return self.refuse(wanted.req).await;
                }
                self.live().insert(wanted.req);
                match self.claimed.contains(&span.piece()) {
                    true => self.late.push(wanted),
                    false => drop(self.asked.insert(wanted.req, span)),
                }
            }
            Message::Decline { piece: None } => {
                self.granted = self.granted.saturating_sub(1);
                self.grant_at = Instant::now() + DECLINED_FOR;
            }
            Message::Cancel { req } => {
                self.asked.remove(&RequestId(req));
                self.late.retain(|late| late.req.0 != req);
                self.live().remove(&RequestId(req));
            }
            // What others would want to know.
            _ => {}
        }
    }

    /// Gives each idle connection something to do.
    fn start(&mut self, running: &mut JoinSet<(Fetcher, Vec<Wanted>, Result<(), WebError>)>) {
        while let Some((&first, &span)) = self.asked.iter().next() {
            let Some(mut fetcher) = self.idle.pop() else { return };
            let ahead = self.ahead.then_some(&self.works.assembly);
            let run = run_of(&self.works.geometry, Wanted { req: first, span }, &self.asked, &self.claimed, ahead);
            for wanted in &run {
                self.asked.remove(&wanted.req);
                self.claimed.insert(wanted.span.piece());
            }
            let fetch = Fetch { link: self.link, works: self.works.clone(), live: self.live.clone(), got: self.got.clone() };
            running.spawn(async move {
                let end = fetch.run(&mut fetcher, &run).await;
                (fetcher, run, end)
            });
        }
    }

    /// A run is over: requests for pieces of it that it left out are refused, so that the machine asks anew.
    async fn ended(&mut self, run: &[Wanted]) {
        for wanted in run {
            self.claimed.remove(&wanted.span.piece());
            self.live().remove(&wanted.req);
        }
        let (over, late) = std::mem::take(&mut self.late).into_iter().partition(|late| !self.claimed.contains(&late.span.piece()));
        self.late = late;
        let over: Vec<Wanted> = over;
        for Wanted { req, span } in over {
            self.live().remove(&req);
            // What is being written is about to be withdrawn by the machine itself.
            if !self.works.assembly.is_done(span.piece()) {
                self.refuse(req).await;
            }
        }
    }

    async fn refuse(&mut self, req: RequestId) {
        // Nobody listens only while the session is being torn down.
        let _ = self.works.reports.send(Report::Refused { req, reason: REFUSE_BUSY, retry_after_ms: 0 }).await;
    }
}

/// The piece, and those behind it that are worth fetching with it. `ahead`: also what nobody asked for.
fn run_of(
    geometry: &Geometry,
    first: Wanted,
    asked: &BTreeMap<RequestId, BlockSpan>,
    claimed: &BTreeSet<PieceIdx>,
    ahead: Option<&Assembly>,
) -> Vec<Wanted> {
    let mut run = vec![first];
    let mut bytes = u64::from(geometry.len_of(first.span.piece()));
    let mut next = first.span.piece().raw() + 1;
    while let Some(piece) = geometry.piece(next).filter(|piece| bytes < RUN_BYTES && !claimed.contains(piece)) {
        let known = asked.iter().find(|(_, span)| span.piece() == piece).map(|(&req, &span)| Wanted { req, span });
        let missing = ahead.is_some_and(|assembly| !assembly.is_done(piece) && !assembly.is_begun(piece));
        let Some(wanted) = known.or_else(|| missing.then(|| Wanted { req: NOBODYS, span: geometry.whole(piece) })) else { break };
        run.push(wanted);
        bytes += u64::from(geometry.len_of(piece));
        next += 1;
    }
    run
}

/// One run on one connection.
struct Fetch {
    link: LinkNo,
    works: Arc<Works>,
    live: Live,
    got: Arc<Got>,
}

impl Fetch {
    async fn run(&self, fetcher: &mut Fetcher, run: &[Wanted]) -> Result<(), WebError> {
        let (works, clock) = (&self.works, Clock::start());
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(()) };
        let range = works.geometry.bytes_of(first.span.piece()).start..works.geometry.bytes_of(last.span.piece()).end;
        fetcher.begin(range);
        let (mut rest, mut told) = (hyper::body::Bytes::new(), clock.now());
        for (at, wanted) in run.iter().enumerate() {
            let piece = wanted.span.piece();
            if !self.is_waited_for(&run[at..], at > 0) {
                return Ok(());
            }
            let bytes = works.geometry.len_of(piece);
            let share = works.budget_in.take(bytes).await;
            let mut buf = works.storage.buffer(piece);
            let mut filled = 0;
            while filled < buf.len() {
                if rest.is_empty() {
                    rest = fetcher.next().await?.ok_or(std::io::Error::from(ErrorKind::UnexpectedEof))?;
                    Works::take(&works.download, rest.len() as u32).await;
                }
                let part = rest.split_to(rest.len().min(buf.len() - filled));
                buf[filled..filled + part.len()].copy_from_slice(&part);
                filled += part.len();
                if wanted.req == NOBODYS {
                    self.got.ahead_bytes.fetch_add(part.len() as u64, Ordering::Relaxed);
                } else if clock.now().since(told) >= ARRIVED_EVERY && filled < buf.len() {
                    told = clock.now();
                    let bytes = (filled as u32).min(works.geometry.len_of_span(wanted.span) - 1);
                    let _ = works.news.send(News { link: self.link, what: What::Arrived { req: wanted.req, bytes } }).await;
                }
            }
            if wanted.req != NOBODYS {
                let _ = works.reports.send(Report::Received { req: wanted.req }).await;
            }
            let Ok(slot) = works.reports.clone().reserve_owned().await else { return Ok(()) };
            let (wanted, link, whole) = (*wanted, self.link, works.geometry.is_whole(wanted.span));
            let (got, of_end) = (self.got.clone(), works.clone());
            works.assembly.writing(piece);
            works.storage.commit(
                piece,
                buf,
                Box::new(move |end| {
                    if matches!(end, CommitEnd::Committed(_)) {
                        got.bytes.fetch_add(bytes.into(), Ordering::Relaxed);
                    }
                    // The whole piece came from it, whatever was asked for: it is to blame.
                    let lied = matches!(end, CommitEnd::Corrupt) && (wanted.req == NOBODYS || !whole);
                    if lied {
                        of_end.assembly.unwritten(piece);
                    }
                    slot.send(match wanted.req {
                        NOBODYS if lied => Report::WebLied { link },
                        req if lied => Report::Corrupt { req },
                        req => Report::Commit { req, piece, end },
                    });
                    drop(share);
                }),
            );
        }
        // The end of the answer, so that the connection is free for the next.
        fetcher.next().await.map(drop)
    }

    /// Whether a request of these is still wanted. What nobody asked for is, while its run is under way.
    fn is_waited_for(&self, run: &[Wanted], begun: bool) -> bool {
        let live = self.live.lock().expect("nothing panics while holding it");
        run.iter().any(|wanted| live.contains(&wanted.req) || (begun && wanted.req == NOBODYS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::PieceSet;

    #[test]
    fn small_pieces_are_fetched_many_at_a_time_and_large_ones_alone() {
        let geometry = Geometry::new(64 * (64 << 10) + 5, 64 << 10).unwrap();
        let piece = |raw| geometry.piece(raw).unwrap();
        let wanted = |req, raw| Wanted { req: RequestId(req), span: geometry.whole(piece(raw)) };
        let pieces = |run: Vec<Wanted>| run.iter().map(|wanted| (wanted.req.0, wanted.span.piece().raw())).collect::<Vec<_>>();
        let asked: BTreeMap<_, _> =
            [(RequestId(1), wanted(1, 10).span), (RequestId(2), wanted(2, 11).span), (RequestId(3), wanted(3, 13).span)].into();
        let none = BTreeSet::new();
        assert_eq!(pieces(run_of(&geometry, wanted(1, 10), &asked, &none, None)), [(1, 10), (2, 11)], "asked ones side by side");

        let mut held = PieceSet::empty(&geometry);
        held.insert(piece(15));
        let assembly = Assembly::new(geometry, &held);
        let run = run_of(&geometry, wanted(1, 10), &asked, &none, Some(&assembly));
        assert_eq!(pieces(run), [(1, 10), (2, 11), (0, 12), (3, 13), (0, 14)], "and what is missing between, up to what is held");
        let run = run_of(&geometry, wanted(1, 10), &asked, &[piece(12)].into(), Some(&assembly));
        assert_eq!(pieces(run), [(1, 10), (2, 11)], "not what the other connection fetches");
        let run = run_of(&geometry, wanted(9, 20), &BTreeMap::new(), &none, Some(&assembly));
        assert_eq!(run.len() as u64 * (64 << 10), RUN_BYTES);
        assert_eq!(pieces(run_of(&geometry, wanted(9, 63), &BTreeMap::new(), &none, Some(&assembly))), [(9, 63), (0, 64)], "the end");

        let large = Geometry::new(8 << 20, 1 << 20).unwrap();
        let first = Wanted { req: RequestId(1), span: large.whole(large.piece(3).unwrap()) };
        let assembly = Assembly::new(large, &PieceSet::empty(&large));
        assert_eq!(run_of(&large, first, &BTreeMap::new(), &none, Some(&assembly)), [first]);
    }
}
