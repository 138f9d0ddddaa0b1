//! Progress as text of at most 79 columns, and as JSON. Pure: what is drawn where is [`output`](crate::output)'s concern.

use crate::units;
use peas_core::event::{PauseReason, Progress, State};
use serde_json::{Value, json};

/// Columns of a bar, without its brackets.
const BAR_COLUMNS: usize = 12;

/// For a terminal: what happens, and who takes part.
pub fn two_lines(progress: &Progress) -> [String; 2] {
    let first = match (progress.paused, progress.state) {
        (Some(PauseReason::Host), _) => bar_line("paused", progress.bytes_done, progress.bytes_total),
        (Some(PauseReason::DiskFull), _) => format!("{}  disk full", short_bar(progress)),
        (Some(PauseReason::DiskError), _) => format!("{}  disk refuses", short_bar(progress)),
        (None, State::Sharing) => {
            format!("sharing    {}  {}/s", units::bytes(progress.bytes_total), units::bytes(progress.send_bytes_per_s))
        }
        (None, State::Receiving) => {
            let rate = format!("{}/s", units::bytes(progress.receive_bytes_per_s));
            format!("{}  {rate}{}", short_bar(progress), eta(progress))
        }
        (None, _) => short_bar(progress),
    };
    [first, shares(progress)]
}

fn short_bar(progress: &Progress) -> String {
    bar_line(verb(progress.state), progress.bytes_done, progress.bytes_total)
}

/// "  8 of 12 peers  from origin 12.0 MiB  from peers 111 MiB  sent 40.0 MiB"
fn shares(progress: &Progress) -> String {
    format!(
        "  {} of {} peers  from origin {}  from peers {}  sent {}",
        progress.peers,
        progress.members.max(progress.peers),
        units::bytes(progress.bytes_from_origin),
        units::bytes(progress.bytes_from_peers),
        units::bytes(progress.bytes_sent),
    )
}

/// "receiving  [######--------]  45 %  123 MiB of 1.21 GiB"
pub fn bar_line(what: &str, bytes_done: u64, bytes_total: u64) -> String {
    let filled = (share(bytes_done, bytes_total) * BAR_COLUMNS as f64) as usize;
    let bar: String = (0..BAR_COLUMNS).map(|at| if at < filled { '#' } else { '-' }).collect();
    let percent = percent(bytes_done, bytes_total);
    format!("{what:<10} [{bar}] {percent:>3} %  {} of {}", units::bytes(bytes_done), units::bytes(bytes_total))
}

/// For a log: "45 %  45.2 MiB/s  8 peers  origin 12.0 MiB  peers 111 MiB  ETA 0:12".
pub fn line(progress: &Progress) -> String {
    let peers = format!("{} peer{}", progress.peers, if progress.peers == 1 { "" } else { "s" });
    let percent = percent(progress.bytes_done, progress.bytes_total);
    match progress.state {
        State::Sharing => {
            format!("sharing  {peers}  sent {}  {}/s", units::bytes(progress.bytes_sent), units::bytes(progress.send_bytes_per_s))
        }
        State::Receiving => format!(
            "{percent} %  {}/s  {peers}  origin {}  peers {}{}",
            units::bytes(progress.receive_bytes_per_s),
            units::bytes(progress.bytes_from_origin),
            units::bytes(progress.bytes_from_peers),
            eta(progress),
        ),
        state => format!("{} {percent} % of {}", verb(state), units::bytes(progress.bytes_total)),
    }
}

/// For programs. `statistics`: the session's, of which one number is taken that people do not need.
pub fn json(progress: &Progress, statistics: &Value) -> Value {
    json!({
        "event": "progress",
        "state": state_name(progress.state),
        "paused": progress.paused.map(pause_name),
        "pieces_done": progress.pieces_done,
        "pieces_total": progress.pieces_total,
        "bytes_done": progress.bytes_done,
        "bytes_total": progress.bytes_total,
        "bytes_from_web": progress.bytes_from_web,
        "web_sources": progress.web_sources,
        "bytes_reused": progress.bytes_reused,
        "bytes_from_origin": progress.bytes_from_origin,
        "bytes_from_peers": progress.bytes_from_peers,
        "bytes_wasted": progress.bytes_wasted,
        "bytes_sent": progress.bytes_sent,
        "receive_bytes_per_s": progress.receive_bytes_per_s,
        "send_bytes_per_s": progress.send_bytes_per_s,
        "remaining_s": progress.remaining_s,
        "peers": progress.peers,
        "members": progress.members,
        "pieces_unavailable": progress.pieces_unavailable,
        "pieces_alone": statistics["pieces_alone"],
        "origin_linked": progress.origin_linked,
    })
}

/// The name of a pause in JSON.
pub fn pause_name(reason: PauseReason) -> &'static str {
    match reason {
        PauseReason::Host => "host",
        PauseReason::DiskFull => "disk_full",
        PauseReason::DiskError => "disk_error",
    }
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Checking => "checking",
        State::Receiving => "receiving",
        State::Publishing => "publishing",
        State::Sharing => "sharing",
        State::Ended => "ended",
    }
}

fn verb(state: State) -> &'static str {
    match state {
        State::Publishing => "placing",
        state => state_name(state),
    }
}

fn share(done: u64, total: u64) -> f64 {
    if total == 0 { 1.0 } else { (done as f64 / total as f64).min(1.0) }
}

/// Rounded down: 100 only when all is there.
pub fn percent(done: u64, total: u64) -> u64 {
    if done >= total { 100 } else { (share(done, total) * 100.0).min(99.0) as u64 }
}

/// "  ETA 1:02:03", or nothing if it is unknown.
fn eta(progress: &Progress) -> String {
    let seconds = match progress.remaining_s {
        Some(seconds) if seconds.is_finite() && seconds >= 0.0 => seconds.ceil() as u64,
        _ => return String::new(),
    };
    match seconds {
        0..3600 => format!("  ETA {}:{:02}", seconds / 60, seconds % 60),
        3600..360_000 => format!("  ETA {}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
        _ => format!("  ETA {} d", (seconds / 86_400).min(9999)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The widest numbers of a large installation.
    fn wide(state: State, paused: Option<PauseReason>) -> Progress {
        Progress {
            state,
            paused,
            bytes_done: 1023 << 30,
            bytes_total: 1023 << 30 | 1,
            bytes_from_origin: 1023 << 20,
            bytes_from_peers: 1023 << 30,
            bytes_sent: 1023 << 30,
            receive_bytes_per_s: 1023 << 20,
            send_bytes_per_s: 1023 << 20,
            remaining_s: Some(359_999.0),
            peers: 128,
            members: 4096,
            ..Progress::default()
        }
    }

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        for state in [State::Checking, State::Receiving, State::Publishing, State::Sharing, State::Ended] {
            for paused in [None, Some(PauseReason::Host), Some(PauseReason::DiskFull), Some(PauseReason::DiskError)] {
                let progress = wide(state, paused);
                let [first, second] = two_lines(&progress);
                for text in [first, second, line(&progress)] {
                    assert!(text.chars().count() < 80, "{} columns: {text}", text.chars().count());
                    assert!(!text.chars().any(char::is_control), "{text}");
                }
            }
        }
    }

    #[test]
    fn a_hundred_percent_means_all() {
        assert_eq!(percent(u64::MAX - 1, u64::MAX), 99);
        assert_eq!(percent(7, 7), 100);
        assert_eq!(percent(0, 0), 100);
        assert_eq!(percent(0, 1), 0);
    }
}
