//! Turns at this machine's own network, where that is the narrow place: links send one frame after the other, and the next goes only when
//! little of what went before waits in the system's queue.
//!
//! Without it each link hands over all that its peer's window allows, and a queue that holds 50 ms is always full: every grant and every
//! request waits behind it, and what does not fit is lost and sent again.
//!
//! How much may wait is found by looking ([`Depth`]): enough that the network never runs dry between two looks, no more; and where a longer
//! queue sends more, as with a system that sends each connection's packets by a clock of its own, it is allowed.
//!
//! Who goes next: the link whose peer will be the first to run dry. What stands in queues on the way to it, mostly before its own downlink, lasts
//! for a while; a frame is due when half of that is used up.

use super::clock::Clock;
use super::writer::FAST_BYTES_PER_S;
use crate::unit::{Span, Time};
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// What may wait at least. 8 kB, a short frame: with 16 sixteen clients at 12.5 Mbit/s are whole at 1.082 times the bound instead of 1.075, thirty at 6
/// Mbit/s at 1.26 instead of 1.23.
const DEPTH_MIN: f64 = 8e3;

/// What may wait, in seconds of what goes out. 4 ms: several looks, so that the network does not run dry between two.
const DEPTH_S: f64 = 0.004;

/// Over how long it is measured what goes out. 0.4 s: what passed and waits in sockets is then a tenth of it.
const WINDOW: Span = Span::ms(400);

/// Whoever had to wait was the last for a while when nobody else had to for this long: less is wanted than can go out.
const GAP_MAX: Span = Span::ms(50);

/// One window in so many has twice the depth, and twice the depth is right if that much more goes out in it.
const TRIAL_EVERY: u32 = 8;
const TRIAL_GAIN: f64 = 1.4;

/// Windows after which half of what trials brought is forgotten.
const FORGOTTEN_AFTER: u32 = 64;

/// Longest wait for a queue that gets no shorter: an interface that stands still must not keep the others.
const WAIT_MAX: Span = Span::ms(250);

/// A frame is due when so much of what stands in queues on the way to its peer is used up. A half: what is known of it is as old as it is long.
/// With all of it 8, 32 and 128 clients are whole at 1.047, 1.039 and 1.058 times the bound instead of 1.042, 1.039 and 1.056, with none
/// of it at 1.056, 1.055 and 1.065 (`peas-sim run --clients 8`, seeds 1 to 3, and so on).
const QUEUE_SHARE: f64 = 0.5;

/// And nobody is overtaken for longer than this. 250 ms: what is more is no queue of a swarm's own.
const OVERTAKEN_MAX: Span = Span::ms(250);

/// Between two looks at the queue: no timer is finer, and no rate is known so well that it would be slept by for longer.
const LOOK_MIN: Span = Span::ms(1);
const LOOK_MAX: Span = Span::ms(20);

/// How much may wait in the system's queue, by what was seen of it.
#[derive(Debug)]
struct Depth {
    /// What goes out in a second, outside of trials; 0: not known.
    bytes_per_s: f64,
    /// How many times the usual depth trials have shown to be right.
    factor: f64,
    windows: u32,
    window: Option<Window>,
}

/// A time in which there was always somebody who had to wait.
#[derive(Debug)]
struct Window {
    began: Time,
    queued: u64,
    /// When somebody last had to.
    last: Time,
    passed: u64,
}

impl Depth {
    fn new() -> Self {
        Self { bytes_per_s: 0.0, factor: 1.0, windows: 0, window: None }
    }

    fn is_trial(&self) -> bool {
        self.windows % TRIAL_EVERY == 1
    }

    /// What may wait now.
    fn most(&self) -> f64 {
        let usual = (self.bytes_per_s * DEPTH_S).max(DEPTH_MIN) * self.factor;
        if self.is_trial() { 2.0 * usual } else { usual }
    }

    /// So much waits that somebody has to: how long until it is time to look again.
    fn holds(&mut self, now: Time, queued: u64) -> Span {
        match &mut self.window {
            Some(window) if now.since(window.last) < GAP_MAX => {
                window.last = now;
                let took = now.since(window.began);
                if took >= WINDOW {
                    let sent = (window.passed + window.queued).saturating_sub(queued);
                    self.learn(sent as f64 / took.as_s());
                }
            }
            _ => self.window = Some(Window { began: now, queued, last: now, passed: 0 }),
        }
        if self.bytes_per_s == 0.0 {
            return LOOK_MIN;
        }
        // Timers are late by up to a millisecond.
        let due_s = (queued as f64 - self.most()) / self.bytes_per_s - LOOK_MIN.as_s();
        Span::from_s(due_s.max(0.0)).clamp(LOOK_MIN, LOOK_MAX)
    }

