//! What varies by its looks.
//!
//! | looks like | rule |
//! |---|---|
//! | number, time, address, version | a run of letters and digits that begins with a digit |
//! | hex | 8 or more hex digits, also without 0 to 9; UUIDs |
//! | id | letters with two or more digits among them: `user123`, but not `utf8` |
//! | IPv6 | hex digits with two or more colons |
//! | date | a month or a day of the week beside such a run |
//! | quoted | what stands between quotes, unless it names a field: `"key":` |
//!
//! Several such runs with nothing but `. : / - + , _` between them are one.

use crate::WILDCARD;

const WORDS_OF_DATES: [&str; 19] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Mon", "Tue", "Wed", "Thu",
    "Fri", "Sat", "Sun",
];
/// The longest field name that stays though it is quoted.
const FIELD_NAME_MAX: usize = 32;
/// Where the groups of a UUID end.
const UUID_DASHES: [usize; 4] = [8, 13, 18, 23];
const UUID_LEN: usize = 36;

/// Writes `line` to `out` with `<*>` for what varies.
pub fn mask(line: &str, out: &mut String) {
    out.clear();
    let bytes = line.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        if byte == b'"' || (byte == b'\'' && !out.ends_with(|c: char| c.is_alphanumeric())) {
            if let Some(end) = closing(bytes, at) {
                let inside = &line[at + 1..end];
                if bytes.get(end + 1) == Some(&b':') && is_field_name(inside) {
                    // With its colon: without, it would be a quoted text the next time.
                    out.push_str(&line[at..=end + 1]);
                    at = end + 2;
                } else {
                    let quote = char::from(byte);
                    out.extend([quote, '<', '*', '>', quote]);
                    at = end + 1;
                }
                continue;
            }
        }
        if line[at..].starts_with(WILDCARD) {
            wildcard(out);
            at += WILDCARD.len();
            continue;
        }
        if byte.is_ascii_alphanumeric() {
            let end = run(bytes, at);
            match varying(bytes, at, end) {
                Some(end) => {
                    wildcard(out);
                    at = end;
                }
                None => {
                    out.push_str(&line[at..end]);
                    at = end;
                }
            }
            continue;
        }
        if byte == b':' {
            if let Some(end) = address(bytes, at) {
                wildcard(out);
                at = end;
                continue;
            }
        }
        // A sign belongs to its number.
        let is_sign = matches!(byte, b'-' | b'+') && bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
        if is_sign && out.ends_with([' ', '\t', '=', '(', '[', '{', ':', ',']) {
            at += 1;
            continue;
        }
        let length = line[at..].chars().next().map_or(1, char::len_utf8);
        out.push_str(&line[at..at + length]);
        at += length;
    }
}

/// Adds a wildcard, or lets the one before stand for both.
fn wildcard(out: &mut String) {
    let joined = out.trim_end_matches(['.', ':', '/', '-', '+', ',', '_']);
    if joined.ends_with(WILDCARD) {
        let length = joined.len();
        out.truncate(length);
    } else {
        out.push_str(WILDCARD);
    }
}

/// Where a quoted text ends.
fn closing(bytes: &[u8], from: usize) -> Option<usize> {
    let quote = bytes[from];
    let mut at = from + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            // Within words it is an apostrophe; where a wildcard follows, a word may have been.
            byte if byte == quote => {
                let next = bytes.get(at + 1);
                if quote == b'"' || !next.is_some_and(|next| next.is_ascii_alphanumeric() || *next == b'<') {
                    return Some(at);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

fn is_field_name(text: &str) -> bool {
    text.len() <= FIELD_NAME_MAX
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        && text.bytes().filter(u8::is_ascii_digit).count() < 2
}

fn run(bytes: &[u8], from: usize) -> usize {
    bytes[from..].iter().position(|byte| !byte.is_ascii_alphanumeric()).map_or(bytes.len(), |length| from + length)
}

/// Where what varies ends, if the run of letters and digits does.
fn varying(bytes: &[u8], from: usize, end: usize) -> Option<usize> {
    if let Some(end) = uuid(bytes, from).or_else(|| address(bytes, from)) {
        return Some(end);
    }
    let run = &bytes[from..end];
    let digits = run.iter().filter(|byte| byte.is_ascii_digit()).count();
    let is_hex = run.len() >= 8 && run.iter().all(u8::is_ascii_hexdigit);
    (run[0].is_ascii_digit() || digits >= 2 || is_hex || is_of_date(bytes, from, end)).then_some(end)
}

fn uuid(bytes: &[u8], from: usize) -> Option<usize> {
    let text = bytes.get(from..from + UUID_LEN)?;
    let fits =
        |(at, byte): (usize, &u8)| if UUID_DASHES.contains(&at) { *byte == b'-' } else { byte.is_ascii_hexdigit() };
    let ends = bytes.get(from + UUID_LEN).is_none_or(|byte| !byte.is_ascii_alphanumeric());
    (ends && text.iter().enumerate().all(fits)).then_some(from + UUID_LEN)
}

/// Where an IPv6 or MAC address ends.
fn address(bytes: &[u8], from: usize) -> Option<usize> {
    let length = bytes[from..].iter().take(40).take_while(|byte| byte.is_ascii_hexdigit() || **byte == b':').count();
    let text = &bytes[from..from + length];
    let text = text.strip_suffix(b":").filter(|text| !text.ends_with(b":")).unwrap_or(text);
    let ends = bytes.get(from + text.len()).is_none_or(|byte| !byte.is_ascii_alphanumeric());
    let colons = text.iter().filter(|byte| **byte == b':').count();
    (ends && colons >= 2 && text.iter().any(u8::is_ascii_digit)).then_some(from + text.len())
}

/// Whether it is a month or a day of the week with a number next to it.
fn is_of_date(bytes: &[u8], from: usize, end: usize) -> bool {
    let is_word = end - from == 3 && WORDS_OF_DATES.iter().any(|word| word.as_bytes() == &bytes[from..end]);
    let after = bytes[end..].iter().take(3).find(|byte| !matches!(byte, b' ' | b',' | b'/' | b'-'));
    let is_before_another =
        || WORDS_OF_DATES.iter().any(|word| bytes[end..].starts_with(format!(" {word}").as_bytes()));
    is_word && (after.is_some_and(u8::is_ascii_digit) || is_before_another())
}
