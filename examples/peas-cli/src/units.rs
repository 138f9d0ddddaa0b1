//! Quantities as people write and read them. Sizes count in powers of 1024; times are "90s", "10m", "2h", "1d" or plain seconds.

use std::time::Duration;

const KIB: u64 = 1024;

/// "20M", "500K", "1.5G", "4096": bytes.
pub fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => KIB,
        "m" | "mb" | "mib" => KIB.pow(2),
        "g" | "gb" | "gib" => KIB.pow(3),
        "t" | "tb" | "tib" => KIB.pow(4),
        other => return Err(format!("unknown unit \"{other}\": use K, M, G or T")),
    };
    let number = number(digits)?;
    let bytes = number * factor as f64;
    if bytes >= u64::MAX as f64 { Err("too large".into()) } else { Ok(bytes as u64) }
}

/// "250ms", "90s", "10m", "2h", "1d", "3600".
pub fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        other => return Err(format!("unknown unit \"{other}\": use ms, s, m, h or d")),
    };
    Duration::try_from_secs_f64(number(digits)? * seconds).map_err(|_| "too long".into())
}

/// "1.5": how many times the content.
pub fn ratio(text: &str) -> Result<f64, String> {
    number(text.trim())
}

fn number(digits: &str) -> Result<f64, String> {
    match digits.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => Err(format!("\"{digits}\" is not a number")),
    }
}

/// At most 9 columns: "1023 B", "12.3 KiB", "123 MiB".
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < KIB {
        return format!("{count} B");
    }
    let mut value = count as f64;
    let mut unit = "B";
    for next in UNITS {
        // 999.5 and more would need four digits.
        if value < 999.5 && unit != "B" {
            break;
        }
        value /= KIB as f64;
        unit = next;
    }
    if value < 9.995 {
        format!("{value:.2} {unit}")
    } else if value < 99.95 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

/// "1,234,567".
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// "4 s", "4.2 s", "37 s", "3 min 20 s", "2 h 5 min", "3 d 4 h".
pub fn time(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 if duration.subsec_millis() > 0 => format!("{:.1} s", duration.as_secs_f64()),
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Days and hours of a moment, UTC: "2026-11-24 03:20:27". (Civil date from days: Howard Hinnant, "chrono-Compatible Low-Level
/// Date Algorithms".)
pub fn date(unix_s: u64) -> String {
    let days = unix_s / 86_400 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hours, minutes, seconds) = (unix_s / 3600 % 24, unix_s / 60 % 60, unix_s % 60);
    format!("{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02}:{seconds:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!(size("500K"), Ok(512_000));
        assert_eq!(size("20M"), Ok(20 << 20));
        assert_eq!(size("1.5GiB"), Ok(3 << 29));
        assert_eq!(size("0"), Ok(0));
        for bad in ["", "M", "-1", "1X", "nan", "1e99", "99999999999T"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_read() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("1.5h"), Ok(Duration::from_secs(5400)));
        for bad in ["", "s", "-3s", "1w", "1e300d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_written_in_nine_columns() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.00 KiB");
        assert_eq!(bytes(1 << 20), "1.00 MiB");
        assert_eq!(bytes(123 << 20), "123 MiB");
        for shift in 0..64 {
            for count in [1u64 << shift, (1u64 << shift) - 1, 3 << (shift.max(2) - 2), u64::MAX >> shift] {
                assert!(bytes(count).len() <= 9, "{}", bytes(count));
            }
        }
    }

    #[test]
    fn dates_are_right() {
        assert_eq!(date(0), "1970-01-01 00:00:00");
        assert_eq!(date(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(date(1_795_490_427), "2026-11-24 03:20:27");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(999), "999");
    }
}
