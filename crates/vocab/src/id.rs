//! Ids and names. An id is given by the fold: a prefix for its kind and the Crockford base32 of the audit index of the entry
//! that made it, so that ids sort by age and are never given twice. A name is chosen by a person.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// 7 characters hold 35 bits: ids stay the same length for the first 34 billion entries and grow after that.
const DIGITS_MIN: usize = 7;

/// What an id names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `exp_…`
    Experiment,
    /// `tok_…`
    Token,
    /// `pre_…`
    Preview,
}

impl Kind {
    /// The letters before the underscore.
    pub const fn prefix(self) -> &'static str {
        match self {
            Kind::Experiment => "exp",
            Kind::Token => "tok",
            Kind::Preview => "pre",
        }
    }
}

/// A kind and the audit index of the entry that made the thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    kind: Kind,
    index: u64,
}

/// Why a text is no id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an id such as exp_000001c")]
pub struct ParseIdError {
    text: String,
}

impl Id {
    /// The id of the thing of `kind` made by entry `index`.
    pub const fn new(kind: Kind, index: u64) -> Id {
        Id { kind, index }
    }

    /// The audit index it was made by.
    pub const fn index(self) -> u64 {
        self.index
    }

    /// What it names.
    pub const fn kind(self) -> Kind {
        self.kind
    }

    /// Reads `exp_000001c`, in either case.
    pub fn parse(text: &str) -> Result<Id, ParseIdError> {
        let wrong = || ParseIdError { text: text.chars().take(40).collect() };
        let (prefix, digits) = text.split_once('_').ok_or_else(wrong)?;
        let kind = [Kind::Experiment, Kind::Token, Kind::Preview]
            .into_iter()
            .find(|k| k.prefix() == prefix)
            .ok_or_else(wrong)?;
        if digits.len() < DIGITS_MIN || digits.len() > 13 {
            return Err(wrong());
        }
        let mut index: u64 = 0;
        for byte in digits.bytes() {
            let lower = byte.to_ascii_lowercase();
            let digit = ALPHABET.iter().position(|&c| c == lower).ok_or_else(wrong)?;
            index = index.checked_mul(32).and_then(|i| i.checked_add(digit as u64)).ok_or_else(wrong)?;
        }
        Ok(Id { kind, index })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = Vec::with_capacity(13);
        let mut rest = self.index;
        while rest > 0 || digits.len() < DIGITS_MIN {
            digits.push(ALPHABET[(rest % 32) as usize]);
            rest /= 32;
        }
        digits.reverse();
        write!(f, "{}_{}", self.kind.prefix(), String::from_utf8_lossy(&digits))
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Id, D::Error> {
        let text = String::deserialize(deserializer)?;
        Id::parse(&text).map_err(de::Error::custom)
    }
}

/// `[a-z0-9][a-z0-9._-]{0,62}`: experiments, layers, routes, services, proxies.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Name(String);

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a name: use 1 to 63 of a-z, 0-9, '.', '_' and '-', starting with a letter or digit")]
pub struct ParseNameError {
    text: String,
}

impl Name {
    /// Checks the rule.
    pub fn parse(text: &str) -> Result<Name, ParseNameError> {
        let bytes = text.as_bytes();
        let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let fits = (1..=63).contains(&bytes.len())
            && plain(&bytes[0])
            && bytes.iter().all(|b| plain(b) || matches!(b, b'.' | b'_' | b'-'));
        if fits { Ok(Name(text.to_owned())) } else { Err(ParseNameError { text: text.chars().take(80).collect() }) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
        let text = String::deserialize(deserializer)?;
        Name::parse(&text).map_err(de::Error::custom)
    }
}
