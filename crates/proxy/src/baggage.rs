//! W3C baggage: reading, writing and stripping our members.
//!
//! | member | value |
//! |---|---|
//! | `sw-s` | the subject's pseudonym |
//! | `sw-x` | `<experiment>.<epoch>.<tag>`, several joined by `/` |
//!
//! The tag is 8 bytes of HMAC-SHA-256 under the installation's key over experiment, epoch, arm and pseudonym, in hex. A hop
//! proxy finds the arm by trying both: without the key nobody can put himself into an arm, and no arm is readable on the
//! way. At the edge all members of ours that come from outside are removed.

use hmac::{Hmac, Mac};
use sha2::Sha256;
use vocab::{Arm, Pseudonym};

/// The longest header that is read (W3C: 8192 bytes); a longer one is passed on untouched without ours.
const BYTES_MAX: usize = 8_192;
/// Experiments carried at most.
const EXPERIMENTS_MAX: usize = 8;

/// The installation's key.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// Reads 64 hex digits.
    pub fn from_hex(text: &str) -> Option<Key> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (place, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).ok()?;
        }
        Some(Key(bytes))
    }

    /// The key itself.
    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().into()
    }

    /// The pseudonym of a subject's key.
    pub fn pseudonym(&self, subject: &str) -> Pseudonym {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.mac(&[subject.as_bytes()])[..16]);
        Pseudonym::from_bytes(bytes)
    }

    fn tag(&self, experiment: &str, epoch: u64, arm: Arm, subject: Pseudonym) -> String {
        let digest = self.mac(&[
            b"sw-x\0",
            experiment.as_bytes(),
            b"\0",
            &epoch.to_le_bytes(),
            arm.as_str().as_bytes(),
            subject.bytes(),
        ]);
        digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// An experiment that a request takes part in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which.
    pub experiment: String,
    /// Of which epoch.
    pub epoch: u64,
    /// Which arm.
    pub arm: Arm,
}

/// The header without any member of ours; none if nothing is left.
pub fn strip(header: &str) -> Option<String> {
    let kept: Vec<&str> = header
        .split(',')
        .map(str::trim)
        .filter(|member| !member.is_empty())
        .filter(|member| {
            let name = member.split(['=', ';']).next().unwrap_or_default().trim();
            !name.to_ascii_lowercase().starts_with("sw-")
        })
        .collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

/// The header with our members added behind those of others.
pub fn write(others: Option<&str>, key: &Key, subject: Pseudonym, parts: &[Part]) -> String {
    let list: Vec<String> = parts
        .iter()
        .take(EXPERIMENTS_MAX)
        .map(|p| format!("{}.{}.{}", p.experiment, p.epoch, key.tag(&p.experiment, p.epoch, p.arm, subject)))
        .collect();
    let ours = format!("sw-s={subject},sw-x={}", list.join("/"));
    match others {
        Some(others) if !others.is_empty() && others.len() + ours.len() < BYTES_MAX => format!("{others},{ours}"),
        _ => ours,
    }
}

/// Subject and arms that a proxy with the same key wrote; members that do not verify are ignored.
pub fn read(header: &str, key: &Key) -> Option<(Pseudonym, Vec<Part>)> {
    if header.len() > BYTES_MAX {
        return None;
    }
    let member = |name: &str| {
        header.split(',').find_map(|m| {
            let (key, value) = m.trim().split_once('=')?;
            (key.trim() == name).then(|| value.split(';').next().unwrap_or_default().trim())
        })
    };
    let subject = Pseudonym::parse(member("sw-s")?).ok()?;
    let parts = member("sw-x").unwrap_or_default().split('/').take(EXPERIMENTS_MAX).filter_map(|item| {
        let mut fields = item.split('.');
        let (experiment, epoch, tag) = (fields.next()?, fields.next()?.parse().ok()?, fields.next()?);
        let arm = Arm::BOTH.into_iter().find(|arm| key.tag(experiment, epoch, *arm, subject) == tag)?;
        Some(Part { experiment: experiment.to_owned(), epoch, arm })
    });
    Some((subject, parts.collect()))
}
