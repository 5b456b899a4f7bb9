//! Batches of a write-ahead log as one object.
//!
//! | part | bytes |
//! |---|---|
//! | `SWT1` | 4 |
//! | each batch: length, payload as in the write-ahead log | 4, little-endian; length |
//! | CRC-32C of everything before | 4, little-endian |

use bytes::Bytes;

const MAGIC: &[u8; 4] = b"SWT1";

/// Writes batches.
pub fn encode<'a>(payloads: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for payload in payloads {
        // A record of the log has at most 64 MiB.
        bytes.extend((payload.len() as u32).to_le_bytes());
        bytes.extend(payload);
    }
    let crc = crc32c::crc32c(&bytes);
    bytes.extend(crc.to_le_bytes());
    bytes
}

/// Reads batches; nothing if the object is not whole.
pub fn decode(bytes: &Bytes) -> Option<Vec<Bytes>> {
    let at = bytes.len().checked_sub(4)?;
    let (body, crc) = (bytes.slice(..at), u32::from_le_bytes(bytes[at..].try_into().ok()?));
    if crc32c::crc32c(&body) != crc || !body.starts_with(MAGIC) {
        return None;
    }
    let mut payloads = Vec::new();
    let mut at = MAGIC.len();
    while at < body.len() {
        let len = u32::from_le_bytes(*body[at..].first_chunk::<4>()?) as usize;
        let end = at.checked_add(4)?.checked_add(len).filter(|end| *end <= body.len())?;
        payloads.push(body.slice(at + 4..end));
        at = end;
    }
    Some(payloads)
}
