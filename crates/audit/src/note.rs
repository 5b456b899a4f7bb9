//! Signed notes and checkpoints (C2SP signed-note, tlog-checkpoint), with Ed25519 keys.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signer, Verifier};
use sha2::{Digest, Sha256};

use crate::tree::Hash;

const ED25519: u8 = 1;
/// Longest note that is read: a checkpoint with 16 signatures is below 4 KiB.
const NOTE_BYTES_MAX: usize = 64 << 10;

/// Why a note is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not in the form of a key.
    #[error("not a key: {0}")]
    Key(&'static str),
    /// Not in the form of a note or checkpoint.
    #[error("not a signed checkpoint: {0}")]
    Form(&'static str),
    /// No signature by the key that was asked for.
    #[error("not signed by {0}")]
    Unsigned(String),
    /// A signature by the known key does not match.
    #[error("the signature of {0} does not match: the checkpoint was altered or signed with another key")]
    Forged(String),
}

/// The public half, `name+hex(key id)+base64(type ‖ key)` in text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyingKey {
    name: String,
    id: [u8; 4],
    key: ed25519_dalek::VerifyingKey,
}

fn key_id(name: &str, public: &[u8; 32]) -> [u8; 4] {
    let hash = Sha256::new().chain_update(name).chain_update([b'\n', ED25519]).chain_update(public).finalize();
    [hash[0], hash[1], hash[2], hash[3]]
}

impl VerifyingKey {
    /// The key's name; for a log, its origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads the text form.
    pub fn parse(text: &str) -> Result<VerifyingKey, NoteError> {
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::Key("expected name+id+key"));
        };
        let bytes = BASE64.decode(key).map_err(|_| NoteError::Key("not base64"))?;
        let Some((&ED25519, public)) = bytes.split_first() else {
            return Err(NoteError::Key("not an Ed25519 key"));
        };
        let public: [u8; 32] = public.try_into().map_err(|_| NoteError::Key("not 32 bytes"))?;
        let expected = key_id(name, &public);
        if u32::from_str_radix(id, 16).ok() != Some(u32::from_be_bytes(expected)) {
            return Err(NoteError::Key("id and key do not belong together"));
        }
        let key = ed25519_dalek::VerifyingKey::from_bytes(&public).map_err(|_| NoteError::Key("not a curve point"))?;
        Ok(VerifyingKey { name: name.to_owned(), id: expected, key })
    }
}

impl std::fmt::Display for VerifyingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut bytes = vec![ED25519];
        bytes.extend_from_slice(self.key.as_bytes());
        write!(f, "{}+{:08x}+{}", self.name, u32::from_be_bytes(self.id), BASE64.encode(bytes))
    }
}

/// The private half.
#[derive(Clone)]
pub struct SigningKey {
    public: VerifyingKey,
    key: ed25519_dalek::SigningKey,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.public.name)
    }
}

impl SigningKey {
    /// The key with this name and secret.
    pub fn new(name: &str, secret: &[u8; 32]) -> SigningKey {
        let key = ed25519_dalek::SigningKey::from_bytes(secret);
        let id = key_id(name, key.verifying_key().as_bytes());
        SigningKey { public: VerifyingKey { name: name.to_owned(), id, key: key.verifying_key() }, key }
    }

    /// The public half.
    pub fn verifying(&self) -> &VerifyingKey {
        &self.public
    }
}

/// What a log commits to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// How many entries.
    pub size: u64,
    /// The root of the tree of that size.
    pub root: Hash,
}

impl Checkpoint {
    /// The signed note.
    pub fn sign(&self, key: &SigningKey) -> String {
        let body = format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(self.root));
        let mut signature = key.public.id.to_vec();
        signature.extend_from_slice(&key.key.sign(body.as_bytes()).to_bytes());
        format!("{body}\n\u{2014} {} {}\n", key.public.name, BASE64.encode(signature))
    }

    /// Reads a signed note and checks the signature of `key`. Signatures of other keys are ignored.
    pub fn open(note: &str, key: &VerifyingKey) -> Result<Checkpoint, NoteError> {
        if note.len() > NOTE_BYTES_MAX {
            return Err(NoteError::Form("too long"));
        }
        let split = note.rfind("\n\n").ok_or(NoteError::Form("no blank line before the signatures"))?;
        let (body, signatures) = (&note[..=split], &note[split + 2..]);
        let mut signed = false;
        for line in signatures.lines() {
            let rest =
                line.strip_prefix("\u{2014} ").ok_or(NoteError::Form("a signature line begins with an em dash"))?;
            let (name, encoded) =
                rest.split_once(' ').ok_or(NoteError::Form("a signature line has a name and a value"))?;
            let bytes = BASE64.decode(encoded).map_err(|_| NoteError::Form("a signature is base64"))?;
            let Some((id, signature)) = bytes.split_first_chunk::<4>() else {
                return Err(NoteError::Form("a signature begins with a key id"));
            };
            if name != key.name || *id != key.id {
                continue;
            }
            let signature =
                ed25519_dalek::Signature::from_slice(signature).map_err(|_| NoteError::Forged(name.to_owned()))?;
            key.key.verify(body.as_bytes(), &signature).map_err(|_| NoteError::Forged(name.to_owned()))?;
            signed = true;
        }
        if !signed {
            return Err(NoteError::Unsigned(key.name.clone()));
        }
        let mut lines = body.lines();
        let origin = lines.next().filter(|o| !o.is_empty()).ok_or(NoteError::Form("no origin"))?;
        let size = lines.next().ok_or(NoteError::Form("no size"))?;
        if size != "0" && (size.starts_with('0') || size.starts_with('+')) {
            return Err(NoteError::Form("the size has leading zeros"));
        }
        let size = size.parse().map_err(|_| NoteError::Form("the size is no number"))?;
        let root = lines.next().and_then(|l| BASE64.decode(l).ok()).and_then(|b| b.try_into().ok());
        let root = root.ok_or(NoteError::Form("the root is not 32 bytes of base64"))?;
        Ok(Checkpoint { origin: origin.to_owned(), size, root })
    }
}
