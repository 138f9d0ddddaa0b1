//! Transcripts of one machine: what goes in, what comes out. `tests/scenarios/*.txt` are run and compared; with `PEAS_BLESS=1` in the
//! environment they are written anew, and the difference is for review.
//!
//! A line that starts with `<` is an input, with its time in milliseconds; lines with `>` are what the machine asked for in answer.
//! Peers are numbers. Lines of `#` are comments, the line `setup` says what the machine is made of.

use peas_core::swarm::{Candidate, Committed, FetchEnd, Input, Limits, Order, Output, Role, Setup, Swarm, Via};
use peas_core::unit::{Geometry, PeerId, PieceSet, RequestId, Run, Time};
use peas_core::wire::{Hello, Message};
use std::fmt::Write;
use std::net::SocketAddr;

fn peer(number: &str) -> PeerId {
    PeerId([number.parse().expect("peers are numbers below 256"); 32])
}

fn addr(number: &str) -> SocketAddr {
    format!("10.0.{number}.1:7000").parse().expect("peers are numbers below 256")
}

fn runs(text: &str) -> Vec<Run> {
    let pair = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().expect("a piece"), last.parse().expect("a piece"));
        (first, last - first + 1)
    };
    text.split(',').filter(|part| *part != "none").map(pair).collect()
}

struct Script {
    geometry: Geometry,
    machine: Swarm,
}

impl Script {
    /// `setup pieces 4 held none role peer seed 1`
    fn new(line: &str) -> Self {
        let words: Vec<&str> = line.split_whitespace().collect();
        let value = |name: &str| words.iter().position(|word| *word == name).map(|at| words[at + 1]).expect("the setup line names it");
        let pieces: u64 = value("pieces").parse().expect("a count");
        let geometry = Geometry::new(pieces * 65_536, 65_536).expect("a content");
        let held = PieceSet::from_runs(&geometry, &runs(value("held"))).expect("runs in order");
        let role = if value("role") == "origin" { Role::Origin } else { Role::Peer };
        let seed = value("seed").parse().expect("a number");
        let machine = Swarm::new(Setup { geometry, me: peer("0"), held, role, limits: Limits::default(), region: 0, seed });
        Self { geometry, machine }
    }

    fn input(&self, words: &[&str]) -> Input {
        let number = |at: usize| -> u64 { words[at].parse().expect("a number") };
        let req = |at: usize| RequestId(number(at));
        let piece = |at: usize| self.geometry.piece(number(at) as u32).expect("a piece of the content");
        let message = |message: Message| Input::Message { peer: peer(words[1]), message };
        let end = |end: FetchEnd| Input::FetchEnded { req: req(1), end };
        let (need, queue_ms) = (words.get(3).and_then(|need| need.parse().ok()).unwrap_or(0), 0);
        match words[0] {
            "candidate" => Input::Candidates(vec![Candidate { addr: addr(words[1]), peer: Some(peer(words[1])), via: Via::Bootstrap }]),
            "up" => Input::LinkUp {
                peer: peer(words[1]),
                addr: addr(words[1]),
                dialed: words.contains(&"dialed"),
                round_trip: None,
                hello: Hello {
                    version: 1,
                    content: [7; 32],
                    proof: Vec::new(),
                    listen_port: Some(7000),
                    region: 0,
                    origin: words.contains(&"origin"),
                    extensions: 0,
                },
            },
            "down" => Input::LinkDown { peer: peer(words[1]) },
            "held" => message(Message::Held { runs: runs(words[2]), need, queue_ms }),
            "have" => message(Message::Have { runs: runs(words[2]), need, queue_ms }),
            "withdraw" => message(Message::Withdraw { runs: runs(words[2]) }),
            "credit" => message(Message::Credit { pieces: number(2) as u16, upload_bytes_per_s: 0 }),
            "assign" => message(Message::Assign { piece: number(2) as u32, lease_ms: 10_000 }),
            "grant" => message(Message::Grant { blocks: number(2) as u16, spare: words.contains(&"spare") }),
            "decline" => message(Message::Decline { piece: words.get(2).map(|piece| piece.parse().expect("a piece")) }),
            "request" => {
                message(Message::Request { req: number(2), piece: number(3) as u32, first: number(4) as u16, count: number(5) as u16 })
            }
            "cancel" => message(Message::Cancel { req: number(2) }),
            "bye" => message(Message::Bye),
            "received" => Input::Received { req: req(1) },
            "verified" => end(FetchEnd::Verified),
            "corrupt" => end(FetchEnd::Corrupt),
            "committed" => end(FetchEnd::Committed(Committed::simulated(piece(2)))),
            "refused" => end(FetchEnd::Refused { reason: number(2) as u8, retry_after_ms: 1000 }),
            "served" => Input::ServeEnded { peer: peer(words[1]), req: req(2), sent_bytes: number(3) as u32, damaged: false },
            "rotten" => Input::ServeEnded { peer: peer(words[1]), req: req(2), sent_bytes: 0, damaged: true },
            "pause" => Input::Order(Order::Pause),
            "resume" => Input::Order(Order::Resume),
            "leave" => Input::Order(Order::Leave),
            "timeout" => Input::Timeout,
            other => panic!("no such input: {other}"),
        }
    }

