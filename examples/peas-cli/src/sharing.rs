//! From a session's start to its end: shows progress, tells events, keeps the pea file current, ends when asked.
//!
//! The same for a server, an installation and a repair. Everything here runs on the calling thread; the engine's own threads do
//! the work and never wait for the display.

use crate::args::NetArgs;
use crate::exit::{BUG, Failure, UNREACHABLE};
use crate::interrupt;
use crate::keys;
use crate::output::Output;
use crate::pea::{self, Pea};
use crate::progress;
use crate::refresh::Refresher;
use crate::units;
use peas_core::Manifest;
use peas_core::config::{Access, Credentials, EngineConfig};
use peas_core::event::{Event, PauseReason, Progress, State};
use peas_core::unit::PeerId;
use peas_core::{Engine, Session};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Between two looks at the session.
const TICK: Duration = Duration::from_millis(100);
/// Least time between two plain lines.
const PLAIN_EVERY: Duration = Duration::from_secs(1);
/// A server's lines come this much more rarely than those of an installation.
const SHARING_FACTOR: u32 = 10;
/// How long being alone is not worth a word: dialling takes a moment.
const ALONE_AFTER: Duration = Duration::from_secs(3);
/// Longest time between two plain words on being alone; it doubles up to this.
const ALONE_EVERY_MAX: Duration = Duration::from_secs(60);
/// For goodbyes when asked to end: people wait for their prompt.
const GRACE: Duration = Duration::from_millis(500);
/// For the engine's threads, after that.
const CLOSE: Duration = Duration::from_millis(1000);

/// Longest time between being asked to end and the end of the process.
const END_MAX: Duration = Duration::from_secs(3);

/// What the session is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Seed,
    Install,
}

/// What is known about a session from the start.
pub struct Job {
    pub purpose: Purpose,
    pub pea: Pea,
    pub place: PathBuf,
    pub net: NetArgs,
    /// End when nothing arrived for this long.
    pub give_up: Option<Duration>,
    /// Said after the content is whole: what happens next. Empty: it leaves.
    pub afterwards: String,
    pub out: Output,
}

/// An engine as the command line says.
pub fn engine(net: &NetArgs) -> Result<Engine, Failure> {
    let identity = net.identity.as_deref().map(keys::read_secret).transpose()?;
    Ok(Engine::new(EngineConfig {
        listen: net.listen,
        no_listen: net.no_listen,
        identity,
        upload_bytes_per_s: net.upload_limit.unwrap_or(0),
        download_bytes_per_s: net.download_limit.unwrap_or(0),
        plain: net.plain,
        scope: net.scope.into(),
        web_authorities: net.web_authorities.iter().map(|path| keys::read_authorities(path)).collect::<Result<Vec<_>, _>>()?.concat(),
        state_dir: net.state_dir.clone(),
        ..EngineConfig::default()
    })?)
}

/// What lets us into a swarm that is not open.
pub fn credentials(net: &NetArgs, manifest: &Manifest) -> Result<Credentials, Failure> {
    match (manifest.access(), &net.swarm_secret, &net.certificate) {
        (Access::Secret, None, _) => {
            return Err(Failure::usage("this swarm lets in only who has its secret", "give it with --swarm-secret FILE"));
        }
        (Access::Members { .. }, _, None) => {
            let hint = "give yours with --identity KEYFILE --certificate FILE; its authority makes one with: peas admit";
            return Err(Failure::usage("this swarm lets in only members", hint));
        }
        _ => {}
    }
    Ok(Credentials {
        secret: net.swarm_secret.as_deref().map(keys::read_secret).transpose()?,
        certificate: net.certificate.as_deref().map(keys::read_certificate).transpose()?,
    })
}

impl Job {
    /// Says where peers are accepted.
    pub fn announce_engine(&self, engine: &Engine) {
        let (addr, peer) = (engine.listen_addr(), engine.peer_id().to_string());
        match addr {
            Some(addr) => self.out.field("listens on", &format!("{addr} as {}...", &peer[..16])),
            None => self.out.field("listens on", "nothing: only dials"),
        }
        self.out.event(&json!({"event": "listening", "addr": addr.map(|addr| addr.to_string()), "peer": peer}));
    }

