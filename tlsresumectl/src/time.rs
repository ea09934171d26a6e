//! Times as people and programs read them: RFC 3339 in UTC, to the second.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;
use tlsresume::clock::UnixMillis;

/// The last second that RFC 3339 can write.
const END_OF_9999: u64 = 253_402_300_799;

/// A time of a key. Those that are never met (a key from a file has no end) are `None`.
pub(crate) fn rfc3339(time: UnixMillis) -> Option<String> {
    let since_1970 = Duration::from_secs(time.secs());
    (time.secs() <= END_OF_9999)
        .then(|| humantime::format_rfc3339_seconds(UNIX_EPOCH + since_1970).to_string())
}

/// For tables.
pub(crate) fn text(time: UnixMillis) -> String {
    rfc3339(time).unwrap_or_else(|| "never".to_owned())
}

/// For programs: `null` is never.
pub(crate) fn json(time: UnixMillis) -> Value {
    rfc3339(time).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_to_the_second() {
        assert_eq!(text(UnixMillis(0)), "1970-01-01T00:00:00Z");
        assert_eq!(text(UnixMillis(1_795_305_599_999)), "2026-11-21T23:59:59Z");
        assert_eq!(text(UnixMillis::from_secs(1_709_164_800)), "2024-02-29T00:00:00Z");
    }

    #[test]
    fn what_no_calendar_has_is_never() {
        assert_eq!(text(UnixMillis::from_secs(END_OF_9999)), "9999-12-31T23:59:59Z");
        for time in [UnixMillis::from_secs(END_OF_9999 + 1), UnixMillis::MAX] {
            assert_eq!((text(time).as_str(), json(time)), ("never", Value::Null));
        }
    }
}
