//! Bucketing: a subject's fixed place in hash space.
//!
//! | generation | hash input | bucket |
//! |---|---|---|
//! | `native-1` | the subject's UTF-8 bytes; SipHash-2-4 keyed with SHA-256("seaworthy/native-1\0" ‖ salt), first 16 bytes | `(h × 1,000,000) >> 64` |
//! | `flagd-v1` | the bucketing string, or flag key ‖ targeting key | `abs(int32 murmur3) / (2³¹-1) × 100`, in floating point |
//! | `flagd-v2` | as v1 | `(murmur3 × total weight) >> 32` |
//! | `flagd-v3` | deterministic CBOR of the value, or of `[flag key, targeting key]` | as v2 |
//!
//! A generation never changes its meaning; a flag or experiment that was started under one stays under it.

use std::hash::Hasher;

use sha2::{Digest, Sha256};
use siphasher::sip::SipHasher24;
use vocab::{Arm, Share, subject_key_fits};

/// Which generation a rule is pinned to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bucketing {
    /// Ours.
    Native1,
    /// flagd core up to 0.14.
    FlagdV1,
    /// flagd core from 0.15, and the default of documents that do not say.
    #[default]
    FlagdV2,
    /// flagd's CBOR generation (Python, Rust).
    FlagdV3,
}

impl Bucketing {
    /// Reads the name used in metadata.
    pub fn parse(text: &str) -> Option<Bucketing> {
        match text {
            "native-1" => Some(Bucketing::Native1),
            "flagd-v1" => Some(Bucketing::FlagdV1),
            "flagd-v2" => Some(Bucketing::FlagdV2),
            "flagd-v3" => Some(Bucketing::FlagdV3),
            _ => None,
        }
    }

    /// The name used in metadata.
    pub fn as_str(self) -> &'static str {
        match self {
            Bucketing::Native1 => "native-1",
            Bucketing::FlagdV1 => "flagd-v1",
            Bucketing::FlagdV2 => "flagd-v2",
            Bucketing::FlagdV3 => "flagd-v3",
        }
    }
}

/// A salt, made ready for `native-1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketKey([u8; 16]);

impl BucketKey {
    /// The key of a salt.
    pub fn new(salt: &str) -> BucketKey {
        let hash = Sha256::new().chain_update(b"seaworthy/native-1\0").chain_update(salt).finalize();
        let mut key = [0; 16];
        key.copy_from_slice(&hash[..16]);
        BucketKey(key)
    }

    /// The bucket of a subject, `0..1_000_000`.
    pub fn bucket(&self, subject: &str) -> u32 {
        ((u128::from(self.hash(subject)) * u128::from(Share::WHOLE)) >> 64) as u32
    }

    pub(crate) fn hash(&self, subject: &str) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(subject.as_bytes());
        hasher.finish()
    }
}

/// The subjects of an experiment and how they are split, for ever: a range of the layer's hash space, and inside it the
/// arm by the experiment's own salt. Widening moves only the end of the range, so nobody who was in ever changes arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    layer: BucketKey,
    arm: BucketKey,
    /// First bucket of the range; the range wraps around the end of hash space.
    offset: u32,
    /// How many buckets it holds.
    size: u32,
    /// Arm buckets below this are treatment.
    treatment_below: u32,
}

impl Slice {
    /// The slice at `offset` of the layer salted with `layer_salt`, holding `population` of all subjects, of whom
    /// `treatment_part` (in `[0, 1]` of the population) get the treatment.
    pub fn new(layer_salt: &str, arm_salt: &str, offset: u32, population: Share, treatment_part: Share) -> Slice {
        Slice {
            layer: BucketKey::new(layer_salt),
            arm: BucketKey::new(arm_salt),
            offset: offset % Share::WHOLE,
            size: population.ppm(),
            treatment_below: treatment_part.ppm(),
        }
    }

    /// The same slice with another population.
    #[must_use]
    pub fn widened(self, population: Share) -> Slice {
        Slice { size: population.ppm(), ..self }
    }

    /// The share of all subjects that get the treatment, in parts per million, rounded up.
    pub fn treated(&self) -> Share {
        let ppm = (u64::from(self.size) * u64::from(self.treatment_below)).div_ceil(u64::from(Share::WHOLE));
        Share::from_ppm(ppm as u32).unwrap_or(Share::ALL)
    }

    /// The arm of a subject; none outside the slice, and for keys too long to be bucketed.
    pub fn arm(&self, subject: &str) -> Option<Arm> {
        if self.size == 0 || !subject_key_fits(subject) {
            return None;
        }
        let place = (self.layer.bucket(subject) + Share::WHOLE - self.offset) % Share::WHOLE;
        if place >= self.size {
            return None;
        }
        Some(if self.arm.bucket(subject) < self.treatment_below { Arm::Treatment } else { Arm::Baseline })
    }
}

/// MurmurHash3 x86 32-bit with seed 0 over `parts` as if joined (Appleby, public domain; `murmur3_x86_32`).
pub(crate) fn murmur3(parts: &[&[u8]]) -> u32 {
    const C1: u32 = 0xcc9e_2d51;
    const C2: u32 = 0x1b87_3593;
    let scramble = |k: u32| k.wrapping_mul(C1).rotate_left(15).wrapping_mul(C2);
    let mut hash = 0_u32;
    let mut block = 0_u32;
    let mut filled = 0;
    let mut len = 0_u32;
    for byte in parts.iter().flat_map(|part| part.iter()) {
        block |= u32::from(*byte) << (8 * filled);
        filled += 1;
        len += 1;
        if filled == 4 {
            hash = (hash ^ scramble(block)).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
            (block, filled) = (0, 0);
        }
    }
    if filled > 0 {
        hash ^= scramble(block);
    }
    hash ^= len;
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}
