//! Flags in one text. Pure: a text in, references out.
//!
//! A reference is one of three. *Call*: the key is the literal in a call that evaluates flags ([`Calls`]) or the group of a
//! pattern of the user's; only these can name a flag that does not exist. *String*: a known key is a whole quoted string.
//! *Word*: a known key stands alone, with nothing of its own kind on either side, so `new-player` is not in `new-player-2`
//! and `a.b` is not in `a.b.c`. Of two keys that begin at one place the longer counts.

use std::collections::HashMap;
use std::ops::Range;

use regex::Regex;

use super::calls::{Calls, KEY_BYTES_MAX};

/// How the text names a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// In a call, as the table has it.
    Call(&'static str),
    /// By a pattern of the user's.
    Pattern,
    /// A whole quoted string.
    Quoted,
    /// A word.
    Word,
}

/// Which flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'t> {
    /// The place of a known key.
    Known(usize),
    /// A key that is not among them.
    Unknown(&'t str),
}

/// One reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference<'t> {
    /// The flag.
    pub key: Key<'t>,
    /// From 1.
    pub line: usize,
    /// How it is named.
    pub how: How,
}

/// What is looked for.
#[derive(Debug)]
pub struct Scanner {
    /// Sorted, no duplicates.
    keys: Vec<String>,
    /// Places of keys by the run of word characters they begin with, longest key first.
    heads: HashMap<String, Vec<usize>>,
    /// Places of keys that begin with something else: found as whole strings only.
    odd: Vec<usize>,
    calls: Calls,
    patterns: Vec<Regex>,
}

impl Scanner {
    /// Each pattern has one group.
    pub fn new(keys: impl IntoIterator<Item = String>, patterns: Vec<Regex>) -> Scanner {
        let mut keys: Vec<String> = keys.into_iter().collect();
        keys.sort_unstable();
        keys.dedup();
        let mut heads: HashMap<String, Vec<usize>> = HashMap::new();
        let mut odd = Vec::new();
        for (n, key) in keys.iter().enumerate() {
            match word(key.as_bytes(), 0) {
                0 => odd.push(n),
                length => heads.entry(key[..length].to_owned()).or_default().push(n),
            }
        }
        for places in heads.values_mut().chain([&mut odd]) {
            places.sort_by_key(|&n| std::cmp::Reverse(keys[n].len()));
        }
        Scanner { keys, heads, odd, calls: Calls::default(), patterns }
    }

    /// Sorted, no duplicates.
    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    /// All references, in the order of the text.
    pub fn scan<'t>(&self, text: &'t str) -> Vec<Reference<'t>> {
        let mut found = self.evaluated(text);
        let n_calls = found.len();
        for (range, key) in self.named(text) {
            // The calls are in order and do not overlap each other.
            let call = found[..n_calls].partition_point(|(call, ..)| call.end <= range.start);
            if call < n_calls && found[call].0.start < range.end {
                continue;
            }
            let how = if quoted(text.as_bytes(), &range) { How::Quoted } else { How::Word };
            found.push((range, Key::Known(key), how));
        }
        found.sort_by_key(|(range, ..)| range.start);
        let (mut line, mut at) = (1, 0);
        found
            .into_iter()
            .map(|(range, key, how)| {
                line += text.as_bytes()[at..range.start].iter().filter(|&&b| b == b'\n').count();
                at = range.start;
                Reference { key, line, how }
            })
            .collect()
    }

    /// Keys in calls and patterns, in order, none over another.
    fn evaluated<'t>(&self, text: &'t str) -> Vec<(Range<usize>, Key<'t>, How)> {
        let mut ranges: Vec<(Range<usize>, How)> =
            self.calls.find(text).into_iter().map(|call| (call.key, How::Call(call.name))).collect();
        for pattern in &self.patterns {
            let groups = pattern.captures_iter(text).filter_map(|captures| captures.get(1));
            let keys = groups.filter(|group| {
                let key = group.as_str();
                (1..=KEY_BYTES_MAX).contains(&key.len()) && !key.contains(char::is_control)
            });
            ranges.extend(keys.map(|group| (group.range(), How::Pattern)));
        }
        // Stable: where both found the same, the call counts.
        ranges.sort_by_key(|(range, _)| range.start);
        let mut end = 0;
        ranges.retain(|(range, _)| {
            let free = range.start >= end;
            end = if free { range.end } else { end };
            free
        });
        let known = |key: &'t str| match self.keys.binary_search_by(|k| k.as_str().cmp(key)) {
            Ok(n) => Key::Known(n),
            Err(_) => Key::Unknown(key),
        };
        ranges.into_iter().map(|(range, how)| (range.clone(), known(&text[range]), how)).collect()
    }

    /// Known keys that stand alone, in order.
    fn named(&self, text: &str) -> Vec<(Range<usize>, usize)> {
        let bytes = text.as_bytes();
        let mut found = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let length = word(bytes, at);
            let (step, places) = match length {
                0 if is_quote(bytes[at]) => (1, self.odd.as_slice()),
                0 => (1, [].as_slice()),
                _ => (length, self.heads.get(&text[at..at + length]).map_or([].as_slice(), Vec::as_slice)),
            };
            // An odd key stands behind the quote.
            let start = if length == 0 { at + 1 } else { at };
            match places.iter().find(|&&n| stands_alone(bytes, start, self.keys[n].as_bytes())) {
                Some(&n) => {
                    at = start + self.keys[n].len();
                    found.push((start..at, n));
                }
                None => at += step,
            }
        }
        found
    }
}

/// Letters, digits, `_`, `-` and everything outside ASCII, so that a run never ends inside a character.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') || !byte.is_ascii()
}

fn is_quote(byte: u8) -> bool {
    matches!(byte, b'"' | b'\'' | b'`')
}

/// How long the run of word characters at `at` is.
fn word(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().take_while(|b| is_word(**b)).count()
}

fn quoted(bytes: &[u8], range: &Range<usize>) -> bool {
    let open = range.start.checked_sub(1).map(|at| bytes[at]).filter(|b| is_quote(*b));
    open.is_some() && open == bytes.get(range.end).copied()
}

/// Whether `key` is at `at` and neither side goes on: with a word character, or with a sign of the key that a word follows.
fn stands_alone(bytes: &[u8], at: usize, key: &[u8]) -> bool {
    if !bytes.get(at..).is_some_and(|rest| rest.starts_with(key)) {
        return false;
    }
    let end = at + key.len();
    if quoted(bytes, &(at..end)) {
        return true;
    }
    let is_whole_word = |b: Option<&u8>| b.is_some_and(|b| is_word(*b));
    if !is_whole_word(key.first()) || !is_whole_word(key.last()) {
        return false;
    }
    let (before, after) = (&bytes[..at], &bytes[end..]);
    let goes_on = |sign: Option<&u8>, beyond: Option<&u8>| match sign {
        Some(sign) if is_word(*sign) => true,
        Some(sign) => key.contains(sign) && is_whole_word(beyond),
        None => false,
    };
    !goes_on(before.last(), before.iter().nth_back(1)) && !goes_on(after.first(), after.get(1))
}
