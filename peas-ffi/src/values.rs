//! What the values of options mean: numbers, sizes, rates, times, addresses, keys.

use peas_core::config::{Access, Owner, Scope, SeedPolicy, WebPolicy};
use peas_core::manifest::CERTIFICATE_BYTES;
use peas_core::unit::PeerId;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

/// Why a value is not one; the caller says of which option.
pub(crate) type Refusal = String;

/// "20M", "1.5G", "4096".
pub(crate) fn size(text: &str) -> Result<u64, Refusal> {
    let (digits, unit) = split_unit(text);
    let power = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return Err("unknown unit: use K, M, G or T".into()),
    };
    if let Ok(whole) = digits.parse::<u64>() {
        return whole.checked_mul(1 << (10 * power)).ok_or_else(|| "too large".into());
    }
    let bytes = decimal(digits)? * 1024f64.powi(power);
    if bytes >= u64::MAX as f64 { Err("too large".into()) } else { Ok(bytes as u64) }
}

/// A size per second, with or without "/s".
pub(crate) fn rate(text: &str) -> Result<u64, Refusal> {
    size(text.strip_suffix("/s").unwrap_or(text))
}

/// "250ms", "90s", "10m", "2h", "1d", "3600".
pub(crate) fn time(text: &str) -> Result<Duration, Refusal> {
    let (digits, unit) = split_unit(text);
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err("unknown unit: use ms, s, m, h or d".into()),
    };
    Duration::try_from_secs_f64(decimal(digits)? * seconds).map_err(|_| "too long".into())
}

/// A whole number that its type can hold.
pub(crate) fn number<T: FromStr>(text: &str) -> Result<T, Refusal> {
    text.parse().map_err(|_| "expected a whole number within bounds".into())
}

/// A multiple, in thousandths.
pub(crate) fn permille(text: &str) -> Result<u32, Refusal> {
    let permille = decimal(text.strip_suffix('x').unwrap_or(text))? * 1000.0;
    if permille > f64::from(u32::MAX) { Err("too large".into()) } else { Ok(permille as u32) }
}

pub(crate) fn yes_or_no(text: &str) -> Result<bool, Refusal> {
    match text {
        "yes" | "1" | "true" | "on" => Ok(true),
        "no" | "0" | "false" | "off" => Ok(false),
        _ => Err("expected yes or no".into()),
    }
}

pub(crate) fn address(text: &str) -> Result<SocketAddr, Refusal> {
    text.parse().map_err(|_| "expected an address and a port: 192.0.2.1:7000 or [2001:db8::1]:7000".into())
}

pub(crate) fn key(text: &str) -> Result<[u8; 32], Refusal> {
    PeerId::from_str(text).map(|id| id.0).map_err(|error| error.to_string())
}

/// What an authority wrote for a member.
pub(crate) fn certificate(text: &str) -> Result<Vec<u8>, Refusal> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let byte = |pair: &[u8]| Some((digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?) as u8);
    let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
    bytes.filter(|bytes| bytes.len() == CERTIFICATE_BYTES).ok_or_else(|| format!("expected {} hexadecimal digits", 2 * CERTIFICATE_BYTES))
}

/// "open", "secret", "members:HEX".
pub(crate) fn access(text: &str) -> Result<Access, Refusal> {
    match text {
        "open" => Ok(Access::Open),
        "secret" => Ok(Access::Secret),
        _ => match text.strip_prefix("members:") {
            Some(authority) => Ok(Access::Members { authority: key(authority)? }),
            None => Err("expected open, secret, or members: and 64 hexadecimal digits".into()),
        },
    }
}

pub(crate) fn from_web(text: &str) -> Result<WebPolicy, Refusal> {
    match text {
        "starved" => Ok(WebPolicy::WhenStarved),
        "always" => Ok(WebPolicy::Always),
        "never" => Ok(WebPolicy::Never),
        _ => Err("expected starved, always or never".into()),
    }
}

/// "HOST:PORT" or "KEY@HOST:PORT".
pub(crate) fn owner(text: &str) -> Result<Owner, Refusal> {
    let (peer, addr) = match text.split_once('@') {
        Some((id, addr)) => (Some(PeerId(key(id)?)), addr),
        None => (None, text),
    };
    match addr.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && matches!(port.parse::<u16>(), Ok(1..)) => Ok(Owner { addr: addr.into(), peer }),
        _ => Err("expected HOST:PORT or KEY@HOST:PORT".into()),
    }
}

pub(crate) fn scope(text: &str) -> Result<Scope, Refusal> {
    match text {
        "auto" => Ok(Scope::Auto),
        "public" => Ok(Scope::Public),
        "any" => Ok(Scope::Any),
        _ => Err("expected auto, public or any".into()),
    }
}

/// "no", "forever", "10m", "1.5x".
pub(crate) fn share(text: &str) -> Result<SeedPolicy, Refusal> {
    match text {
        "no" => Ok(SeedPolicy::Leave),
        "forever" | "yes" => Ok(SeedPolicy::Forever),
        _ => match text.strip_suffix('x') {
            Some(ratio) => Ok(SeedPolicy::Ratio(decimal(ratio)?)),
            None => time(text).map(SeedPolicy::For).map_err(|_| "expected no, forever, a time (10m) or a ratio (1.5x)".into()),
        },
    }
}

/// Key from the text of a key file: 64 hexadecimal digits beside comment lines.
pub(crate) fn key_file(text: &str) -> Result<[u8; 32], Refusal> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    match (lines.next(), lines.next()) {
        (Some(line), None) => key(line),
        _ => Err("not a key file: expected one line of 64 hexadecimal digits".into()),
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    (digits, &text[digits.len()..])
}

fn decimal(digits: &str) -> Result<f64, Refusal> {
    match digits.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => Err("expected a number".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_mean_what_people_mean() {
        assert_eq!(size("20M"), Ok(20 << 20));
        assert_eq!(size("1.5GiB"), Ok(3 << 29));
        assert_eq!(size(&u64::MAX.to_string()), Ok(u64::MAX));
        assert_eq!(rate("500K/s"), Ok(500 << 10));
        assert_eq!(time("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(share("10m"), Ok(SeedPolicy::For(Duration::from_secs(600))));
        assert_eq!(share("1.5x"), Ok(SeedPolicy::Ratio(1.5)));
        assert_eq!(permille("1.5"), Ok(1500));
        for bad in ["", "M", "-1", "nan", "inf", "1e999", "20Q", "99999999T", "é"] {
            assert!(size(bad).is_err(), "{bad}");
            assert!(time(bad).is_err() || bad == "99999999T", "{bad}");
        }
        assert!(share("x").is_err() && share("maybe").is_err() && permille("9999999999").is_err());
    }

    #[test]
    fn owners_are_addresses_with_or_without_a_key() {
        let hex = "ab".repeat(32);
        assert_eq!(owner("example.org:7000"), Ok(Owner { addr: "example.org:7000".into(), peer: None }));
        assert_eq!(owner(&format!("{hex}@[::1]:7000")), Ok(Owner { addr: "[::1]:7000".into(), peer: Some(PeerId([0xab; 32])) }));
        for bad in ["example.org", "example.org:0", ":7000", "ab@example.org:7000", "example.org:70000"] {
            assert!(owner(bad).is_err(), "{bad}");
        }
        assert_eq!(key_file(&format!("# secret\n{hex}\n")), Ok([0xab; 32]));
        assert!(key_file(&format!("{hex}\n{hex}\n")).is_err() && key_file("").is_err());
    }
}
