//! The kinds of lines of each service.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::{LINE_BYTES_MAX, WILDCARD, mask};

/// Kinds of lines of one service. An ordinary one has some hundred; whoever has more writes lines that no template fits.
const KINDS_MAX: usize = 5_000;
/// Services.
const SERVICES_MAX: usize = 200;
/// Kinds of all services: with about half a kilobyte each, some 15 MB.
const ALL_KINDS_MAX: usize = 30_000;
/// Words of a line that count; the rest is one word.
const WORDS_MAX: usize = 64;
/// First words for one number of words that are told apart; further ones are taken for a variable.
const FIRST_WORDS_MAX: usize = 64;
/// Kinds with the same number of words and the same first word.
const LEAF_MAX: usize = 64;
/// With so many, their words are taken for variables more readily.
const LEAF_CROWDED: usize = 12;
/// The part of a kind's words that a line must share with it, in hundredths; and where kinds crowd.
const SHARED: (usize, usize) = (75, 50);
/// The part of the words of its first line that a kind keeps for ever, in hundredths: else it would end as nothing but variables, and
/// swallow every line of that length.
const KEPT: usize = 50;

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// The template.
    pub text: &'a str,
    /// The same for as long as the kind is kept, also when its text grows more general.
    pub id: u64,
}

/// The kinds of lines seen so far.
#[derive(Debug, Default)]
pub struct Templates {
    services: HashMap<String, Service>,
    /// Counts lines, for what was seen least recently.
    clock: u64,
    kinds: usize,
    masked: String,
    words: Vec<(u64, usize)>,
}

#[derive(Debug, Default)]
struct Service {
    /// By number of words and hash of the first word; 0 is any.
    leaves: HashMap<(usize, u64), Vec<Kind>>,
    /// First words by number of words.
    first_words: HashMap<usize, usize>,
    kinds: usize,
    seen: u64,
}

#[derive(Debug)]
struct Kind {
    id: u64,
    text: String,
    /// Its words: hash, 0 is a variable; where it ends in the text.
    words: Vec<(u64, usize)>,
    /// Words of its first line that do not vary by their looks.
    fixed_first: usize,
    seen: u64,
}

/// A kind as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    service: String,
    id: u64,
    /// With the blanks before each.
    words: Vec<String>,
    fixed_first: usize,
    /// Whether it is kept where any first word goes.
    any_first: bool,
}

/// Splits a masked line into words; what follows `=` is a word of its own. Each is its hash, and where it ends; 0 is a variable.
fn split(masked: &str, words: &mut Vec<(u64, usize)>) {
    words.clear();
    let bytes = masked.as_bytes();
    let mut from = 0;
    while from < bytes.len() {
        let begins = bytes[from..].iter().position(|b| *b != b' ').map_or(bytes.len(), |n| from + n);
        let ends = |at: usize| bytes[at] == b' ' || (at > begins && bytes[at - 1] == b'=');
        let mut end = (begins + 1..bytes.len()).find(|at| ends(*at)).unwrap_or(bytes.len()).max(begins);
        if words.len() + 1 == WORDS_MAX {
            end = bytes.len();
        }
        let word = &masked[begins..end];
        words.push((hash(word), end));
        from = end;
    }
}

/// Never 0 but for what is nothing but a variable.
fn hash(word: &str) -> u64 {
    if word == WILDCARD { 0 } else { xxh3_64(word.as_bytes()).max(1) }
}

fn id_of(service: &str, masked: &str) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(service.as_bytes());
    hash.update(&[0xff]);
    hash.update(masked.as_bytes());
    hash.digest()
}

impl Kind {
    /// How many words a line shares with it, if they are enough.
    fn shared(&self, words: &[(u64, usize)], crowded: bool) -> Option<usize> {
        let fixed = self.words.iter().filter(|(word, _)| *word != 0).count();
        let same = self.words.iter().zip(words).filter(|((own, _), (word, _))| *own != 0 && own == word);
        let shared = same.count();
        let part = if crowded { SHARED.1 } else { SHARED.0 };
        let enough = shared * 100 >= fixed * part && shared * 100 >= self.fixed_first * KEPT;
        enough.then_some(shared)
    }

