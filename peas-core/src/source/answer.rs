//! What a server's answer means for the range that was asked for. Pure.

use super::WebError;
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, LOCATION, RETRY_AFTER};
use std::ops::Range;
use std::time::Duration;

/// Longest time for which a server may send us away. 1 h: longer than any maintenance, shorter than being forgotten.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// What to do with an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Its body is the range.
    Content,
    /// Ask there.
    Elsewhere(String),
}

/// Judges a head. `now_unix_s`: for dates in it.
pub(super) fn judge(status: u16, fields: &HeaderMap, range: &Range<u64>, file_bytes: u64, now_unix_s: u64) -> Result<Answer, WebError> {
    let text = |name| fields.get(name).and_then(|value| value.to_str().ok());
    match status {
        200 | 206 if text(CONTENT_ENCODING).is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) => {
            Err(WebError::Different("it is sent in another coding"))
        }
        206 => match text(CONTENT_RANGE).and_then(content_range) {
            Some((_, Some(total))) if total != file_bytes => Err(WebError::Different("its size differs")),
            Some((sent, _)) if sent == *range => Ok(Answer::Content),
            // Without the field, or with several ranges, nobody knows what the bytes are.
            _ => Err(WebError::Different("it sends another part than was asked for")),
        },
        200 if *range != (0..file_bytes) => Err(WebError::NoRanges),
        200 => match text(CONTENT_LENGTH).map(str::parse::<u64>) {
            Some(Ok(bytes)) if bytes != file_bytes => Err(WebError::Different("its size differs")),
            _ => Ok(Answer::Content),
        },
        301 | 302 | 303 | 307 | 308 => {
            text(LOCATION).map(|there| Answer::Elsewhere(there.to_owned())).ok_or(WebError::Address("the redirection names none"))
        }
        416 => Err(WebError::Different("it is shorter")),
        status => {
            let retry_after = text(RETRY_AFTER).and_then(|text| retry_after(text, now_unix_s)).map(|time| time.min(RETRY_AFTER_MAX));
            Err(WebError::Status { status, retry_after })
        }
    }
}

/// "bytes 0-99/200" or "bytes 0-99/*".
fn content_range(text: &str) -> Option<(Range<u64>, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.trim().split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    Some((first..last.checked_add(1)?, total))
}

/// Seconds, or a date (RFC 9110, 10.2.3; of its three forms of date the one that may be sent).
fn retry_after(text: &str, now_unix_s: u64) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    Some(Duration::from_secs(date_unix_s(text.trim())?.saturating_sub(now_unix_s)))
}

/// "Sun, 06 Nov 1994 08:49:37 GMT".
fn date_unix_s(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, date) = text.strip_suffix(" GMT")?.split_once(", ")?;
    let mut words = date.split(' ');
    let day: u64 = words.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
    let month = words.next().and_then(|word| MONTHS.iter().position(|name| *name == word))? as u64 + 1;
    let year: u64 = words.next()?.parse().ok().filter(|year| (1970..10_000).contains(year))?;
    let mut clock = words.next()?.splitn(3, ':').map(|part| part.parse::<u64>().ok().filter(|part| *part <= 60));
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    // Days since 1970: years begin in March here, so that the leap day is their last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (hyper::header::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_the_very_range_is_content() {
        let judge = |status, pairs: &[(&'static str, &str)]| judge(status, &fields(pairs), &(10..20), 100, 0);
        assert_eq!(judge(206, &[("content-range", "bytes 10-19/100")]).unwrap(), Answer::Content);
        assert_eq!(judge(206, &[("content-range", "bytes 10-19/*")]).unwrap(), Answer::Content);
        for wrong in [
            "bytes 10-19/101",
            "bytes 11-19/100",
            "bytes 10-18/100",
            "bytes */100",
            "10-19/100",
            "bytes 10-x/100",
            "bytes 10-18446744073709551615/100",
        ] {
            assert!(matches!(judge(206, &[("content-range", wrong)]), Err(WebError::Different(_))), "{wrong}");
        }
        assert!(matches!(judge(206, &[]), Err(WebError::Different(_))));
        assert!(judge(206, &[("content-range", "bytes 10-19/100"), ("content-encoding", "gzip")]).is_err());
        assert!(matches!(judge(200, &[("content-length", "100")]), Err(WebError::NoRanges)));
        let whole = super::judge(200, &fields(&[("content-length", "100")]), &(0..100), 100, 0);
        assert_eq!(whole.unwrap(), Answer::Content, "who sends all when all was asked for is right");
        assert!(super::judge(200, &fields(&[("content-length", "99")]), &(0..100), 100, 0).is_err());
        assert_eq!(judge(302, &[("location", "/x")]).unwrap(), Answer::Elsewhere("/x".into()));
        assert!(judge(302, &[]).is_err());
        assert!(matches!(judge(416, &[]), Err(WebError::Different(_))));
    }

    #[test]
    fn a_server_may_send_us_away_for_a_while_but_not_for_ever() {
        let wait = |value: &str| match judge(503, &fields(&[("retry-after", value)]), &(0..1), 1, 784_111_770) {
            Err(WebError::Status { status: 503, retry_after }) => retry_after,
            other => panic!("{other:?}"),
        };
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(7)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:00 GMT"), Some(Duration::ZERO), "in the past");
        assert_eq!(wait("99999999999"), Some(RETRY_AFTER_MAX));
        for nonsense in ["", "soon", "-1", "Sun, 06 Foo 1994 08:49:37 GMT", "99999999999999999999999", "Sun, 06 Nov 1994 08:49 GMT"] {
            assert_eq!(wait(nonsense), None, "{nonsense}");
        }
        assert_eq!(date_unix_s("Thu, 29 Feb 2024 00:00:00 GMT"), Some(1_709_164_800));
        assert_eq!(date_unix_s("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
    }
}
