//! Points in time and lengths of time. Stored as integers; RFC 3339 with `Z` in JSON; `300ms`, `5s`, `2m`, `1h` in YAML.

use std::fmt;
use std::ops::{Add, Sub};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(i64);

/// Why a text is no point in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a time such as 2026-11-23T09:00:00Z")]
pub struct ParseTimestampError {
    text: String,
}

impl Timestamp {
    /// From nanoseconds since the epoch.
    pub const fn from_nanos(nanos: i64) -> Timestamp {
        Timestamp(nanos)
    }

    /// From microseconds since the epoch, as in audit leaves; saturates.
    pub const fn from_micros(micros: i64) -> Timestamp {
        Timestamp(micros.saturating_mul(1_000))
    }

    /// Nanoseconds since the epoch.
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// Whole microseconds since the epoch.
    pub const fn micros(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// How long after `earlier` this is; zero if it is before.
    pub fn since(self, earlier: Timestamp) -> Millis {
        Millis((self.0.saturating_sub(earlier.0).max(0) / 1_000_000) as u64)
    }

    /// Seconds after `earlier`, negative if before.
    pub fn secs_since(self, earlier: Timestamp) -> f64 {
        self.0.saturating_sub(earlier.0) as f64 / 1e9
    }

    /// Reads RFC 3339.
    pub fn parse(text: &str) -> Result<Timestamp, ParseTimestampError> {
        let wrong = || ParseTimestampError { text: text.chars().take(60).collect() };
        let parsed: jiff::Timestamp = text.parse().map_err(|_| wrong())?;
        i64::try_from(parsed.as_nanosecond()).map(Timestamp).map_err(|_| wrong())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(time) => write!(f, "{time}"),
            Err(_) => write!(f, "{}ns", self.0),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        Timestamp::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl Add<Millis> for Timestamp {
    type Output = Timestamp;
    fn add(self, length: Millis) -> Timestamp {
        Timestamp(self.0.saturating_add(length.nanos()))
    }
}

impl Sub<Millis> for Timestamp {
    type Output = Timestamp;
    fn sub(self, length: Millis) -> Timestamp {
        Timestamp(self.0.saturating_sub(length.nanos()))
    }
}

/// A length of time in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Millis(pub u64);

/// Why a text is no length of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a duration: write a whole number and a unit, such as 300ms, 5s, 2m, 1h or 1d")]
pub struct ParseMillisError {
    text: String,
}

impl Millis {
    /// The length of `secs` seconds.
    pub const fn from_secs(secs: u64) -> Millis {
        Millis(secs * 1_000)
    }

    /// In nanoseconds; saturates at 292 years.
    pub const fn nanos(self) -> i64 {
        let nanos = self.0.saturating_mul(1_000_000);
        if nanos > i64::MAX as u64 { i64::MAX } else { nanos as i64 }
    }

    /// In seconds.
    pub fn secs(self) -> f64 {
        self.0 as f64 / 1e3
    }

    /// As a standard duration, for the shell.
    pub const fn duration(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }

    /// Reads `300ms`, `5s`, `2m`, `1h`, `1d`.
    pub fn parse(text: &str) -> Result<Millis, ParseMillisError> {
        let wrong = || ParseMillisError { text: text.chars().take(40).collect() };
        let trimmed = text.trim();
        let split = trimmed.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = trimmed[..split].parse().map_err(|_| wrong())?;
        let unit = match trimmed[split..].trim() {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        number.checked_mul(unit).map(Millis).ok_or_else(wrong)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ms if ms == 0 || ms % 1_000 != 0 => write!(f, "{ms}ms"),
            ms if ms % 60_000 != 0 => write!(f, "{}s", ms / 1_000),
            ms if ms % 3_600_000 != 0 => write!(f, "{}m", ms / 60_000),
            ms => write!(f, "{}h", ms / 3_600_000),
        }
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Millis, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Millis;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as 300ms, or milliseconds as a whole number")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Millis, E> {
                Millis::parse(text).map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, ms: u64) -> Result<Millis, E> {
                Ok(Millis(ms))
            }
            fn visit_i64<E: de::Error>(self, ms: i64) -> Result<Millis, E> {
                u64::try_from(ms).map(Millis).map_err(|_| E::custom("a duration is not negative"))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