    /// Words that differ become variables.
    fn join(&mut self, masked: &str, words: &[(u64, usize)]) {
        if self.words.iter().zip(words).all(|((own, _), (word, _))| *own == 0 || own == word) {
            return;
        }
        let (mut text, mut from) = (String::with_capacity(self.text.len()), 0);
        for ((own, own_end), (word, end)) in self.words.iter_mut().zip(words) {
            let part = &masked[from..*end];
            if own == word {
                text.push_str(part);
            } else {
                *own = 0;
                text.push_str(&part[..part.len() - part.trim_start_matches(' ').len()]);
                text.push_str(WILDCARD);
            }
            (*own_end, from) = (text.len(), *end);
        }
        self.text = text;
    }

    /// Its words as text, with the blanks before each.
    fn parts(&self) -> Vec<String> {
        let mut from = 0;
        let part = |(_, end): &(u64, usize)| self.text[std::mem::replace(&mut from, *end)..*end].to_owned();
        self.words.iter().map(part).collect()
    }
}

impl Templates {
    /// The template of a line that a service logged; the line counts as seen.
    pub fn template(&mut self, service: &str, line: &str) -> Found<'_> {
        self.clock += 1;
        let line = line.trim_start().lines().next().unwrap_or_default();
        let mut length = line.len().min(LINE_BYTES_MAX);
        while !line.is_char_boundary(length) {
            length -= 1;
        }
        let mut masked = std::mem::take(&mut self.masked);
        let mut words = std::mem::take(&mut self.words);
        mask(line[..length].trim_end(), &mut masked);
        split(&masked, &mut words);
        self.make_room(service);
        let (clock, before) = (self.clock, self.kinds);
        if !self.services.contains_key(service) {
            self.services.insert(service.to_owned(), Service::default());
        }
        let Some(of_service) = self.services.get_mut(service) else { return Found { text: "", id: 0 } };
        of_service.seen = clock;
        let kinds = of_service.kinds;
        let key = of_service.leaf(&words);
        let leaf = of_service.leaves.entry(key).or_default();
        let crowded = leaf.len() >= LEAF_CROWDED;
        let best = leaf
            .iter()
            .enumerate()
            .filter_map(|(place, kind)| Some((kind.shared(&words, crowded)?, std::cmp::Reverse(place))))
            .max()
            .map(|(_, std::cmp::Reverse(place))| place);
        let (place, grown) = match best {
            Some(place) => {
                leaf[place].join(&masked, &words);
                (place, 0)
            }
            None => {
                let is_full = leaf.len() >= LEAF_MAX;
                if is_full {
                    let oldest =
                        leaf.iter().enumerate().min_by_key(|(_, kind)| kind.seen).map_or(0, |(place, _)| place);
                    leaf.remove(oldest);
                }
                leaf.push(Kind {
                    id: id_of(service, &masked),
                    text: masked.clone(),
                    words: words.clone(),
                    fixed_first: words.iter().filter(|(word, _)| *word != 0).count(),
                    seen: clock,
                });
                (leaf.len() - 1, usize::from(!is_full))
            }
        };
        (of_service.kinds, self.kinds) = (kinds + grown, before + grown);
        (self.masked, self.words) = (masked, words);
        let kind =
            self.services.get_mut(service).and_then(|of| of.leaves.get_mut(&key)).and_then(|of| of.get_mut(place));
        let Some(kind) = kind else { return Found { text: "", id: 0 } };
        kind.seen = clock;
        Found { text: &kind.text, id: kind.id }
    }

    /// How many kinds of lines are kept.
    pub fn len(&self) -> usize {
        self.kinds
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.kinds == 0
    }

    /// Lets the least recently seen go where there are too many, a tenth at once so that it is done seldom.
    fn make_room(&mut self, service: &str) {
        let is_full = self.services.get(service).is_some_and(|of| of.kinds >= KINDS_MAX);
        if is_full {
            if let Some(of) = self.services.get_mut(service) {
                self.kinds -= of.forget(KINDS_MAX / 10);
            }
        }
        let is_new = !self.services.contains_key(service);
        if self.kinds >= ALL_KINDS_MAX || (is_new && self.services.len() >= SERVICES_MAX) {
            let others = self.services.iter().filter(|(name, _)| *name != service);
            let oldest = others.min_by_key(|(_, of)| of.seen).map(|(name, _)| name.clone());
            if let Some(of) = oldest.and_then(|name| self.services.remove(&name)) {
                self.kinds -= of.kinds;
            }
        }
    }

    /// What there is to write down, least recently seen first, so that a restart changes no template.
    pub fn kept(&self) -> Vec<Kept> {
        let mut all: Vec<(u64, u64, Kept)> = Vec::with_capacity(self.kinds);
        for (service, of) in &self.services {
            for (key, leaf) in &of.leaves {
                for (place, kind) in leaf.iter().enumerate() {
                    let kept = Kept {
                        service: service.clone(),
                        id: kind.id,
                        words: kind.parts(),
                        fixed_first: kind.fixed_first,
                        any_first: key.1 == 0,
                    };
                    // Of one leaf in order: of two that fit equally well the first is taken.
                    all.push((leaf.iter().map(|kind| kind.seen).max().unwrap_or(0), place as u64, kept));
                }
            }
        }
        all.sort_by_key(|(seen, place, _)| (*seen, *place));
        all.into_iter().map(|(_, _, kept)| kept).collect()
    }

    /// From what was written down. What is more than there is room for is left out.
    pub fn restored(kept: Vec<Kept>) -> Templates {
        let mut templates = Templates::default();
        for kept in kept {
            templates.clock += 1;
            templates.make_room(&kept.service);
            let mut text = String::new();
            let word = |word: &String| {
                text.push_str(word);
                (hash(word.trim_start_matches(' ')), text.len())
            };
            let words: Vec<(u64, usize)> = kept.words.iter().map(word).collect();
            let of = templates.services.entry(kept.service).or_default();
            let first = words.first().map_or(0, |(word, _)| *word);
            let key = (words.len(), if kept.any_first { 0 } else { first });
            if !of.leaves.contains_key(&key) && key.1 != 0 {
                *of.first_words.entry(key.0).or_default() += 1;
            }
            let leaf = of.leaves.entry(key).or_default();
            if leaf.len() >= LEAF_MAX {
                continue;
            }
            let seen = templates.clock;
            leaf.push(Kind { id: kept.id, text, words, fixed_first: kept.fixed_first, seen });
            (of.seen, of.kinds, templates.kinds) = (seen, of.kinds + 1, templates.kinds + 1);
        }
        templates
    }
}

