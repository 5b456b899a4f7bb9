//! Bucketing: a subject's fixed place in hash space.
//!
//! | generation | hash input | bucket |
//! |---|---|---|
//! | `native-1` | the subject's UTF-8 bytes; SipHash-2-4 keyed with SHA-256("seaworthy/native-1\0" ‖ salt), first 16 bytes | `(h × 1,000,000) >> 64` |
//! | `flagd-v1` | the bucketing string, or flag key ‖ targeting key | `abs(int32 murmur3) / (2³¹-1) × 100`, in floating point |
//! | `flagd-v2` | as v1 | `(murmur3 × total weight) >> 32` |
//! | `flagd-v3` | deterministic CBOR of the value, or of `[flag key, targeting key]` | as v2 |
//! | other systems' | docs/reference/flags.md | `%` of the total, or a part of one |
//!
//! A generation never changes its meaning; a flag or experiment that was started under one stays under it.

use sha2::{Digest, Sha256};
use siphasher::sip::SipHasher24;
use vocab::{Arm, Share, subject_key_fits};

use crate::fractional;

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
    /// Unleash, gradual rollout.
    Unleash,
    /// Unleash, variants.
    UnleashVariant,
    /// LaunchDarkly.
    LaunchDarkly,
    /// GrowthBook, hash version 1.
    GrowthBook1,
    /// GrowthBook, hash version 2.
    GrowthBook2,
    /// Flipt, distributions.
    Flipt,
    /// Flipt, thresholds.
    FliptBoolean,
    /// GO Feature Flag.
    Goff,
}

const ALL: [Bucketing; 12] = [
    Bucketing::Native1,
    Bucketing::FlagdV1,
    Bucketing::FlagdV2,
    Bucketing::FlagdV3,
    Bucketing::Unleash,
    Bucketing::UnleashVariant,
    Bucketing::LaunchDarkly,
    Bucketing::GrowthBook1,
    Bucketing::GrowthBook2,
    Bucketing::Flipt,
    Bucketing::FliptBoolean,
    Bucketing::Goff,
];

impl Bucketing {
    /// All names, for messages.
    pub const NAMES: [&str; 12] = {
        let mut names = [""; 12];
        let mut n = 0;
        while n < 12 {
            names[n] = ALL[n].as_str();
            n += 1;
        }
        names
    };

    /// Reads the name used in definitions.
    pub fn parse(text: &str) -> Option<Bucketing> {
        ALL.into_iter().find(|bucketing| bucketing.as_str() == text)
    }

