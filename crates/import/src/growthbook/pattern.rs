//! Regular expressions of other engines, said in the dialect's (that of Rust's `regex`), which reads some signs otherwise: `\d` and
//! its like mean ASCII there, a `.` stops at other line ends, and inside a class `[`, `&` and `~` are plain signs.
//!
//! What the dialect has no form for (look-around, back references) is [`Untranslatable::Unsupported`], what no engine reads
//! [`Untranslatable::Broken`].

use serde_json::json;

use crate::launchdarkly::form;

/// Whose expression it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    /// RE2, as Go has it.
    Go,
    /// JavaScript's, without flags.
    JavaScript,
}

/// Why an expression has no form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Untranslatable {
    /// No engine reads it.
    Broken,
    /// The other engine may read it, the dialect cannot.
    Unsupported,
}

/// What both engines refuse, in the words of ours.
const BROKEN: [&str; 6] = [
    "unclosed group",
    "unopened group",
    "unclosed character class",
    "repetition operator missing expression",
    "invalid repetition count range",
    "invalid character class range",
];

/// The expression in the dialect's form, tried.
pub(crate) fn translate(text: &str, engine: Engine, ignore_case: bool) -> Result<String, Untranslatable> {
    let translated = Translation { rest: text.chars().peekable(), out: String::new(), engine }.run()?;
    let translated = if ignore_case { format!("(?i){translated}") } else { translated };
    match form::refusal(&json!({"attr": "text", "op": "matches", "values": [translated]})) {
        None => Ok(translated),
        Some(reason) if BROKEN.iter().any(|broken| reason.contains(broken)) => Err(Untranslatable::Broken),
        Some(_) => Err(Untranslatable::Unsupported),
    }
}

struct Translation<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    out: String,
    engine: Engine,
}

impl Translation<'_> {
    fn run(mut self) -> Result<String, Untranslatable> {
        while let Some(c) = self.rest.next() {
            match c {
                '\\' => self.escape()?,
                '[' => self.class()?,
                '(' => self.group()?,
                '{' => self.brace(),
                '}' | ']' => self.out.extend(['\\', c]),
                '.' if self.engine == Engine::JavaScript => self.out.push_str("[^\\n\\r\\u{2028}\\u{2029}]"),
                c => self.out.push(c),
            }
        }
        Ok(self.out)
    }

    /// What `\s` stands for, to be put into a class.
    fn space(&self) -> &'static str {
        match self.engine {
            Engine::Go => "\\t\\n\\x0c\\r ",
            Engine::JavaScript => {
                "\\t\\n\\x0b\\x0c\\r \\u{a0}\\u{1680}\\u{2000}-\\u{200a}\\u{2028}\\u{2029}\\u{202f}\\u{205f}\\u{3000}\\u{feff}"
            }
        }
    }

    /// The members of a short class; none if `c` is not one.
    fn members(&self, c: char) -> Option<&'static str> {
        Some(match c.to_ascii_lowercase() {
            'd' => "0-9",
            'w' => "0-9A-Za-z_",
            's' => self.space(),
            _ => return None,
        })
    }

    fn escape(&mut self) -> Result<(), Untranslatable> {
        let c = self.rest.next().ok_or(Untranslatable::Broken)?;
        if let Some(members) = self.members(c) {
            let negated = if c.is_ascii_uppercase() { "^" } else { "" };
            self.out.push_str(&format!("[{negated}{members}]"));
            return Ok(());
        }
        match c {
            'b' => self.out.push_str("(?-u:\\b)"),
            '1'..='9' => return Err(Untranslatable::Unsupported),
            '0' if self.engine == Engine::JavaScript => self.out.push_str("\\x00"),
            'Q' if self.engine == Engine::Go => self.quoted(),
            // Rust's own word boundaries.
            '<' | '>' => self.out.push(c),
            c => self.out.extend(['\\', c]),
        }
        Ok(())
    }

    /// Everything up to `\E` stands for itself.
    fn quoted(&mut self) {
        while let Some(c) = self.rest.next() {
            if c == '\\' && self.rest.peek() == Some(&'E') {
                self.rest.next();
                return;
            }
            if c.is_ascii_punctuation() && !matches!(c, '<' | '>') {
                self.out.push('\\');
            }
            self.out.push(c);
        }
    }

    fn group(&mut self) -> Result<(), Untranslatable> {
        let mut ahead = self.rest.clone();
        let signs: String = ahead.by_ref().take(3).collect();
        if ["?=", "?!", "?<=", "?<!"].iter().any(|look| signs.starts_with(look)) {
            return Err(Untranslatable::Unsupported);
        }
        self.out.push('(');
        Ok(())
    }

    /// A brace that repeats nothing is a plain sign.
    fn brace(&mut self) {
        let inside: String = self.rest.clone().take_while(|c| *c != '}').collect();
        let closed = self.rest.clone().nth(inside.chars().count()) == Some('}');
        let (least, most) = inside.split_once(',').unwrap_or((&inside, ""));
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if closed && !least.is_empty() && digits(least) && digits(most) {
            self.out.push_str(&format!("{{{inside}}}"));
            self.rest.nth(inside.chars().count());
        } else {
            self.out.push_str("\\{");
        }
    }

    fn class(&mut self) -> Result<(), Untranslatable> {
        let negated = self.rest.next_if_eq(&'^').is_some();
        if self.engine == Engine::JavaScript && self.rest.next_if_eq(&']').is_some() {
            self.out.push_str(if negated { "(?s:.)" } else { "[^\\x00-\\u{10ffff}]" });
            return Ok(());
        }
        self.out.push_str(if negated { "[^" } else { "[" });
        let mut first = true;
        loop {
            let c = self.rest.next().ok_or(Untranslatable::Broken)?;
            match c {
                ']' if !first => break,
                ']' | '&' | '~' => self.out.extend(['\\', c]),
                '[' if self.engine == Engine::Go && self.rest.peek() == Some(&':') => {
                    // [:alpha:], which both engines have.
                    self.out.push('[');
                    for c in self.rest.by_ref() {
                        self.out.push(c);
                        if c == ']' {
                            break;
                        }
                    }
                }
                '[' => self.out.push_str("\\["),
                '\\' => {
                    let c = self.rest.next().ok_or(Untranslatable::Broken)?;
                    match self.members(c) {
                        Some(members) if c.is_ascii_lowercase() => self.out.push_str(members),
                        Some(members) => self.out.push_str(&format!("[^{members}]")),
                        None if c == 'b' => self.out.push_str("\\x08"),
                        None if matches!(c, '<' | '>') => self.out.push(c),
                        None if c == '0' && self.engine == Engine::JavaScript => self.out.push_str("\\x00"),
                        None => self.out.extend(['\\', c]),
                    }
                }
                c => self.out.push(c),
            }
            first = false;
        }
        self.out.push(']');
        Ok(())
    }
}