    fn learn(&mut self, bytes_per_s: f64) {
        self.window = None;
        if self.is_trial() && bytes_per_s > TRIAL_GAIN * self.bytes_per_s {
            // And the next window is a trial of twice that.
            self.factor *= 2.0;
            self.bytes_per_s = bytes_per_s;
            return;
        }
        if !self.is_trial() {
            self.bytes_per_s = if self.bytes_per_s == 0.0 { bytes_per_s } else { (self.bytes_per_s + bytes_per_s) / 2.0 };
        }
        self.windows += 1;
        if self.windows.is_multiple_of(FORGOTTEN_AFTER) {
            self.factor = (self.factor / 2.0).max(1.0);
        }
    }

    fn passes(&mut self, bytes: u32) {
        if let Some(window) = &mut self.window {
            window.passed += u64::from(bytes);
        }
    }

    /// Whether somebody had to wait lately, and not because much goes out.
    fn is_tight(&self, now: Time) -> bool {
        let lately = self.window.as_ref().is_some_and(|window| now.since(window.last) < WINDOW);
        lately && (1.0..FAST_BYTES_PER_S).contains(&self.bytes_per_s)
    }
}

/// The row of an engine's links.
pub(super) struct Turns {
    /// Bytes in the system's queue.
    queued: Box<dyn Fn() -> u64 + Send + Sync>,
    clock: Clock,
    row: Mutex<Row>,
    moved: Notify,
}

struct Row {
    depth: Depth,
    /// Who waits here and now, in order.
    waiting: BTreeSet<Place>,
    next: u64,
    passed_at: Time,
}

/// When a frame is due, and its number among those due at the same time.
type Place = (Time, u64);

/// A place in the row; none to begin with. Who is called away for a moment keeps it, and stands in nobody's way.
#[derive(Debug, Default)]
pub(super) struct Turn {
    place: Option<Place>,
}

impl Turn {
    /// Whether no place is held.
    pub(super) fn is_none(&self) -> bool {
        self.place.is_none()
    }
}

/// Somebody who stands in the row.
struct Standing<'a> {
    turns: &'a Turns,
    place: Place,
}

enum Seen {
    Go,
    /// At the front, and the queue is long.
    Long(Span),
    Behind,
}

impl Turns {
    pub(super) fn new(queued: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        let row = Mutex::new(Row { depth: Depth::new(), waiting: BTreeSet::new(), next: 0, passed_at: Time::ZERO });
        Self { queued: Box::new(queued), clock: Clock::start(), row, moved: Notify::new() }
    }

    /// Waits until so many bytes may go to the system, for a peer with so much in queues on the way to it. Safe to drop half-way.
    pub(super) async fn reach(&self, turn: &mut Turn, bytes: u32, queue: Span) {
        let standing = self.stand(turn, queue);
        // A fast network takes all of it in a moment: then a millisecond would be long.
        let mut looked = false;
        loop {
            let moved = self.moved.notified();
            match standing.look(bytes) {
                Seen::Go => break,
                Seen::Long(_) if !looked => tokio::task::yield_now().await,
                Seen::Long(wait) => tokio::time::sleep(Duration::from(wait)).await,
                Seen::Behind => moved.await,
            }
            looked = true;
        }
        *turn = Turn::default();
    }

