//! The `fractional` operator: a weighted split, sticky by hash, in the generation that the flag is pinned to.

use serde_json::Value;

use crate::bucket::{BucketKey, Bucketing, murmur3};

/// The largest sum of weights (flagd: 2³¹ - 1).
const WEIGHT_SUM_MAX: u64 = i32::MAX as u64;

/// Salts of `native-1`, made ready: of no salt for values, of the flag key for flag key and targeting key.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    plain: BucketKey,
    flag: BucketKey,
}

impl Keys {
    pub(crate) fn new(flag_key: &str) -> Keys {
        Keys { plain: BucketKey::new(""), flag: BucketKey::new(flag_key) }
    }
}

/// What is hashed.
pub(crate) enum Input<'a> {
    /// Text the rule computed.
    Text(&'a str),
    /// A value the rule computed; only strings before generation 3.
    Explicit(&'a Value),
    /// Flag key and targeting key.
    Implicit(&'a str, &'a str),
}

/// The hash of generation 3: of the text salt ‖ unit, or without a salt of the pair of flag key and unit.
pub(crate) fn hash_v3(salt: Option<&str>, flag_key: &str, unit: &str) -> u32 {
    let mut bytes = Vec::with_capacity(16 + flag_key.len() + unit.len());
    match salt {
        Some(salt) => {
            cbor_head(3, (salt.len() + unit.len()) as u64, &mut bytes);
            bytes.extend_from_slice(salt.as_bytes());
            bytes.extend_from_slice(unit.as_bytes());
        }
        None => {
            bytes.push(0x82);
            cbor_text(flag_key, &mut bytes);
            cbor_text(unit, &mut bytes);
        }
    }
    murmur3(&[&bytes])
}

/// The place of the chosen entry among `weights`; none if nothing can be chosen.
pub(crate) fn choose(bucketing: Bucketing, keys: &Keys, input: &Input<'_>, weights: &[u64]) -> Option<usize> {
    let total: u64 = weights.iter().sum();
    if total == 0 || total > WEIGHT_SUM_MAX {
        return None;
    }
    let joined = |generation_3: bool| -> Option<u32> {
        match input {
            Input::Implicit(flag, target) if generation_3 => Some(hash_v3(None, flag, target)),
            Input::Implicit(flag, target) => Some(murmur3(&[flag.as_bytes(), target.as_bytes()])),
            Input::Text(text) if generation_3 => Some(hash_v3(Some(""), "", text)),
            Input::Text(text) => Some(murmur3(&[text.as_bytes()])),
            Input::Explicit(Value::Null) => None,
            Input::Explicit(value) if generation_3 => {
                let mut bytes = Vec::new();
                cbor(value, &mut bytes)?;
                Some(murmur3(&[&bytes]))
            }
            Input::Explicit(Value::String(text)) => Some(murmur3(&[text.as_bytes()])),
            Input::Explicit(_) => None,
        }
    };
    let place = match bucketing {
        Bucketing::FlagdV1 => {
            let hash = joined(false)? as i32;
            let percent = f64::from(hash.unsigned_abs()) / f64::from(i32::MAX) * 100.0;
            let mut end = 0.0;
            return weights.iter().position(|w| {
                end += *w as f64 * 100.0 / total as f64;
                percent < end
            });
        }
        Bucketing::FlagdV2 => (u64::from(joined(false)?) * total) >> 32,
        Bucketing::FlagdV3 => (u64::from(joined(true)?) * total) >> 32,
        Bucketing::Native1 => {
            let hash = match input {
                Input::Implicit(_, target) => keys.flag.hash(target),
                Input::Text(text) => keys.plain.hash(text),
                Input::Explicit(Value::String(text)) => keys.plain.hash(text),
                Input::Explicit(_) => return None,
            };
            ((u128::from(hash) * u128::from(total)) >> 64) as u64
        }
        // Refused when the definition is read.
        _ => return None,
    };
    let mut end = 0;
    weights.iter().position(|w| {
        end += w;
        place < end
    })
}

fn cbor_head(major: u8, n: u64, out: &mut Vec<u8>) {
    let major = major << 5;
    match n {
        0..=23 => out.push(major | n as u8),
        24..=0xff => out.extend_from_slice(&[major | 24, n as u8]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend_from_slice(&(n as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&n.to_be_bytes());
        }
    }
}

fn cbor_text(text: &str, out: &mut Vec<u8>) {
    cbor_head(3, text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

/// Deterministic CBOR (RFC 8949 4.2.1) as flagd's third generation wants it: whole floats are integers, floats take their
/// shortest exact form, keys are sorted by their encoding. None for a number that no float is.
fn cbor(value: &Value, out: &mut Vec<u8>) -> Option<()> {
    match value {
        Value::Null => out.push(0xf6),
        Value::Bool(b) => out.push(if *b { 0xf5 } else { 0xf4 }),
        Value::Number(number) => cbor_number(number, out)?,
        Value::String(text) => cbor_text(text, out),
        Value::Array(items) => {
            cbor_head(4, items.len() as u64, out);
            for item in items {
                cbor(item, out)?;
            }
        }
        Value::Object(map) => {
            let mut pairs = Vec::with_capacity(map.len());
            for (key, value) in map {
                let (mut k, mut v) = (Vec::new(), Vec::new());
                cbor_text(key, &mut k);
                cbor(value, &mut v)?;
                pairs.push((k, v));
            }
            pairs.sort();
            cbor_head(5, pairs.len() as u64, out);
            for (key, value) in pairs {
                out.extend(key);
                out.extend(value);
            }
        }
    }
    Some(())
}

fn cbor_number(number: &serde_json::Number, out: &mut Vec<u8>) -> Option<()> {
    if let Some(n) = number.as_u64() {
        cbor_head(0, n, out);
        return Some(());
    }
    if let Some(n) = number.as_i64() {
        cbor_head(1, !(n as u64), out);
        return Some(());
    }
    let float = number.as_f64()?;
    if float.fract() == 0.0 && (-9_223_372_036_854_775_808.0..18_446_744_073_709_551_616.0).contains(&float) {
        if float < 0.0 {
            cbor_head(1, !(float as i64 as u64), out)
        } else {
            cbor_head(0, float as u64, out)
        }
        return Some(());
    }
    if let Some(half) = exact_half(float) {
        out.push(0xf9);
        out.extend_from_slice(&half.to_be_bytes());
    } else if f64::from(float as f32) == float {
        out.push(0xfa);
        out.extend_from_slice(&(float as f32).to_be_bytes());
    } else {
        out.push(0xfb);
        out.extend_from_slice(&float.to_be_bytes());
    }
    Some(())
}

/// The half-precision bits of `float` if it is exact in them.
fn exact_half(float: f64) -> Option<u16> {
    let single = float as f32;
    if f64::from(single) != float {
        return None;
    }
    let bits = single.to_bits();
    let sign = ((bits >> 16) & 0x8000) as u16;
    let exponent = ((bits >> 23) & 0xff) as i32 - 127;
    let mantissa = bits & 0x7f_ffff;
    match exponent {
        -14..=15 if mantissa & 0x1fff == 0 => Some(sign | (((exponent + 15) as u16) << 10) | (mantissa >> 13) as u16),
        -24..=-15 => {
            let shift = (-exponent - 1) as u32;
            let full = mantissa | 0x80_0000;
            (full & ((1 << shift) - 1) == 0).then_some(sign | (full >> shift) as u16)
        }
        _ => None,
    }
}
