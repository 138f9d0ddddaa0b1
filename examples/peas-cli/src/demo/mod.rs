//! `peas demo`: a distributor and several clients, each in a process of its own, on this machine.
//!
//! Everything is real: generated files on disk, sockets on the loopback address, the same `seed` and `install` that anybody runs.
//! The distributor's sending is limited, as a server's is; what the clients give each other is not. At the end every copy is
//! hashed against the pea, and the exit code says whether all are whole.
//!
//! With `--kill-origin` the last client starts only after the distributor's death and is told where another client is: however
//! the others share their work with the distributor, one client gets everything from a swarm without it.

mod child;
mod content;
mod screen;

use crate::args::DemoArgs;
use crate::exit::{Failure, UNREACHABLE, VERIFY};
use crate::interrupt;
use crate::output::{Output, field, say};
use crate::units;
use child::{Line, Peas};
use peas_core::config::{CreateOptions, Owner};
use peas_core::manifest::TrustedManifest;
use peas_core::session;
use screen::Screen;
use std::ffi::OsString;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// The number of the distributor among the children; clients have theirs from 0.
const ORIGIN: usize = usize::MAX;
/// Name of the generated folder.
const NAME: &str = "game";
/// Without any progress for this long the swarm is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(60);
/// Longest time between Ctrl-C and the end: the files are removed.
const END_MAX: Duration = Duration::from_secs(60);
/// Longest wait for the distributor to listen.
const LISTENING_MAX: Duration = Duration::from_secs(20);

/// `program`: the words that start this program once more.
pub fn run(args: DemoArgs, program: &[OsString]) -> Result<(), Failure> {
    if args.kill_origin && args.clients < 2 {
        return Err(Failure::usage("a swarm without its distributor needs two clients", "give at least --clients 2"));
    }
    // From here on the end is orderly: the folder is removed, the children are waited for.
    let _asked = interrupt::graceful(END_MAX);
    let parent = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let work = tempfile::Builder::new()
        .prefix("peas-demo-")
        .disable_cleanup(args.keep)
        .tempdir_in(&parent)
        .map_err(|source| Failure::file("create a folder in", &parent, source))?;
    let end = Demo::prepare(&args, program, work.path())?.run();
    if args.keep {
        say(&field("kept", &work.path().display().to_string()));
    }
    end
}

struct Demo<'a> {
    args: &'a DemoArgs,
    program: &'a [OsString],
    work: &'a Path,
    pea_path: PathBuf,
    pea: TrustedManifest,
    listen: String,
}

/// The processes.
struct Swarm {
    lines: Receiver<Line>,
    sender: Sender<Line>,
    origin: Option<Peas>,
    clients: Vec<Peas>,
    started: Instant,
    killed_after_copies: Option<f64>,
}

