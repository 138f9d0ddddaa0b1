//! An engine in a process of its own (`peas-node`), watched from outside: its memory, its descriptors, its processor time.

use super::Made;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

pub struct Node {
    child: Child,
    words: BufReader<ChildStdout>,
    orders: Option<ChildStdin>,
    pub addr: SocketAddr,
    _pea: tempfile::TempDir,
}

impl Node {
    /// An origin of this content; `options` as `peas-node` takes them.
    pub fn seed(made: &Made, options: &[&str]) -> Self {
        Self::start("seed", made, &made.source, options, "")
    }

    /// The same under these limits of the shell's `ulimit`.
    pub fn seed_under(made: &Made, options: &[&str], ulimits: &str) -> Self {
        Self::start("seed", made, &made.source, options, ulimits)
    }

    pub fn install(made: &Made, place: &Path, options: &[&str]) -> Self {
        Self::start("install", made, place, options, "")
    }

    /// An origin built with the tests, into which this bug is planted (`peas-core`'s feature `planted`).
    #[cfg(feature = "planted")]
    pub fn seed_with_bug(made: &Made, options: &[&str], bug: &str) -> Self {
        Self::run(env!("CARGO_BIN_EXE_peas-node").into(), "seed", made, &made.source, options, &format!("export PEAS_PLANTED={bug};"))
    }

    fn start(verb: &str, made: &Made, place: &Path, options: &[&str], ulimits: &str) -> Self {
        Self::run(program(), verb, made, place, options, ulimits)
    }

    /// `before`: words of the shell.
    fn run(program: std::ffi::OsString, verb: &str, made: &Made, place: &Path, options: &[&str], before: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pea = dir.path().join("content.peas");
        std::fs::write(&pea, made.pea.with_owner_hints(&[])).unwrap();
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(format!("{before} exec \"$0\" \"$@\""))
            .arg(program)
            .arg(verb)
            .args([pea.as_path(), place])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut words = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        words.read_line(&mut line).unwrap();
        let addr = line.trim().strip_prefix("listening ").unwrap_or_else(|| panic!("the node did not start: {line}")).parse().unwrap();
        Self { orders: child.stdin.take(), child, words, addr, _pea: dir }
    }

    /// Its session's statistics.
    pub fn stats(&mut self) -> serde_json::Value {
        self.orders.as_mut().unwrap().write_all(b"\n").unwrap();
        let mut line = String::new();
        self.words.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("the node is no more: {error}: {line}"))
    }

    pub fn pieces_done(&mut self) -> u64 {
        self.stats()["pieces_done"].as_u64().unwrap()
    }

    pub fn peers(&mut self) -> u64 {
        self.stats()["peers"].as_u64().unwrap()
    }

    /// A field of `/proc/PID/status` in KiB, such as VmRSS or VmHWM.
    pub fn memory_kib(&self, field: &str) -> u64 {
        status_kib(&format!("/proc/{}/status", self.child.id()), field)
    }

    /// From here on VmHWM counts anew.
    pub fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
    }

    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// User and system time in hundredths of a second.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Asks it to end, and says whether it ended well.
    pub fn end(mut self) -> bool {
        drop(self.orders.take());
        self.child.wait().unwrap().success()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program: the one that `PEAS_NODE` names (the gate's is optimised, as one that ships), else the one built with the tests.
fn program() -> std::ffi::OsString {
    std::env::var_os("PEAS_NODE").unwrap_or_else(|| env!("CARGO_BIN_EXE_peas-node").into())
}

/// Whether the nodes are optimised. An unoptimised machine checks all of itself after each input, which takes too long with a thousand
/// links.
pub fn is_optimised() -> bool {
    std::env::var_os("PEAS_NODE").is_some()
}

pub fn status_kib(path: &str, field: &str) -> u64 {
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap_or_else(|| panic!("{field} is not in {path}"));
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// As many descriptors as this process and its children may have; says how many.
pub fn raise_descriptors() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    limit.maximum.unwrap_or(u64::MAX)
}
