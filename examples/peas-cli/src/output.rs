//! What people and programs get to see.
//!
//! Results go to standard output, progress and complaints to standard error. On a terminal progress is drawn in place; elsewhere
//! it is plain lines without control characters, one a second at most. With `--json` standard output carries one object per line
//! and nothing else. A reader who went away is no reason to stop: failed writes are ignored.

use crate::exit::Failure;
use crate::progress;
use crate::units;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use peas_core::Progress;
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Redraws a second on a terminal.
const DRAWS_PER_S: u8 = 10;
/// Least time between two plain lines about hashing.
const HASHING_EVERY: Duration = Duration::from_secs(1);

/// One line on standard output, at once.
pub fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// One line on standard error, at once.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// The last words of a command that did not succeed.
pub fn report_failure(failure: &Failure, as_json: bool) {
    if as_json {
        say(&json!({"event": "error", "exit": failure.exit, "message": failure.message, "hint": failure.hint}).to_string());
    }
    note(&format!("peas: {}", failure.message));
    if !failure.hint.is_empty() {
        note(&format!("      {}", failure.hint));
    }
}

enum Style {
    Terminal(Screen),
    Plain,
    Json,
}

/// Two lines that are redrawn in place.
struct Screen {
    multi: MultiProgress,
    /// Whether something is drawn that a line must not run into.
    drawn: AtomicBool,
    lines: [ProgressBar; 2],
}

/// Where a command writes to.
pub struct Output {
    style: Style,
    hashing: Mutex<Option<Instant>>,
}

impl Output {
    pub fn new(as_json: bool) -> Self {
        let style = match (as_json, std::io::stderr().is_terminal()) {
            (true, _) => Style::Json,
            (false, true) => Style::Terminal(Screen::new()),
            (false, false) => Style::Plain,
        };
        Self { style, hashing: Mutex::new(None) }
    }

    pub fn is_json(&self) -> bool {
        matches!(self.style, Style::Json)
    }

    /// Whether what is shown replaces what was shown.
    pub fn is_terminal(&self) -> bool {
        matches!(self.style, Style::Terminal(_))
    }

    /// A result, for people.
    pub fn say(&self, line: &str) {
        match &self.style {
            Style::Terminal(screen) => screen.above(|| say(line)),
            Style::Plain => say(line),
            Style::Json => {}
        }
    }

    /// A label in a column of its own, and what it stands for.
    pub fn field(&self, label: &str, value: &str) {
        self.say(&field(label, value));
    }

    /// Something odd, for people.
    pub fn note(&self, line: &str) {
        match &self.style {
            Style::Terminal(screen) => screen.above(|| note(line)),
            Style::Plain => note(line),
            Style::Json => {}
        }
    }

    /// A fact, for programs. Has a field "event".
    pub fn event(&self, event: &Value) {
        if self.is_json() {
            say(&event.to_string());
        }
    }

    /// Where a session is, for people. `remark` takes the place of the second line of numbers.
    pub fn progress(&self, progress: &Progress, remark: Option<&str>) {
        match &self.style {
            Style::Terminal(screen) => {
                let [first, second] = progress::two_lines(progress);
                screen.show([first, remark.map_or(second, |remark| format!("  {remark}"))]);
            }
            Style::Plain => note(&progress::line(progress)),
            Style::Json => {}
        }
    }

    /// How far hashing is. May be called by many threads, often.
    pub fn hashing(&self, bytes_done: u64, bytes_total: u64) {
        let Ok(mut last) = self.hashing.try_lock() else { return };
        if let Style::Terminal(screen) = &self.style {
            screen.show([progress::bar_line("hashing", bytes_done, bytes_total), String::new()]);
            return;
        }
        // The first line comes after a second: short work needs none.
        if last.get_or_insert_with(Instant::now).elapsed() < HASHING_EVERY {
            return;
        }
        *last = Some(Instant::now());
        if self.is_json() {
            say(&json!({"event": "hashing", "bytes_done": bytes_done, "bytes_total": bytes_total}).to_string());
        } else {
            note(&format!("hashing {} of {}", units::bytes(bytes_done), units::bytes(bytes_total)));
        }
    }

    /// Takes away what was drawn.
    pub fn clear(&self) {
        if let Style::Terminal(screen) = &self.style {
            screen.drawn.store(false, Ordering::Relaxed);
            let _ = screen.multi.clear();
        }
    }
}

/// "label       value".
pub fn field(label: &str, value: &str) -> String {
    format!("{label:<11} {value}")
}

impl Screen {
    fn new() -> Self {
        let multi = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(DRAWS_PER_S));
        let lines = [line_of(&multi), line_of(&multi)];
        Self { multi, drawn: AtomicBool::new(false), lines }
    }

    /// Writes lines that stay, above what is drawn.
    fn above(&self, write: impl FnOnce()) {
        if self.drawn.load(Ordering::Relaxed) { self.multi.suspend(write) } else { write() }
    }

    fn show(&self, texts: [String; 2]) {
        self.drawn.store(true, Ordering::Relaxed);
        for (line, text) in self.lines.iter().zip(texts) {
            line.set_message(text);
        }
    }
}

/// A line of a drawing, cut at the width of the terminal.
pub fn line_of(multi: &MultiProgress) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_msg}").expect("a constant template");
    multi.add(ProgressBar::new_spinner().with_style(style))
}
