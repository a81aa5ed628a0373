//! Whether and when a request is sent again.

use std::time::Duration;

use crate::LlmError;

/// How long to wait before attempt `attempt` (1 is the first retry), or `None` to give up: the failure will not
/// pass, or the endpoint asks for more than `longest`.
pub(super) fn wait(error: &LlmError, attempt: u32, longest: Duration) -> Option<Duration> {
    let backoff = Duration::from_millis(250)
        .saturating_mul(1 << (attempt - 1).min(8))
        .min(longest);
    match error {
        LlmError::RateLimited {
            retry_after: Some(after),
            ..
        } => (*after <= longest).then_some(*after),
        LlmError::RateLimited { .. } | LlmError::Unreachable { .. } | LlmError::Cut { .. } => {
            Some(backoff)
        }
        LlmError::Upstream {
            status: Some(500 | 502 | 503 | 504 | 529),
            ..
        } => Some(backoff),
        _ => None,
    }
}

/// Reads `Retry-After`: seconds, or a date relative to the response's own `Date`.
pub(super) fn retry_after(value: &str, date: Option<&str>) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse::<f32>() {
        return Duration::try_from_secs_f32(seconds).ok();
    }
    let (at, now) = (http_date(value)?, http_date(date?)?);
    Some(Duration::from_secs(at.saturating_sub(now)))
}

/// Seconds since 1970 of a date such as `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, IMF-fixdate).
fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (_, rest) = text.trim().split_once(", ")?;
    let mut parts = rest.split([' ', ':']);
    let number = |range: std::ops::RangeInclusive<u64>, part: Option<&str>| {
        part?.parse::<u64>().ok().filter(|n| range.contains(n))
    };
    let day = number(1..=31, parts.next())?;
    let month = parts.next()?;
    let month = MONTHS.iter().position(|m| *m == month)? as u64 + 1;
    let year = number(1970..=9999, parts.next())?;
    let (hour, minute) = (number(0..=23, parts.next())?, number(0..=59, parts.next())?);
    let second = number(0..=60, parts.next())?;
    // Days from the civil date, counting years from March.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    Some((days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LONGEST: Duration = Duration::from_secs(5);

    fn limited(retry_after: Option<u64>) -> LlmError {
        LlmError::RateLimited {
            url: String::new(),
            retry_after: retry_after.map(Duration::from_secs),
            message: String::new(),
        }
    }

    #[test]
    fn the_endpoints_own_wait_is_kept_to_unless_it_is_too_long() {
        assert_eq!(
            wait(&limited(Some(3)), 1, LONGEST),
            Some(Duration::from_secs(3))
        );
        assert_eq!(wait(&limited(Some(60)), 1, LONGEST), None);
    }

    #[test]
    fn waits_grow_up_to_the_longest() {
        let waits: Vec<_> = (1..=7)
            .filter_map(|n| wait(&limited(None), n, LONGEST))
            .collect();
        assert!(waits.is_sorted(), "{waits:?}");
        assert_eq!((waits[0], waits[6]), (Duration::from_millis(250), LONGEST));
    }

    #[test]
    fn what_will_not_pass_is_not_tried_again() {
        let stalled = LlmError::Stalled {
            url: String::new(),
            waited: LONGEST,
        };
        assert_eq!(wait(&stalled, 1, LONGEST), None);
    }

    #[test]
    fn dates_are_read_against_the_endpoints_clock() {
        assert_eq!(
            http_date("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(784_111_777)
        );
        assert_eq!(
            http_date("Thu, 29 Feb 2024 00:00:00 GMT"),
            Some(1_709_164_800)
        );
        let date = Some("Sun, 06 Nov 1994 08:49:30 GMT");
        assert_eq!(
            retry_after("Sun, 06 Nov 1994 08:49:37 GMT", date),
            Some(Duration::from_secs(7))
        );
        assert_eq!(retry_after("1.5", None), Some(Duration::from_millis(1500)));
        assert_eq!(retry_after("soon", date), None);
    }
}
