//! What is seen of the demonstration: a line per process in place on a terminal, a line a second elsewhere, a table at the end.

use super::child::Peas;
use crate::output::{line_of, note, say};
use crate::progress;
use crate::units;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Between two plain lines.
const PLAIN_EVERY: Duration = Duration::from_secs(1);
/// Clients whose share fits into a plain line.
const PLAIN_CLIENTS_MAX: usize = 8;

/// Where progress is shown.
pub enum Screen {
    Terminal { multi: MultiProgress, lines: Vec<ProgressBar> },
    Plain { last: Instant },
}

impl Screen {
    /// For this many clients.
    pub fn new(clients: usize) -> Self {
        if !std::io::stderr().is_terminal() {
            return Screen::Plain { last: Instant::now() };
        }
        let multi = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        let lines = (0..=clients).map(|_| line_of(&multi)).collect();
        Screen::Terminal { multi, lines }
    }

    pub fn show(&mut self, origin: Option<&Peas>, clients: &[Peas], bytes_total: u64, since_start: Duration) {
        match self {
            Screen::Terminal { lines, .. } => {
                lines[0].set_message(origin_line(origin, bytes_total));
                for (at, (line, client)) in lines[1..].iter().zip(clients).enumerate() {
                    line.set_message(client_line(at + 1, client, bytes_total));
                }
            }
            Screen::Plain { last } => {
                if last.elapsed() >= PLAIN_EVERY {
                    *last = Instant::now();
                    note(&plain_line(origin, clients, bytes_total, since_start));
                }
            }
        }
    }

    /// A line that stays.
    pub fn note(&self, line: &str) {
        match self {
            Screen::Terminal { multi, .. } => multi.suspend(|| note(line)),
            Screen::Plain { .. } => note(line),
        }
    }

    pub fn clear(&self) {
        if let Screen::Terminal { multi, .. } = self {
            let _ = multi.clear();
        }
    }
}

fn origin_line(origin: Option<&Peas>, bytes_total: u64) -> String {
    match origin {
        None => "distributor  killed".into(),
        Some(origin) => format!(
            "distributor  sent {} = {:.2} copies  {}/s  {} peers",
            units::bytes(origin.bytes_sent),
            origin.bytes_sent as f64 / bytes_total.max(1) as f64,
            units::bytes(origin.send_bytes_per_s),
            origin.peers
        ),
    }
}

fn client_line(number: usize, client: &Peas, bytes_total: u64) -> String {
    let from = shares(client);
    match client.complete_after {
        Some(time) => format!("client {number:<3} whole after {}  {from}", units::time(time)),
        None => {
            let percent = progress::percent(client.bytes_done, bytes_total);
            let filled = (percent / 5) as usize;
            let bar = "#".repeat(filled) + &"-".repeat(20 - filled);
            format!("client {number:<3} [{bar}] {percent:>3} %  {:>9}/s  {from}", units::bytes(client.receive_bytes_per_s))
        }
    }
}

/// "12 % origin, 88 % peers".
fn shares(client: &Peas) -> String {
    let all = client.bytes_from_origin + client.bytes_from_peers;
    if all == 0 {
        return String::new();
    }
    let origin = (client.bytes_from_origin * 100 + all / 2) / all;
    format!("{origin} % origin, {} % peers", 100 - origin)
}

fn plain_line(origin: Option<&Peas>, clients: &[Peas], bytes_total: u64, since_start: Duration) -> String {
    let copies = match origin {
        Some(origin) => format!("{:.2} copies", origin.bytes_sent as f64 / bytes_total.max(1) as f64),
        None => "killed".into(),
    };
    let shown = clients.iter().take(PLAIN_CLIENTS_MAX);
    let percents: Vec<String> = shown.map(|client| format!("{:>3}", progress::percent(client.bytes_done, bytes_total))).collect();
    let more = if clients.len() > PLAIN_CLIENTS_MAX { ".." } else { "" };
    format!("{:>5.1} s  distributor {copies}  clients {}{more} %", since_start.as_secs_f64(), percents.join(" "))
}

/// What each client got from whom, and whether its copy is right.
pub fn table(clients: &[Peas], verified: &[bool]) {
    say("");
    say("client       time  from origin   from peers       sent  verified");
    for (at, (client, verified)) in clients.iter().zip(verified).enumerate() {
        say(&format!(
            "{:>6}  {:>9}  {:>11}  {:>11}  {:>9}  {}",
            at + 1,
            client.complete_after.map_or("never".into(), units::time),
            units::bytes(client.bytes_from_origin),
            units::bytes(client.bytes_from_peers),
            units::bytes(client.bytes_sent),
            if *verified { "yes" } else { "NO" },
        ));
    }
    say("");
}