impl<'a> Demo<'a> {
    /// Makes the content and its pea.
    fn prepare(args: &'a DemoArgs, program: &'a [OsString], work: &'a Path) -> Result<Demo<'a>, Failure> {
        let size_bytes = args.size_mib << 20;
        say(&field("works in", &format!("{} (needs {})", work.display(), units::bytes(size_bytes * (u64::from(args.clients) + 1)))));
        let source = work.join("distributor").join(NAME);
        content::generate(&source, size_bytes, args.seed)?;
        let listen = unused_port()?;
        let out = Output::new(false);
        let options = CreateOptions { owners: vec![Owner { addr: listen.clone(), peer: None }], ..CreateOptions::default() };
        let created = session::create(&source, &options, &|done, total| {
            out.hashing(done, total);
            !interrupt::is_asked()
        });
        out.clear();
        let created = created?;
        let pea_path = work.join("game.peas");
        session::write_pea(&pea_path, &created.bytes)?;
        say(&field(
            "content",
            &format!("{}, pea {}", crate::pea::content_text(&created.manifest), units::bytes(created.bytes.len() as u64)),
        ));
        Ok(Demo { args, program, work, pea_path, pea: created.manifest, listen })
    }

    fn run(&self) -> Result<(), Failure> {
        let clients = usize::from(self.args.clients);
        let rate = self.args.upload_limit;
        say(&field("swarm", &format!("a distributor that sends {}/s at most, {clients} clients", units::bytes(rate))));
        if let Some(limit) = self.download_limit() {
            say(&field("", &format!("that receive {}/s at most, each", units::bytes(limit))));
        }
        let mut swarm = self.start()?;
        let mut screen = Screen::new(clients);
        let end = self.watch(&mut swarm, &mut screen);
        screen.clear();
        end?;
        let took = swarm.started.elapsed();
        swarm.end();
        let verified = self.verify(&swarm)?;
        screen::table(&swarm.clients, &verified);
        self.conclude(&swarm, took, &verified)
    }

    fn start(&self) -> Result<Swarm, Failure> {
        let (sender, lines) = mpsc::channel();
        let source = self.work.join("distributor").join(NAME);
        let mut words = vec!["seed".into(), self.pea_path.clone().into(), "--file".into(), source.into()];
        words.extend(["--listen", &self.listen, "--upload-limit", &self.args.upload_limit.to_string()].map(OsString::from));
        let origin = self.child(ORIGIN, words, "distributor.log", &sender)?;
        let mut swarm =
            Swarm { lines, sender, origin: Some(origin), clients: Vec::new(), started: Instant::now(), killed_after_copies: None };
        while swarm.origin.as_ref().is_none_or(|origin| origin.listens_on.is_none()) {
            if swarm.started.elapsed() > LISTENING_MAX {
                return Err(Failure::new(UNREACHABLE, "the distributor does not start", "is the machine very busy? try again"));
            }
            swarm.hear(Duration::from_millis(100))?;
        }
        swarm.started = Instant::now();
        for _ in 0..usize::from(self.args.clients) - usize::from(self.args.kill_origin) {
            self.join(&mut swarm, None)?;
        }
        Ok(swarm)
    }

    /// Starts the next client; `peer`: an address that it shall try besides the distributor's.
    fn join(&self, swarm: &mut Swarm, peer: Option<String>) -> Result<(), Failure> {
        let number = swarm.clients.len();
        let dest = self.work.join(format!("client-{}", number + 1)).join(NAME);
        std::fs::create_dir_all(dest.parent().unwrap_or(self.work)).map_err(|source| Failure::file("create", &dest, source))?;
        let mut words = vec!["install".into(), self.pea_path.clone().into(), "--output".into(), dest.into()];
        words.extend(["--listen", "127.0.0.1:0", "--keep-seeding"].map(OsString::from));
        if let Some(limit) = self.download_limit() {
            words.extend(["--download-limit", &limit.to_string()].map(OsString::from));
        }
        words.extend(peer.iter().flat_map(|peer| ["--peer", peer]).map(OsString::from));
        let client = self.child(number, words, &format!("client-{}.log", number + 1), &swarm.sender)?;
        swarm.clients.push(client);
        Ok(())
    }

    /// Slower clients than the distributor still have something to do when it dies.
    fn download_limit(&self) -> Option<u64> {
        self.args.download_limit.or(self.args.kill_origin.then_some(self.args.upload_limit / 2)).filter(|limit| *limit > 0)
    }

    fn child(&self, number: usize, mut words: Vec<OsString>, log: &str, lines: &Sender<Line>) -> Result<Peas, Failure> {
        words.extend(["--json", "--progress-every", "100ms", "--no-refresh", "--while-stdin"].map(OsString::from));
        Peas::start(number, self.program, words, self.work.join(log), lines.clone())
    }

    /// Until all clients have everything.
    fn watch(&self, swarm: &mut Swarm, screen: &mut Screen) -> Result<(), Failure> {
        let bytes_total = self.pea.geometry().total_bytes();
        let mut moved = (0, Instant::now());
        let expected = usize::from(self.args.clients);
        while swarm.clients.len() < expected || swarm.clients.iter().any(|client| client.complete_after.is_none()) {
            swarm.hear(Duration::from_millis(100))?;
            if interrupt::is_asked() {
                return Err(Failure::interrupted(false));
            }
            self.maybe_kill(swarm, screen, bytes_total)?;
            screen.show(swarm.origin.as_ref(), &swarm.clients, bytes_total, swarm.started.elapsed());
            let done: u64 = swarm.clients.iter().map(|client| client.bytes_done).sum();
            if done != moved.0 {
                moved = (done, Instant::now());
            }
            if moved.1.elapsed() > STUCK_AFTER {
                return Err(Failure::new(
                    UNREACHABLE,
                    format!("no progress for {}", units::time(STUCK_AFTER)),
                    "look at the logs with --keep",
                ));
            }
        }
        Ok(())
    }

    /// Kills the distributor as soon as every piece is with some client, and lets the last client in.
    fn maybe_kill(&self, swarm: &mut Swarm, screen: &Screen, bytes_total: u64) -> Result<(), Failure> {
        let Some(origin) = swarm.origin.as_mut().filter(|_| self.args.kill_origin) else { return Ok(()) };
        // Sent is not received: what counts is that a client has announced it, or has everything.
        let announced = origin.pieces_alone == Some(0) && origin.bytes_sent > 0;
        let whole = swarm.clients.iter().find(|client| client.complete_after.is_some());
        if !announced && whole.is_none() {
            return Ok(());
        }
        let Some(peer) = whole.or(swarm.clients.first()).and_then(|client| client.listens_on.clone()) else { return Ok(()) };
        let copies = origin.bytes_sent as f64 / bytes_total.max(1) as f64;
        origin.kill();
        swarm.origin = None;
        swarm.killed_after_copies = Some(copies);
        screen.note(&field("killed", &format!("the distributor, after {copies:.2} copies; the clients go on alone")));
        self.join(swarm, Some(peer))?;
        screen.note(&field("joined", &format!("client {}, after the distributor's death", swarm.clients.len())));
        Ok(())
    }

    /// Hashes every copy against the pea.
    fn verify(&self, swarm: &Swarm) -> Result<Vec<bool>, Failure> {
        let out = Output::new(false);
        let mut verified = Vec::new();
        for number in 1..=swarm.clients.len() {
            let copy = self.work.join(format!("client-{number}")).join(NAME);
            let found = session::verify(&self.pea, &copy, &|done, total| {
                out.hashing(done, total);
                !interrupt::is_asked()
            });
            let found = found.inspect_err(|_| out.clear())?;
            verified.push(found.pieces_bad == 0 && found.bad_files.is_empty());
        }
        out.clear();
        Ok(verified)
    }

    fn conclude(&self, swarm: &Swarm, took: Duration, verified: &[bool]) -> Result<(), Failure> {
        let (copies, total) = (swarm.clients.len(), self.pea.geometry().total_bytes().max(1));
        let from_origin: u64 = swarm.clients.iter().map(|client| client.bytes_from_origin).sum();
        let from_peers: u64 = swarm.clients.iter().map(|client| client.bytes_from_peers).sum();
        say(&field("took", &format!("{} for {copies} copies", units::time(took))));
        let shares = [from_origin, from_peers].map(|bytes| bytes as f64 / total as f64);
        say(&field("origin", &format!("{:.2} copies came from the distributor, {:.2} from peers", shares[0], shares[1])));
        if self.args.upload_limit > 0 {
            let alone_s = (total as f64 * copies as f64) / self.args.upload_limit as f64;
            say(&field("alone", &format!("the distributor would have needed {} at least", units::time(Duration::from_secs_f64(alone_s)))));
        }
        if let Some(copies) = swarm.killed_after_copies {
            let late = swarm.clients.last().map_or(0, |client| client.bytes_from_origin);
            say(&field("killed", &format!("after {copies:.2} copies; the last client joined then and got {} from it", units::bytes(late))));
        }
        match verified.iter().filter(|verified| !**verified).count() {
            0 => {
                say(&field("verified", &format!("all {copies} copies are what the pea says, byte for byte")));
                Ok(())
            }
            bad => Err(Failure::new(VERIFY, format!("{bad} of {copies} copies are not what the pea says"), "look at them with --keep")),
        }
    }
}

impl Swarm {
    /// Takes in what the children say, for at most this long.
    fn hear(&mut self, at_most: Duration) -> Result<(), Failure> {
        let mut next = self.lines.recv_timeout(at_most);
        loop {
            match next {
                Ok((number, said)) => self.take(number, said)?,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Ok(()),
            }
            next = self.lines.try_recv().map_err(|_| RecvTimeoutError::Timeout);
        }
    }

