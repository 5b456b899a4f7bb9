//! Subjects: the sticky unit of every experiment, most often a user key.
//!
//! Raw keys reach only bucketing and targeting. Everything stored or sent on names a subject by its pseudonym: the first 16
//! bytes of HMAC-SHA-256 of the key under the installation's key, computed in the shell and carried here as plain bytes.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The longest subject key that is bucketed, in bytes. A longer one gets no arm and no fault, since a key of this length is
/// a mistake (a token, a document) and hashing it would let a client spend our time.
pub const SUBJECT_BYTES_MAX: usize = 256;

/// Whether `key` may be bucketed: not empty and at most [`SUBJECT_BYTES_MAX`] bytes.
pub fn subject_key_fits(key: &str) -> bool {
    !key.is_empty() && key.len() <= SUBJECT_BYTES_MAX
}

/// 16 bytes that stand for a subject; 22 characters of base64url in text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pseudonym([u8; 16]);

/// Why a text is no pseudonym.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pseudonym is 22 characters of base64url")]
pub struct ParsePseudonymError;

impl Pseudonym {
    /// The pseudonym with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Pseudonym {
        Pseudonym(bytes)
    }

    /// The bytes.
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// 64 of its bits, for sets: the pseudonym is already a keyed hash, so they are as good as any.
    pub fn hash64(&self) -> u64 {
        let mut low = [0; 8];
        low.copy_from_slice(&self.0[..8]);
        u64::from_le_bytes(low)
    }

    /// Reads 22 characters of base64url.
    pub fn parse(text: &str) -> Result<Pseudonym, ParsePseudonymError> {
        let mut bytes = [0; 16];
        if text.len() != 22 {
            return Err(ParsePseudonymError);
        }
        match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
            Ok(16) => Ok(Pseudonym(bytes)),
            _ => Err(ParsePseudonymError),
        }
    }
}

impl fmt::Display for Pseudonym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Pseudonym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pseudonym({self})")
    }
}
