//! How times are written down: in milliseconds, as a number, exact to the nanosecond (`1260.25` is 1.26025 s).
//! A person reads and edits recordings and policies; seconds and nanoseconds apart are for nobody.

use serde::{Deserialize, Deserializer, Serializer, de::Error};
use std::time::Duration;

/// The longest time that is read: past it a number of milliseconds is no longer exact to the nanosecond.
const LONGEST_MS: f64 = 4e9;

#[allow(clippy::cast_precision_loss)] // exact up to LONGEST_MS
fn to_ms(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e6
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // checked
fn from_ms(ms: f64) -> Result<Duration, String> {
    if !(0.0..=LONGEST_MS).contains(&ms) {
        return Err(format!(
            "{ms} ms is no time; it must lie between 0 and {LONGEST_MS}"
        ));
    }
    Ok(Duration::from_nanos((ms * 1e6).round() as u64))
}

/// A time in milliseconds.
pub(crate) mod ms {
    use super::{Deserialize, Deserializer, Duration, Error, Serializer, from_ms, to_ms};

    pub(crate) fn serialize<S: Serializer>(time: &Duration, out: S) -> Result<S::Ok, S::Error> {
        let ms = to_ms(*time);
        if ms.fract() == 0.0 {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // whole and positive
            out.serialize_u64(ms as u64)
        } else {
            out.serialize_f64(ms)
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        from_ms(f64::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// A time in milliseconds, or none.
pub(crate) mod optional_ms {
    use super::{Deserialize, Deserializer, Duration, Error, Serializer, from_ms, ms};

    pub(crate) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => ms::serialize(time, out),
            None => out.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        Option::<f64>::deserialize(from)?
            .map(from_ms)
            .transpose()
            .map_err(D::Error::custom)
    }
}

/// A setting of a patch that can also be taken away: not there is "leave it", `null` is "none".
pub(crate) mod kept_or_set {
    use super::{Deserialize, Deserializer, Serializer};

    #[allow(clippy::option_option)]
    pub(crate) fn serialize<S: Serializer>(
        value: &Option<Option<u32>>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        match value.flatten() {
            Some(value) => out.serialize_some(&value),
            None => out.serialize_none(),
        }
    }

    #[allow(clippy::option_option)]
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Option<u32>>, D::Error> {
        Option::deserialize(from).map(Some)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_time_comes_back_to_the_nanosecond() {
        for nanos in [
            0,
            1,
            999_999,
            1_000_000,
            123_456_789,
            86_400_000_000_001,
            2_592_000_000_000_001,
        ] {
            let time = Duration::from_nanos(nanos);
            assert_eq!(from_ms(to_ms(time)).unwrap(), time);
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for ms in [-1.0, f64::NAN, f64::INFINITY, 1e12] {
            assert!(from_ms(ms).is_err(), "{ms}");
        }
    }
}
