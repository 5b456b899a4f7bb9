//! GrowthBook's order of versions, as regular expressions.
//!
//! GrowthBook turns a version into text that sorts: it drops a leading `v` and everything from a `+` on, cuts at dots and hyphens, adds
//! `~` if that makes three parts, pads numbers with blanks to five signs and joins the parts with hyphens. That is semantic
//! versioning for whole versions; but `1.2` is less than `1.2.0`, there may be any number of parts, and nothing at all is version 0.
//! So "less than 1.2.3" is a regular expression over the attribute's text: the same parts up to one that is less.

use serde_json::{Value, json};

use super::condition::Operand;
use super::logic;
use crate::launchdarkly::form::{self, all, any, not};

/// The longest number that is padded.
const PADDED: usize = 5;
/// Any sign within a part.
const SIGN: &str = "[^-.+]";
/// Between parts.
const CUT: &str = "[-.]";

/// Which versions match `op` (`$veq`, `$vlt` …) with `expected`; none if its parts have signs whose order is not provided for.
pub(super) fn compare(operand: &Operand, op: &str, expected: &Value) -> Option<Value> {
    let version = Version::read(expected)?;
    let (less, equal) = (version.less(), version.equal());
    let attr = &operand.attr;
    // What is neither text nor a number counts as version 0, and so does no text.
    let is_some = operand.logic(logic::is_text_or_number(&operand.var));
    let nothing = || any([not(is_some.clone()), json!({"attr": attr, "op": "equals", "values": [""]})]);
    let with_nothing = |expression: &str| {
        let matches = json!({"attr": attr, "op": "matches", "as": "text", "values": [expression]});
        let zero = json!({"attr": "v", "op": "matches", "values": [expression]});
        let zero = form::holds(&zero, json!({"v": "0"}));
        any([all([is_some.clone(), matches]), if zero { nothing() } else { form::NO }])
    };
    Some(match op {
        "$veq" => with_nothing(&equal),
        "$vne" => not(with_nothing(&equal)),
        "$vlt" => with_nothing(&less),
        "$vlte" => any([with_nothing(&less), with_nothing(&equal)]),
        "$vgt" => not(any([with_nothing(&less), with_nothing(&equal)])),
        "$vgte" => not(with_nothing(&less)),
        _ => return None,
    })
}

#[derive(Debug)]
struct Version {
    parts: Vec<String>,
}

impl Version {
    fn read(value: &Value) -> Option<Version> {
        let text = match value {
            Value::String(text) if !text.is_empty() => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => "0".to_owned(),
        };
        let text = text.strip_prefix('v').unwrap_or(&text);
        let text = text.split('+').next().unwrap_or_default();
        let parts: Vec<String> = text.split(['-', '.']).map(str::to_owned).collect();
        let plain = |part: &String| {
            let number = part.bytes().all(|b| b.is_ascii_digit());
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric()) && !(number && part.len() > PADDED)
        };
        parts.iter().all(plain).then_some(Version { parts })
    }

    fn whole(expression: &str) -> String {
        format!("(?s)^v?(?:{expression})(?:\\+.*)?$")
    }

    fn equal(&self) -> String {
        Version::whole(&self.parts.join(CUT))
    }

    fn less(&self) -> String {
        let mut ways = Vec::new();
        for (n, part) in self.parts.iter().enumerate() {
            let before: String = self.parts[..n].iter().map(|part| format!("{part}{CUT}")).collect();
            // The same so far, and then nothing more. Three parts do not end there but with a `~`.
            if n > 0 && n != 3 {
                ways.push(self.parts[..n].join(CUT));
            }
            ways.push(format!("{before}(?:{})(?:{CUT}[^+]*)?", lesser(part)));
            // A cut at the very end: an empty part, which is the beginning of every other. As a third part it gets a `~`
            // behind it, and the hyphen between sorts after blanks, but before digits.
            let full = part.len() == PADDED && part.bytes().all(|b| b.is_ascii_digit());
            if full {
                ways.push(format!("{before}{CUT}[^+]*"));
            }
            if n > 0 && (n != 2 || full) {
                ways.push(before);
            }
        }
        if self.parts.len() == 3 {
            // A fourth part is less than the `~` that this version has there.
            let before: String = self.parts.iter().map(|part| format!("{part}{CUT}")).collect();
            ways.push(format!("{before}(?:[\\x00-*,/-\\x7d][^+]*)?"));
        }
        Version::whole(&ways.join("|"))
    }
}

/// Parts that sort before this one.
fn lesser(part: &str) -> String {
    let number = part.bytes().all(|b| b.is_ascii_digit());
    let mut ways = Vec::new();
    if number {
        // Blanks sort before digits, so of two numbers the shorter is less.
        if part.len() > 1 {
            ways.push(format!("[0-9]{{1,{}}}", part.len() - 1));
        }
        for (n, digit) in part.bytes().enumerate().filter(|(_, digit)| *digit > b'0') {
            let rest = part.len() - n - 1;
            let rest = if part.len() == PADDED { format!("{{{rest},}}") } else { format!("{{{rest}}}") };
            ways.push(format!("{}[0-{}][0-9]{rest}", &part[..n], char::from(digit - 1)));
        }
    } else {
        // A padded number begins with a blank. Five digits do not, and count as text.
        ways.push(format!("[0-9]{{1,{}}}", PADDED - 1));
        for (n, sign) in part.char_indices() {
            let end = char::from(sign as u8 - 1);
            let below = if end < '/' { "[\\x00-*,]".to_owned() } else { format!("[\\x00-*,/-{}]", form_sign(end)) };
            ways.push(format!("{}{below}{SIGN}*", &part[..n]));
            // The beginning of it; what follows is a hyphen, which sorts before letters and digits.
            ways.push(part[..n].to_owned());
        }
    }
    if ways.is_empty() { "[^\\x00-\\x{10ffff}]".to_owned() } else { ways.join("|") }
}

/// A sign inside a class.
fn form_sign(sign: char) -> String {
    format!("\\x{{{:x}}}", u32::from(sign))
}