    /// Until the session is over or the process is asked to end. Blocking.
    pub fn run(self, engine: Engine, session: Session) -> Result<(), Failure> {
        let asked = interrupt::graceful(END_MAX);
        if self.net.while_stdin {
            interrupt::watch_stdin();
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new(BUG, format!("the system gives no event queue: {error}"), ""))?;
        let leaving = self.afterwards.is_empty().then(|| engine.peer_id());
        let mut watcher = Watcher::new(&self, leaving);
        let end = runtime.block_on(watcher.run(session, asked));
        self.out.clear();
        // Whatever hangs dies with the process.
        engine.close(CLOSE);
        end
    }
}

/// One session being watched.
struct Watcher<'a> {
    job: &'a Job,
    started: Instant,
    installed: bool,
    failure: Option<Failure>,
    refresher: Refresher,
    shown: Option<Instant>,
    shown_line: Option<(State, u64, u64)>,
    alone: Alone,
    moved: (u64, Instant),
}

/// How long nobody was reachable.
#[derive(Default)]
struct Alone {
    since: Option<Instant>,
    said: Option<Instant>,
    every: Duration,
}

/// Why the watch ended.
enum End {
    Over,
    Asked,
    GaveUp,
}

impl<'a> Watcher<'a> {
    fn new(job: &'a Job, leaving: Option<PeerId>) -> Self {
        let refreshed = if job.net.no_refresh { None } else { job.pea.path.as_deref() };
        let now = Instant::now();
        Self {
            job,
            started: now,
            installed: false,
            failure: None,
            refresher: Refresher::new(refreshed, leaving),
            shown: None,
            shown_line: None,
            alone: Alone::default(),
            moved: (0, now),
        }
    }

    async fn run(&mut self, session: Session, asked: watch::Receiver<bool>) -> Result<(), Failure> {
        let end = self.until_end(&session, asked).await;
        let last = session.progress();
        self.show(&session, &last, None);
        let stats = statistics(&session);
        if !matches!(end, End::Over) {
            session.leave(GRACE).await;
        }
        self.conclude(&last, &stats);
        let done = self.installed || self.job.purpose == Purpose::Seed;
        match (self.failure.take(), end) {
            (Some(failure), _) => Err(failure),
            (None, End::GaveUp) => Err(self.gave_up()),
            (None, _) if done => Ok(()),
            (None, _) => Err(Failure::interrupted(true)),
        }
    }

