//! Preview links: a text that names a preview and the time it ends, signed with the installation's key. What the preview is of, and
//! whether it still counts, the control plane knows.

use hmac::{Hmac, Mac};
use sha2::Sha256;
use vocab::{Id, Kind, Timestamp};

const PREFIX: &str = "swp_";
/// Id, end and signature, in hex.
const DIGITS: usize = 2 * (8 + 8 + 16);

fn signature(key: &[u8; 32], named: &[u8; 16]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(b"seaworthy/preview\0");
    mac.update(named);
    mac
}

fn named(id: Id, ends: Timestamp) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&id.index().to_be_bytes());
    bytes[8..].copy_from_slice(&ends.micros().to_be_bytes());
    bytes
}

/// The text of a preview link.
pub fn preview_text(key: &[u8; 32], id: Id, ends: Timestamp) -> String {
    let named = named(id, ends);
    let mac = signature(key, &named).finalize().into_bytes();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("{PREFIX}{}{}", hex(&named), hex(&mac[..16]))
}

/// The preview that a text names, if the installation signed it and it has not ended.
pub fn read_preview(key: &[u8; 32], text: &str, now: Timestamp) -> Option<Id> {
    let digits = text.strip_prefix(PREFIX).filter(|digits| digits.len() == DIGITS && digits.is_ascii())?;
    let mut bytes = [0; DIGITS / 2];
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * place..2 * place + 2], 16).ok()?;
    }
    let (claim, mac) = bytes.split_first_chunk::<16>()?;
    signature(key, claim).verify_truncated_left(mac).ok()?;
    let (index, ends) = claim.split_first_chunk::<8>()?;
    let ends = Timestamp::from_micros(i64::from_be_bytes(ends.try_into().ok()?));
    (now < ends).then(|| Id::new(Kind::Preview, u64::from_be_bytes(*index)))
}
