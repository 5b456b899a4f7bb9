//! Which calls evaluate a flag, as a table, and where the key stands in them. Pure: text in, byte ranges out.
//!
//! It does not know languages. A call is a name, type arguments perhaps, and an opening bracket; a key is an argument that is
//! one string literal and nothing else. Variables, joined strings and templates are not keys: what cannot be read is passed
//! over, since a key that is wrongly called missing would stop somebody's pipeline.

use std::collections::HashMap;
use std::ops::Range;

/// A key is not longer in any flag set; longer literals are passed over.
pub const KEY_BYTES_MAX: usize = 256;
/// An argument in front of the key is not longer (`context.Background()`, an object with a few attributes); a longer one
/// ends the look at this call.
const ARGUMENT_BYTES_MAX: usize = 400;
/// Type arguments between name and bracket are not longer.
const TYPES_BYTES_MAX: usize = 100;

/// Where the key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// It is the first argument.
    First,
    /// It is the second, after a context that is no literal.
    Second,
    /// It is the second if that is a literal, else the first: SDKs that take the user first on servers only.
    SecondOrFirst,
    /// It is what is assigned to this name: `flagKey: "…"`, `flag_key="…"`.
    Assigned,
}

/// The names are compared without case, `_` and an `Async` at the end, so one row stands for all languages:
/// `getBooleanValue`, `get_boolean_value`, `GetBooleanValueAsync`. Names of one language only (React's `use…`, Go's) are
/// compared as they are written.
const CALLS: &[(&str, At)] = &[
    // OpenFeature: JavaScript, Java, Kotlin, Swift, .NET, PHP, Python.
    ("getBooleanValue", At::First),
    ("getBooleanDetails", At::First),
    ("getStringValue", At::First),
    ("getStringDetails", At::First),
    ("getNumberValue", At::First),
    ("getNumberDetails", At::First),
    ("getIntegerValue", At::First),
    ("getIntegerDetails", At::First),
    ("getDoubleValue", At::First),
    ("getDoubleDetails", At::First),
    ("getFloatValue", At::First),
    ("getFloatDetails", At::First),
    ("getObjectValue", At::First),
    ("getObjectDetails", At::First),
    // OpenFeature: Rust.
    ("getBoolValue", At::First),
    ("getBoolDetails", At::First),
    ("getIntValue", At::First),
    ("getIntDetails", At::First),
    ("getStructValue", At::First),
    ("getStructDetails", At::First),
    // OpenFeature: Go. `String`, `Int` and `Float` mean too many other things.
    ("Boolean", At::Second),
    ("BooleanValue", At::Second),
    ("BooleanValueDetails", At::Second),
    ("StringValue", At::Second),
    ("StringValueDetails", At::Second),
    ("IntValue", At::Second),
    ("IntValueDetails", At::Second),
    ("FloatValue", At::Second),
    ("FloatValueDetails", At::Second),
    ("ObjectValue", At::Second),
    ("ObjectValueDetails", At::Second),
    // OpenFeature: Ruby.
    ("fetchBooleanValue", At::First),
    ("fetchBooleanDetails", At::First),
    ("fetchStringValue", At::First),
    ("fetchStringDetails", At::First),
    ("fetchNumberValue", At::First),
    ("fetchNumberDetails", At::First),
    ("fetchIntegerValue", At::First),
    ("fetchIntegerDetails", At::First),
    ("fetchFloatValue", At::First),
    ("fetchFloatDetails", At::First),
    ("fetchObjectValue", At::First),
    ("fetchObjectDetails", At::First),
    // OpenFeature: React. `useFlag` is Unleash's too.
    ("useFlag", At::First),
    ("useSuspenseFlag", At::First),
    ("useBooleanFlagValue", At::First),
    ("useBooleanFlagDetails", At::First),
    ("useStringFlagValue", At::First),
    ("useStringFlagDetails", At::First),
    ("useNumberFlagValue", At::First),
    ("useNumberFlagDetails", At::First),
    ("useObjectFlagValue", At::First),
    ("useObjectFlagDetails", At::First),
    // LaunchDarkly and GO Feature Flag. In Rust and C++ the context comes first. Where the default is text the second
    // argument may be that default, so only the first one counts.
    ("variation", At::First),
    ("variationDetail", At::First),
    ("boolVariation", At::SecondOrFirst),
    ("boolVariationDetail", At::SecondOrFirst),
    ("boolVariationDetails", At::SecondOrFirst),
    ("stringVariation", At::First),
    ("stringVariationDetail", At::First),
    ("stringVariationDetails", At::First),
    ("intVariation", At::SecondOrFirst),
    ("intVariationDetail", At::SecondOrFirst),
    ("intVariationDetails", At::SecondOrFirst),
    ("floatVariation", At::SecondOrFirst),
    ("float64Variation", At::First),
    ("float64VariationDetails", At::First),
    ("doubleVariation", At::SecondOrFirst),
    ("doubleVariationDetail", At::SecondOrFirst),
    ("numberVariation", At::First),
    ("numberVariationDetail", At::First),
    ("jsonVariation", At::First),
    ("jsonVariationDetail", At::First),
    ("jsonValueVariation", At::First),
    ("useBoolVariation", At::First),
    ("useStringVariation", At::First),
    ("useNumberVariation", At::First),
    ("useJsonVariation", At::First),
    // Unleash, Microsoft.FeatureManagement.
    ("isEnabled", At::First),
    ("getVariant", At::First),
    ("useVariant", At::First),
    // GrowthBook, Flagsmith.
    ("isOn", At::First),
    ("isOff", At::First),
    ("evalFeature", At::First),
    ("getFeatureValue", At::First),
    ("hasFeature", At::First),
    ("useFeature", At::First),
    ("useFeatureIsOn", At::First),
    ("useFeatureValue", At::First),
    // PostHog, Optimizely.
    ("isFeatureEnabled", At::First),
    ("featureEnabled", At::First),
    ("getFeatureFlag", At::First),
    ("getFeatureFlagPayload", At::First),
    ("useFeatureFlagEnabled", At::First),
    ("useFeatureFlagPayload", At::First),
    ("useFeatureFlagVariantKey", At::First),
    ("useDecision", At::First),
    // Statsig, Split.
    ("checkGate", At::SecondOrFirst),
    ("getFeatureGate", At::SecondOrFirst),
    ("getDynamicConfig", At::SecondOrFirst),
    ("useGateValue", At::First),
    ("getTreatment", At::SecondOrFirst),
    ("getTreatmentWithConfig", At::SecondOrFirst),
    // Flipt's requests, OpenFeature's React component and named arguments.
    ("flagKey", At::Assigned),
];