    async fn until_end(&mut self, session: &Session, mut asked: watch::Receiver<bool>) -> End {
        let mut tick = tokio::time::interval(TICK.min(self.job.net.progress_every.max(Duration::from_millis(20))));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = session.next_event() => match event {
                    Some(event) => self.tell(event, session),
                    None => return End::Over,
                },
                _ = tick.tick() => {
                    if self.look(session) {
                        return End::GaveUp;
                    }
                }
                // An error would mean that the sender is gone, and it is a static.
                _ = asked.wait_for(|asked| *asked) => return End::Asked,
            }
        }
    }

    /// True: time to give up.
    fn look(&mut self, session: &Session) -> bool {
        let progress = session.progress();
        let remark = self.loneliness(&progress, session);
        self.show(session, &progress, remark.as_deref());
        if self.installed || (self.job.purpose == Purpose::Seed && progress.state == State::Sharing) {
            self.refresher.tick(session);
        }
        let idle = progress.state == State::Receiving && progress.paused.is_none();
        if !idle || progress.bytes_done != self.moved.0 {
            self.moved = (progress.bytes_done, Instant::now());
        }
        self.job.give_up.is_some_and(|patience| self.moved.1.elapsed() >= patience)
    }

    fn show(&mut self, session: &Session, progress: &Progress, remark: Option<&str>) {
        let out = &self.job.out;
        let seen = (progress.state, progress.bytes_done, progress.bytes_sent);
        if !out.is_terminal() {
            let mut every = self.job.net.progress_every;
            if !out.is_json() {
                every = every.max(PLAIN_EVERY) * if progress.state == State::Sharing { SHARING_FACTOR } else { 1 };
            }
            let last = *self.shown.get_or_insert(self.started);
            let nothing_new = self.shown_line == Some(seen) || progress.state == State::Ended;
            if nothing_new || (last.elapsed() < every && !out.is_json()) || (out.is_json() && last.elapsed() < every) {
                return;
            }
            self.shown = Some(Instant::now());
            self.shown_line = Some(seen);
        }
        if out.is_json() {
            out.event(&progress::json(progress, &statistics(session)));
        } else {
            out.progress(progress, remark);
        }
    }

    /// What to say about nobody being reachable, if that is so. Says it too, now and then, where nothing is drawn in place.
    fn loneliness(&mut self, progress: &Progress, session: &Session) -> Option<String> {
        let alone = progress.state == State::Receiving && progress.peers + progress.web_sources == 0 && progress.paused.is_none();
        if !alone {
            self.alone = Alone::default();
            return None;
        }
        let waited = self.alone.since.get_or_insert_with(Instant::now).elapsed();
        if waited < ALONE_AFTER {
            return None;
        }
        let addresses = pea::addresses(&self.job.pea.manifest).len() + self.job.net.peer_addrs().len();
        let asks = match addresses {
            0 if !self.job.pea.manifest.web().is_empty() => "the pea names only web servers".into(),
            0 => "the pea names nobody; use --peer HOST:PORT".into(),
            1 => "still trying 1 address".into(),
            many => format!("still trying {many} addresses"),
        };
        let web = self.web_remark(session);
        let text = format!("nobody reachable for {}; {asks}{web}", units::time(Duration::from_secs(waited.as_secs())));
        if self.alone.said.is_none_or(|said| said.elapsed() >= self.alone.every) {
            self.alone.said = Some(Instant::now());
            self.alone.every = (self.alone.every * 2).clamp(Duration::from_secs(5), ALONE_EVERY_MAX);
            self.job.out.event(&json!({"event": "alone", "waited_s": waited.as_secs(), "addresses": addresses}));
            if !self.job.out.is_terminal() {
                self.job.out.note(&text);
            }
        }
        Some(text)
    }

    /// What the first web source that failed has to say.
    fn web_remark(&self, session: &Session) -> String {
        let stats = statistics(session);
        let mut sources = stats["web"].as_array().into_iter().flatten();
        let failed = sources.find_map(|source| Some((source["url"].as_str()?, source["error"].as_str()?)));
        failed.map_or(String::new(), |(url, error)| format!("; {}: {}", pea::printable(url), pea::printable(error)))
    }

    fn tell(&mut self, event: Event, session: &Session) {
        let out = &self.job.out;
        let (name, extra, text): (&str, Value, Option<String>) = match event {
            Event::Started { bytes_reused } => {
                let text = (bytes_reused > 0 && self.job.purpose == Purpose::Install)
                    .then(|| format!("{} of it are here already", units::bytes(bytes_reused)));
                ("started", json!({"bytes_reused": bytes_reused}), text)
            }
            Event::Installed => return self.complete(session),
            Event::OriginLost => ("origin_lost", json!({}), Some("the origin cannot be reached any more; going on with the others".into())),
            Event::OriginBack => ("origin_back", json!({}), Some("the origin is back".into())),
            Event::PeerBanned { peer } => {
                let stats = statistics(session);
                let sources = stats["web"].as_array().into_iter().flatten();
                let url = sources.filter(|source| source["peer"] == peer.to_string()).find_map(|source| source["url"].as_str());
                let who = url.map_or_else(|| format!("peer {peer:?}"), pea::printable);
                ("peer_banned", json!({"peer": peer.to_string(), "url": url}), Some(format!("{who} sent wrong data and was banned")))
            }
            Event::WebFailed { url, message } => {
                let text = format!("{}: {}", pea::printable(&url), pea::printable(&message));
                ("web_failed", json!({"url": url, "message": message}), Some(text))
            }
            Event::Unavailable { missing_pieces: 0 } => {
                ("unavailable", json!({"missing_pieces": 0}), Some("all pieces have a reachable holder again".into()))
            }
            Event::Unavailable { missing_pieces } => (
                "unavailable",
                json!({"missing_pieces": missing_pieces}),
                Some(format!("{missing_pieces} pieces have no reachable holder; waiting for one")),
            ),
            Event::Paused(reason) => ("paused", json!({"reason": progress::pause_name(reason)}), Some(pause_text(reason).into())),
            Event::Resumed => ("resumed", json!({}), Some("going on".into())),
            Event::Damaged { piece } => {
                ("damaged", json!({"piece": piece}), Some(format!("piece {piece} is damaged on this disk and is not served")))
            }
            Event::Failed { code, message } => {
                self.failure = Some(Failure::session(code, message));
                return;
            }
            Event::Left => ("left", json!({}), None),
            Event::Lagged { missed } => ("lagged", json!({"missed": missed}), None),
        };
        out.event(&with_name(name, extra));
        if let Some(text) = text {
            out.note(&text);
        }
    }

    /// Everything is verified and in place.
    fn complete(&mut self, session: &Session) {
        // A server's content was in place from the beginning.
        if self.job.purpose == Purpose::Seed || std::mem::replace(&mut self.installed, true) {
            return;
        }
        let (out, progress) = (&self.job.out, session.progress());
        let seconds = self.started.elapsed();
        // Before it is said: who waits for the word may hand the pea on, and it names who serves now.
        self.refresher.now(session);
        out.field("complete", &format!("{} in {}", self.job.place.display(), units::time(seconds)));
        out.field("received", &received(&progress));
        if !self.job.afterwards.is_empty() {
            out.field("now", &self.job.afterwards);
        }
        out.event(&json!({
            "event": "complete", "path": self.job.place.display().to_string(), "seconds": seconds.as_secs_f64(),
            "bytes_total": progress.bytes_total, "bytes_reused": progress.bytes_reused,
            "bytes_from_origin": progress.bytes_from_origin, "bytes_from_peers": progress.bytes_from_peers,
            "bytes_from_web": progress.bytes_from_web,
        }));
    }

    /// The last words, for whoever keeps accounts.
    fn conclude(&self, last: &Progress, stats: &Value) {
        let out = &self.job.out;
        out.event(&json!({"event": "stats", "stats": stats}));
        if last.bytes_sent > 0 {
            out.field("sent", &units::bytes(last.bytes_sent));
        }
    }

    fn gave_up(&self) -> Failure {
        let waited = units::time(self.job.give_up.unwrap_or_default());
        Failure::new(
            UNREACHABLE,
            format!("gave up: nothing arrived for {waited}"),
            "what is verified is kept: run the same command again later, or name a peer with --peer HOST:PORT",
        )
    }
}

/// All that the library counts.
fn statistics(session: &Session) -> Value {
    serde_json::from_str(&session.stats_json()).unwrap_or(Value::Null)
}

fn received(progress: &Progress) -> String {
    let web = if progress.bytes_from_web > 0 { format!(", {} from the web", units::bytes(progress.bytes_from_web)) } else { String::new() };
    format!(
        "{} from the origin, {} from peers{web}; {} were here",
        units::bytes(progress.bytes_from_origin),
        units::bytes(progress.bytes_from_peers),
        units::bytes(progress.bytes_reused),
    )
}

fn pause_text(reason: PauseReason) -> &'static str {
    match reason {
        PauseReason::Host => "paused",
        PauseReason::DiskFull => "the disk is full: make room, it goes on by itself",
        PauseReason::DiskError => "the disk refuses writes: mend it, it goes on by itself",
    }
}

fn with_name(name: &str, mut fields: Value) -> Value {
    fields["event"] = name.into();
    fields
}