    fn take(&mut self, number: usize, said: Option<serde_json::Value>) -> Result<(), Failure> {
        let since_start = self.started.elapsed();
        let child = if number == ORIGIN { self.origin.as_mut() } else { self.clients.get_mut(number) };
        // A distributor that was killed may still have lines under way.
        let Some(child) = child else { return Ok(()) };
        child.hear(said, since_start);
        if child.is_over && !interrupt::is_asked() {
            let name = if number == ORIGIN { "distributor".into() } else { format!("client {}", number + 1) };
            return Err(child.failure(&name));
        }
        Ok(())
    }

    /// All at once, so that nobody waits for another's goodbye; then hears their last words.
    fn end(&mut self) {
        for child in self.clients.iter_mut().chain(&mut self.origin) {
            child.ask_to_end();
        }
        for child in self.clients.iter_mut().chain(&mut self.origin) {
            child.wait();
        }
        let since_start = self.started.elapsed();
        while let Ok((number, said)) = self.lines.recv_timeout(Duration::from_millis(100)) {
            if let Some(child) = if number == ORIGIN { self.origin.as_mut() } else { self.clients.get_mut(number) } {
                child.hear(said, since_start);
            }
        }
    }
}

/// A loopback address with a port that was free just now: the pea must name it before the distributor listens.
fn unused_port() -> Result<String, Failure> {
    let any = Path::new("127.0.0.1:0");
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|source| Failure::file("listen on", any, source))?;
    Ok(listener.local_addr().map_err(|source| Failure::file("listen on", any, source))?.to_string())
}