/// A key in a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Bytes of the key, without quotes.
    pub key: Range<usize>,
    /// The call as the table has it.
    pub name: &'static str,
}

/// The table, ready to be asked.
#[derive(Debug)]
pub struct Calls(HashMap<String, (&'static str, At)>);

impl Default for Calls {
    fn default() -> Calls {
        Calls(CALLS.iter().map(|&(name, at)| (plain(name), (name, at))).collect())
    }
}

impl Calls {
    fn row(&self, name: &str) -> Option<(&'static str, At)> {
        let &(listed, at) = self.0.get(&plain(name))?;
        let exact = listed.starts_with("use") || at == At::Second;
        (!exact || listed == name).then_some((listed, at))
    }

    /// Every call with a key that is a literal, in the order of the keys.
    pub fn find(&self, text: &str) -> Vec<Call> {
        let bytes = text.as_bytes();
        let mut found = Vec::new();
        for (at, byte) in bytes.iter().enumerate() {
            let call = match byte {
                b'(' => self.call(text, at),
                b'"' | b'\'' | b'`' => self.assigned(text, at),
                _ => None,
            };
            found.extend(call);
        }
        found.sort_by_key(|call: &Call| call.key.start);
        found.dedup_by_key(|call| call.key.start);
        found
    }

    /// The call whose bracket opens at `bracket`.
    fn call(&self, text: &str, bracket: usize) -> Option<Call> {
        let bytes = text.as_bytes();
        let end = before_types(bytes, before_spaces(bytes, bracket))?;
        // Ruby's `enabled?(` and TypeScript's `useFlag!(`.
        let end = if end > 0 && matches!(bytes[end - 1], b'?' | b'!') { end - 1 } else { end };
        let (name, at) = self.row(&text[identifier(bytes, end)..end])?;
        let first = argument(text, bracket + 1);
        let second = || first.next.and_then(|next| argument(text, next).literal);
        let key = match at {
            At::First => first.literal,
            At::Second if first.literal.is_some() => None,
            At::Second => second(),
            At::SecondOrFirst => second().or(first.literal),
            At::Assigned => None,
        };
        key.map(|key| Call { key, name })
    }

    /// The literal that opens at `quote` and is assigned to one of the names.
    fn assigned(&self, text: &str, quote: usize) -> Option<Call> {
        let bytes = text.as_bytes();
        let sign = before_spaces(bytes, quote);
        if sign == 0 || !matches!(bytes[sign - 1], b':' | b'=') {
            return None;
        }
        let sign = if bytes[..sign].ends_with(b":=") { sign - 2 } else { sign - 1 };
        let end = before_spaces(bytes, sign);
        let (name, at) = self.row(&text[identifier(bytes, end)..end])?;
        let key = literal(text, quote)?;
        let joined = matches!(bytes.get(after_spaces(bytes, key.end + 1)), Some(b'+' | b'.' | b'%' | b'('));
        (at == At::Assigned && !joined).then_some(Call { key, name })
    }
}

/// Without case, `_` and `Async` at the end. Empty for what is longer than any name of the table.
fn plain(name: &str) -> String {
    if name.len() > 40 {
        return String::new();
    }
    let mut plain: String = name.chars().filter(|&c| c != '_').map(|c| c.to_ascii_lowercase()).collect();
    if let Some(rest) = plain.strip_suffix("async") {
        plain.truncate(rest.len());
    }
    plain
}

/// Where the identifier that ends at `end` begins; `end` if there is none.
fn identifier(bytes: &[u8], end: usize) -> usize {
    let length = bytes[..end].iter().rev().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
    end - length
}

fn before_spaces(bytes: &[u8], end: usize) -> usize {
    end - bytes[..end].iter().rev().take_while(|b| matches!(b, b' ' | b'\t')).count()
}

fn after_spaces(bytes: &[u8], at: usize) -> usize {
    at + bytes.get(at..).unwrap_or_default().iter().take_while(|b| b.is_ascii_whitespace()).count()
}

/// The end of the name in front of `<…>` or `::<…>` that ends at `end`; `end` if there are no type arguments.
fn before_types(bytes: &[u8], end: usize) -> Option<usize> {
    if end == 0 || bytes[end - 1] != b'>' {
        return Some(end);
    }
    let mut depth = 0;
    for at in (end.saturating_sub(TYPES_BYTES_MAX)..end).rev() {
        match bytes[at] {
            b'>' => depth += 1,
            b'<' => depth -= 1,
            b'\n' | b';' | b'(' => return None,
            _ => {}
        }
        if depth == 0 {
            return Some(if bytes[..at].ends_with(b"::") { at - 2 } else { at });
        }
    }
    None
}

struct Argument {
    /// The key, if the argument is one literal.
    literal: Option<Range<usize>>,
    /// Where the next argument begins.
    next: Option<usize>,
}

/// The argument that begins at `at`. It may carry a name: `key: "…"`, `flag_key="…"`.
fn argument(text: &str, at: usize) -> Argument {
    let bytes = text.as_bytes();
    let mut start = after_spaces(bytes, at);
    let name = bytes[start..].iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
    if name > 0 {
        let sign = after_spaces(bytes, start + name);
        match bytes.get(sign..).unwrap_or_default() {
            [b':', b':', ..] | [b'=', b'=', ..] => {}
            [b'=', b'>', ..] => start = after_spaces(bytes, sign + 2),
            [b':' | b'=', ..] => start = after_spaces(bytes, sign + 1),
            _ => {}
        }
    }
    if bytes.get(start) == Some(&b'@') {
        start += 1;
    }
    if let Some(key) = literal(text, start) {
        let after = after_spaces(bytes, key.end + 1);
        match bytes.get(after) {
            Some(b',') => return Argument { literal: Some(key), next: Some(after + 1) },
            Some(b')') => return Argument { literal: Some(key), next: None },
            _ => {}
        }
    }
    Argument { literal: None, next: next_argument(bytes, start) }
}

/// Steps over an expression to what stands behind its comma.
fn next_argument(bytes: &[u8], start: usize) -> Option<usize> {
    let mut depth = 0_u32;
    let mut quote = None;
    for (at, &byte) in bytes.iter().enumerate().skip(start).take(ARGUMENT_BYTES_MAX) {
        match (quote, byte) {
            (Some(open), _) if byte == open || byte == b'\n' => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'' | b'`') => quote = Some(byte),
            (None, b'(' | b'[' | b'{') => depth += 1,
            (None, b')' | b']' | b'}') => depth = depth.checked_sub(1)?,
            (None, b',') if depth == 0 => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// The inside of the string literal that opens at `at`: on one line, with a letter or digit, without escapes and without
/// anything that may be filled in.
fn literal(text: &str, at: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let quote = *bytes.get(at).filter(|b| matches!(b, b'"' | b'\'' | b'`'))?;
    let length = bytes[at + 1..].iter().take(KEY_BYTES_MAX + 1).position(|&b| b == quote)?;
    let inside = &text[at + 1..at + 1 + length];
    let fine =
        inside.contains(char::is_alphanumeric) && !inside.contains(|c: char| c.is_control() || r"\${}".contains(c));
    fine.then_some(at + 1..at + 1 + length)
}