    fn stand(&self, turn: &mut Turn, queue: Span) -> Standing<'_> {
        let mut row = self.row();
        let place = *turn.place.get_or_insert_with(|| {
            row.next += 1;
            (self.clock.now() + Span::from_s(queue.as_s() * QUEUE_SHARE).min(OVERTAKEN_MAX), row.next)
        });
        row.waiting.insert(place);
        Standing { turns: self, place }
    }

    /// Whether this machine's network is the narrow place now, and slow.
    pub(super) fn are_tight(&self) -> bool {
        self.row().depth.is_tight(self.clock.now())
    }

    fn row(&self) -> MutexGuard<'_, Row> {
        self.row.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Standing<'_> {
    fn look(&self, bytes: u32) -> Seen {
        let mut row = self.turns.row();
        if row.waiting.first() != Some(&self.place) {
            return Seen::Behind;
        }
        let (now, queued) = (self.turns.clock.now(), (self.turns.queued)());
        if queued as f64 > row.depth.most() && now.since(row.passed_at) < WAIT_MAX {
            return Seen::Long(row.depth.holds(now, queued));
        }
        row.depth.passes(bytes);
        row.passed_at = now;
        Seen::Go
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.turns.row().waiting.remove(&self.place);
        self.turns.moved.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::time::{Instant, sleep, timeout};

    const FRAME: u32 = 8 << 10;
    const LINKS: usize = 8;

    /// How a system sends what waits in it.
    #[derive(Clone, Copy)]
    enum System {
        /// First in, first out, so many bytes per second.
        Fifo(f64),
        /// Each link's by a clock of its own.
        Paced(f64),
        Still,
    }

    struct Net {
        system: System,
        started: Instant,
        links: Vec<Link>,
    }

    /// What was handed over by a link, and when it is all gone.
    #[derive(Clone, Default)]
    struct Link {
        handed: f64,
        gone_at_s: f64,
    }

    impl Net {
        fn new(system: System) -> Arc<Mutex<Self>> {
            Arc::new(Mutex::new(Self { system, started: Instant::now(), links: vec![Link::default(); LINKS] }))
        }

        fn now_s(&self) -> f64 {
            self.started.elapsed().as_secs_f64()
        }

        fn hand_over(&mut self, link: usize, bytes: u32) {
            let rate = match self.system {
                System::Fifo(rate) | System::Paced(rate) => rate,
                System::Still => 1e-3,
            };
            let behind_s = match self.system {
                System::Fifo(_) => self.links.iter().map(|link| link.gone_at_s).fold(0.0, f64::max),
                System::Paced(_) | System::Still => self.links[link].gone_at_s,
            };
            let now_s = self.now_s();
            let link = &mut self.links[link];
            link.handed += f64::from(bytes);
            link.gone_at_s = behind_s.max(now_s) + f64::from(bytes) / rate;
        }

        fn queued(&self) -> f64 {
            let left_s = |link: &Link| (link.gone_at_s - self.now_s()).max(0.0);
            match self.system {
                System::Fifo(rate) => rate * self.links.iter().map(left_s).fold(0.0, f64::max),
                System::Paced(rate) => self.links.iter().map(|link| rate * left_s(link)).sum(),
                System::Still => self.links.iter().map(|link| link.handed).sum(),
            }
        }

        fn sent(&self) -> f64 {
            self.links.iter().map(|link| link.handed).sum::<f64>() - self.queued()
        }

        /// A link keeps no more than this in its system.
        fn has_room(&self, link: usize) -> bool {
            let System::Paced(rate) = self.system else { return true };
            (self.links[link].gone_at_s - self.now_s()) * rate < f64::from(FRAME)
        }
    }

    fn turns(net: &Arc<Mutex<Net>>) -> Turns {
        let net = net.clone();
        Turns::new(move || net.lock().unwrap().queued() as u64)
    }

    /// What goes out in a second after two, and the longest queue then, when each link `waits` before a frame.
    async fn flow(system: System, waits: impl AsyncFn(&Turns, &mut Turn)) -> (f64, f64) {
        let net = Net::new(system);
        let turns = turns(&net);
        let one = async |link: usize| {
            let mut turn = Turn::default();
            loop {
                while !net.lock().unwrap().has_room(link) {
                    sleep(Duration::from_millis(1)).await;
                }
                waits(&turns, &mut turn).await;
                net.lock().unwrap().hand_over(link, FRAME);
                // As a write to a socket with room: others get to run.
                tokio::task::yield_now().await;
            }
        };
        let watch = async {
            sleep(Duration::from_secs(2)).await;
            let (before, mut longest) = (net.lock().unwrap().sent(), 0f64);
            for _ in 0..2000 {
                sleep(Duration::from_millis(1)).await;
                longest = longest.max(net.lock().unwrap().queued());
            }
            ((net.lock().unwrap().sent() - before) / 2.0, longest)
        };
        tokio::select! {
            seen = watch => seen,
            _ = async { tokio::join!(one(0), one(1), one(2), one(3), one(4), one(5), one(6), one(7)) } => unreachable!(),
        }
    }

    async fn in_turn(turns: &Turns, turn: &mut Turn) {
        turns.reach(turn, FRAME, Span::ZERO).await;
    }

    /// Control: what was learnt of the queue is forgotten with each frame.
    async fn in_turn_by_rote(turns: &Turns, turn: &mut Turn) {
        turns.reach(turn, FRAME, Span::ZERO).await;
        turns.row().depth = Depth::new();
    }

    #[tokio::test(start_paused = true)]
    async fn a_narrow_network_is_busy_and_its_queue_short() {
        let (rate, longest) = flow(System::Fifo(1.5e6), in_turn).await;
        assert!(rate > 0.99 * 1.5e6, "{rate} bytes per second");
        assert!(longest < 2.0 * DEPTH_MIN + f64::from(FRAME), "{longest} bytes waited");
        // Control: each link sends when 20 ms have passed.
        let (_, longest) = flow(System::Fifo(1.5e6), async |_, _| sleep(Duration::from_millis(20)).await).await;
        assert!(longest > 100e3, "{longest} bytes waited");
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_network_does_not_run_dry() {
        let (rate, _) = flow(System::Fifo(125e6), in_turn).await;
        assert!(rate > 0.99 * 125e6, "{rate} bytes per second");
        let (rate, _) = flow(System::Fifo(125e6), in_turn_by_rote).await;
        assert!(rate < 0.5 * 125e6, "control: {rate} bytes per second");
    }

    #[tokio::test(start_paused = true)]
    async fn a_system_that_paces_each_link_is_given_enough() {
        let (rate, _) = flow(System::Paced(200e3), in_turn).await;
        assert!(rate > 0.95 * 1.6e6, "{rate} bytes per second");
        let (rate, _) = flow(System::Paced(200e3), in_turn_by_rote).await;
        assert!(rate < 0.7 * 1.6e6, "control: {rate} bytes per second");
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_that_stands_still_keeps_nobody_for_long() {
        let net = Net::new(System::Still);
        net.lock().unwrap().hand_over(0, 1 << 20);
        let turns = turns(&net);
        sleep(Duration::from_secs(1)).await;
        let start = Instant::now();
        for _ in 0..4 {
            turns.reach(&mut Turn::default(), FRAME, Span::ZERO).await;
        }
        let took = start.elapsed().as_millis();
        assert!((750..900).contains(&took), "{took} ms: the first at once, others a quarter of a second each");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_called_away_keeps_its_place_and_stands_in_nobodys_way() {
        let net = Net::new(System::Fifo(1e6));
        net.lock().unwrap().hand_over(0, 200_000);
        let turns = turns(&net);
        let (mut first, mut second, mut third) = (Turn::default(), Turn::default(), Turn::default());
        turns.row().passed_at = turns.clock.now();
        assert!(timeout(Duration::from_millis(10), turns.reach(&mut first, FRAME, Span::ZERO)).await.is_err(), "the queue is long");
        {
            let behind = turns.reach(&mut second, FRAME, Span::ZERO);
            timeout(Duration::from_millis(300), behind).await.expect("nobody stands before it");
        }
        net.lock().unwrap().hand_over(0, 50_000);
        let mut order = Vec::new();
        {
            let order = Mutex::new(&mut order);
            let go = async |turn: &mut Turn, name: u8| {
                turns.reach(turn, FRAME, Span::ZERO).await;
                order.lock().unwrap().push(name);
                net.lock().unwrap().hand_over(0, FRAME);
            };
            let third = go(&mut third, 3);
            let first = async {
                sleep(Duration::from_millis(1)).await;
                go(&mut first, 1).await;
            };
            tokio::join!(third, first);
        }
        assert_eq!(order, [1, 3], "the first was there before the third");
    }

    /// The order in which five leave that came 30 ms after one another, while the queue was long, each with so many ms on the way to its peer.
    async fn order(on_the_way: [u64; 5]) -> [usize; 5] {
        let net = Net::new(System::Fifo(1e6));
        net.lock().unwrap().hand_over(0, 200_000);
        let turns = turns(&net);
        turns.row().passed_at = turns.clock.now();
        let left = Mutex::new(Vec::new());
        let go = async |at: usize| {
            sleep(Duration::from_millis(30 * at as u64)).await;
            turns.reach(&mut Turn::default(), FRAME, Span::ms(on_the_way[at])).await;
            net.lock().unwrap().hand_over(0, FRAME);
            left.lock().unwrap().push(at);
        };
        tokio::join!(go(0), go(1), go(2), go(3), go(4));
        left.into_inner().unwrap().try_into().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn whose_peer_runs_dry_first_goes_first() {
        assert_eq!(order([200, 0, 20, 0, 10_000]).await, [1, 2, 3, 0, 4]);
        assert_eq!(order([0; 5]).await, [0, 1, 2, 3, 4], "control: where nothing is on the way, who came first");
        let turns = turns(&Net::new(System::Still));
        let (due, _) = turns.stand(&mut Turn::default(), Span::s(10)).place;
        assert_eq!(due.since(turns.clock.now()), OVERTAKEN_MAX, "nobody is overtaken for longer");
    }
}