impl Service {
    /// Where the kinds of such lines are.
    fn leaf(&mut self, words: &[(u64, usize)]) -> (usize, u64) {
        let key = (words.len(), words.first().map_or(0, |(word, _)| *word));
        if key.1 == 0 || self.leaves.contains_key(&key) {
            return key;
        }
        let known = self.first_words.entry(key.0).or_default();
        if *known >= FIRST_WORDS_MAX {
            return (key.0, 0);
        }
        *known += 1;
        key
    }

    /// Forgets the kinds seen least recently; says how many.
    fn forget(&mut self, n: usize) -> usize {
        let mut seen: Vec<u64> = self.leaves.values().flatten().map(|kind| kind.seen).collect();
        seen.sort_unstable();
        let Some(last) = seen.get(n.saturating_sub(1)).copied() else { return 0 };
        let before = self.kinds;
        self.leaves.values_mut().for_each(|leaf| leaf.retain(|kind| kind.seen > last));
        self.leaves.retain(|_, leaf| !leaf.is_empty());
        self.first_words.clear();
        for (length, first) in self.leaves.keys() {
            *self.first_words.entry(*length).or_default() += usize::from(*first != 0);
        }
        self.kinds = self.leaves.values().map(Vec::len).sum();
        before - self.kinds
    }
}