    /// The name used in definitions.
    pub const fn as_str(self) -> &'static str {
        match self {
            Bucketing::Native1 => "native-1",
            Bucketing::FlagdV1 => "flagd-v1",
            Bucketing::FlagdV2 => "flagd-v2",
            Bucketing::FlagdV3 => "flagd-v3",
            Bucketing::Unleash => "unleash",
            Bucketing::UnleashVariant => "unleash-variant",
            Bucketing::LaunchDarkly => "launchdarkly",
            Bucketing::GrowthBook1 => "growthbook-1",
            Bucketing::GrowthBook2 => "growthbook-2",
            Bucketing::Flipt => "flipt",
            Bucketing::FliptBoolean => "flipt-boolean",
            Bucketing::Goff => "goff",
        }
    }

    /// Whether flagd's `fractional` may be pinned to it.
    pub(crate) fn is_for_fractional(self) -> bool {
        matches!(self, Bucketing::Native1 | Bucketing::FlagdV1 | Bucketing::FlagdV2 | Bucketing::FlagdV3)
    }

    /// Whether places are whole numbers below the total.
    pub(crate) fn counts(self) -> bool {
        !matches!(self, Bucketing::FlagdV1 | Bucketing::LaunchDarkly | Bucketing::GrowthBook1 | Bucketing::GrowthBook2)
    }

    /// The place of a unit, to be compared with [`Bucketing::bound`]s. Without a salt `flagd-v3` hashes flag key and unit apart.
    pub(crate) fn place(self, key: &BucketKey, salt: Option<&str>, flag_key: &str, unit: &str, total: f64) -> f64 {
        let bytes = salt.unwrap_or_default().as_bytes();
        let unit_bytes = unit.as_bytes();
        let modulo = |hash: u32| f64::from(hash % (total as u32).max(1));
        let scaled = |hash: u32| ((u64::from(hash) * total as u64) >> 32) as f64;
        match self {
            Bucketing::Native1 => ((u128::from(key.hash(unit)) * u128::from(total as u64)) >> 64) as u64 as f64,
            Bucketing::FlagdV1 => {
                let hash = murmur3(&[bytes, unit_bytes]) as i32;
                f64::from(hash.unsigned_abs()) / f64::from(i32::MAX) * 100.0
            }
            Bucketing::FlagdV2 => scaled(murmur3(&[bytes, unit_bytes])),
            Bucketing::FlagdV3 => scaled(fractional::hash_v3(salt, flag_key, unit)),
            Bucketing::Unleash => modulo(murmur3(&[bytes, b":", unit_bytes])),
            Bucketing::UnleashVariant => modulo(murmur3_seeded(86_028_157, &[bytes, b":", unit_bytes])),
            Bucketing::LaunchDarkly => {
                use sha1::Digest as _;
                let hash = sha1::Sha1::new().chain_update(bytes).chain_update(b".").chain_update(unit_bytes).finalize();
                let mut first = [0; 8];
                first.copy_from_slice(&hash[..8]);
                let digits = u64::from_be_bytes(first) >> 4;
                f64::from(digits as f32 / 0xFFF_FFFF_FFFF_FFFF_u64 as f32)
            }
            Bucketing::GrowthBook1 => f64::from(fnv1a(&[unit_bytes, bytes]) % 1_000) / 1_000.0 * total,
            Bucketing::GrowthBook2 => {
                let inner = fnv1a(&[bytes, unit_bytes]).to_string();
                f64::from(fnv1a(&[inner.as_bytes()]) % 10_000) / 10_000.0 * total
            }
            Bucketing::Flipt => modulo(crc32(&[bytes, unit_bytes])),
            Bucketing::FliptBoolean => modulo(crc32(&[unit_bytes, bytes])),
            Bucketing::Goff => modulo(fnv1a(&[bytes, unit_bytes])),
        }
    }

    /// A number in units of `total` as places are measured: `launchdarkly` reckons in 32-bit parts of one, `flagd-v1` in percent.
    pub(crate) fn bound(self, value: f64, total: f64) -> f64 {
        match self {
            Bucketing::LaunchDarkly => f64::from(value as f32 / total as f32),
            Bucketing::FlagdV1 => value * 100.0 / total,
            _ => value,
        }
    }

    /// The ranges of weights that follow each other, each with its variant: as the generation sums them up.
    pub(crate) fn bounds(self, weights: &[(usize, u64)], total: f64) -> Vec<(usize, f64, f64)> {
        let mut end = 0.0;
        let mut ranges: Vec<(usize, f64, f64)> = weights
            .iter()
            .map(|&(variant, weight)| {
                let from = end;
                end = match self {
                    Bucketing::LaunchDarkly => f64::from(end as f32 + weight as f32 / total as f32),
                    _ => end + self.bound(weight as f64, total),
                };
                (variant, from, end)
            })
            .collect();
        if let (Bucketing::LaunchDarkly, Some(last)) = (self, ranges.last_mut()) {
            // Whatever rounding left over is the last variant's.
            last.2 = f64::INFINITY;
        }
        ranges
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

    #[inline]
    pub(crate) fn hash(&self, subject: &str) -> u64 {
        SipHasher24::new_with_key(&self.0).hash(subject.as_bytes())
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

    /// Whether every subject is in, and gets the treatment.
    pub fn is_everybody(&self) -> bool {
        self.size == Share::WHOLE && self.treatment_below == Share::WHOLE
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

/// MurmurHash3 with seed 0.
pub(crate) fn murmur3(parts: &[&[u8]]) -> u32 {
    murmur3_seeded(0, parts)
}

/// FNV-1a, 32 bits (Fowler, Noll, Vo).
fn fnv1a(parts: &[&[u8]]) -> u32 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn crc32(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

/// MurmurHash3 x86 32-bit over `parts` as if joined (Appleby, public domain; `murmur3_x86_32`).
fn murmur3_seeded(seed: u32, parts: &[&[u8]]) -> u32 {
    const C1: u32 = 0xcc9e_2d51;
    const C2: u32 = 0x1b87_3593;
    let scramble = |k: u32| k.wrapping_mul(C1).rotate_left(15).wrapping_mul(C2);
    let mix =
        |hash: u32, block: u32| (hash ^ scramble(block)).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    let (mut hash, mut block, mut filled, mut len) = (seed, 0_u32, 0, 0_u32);
    for part in parts {
        len = len.wrapping_add(part.len() as u32);
        let mut rest = *part;
        // Whole words where parts begin at one, which is nearly always.
        while let (0, Some((word, after))) = (filled, rest.split_first_chunk::<4>()) {
            hash = mix(hash, u32::from_le_bytes(*word));
            rest = after;
        }
        for byte in rest {
            block |= u32::from(*byte) << (8 * filled);
            filled += 1;
            if filled == 4 {
                hash = mix(hash, block);
                (block, filled) = (0, 0);
            }
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
