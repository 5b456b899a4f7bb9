//! A share of subjects, in parts per million. YAML writes `5%`, JSON writes `0.05`, the log and the hash space use the integer.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Parts per million, `0..=1_000_000`. 0 is nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Share(u32);

/// Why a text is no share.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a share: write a percentage such as 5% or a number from 0 to 1")]
pub struct ParseShareError {
    text: String,
}

impl Share {
    /// Nobody.
    pub const NONE: Share = Share(0);
    /// Everybody.
    pub const ALL: Share = Share(Share::WHOLE);
    /// How many parts the whole has; also the number of buckets.
    pub const WHOLE: u32 = 1_000_000;

    /// `ppm` parts per million; none above 1,000,000.
    pub const fn from_ppm(ppm: u32) -> Option<Share> {
        if ppm <= Share::WHOLE { Some(Share(ppm)) } else { None }
    }

    /// The nearest share to `fraction`; none outside `[0, 1]` or for NaN.
    pub fn from_fraction(fraction: f64) -> Option<Share> {
        if !(0.0..=1.0).contains(&fraction) {
            return None;
        }
        Some(Share((fraction * f64::from(Share::WHOLE)).round() as u32))
    }

    /// Parts per million.
    pub const fn ppm(self) -> u32 {
        self.0
    }

    /// In `[0, 1]`.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / f64::from(Share::WHOLE)
    }

    /// The sum, at most everybody.
    pub fn saturating_add(self, other: Share) -> Share {
        Share((self.0 + other.0).min(Share::WHOLE))
    }

    /// Reads `5%`, `0.5 %` or `0.05`.
    pub fn parse(text: &str) -> Result<Share, ParseShareError> {
        let wrong = || ParseShareError { text: text.to_owned() };
        let trimmed = text.trim();
        let fraction = match trimmed.strip_suffix('%') {
            Some(percent) => percent.trim().parse::<f64>().map_err(|_| wrong())? / 100.0,
            None => trimmed.parse::<f64>().map_err(|_| wrong())?,
        };
        Share::from_fraction(fraction).ok_or_else(wrong)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.0) / 10_000.0)
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.fraction())
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Share, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Share;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a share such as 5% or a number from 0 to 1")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Share, E> {
                Share::parse(text).map_err(E::custom)
            }
            fn visit_f64<E: de::Error>(self, fraction: f64) -> Result<Share, E> {
                Share::from_fraction(fraction).ok_or_else(|| E::custom(format!("{fraction} is outside 0 to 1")))
            }
            fn visit_u64<E: de::Error>(self, whole: u64) -> Result<Share, E> {
                self.visit_f64(whole as f64)
            }
            fn visit_i64<E: de::Error>(self, whole: i64) -> Result<Share, E> {
                self.visit_f64(whole as f64)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
