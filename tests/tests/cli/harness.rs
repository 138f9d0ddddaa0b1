//! Runs the built `peas` as its users do: words in, lines, files and an exit code out.
//!
//! Every wait has a limit that only a hang reaches; none is part of what a test claims. Processes die with the test.

use peas_core::unit::Rng;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// Longer than anything here takes on a slow and busy machine.
const HANG: Duration = Duration::from_secs(120);

/// The program: the one that `PEAS_BIN` names (the gate has it already), else one built with the same profile as this test.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(told) = std::env::var_os("PEAS_BIN") {
            return told.into();
        }
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "peas-cli"]);
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        assert!(cargo.status().expect("cargo runs").success(), "peas is built");
        // This test is <target>/<profile>/deps/<name>.
        let test = std::env::current_exe().expect("a test has a path");
        let profile = test.ancestors().nth(2).expect("three levels");
        profile.join("peas")
    })
}

/// A folder of its own, in which `peas` is run.
pub struct World {
    folder: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        self.set_up(Command::new(program()), words)
    }

    /// One that is ended if it hangs, with code 124.
    fn bounded(&self, words: &[&str]) -> Command {
        let mut timeout = Command::new("timeout");
        timeout.arg(HANG.as_secs().to_string()).arg(program());
        self.set_up(timeout, words)
    }

    fn set_up(&self, mut command: Command, words: &[&str]) -> Command {
        command.args(words).current_dir(self.folder.path()).stdin(Stdio::null()).env("RUST_BACKTRACE", "0");
        command
    }

    /// Runs it to its end.
    pub fn peas(&self, words: &[&str]) -> Ended {
        Ended::from(self.bounded(words).output().expect("peas starts"))
    }

    /// The same with something on standard input.
    pub fn peas_with_stdin(&self, words: &[&str], stdin: &Path) -> Ended {
        let file = fs::File::open(stdin).expect("a file");
        Ended::from(self.bounded(words).stdin(file).output().expect("peas starts"))
    }

    /// Starts it and lets it run.
    pub fn start(&self, words: &[&str]) -> Running {
        self.start_in(words, &[])
    }

    /// The same in another environment.
    pub fn start_in(&self, words: &[&str], environment: &[(&str, String)]) -> Running {
        let mut command = self.command(words);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("peas starts");
        let stdin = child.stdin.take();
        let lines = lines_of(child.stdout.take().expect("piped"));
        let errors = lines_of(child.stderr.take().expect("piped"));
        Running { child, stdin, lines, errors, heard: Vec::new() }
    }

    /// A file of random bytes.
    pub fn file(&self, name: &str, bytes: usize, seed: u64) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("inside the folder")).expect("a folder");
        let mut rng = Rng::new(seed);
        let content: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(|_| rng.next_u64().to_le_bytes()).take(bytes).collect();
        fs::write(&path, content).expect("written");
        path
    }

    /// A folder with some files, one of them of `bytes`.
    pub fn tree(&self, name: &str, bytes: usize) {
        self.file(&format!("{name}/large.bin"), bytes, 1);
        for at in 0..40 {
            self.file(&format!("{name}/small/{at}.txt"), 100 + at * 37, at as u64);
        }
        fs::write(self.path(name).join("empty"), "").expect("written");
    }

    /// A pea of `source` whose owner is `addr`.
    pub fn create(&self, source: &str, addr: &str, pea: &str) {
        self.peas(&["create", source, "--owner", addr, "--output", pea]).exits(0);
    }
}

/// A loopback address with a free port, below those that the system gives to who asks for any: nobody takes it before it is used.
pub fn unused_addr() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let next = std::process::id().wrapping_mul(31).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let addr = format!("127.0.0.1:{}", 10_000 + next % 20_000);
        if TcpListener::bind(&addr).is_ok() {
            return addr;
        }
    }
}

/// Whether two files or folders hold the same names and bytes.
pub fn same(a: &Path, b: &Path) -> bool {
    contents(a) == contents(b)
}

fn contents(root: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut all = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let name = path.strip_prefix(root).expect("inside").to_owned();
        if path.is_dir() {
            waiting.extend(fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
            all.push((name, None));
        } else {
            all.push((name, Some(fs::read(&path).expect("a file"))));
        }
    }
    all.sort();
    all
}

/// What a run left behind.
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }
}

impl Ended {
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Standard output, one object per line, nothing else.
    #[track_caller]
    pub fn json(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
    }

    /// The last event of this name.
    #[track_caller]
    pub fn event(&self, name: &str) -> Value {
        let found = self.json().into_iter().rfind(|event| event["event"] == name);
        found.unwrap_or_else(|| panic!("no {name} in:\n{}", self.stdout))
    }
}

/// A `peas` at work.
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Receiver<String>,
    heard: Vec<String>,
}

impl Running {
    /// Waits for a line of standard output that satisfies.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut is_it: impl FnMut(&str) -> bool) -> String {
        let started = Instant::now();
        while let Ok(line) = self.lines.recv_timeout(HANG.saturating_sub(started.elapsed())) {
            self.heard.push(line.clone());
            if is_it(&line) {
                return line;
            }
        }
        let errors: Vec<String> = self.errors.try_iter().collect();
        panic!("no {what}; stdout:\n{}\nstderr:\n{}", self.heard.join("\n"), errors.join("\n"));
    }

    #[track_caller]
    pub fn until_line(&mut self, beginning: &str) -> String {
        self.until(beginning, |line| line.starts_with(beginning))
    }

    /// Waits for a line of standard error that contains this.
    #[track_caller]
    pub fn until_error(&mut self, part: &str) -> String {
        let started = Instant::now();
        let mut heard = Vec::new();
        while let Ok(line) = self.errors.recv_timeout(HANG.saturating_sub(started.elapsed())) {
            if line.contains(part) {
                return line;
            }
            heard.push(line);
        }
        panic!("no {part}; stderr:\n{}", heard.join("\n"));
    }

    /// With `--json`: waits for an event that satisfies.
    #[track_caller]
    pub fn until_event(&mut self, name: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let mut found = Value::Null;
        self.until(name, |line| {
            let event: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
            let is_that = event["event"] == name && is_it(&event);
            found = event;
            is_that
        });
        found
    }

    /// Whether it has not ended.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// A power cut, as far as this process goes.
    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("waited for");
    }

    /// Sends SIGINT, SIGTERM.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// What it takes for the end.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits for its end. Panics if it hangs.
    #[track_caller]
    pub fn end(mut self) -> Ended {
        let started = Instant::now();
        let code = loop {
            match self.child.try_wait().expect("a child") {
                Some(status) => break status.code(),
                None => assert!(started.elapsed() < HANG, "it does not end; stdout:\n{}", self.heard.join("\n")),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut stdout = std::mem::take(&mut self.heard);
        stdout.extend(self.lines.iter());
        let stderr: Vec<String> = self.errors.iter().collect();
        Ended { code, stdout: stdout.join("\n"), stderr: stderr.join("\n") }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}