    fn step(&mut self, line: &str, text: &mut String) {
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        let at_ms: u64 = words[0].parse().expect("a time in ms");
        self.machine.handle(Time(at_ms * 1000), self.input(&words[1..]));
        while let Some(output) = self.machine.poll() {
            writeln!(text, "  > {}", told(&output)).expect("writing to a string cannot fail");
        }
    }
}

fn told(output: &Output) -> String {
    let of = |peer: &PeerId| peer.0[0];
    match output {
        Output::Dial { addr, .. } => format!("dial {addr}"),
        Output::Probe { addr, .. } => format!("probe {addr}"),
        Output::Send { peer, message: Message::Members(records) } => format!("send {} {} members", of(peer), records.len()),
        Output::Send { peer, message } => format!("send {} {message:?}", of(peer)),
        Output::Fetch { req, from, span } => {
            format!("fetch {} from {}: piece {} blocks {}..{}", req.0, of(from), span.piece(), span.first(), span.end())
        }
        Output::Cancel { req, from } => format!("cancel {} from {}", req.0, of(from)),
        Output::Serve { req, to, span } => {
            format!("serve {} to {}: piece {} blocks {}..{}", req.0, of(to), span.piece(), span.first(), span.end())
        }
        Output::StopServe { req, to } => format!("stop serving {} to {}", req.0, of(to)),
        Output::Hangup { peer, why } => format!("hang up {}: {why:?}", of(peer)),
        Output::Notice(notice) => format!("notice {notice:?}"),
    }
}

fn replay(script: &str) -> String {
    let mut text = String::new();
    let mut state = None;
    for line in script.lines().filter(|line| !line.starts_with("  >")) {
        writeln!(text, "{line}").expect("writing to a string cannot fail");
        match line.split_whitespace().next() {
            Some("setup") => state = Some(Script::new(line)),
            Some("<") => state.as_mut().expect("setup comes first").step(line, &mut text),
            _ => {}
        }
    }
    text
}

#[test]
fn transcripts_are_as_they_were() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
    let mut names: Vec<_> =
        std::fs::read_dir(folder).expect("the scenarios are there").map(|entry| entry.expect("readable").path()).collect();
    names.sort();
    assert!(names.len() >= 4, "scenarios are missing");
    for name in names {
        let script = std::fs::read_to_string(&name).expect("readable");
        let text = replay(&script);
        if std::env::var_os("PEAS_BLESS").is_some() {
            std::fs::write(&name, text).expect("writable");
        } else {
            assert_eq!(text, script, "{}", name.display());
        }
    }
}

#[test]
fn a_changed_transcript_is_noticed() {
    let script = "setup pieces 1 held none role peer seed 1\n< 0 candidate 1\n  > dial nowhere\n";
    assert_ne!(replay(script), script);
}
