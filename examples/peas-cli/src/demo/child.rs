//! A `peas` in a process of its own, and what it says of itself in JSON.
//!
//! Its standard input is a pipe that we hold: when we end, however we end, it ends too.

use crate::exit::{BUG, Failure};
use serde_json::Value;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// Longest wait for a child that was asked to end; then it is killed.
const END_MAX: Duration = Duration::from_secs(5);

/// A line of a child, by its number; `None`: it has closed its output.
pub type Line = (usize, Option<Value>);

/// A child and the latest it said.
pub struct Peas {
    process: Child,
    stdin: Option<ChildStdin>,
    log: PathBuf,
    /// Latest "progress".
    pub bytes_done: u64,
    pub bytes_from_origin: u64,
    pub bytes_from_peers: u64,
    pub bytes_sent: u64,
    pub receive_bytes_per_s: u64,
    pub send_bytes_per_s: u64,
    pub peers: u64,
    /// Pieces that nobody but it is known to hold; `None`: it has not said.
    pub pieces_alone: Option<u64>,
    /// Where it says it listens.
    pub listens_on: Option<String>,
    /// When it had everything, counted from the start of all.
    pub complete_after: Option<Duration>,
    /// It has ended.
    pub is_over: bool,
}

impl Peas {
    /// Starts `program` with these words; its lines go to `lines` under `number`.
    pub fn start(number: usize, program: &[OsString], words: Vec<OsString>, log: PathBuf, lines: Sender<Line>) -> Result<Peas, Failure> {
        let (program, first_words) = program.split_first().ok_or_else(Failure::bug)?;
        let errors = File::create(&log).map_err(|source| Failure::file("create", &log, source))?;
        let mut process = Command::new(program)
            .args(first_words)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .map_err(|source| Failure::file("start", Path::new(program), source))?;
        let stdin = process.stdin.take();
        let stdout = process.stdout.take().ok_or_else(Failure::bug)?;
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // A line that is no JSON would be a bug; the child's exit tells.
                if let Ok(event) = serde_json::from_str(&line)
                    && lines.send((number, Some(event))).is_err()
                {
                    return;
                }
            }
            let _ = lines.send((number, None));
        });
        Ok(Peas {
            process,
            stdin,
            log,
            bytes_done: 0,
            bytes_from_origin: 0,
            bytes_from_peers: 0,
            bytes_sent: 0,
            receive_bytes_per_s: 0,
            send_bytes_per_s: 0,
            peers: 0,
            pieces_alone: None,
            listens_on: None,
            complete_after: None,
            is_over: false,
        })
    }

    /// Takes in what it said.
    pub fn hear(&mut self, said: Option<Value>, since_start: Duration) {
        let Some(event) = said else {
            self.is_over = true;
            return;
        };
        match event["event"].as_str() {
            Some("progress") => self.hear_progress(&event),
            Some("listening") => self.listens_on = event["addr"].as_str().map(str::to_owned),
            Some("complete") => {
                self.complete_after = Some(since_start);
                self.bytes_done = event["bytes_total"].as_u64().unwrap_or(self.bytes_done);
                self.bytes_from_origin = event["bytes_from_origin"].as_u64().unwrap_or(self.bytes_from_origin);
                self.bytes_from_peers = event["bytes_from_peers"].as_u64().unwrap_or(self.bytes_from_peers);
            }
            _ => {}
        }
    }

    fn hear_progress(&mut self, event: &Value) {
        let number = |name: &str| event[name].as_u64().unwrap_or(0);
        self.bytes_done = number("bytes_done");
        self.bytes_from_origin = number("bytes_from_origin");
        self.bytes_from_peers = number("bytes_from_peers");
        self.bytes_sent = number("bytes_sent");
        self.receive_bytes_per_s = number("receive_bytes_per_s");
        self.send_bytes_per_s = number("send_bytes_per_s");
        self.peers = number("peers");
        self.pieces_alone = event["pieces_alone"].as_u64();
    }

    /// SIGKILL: no goodbye, as in a power cut.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.is_over = true;
    }

    /// Asks it to end.
    pub fn ask_to_end(&mut self) {
        self.stdin = None;
    }

    /// Waits until it has ended, not for ever.
    pub fn wait(&mut self) {
        let started = Instant::now();
        while matches!(self.process.try_wait(), Ok(None)) {
            if started.elapsed() > END_MAX {
                return self.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Why it ended, when it should not have.
    pub fn failure(&mut self, name: &str) -> Failure {
        self.wait();
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        let exit = self.process.try_wait().ok().flatten().and_then(|status| status.code()).and_then(|code| u8::try_from(code).ok());
        Failure::new(exit.filter(|exit| *exit != 0).unwrap_or(BUG), format!("the {name} ended early:\n{}", said.trim_end()), "")
    }
}

impl Drop for Peas {
    fn drop(&mut self) {
        // After an orderly end it is gone already.
        self.kill();
    }
}
