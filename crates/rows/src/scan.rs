//! What the parsers of filters and of expressions have in common: a place in a text, words, symbols, quoted text, names.

/// A text and how far it has been read.
pub(crate) struct Scan<'a> {
    pub(crate) text: &'a str,
    pub(crate) at: usize,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(text: &'a str) -> Scan<'a> {
        Scan { text, at: 0 }
    }

    pub(crate) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub(crate) fn skip(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// The character at a byte, counted from 1, as errors name it.
    pub(crate) fn character(&self, at: usize) -> usize {
        self.text[..at.min(self.text.len())].chars().count() + 1
    }

    /// Takes a word if it stands alone here, in either case.
    pub(crate) fn word(&mut self, word: &str) -> bool {
        self.skip();
        let Some(head) = self.rest().get(..word.len()) else { return false };
        let alone = self.rest()[word.len()..].chars().next().is_none_or(|c| !is_field_char(c));
        let taken = head.eq_ignore_ascii_case(word) && alone;
        if taken {
            self.at += word.len();
        }
        taken
    }

    pub(crate) fn symbol(&mut self, symbol: &str) -> bool {
        self.skip();
        let taken = self.rest().starts_with(symbol);
        if taken {
            self.at += symbol.len();
        }
        taken
    }

    /// Takes the text between quotes that begins here; none if it does not end.
    pub(crate) fn quoted(&mut self, quote: char) -> Option<String> {
        let mut text = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((n, c)) = chars.next() {
            match c {
                '\\' => text.push(chars.next()?.1),
                c if c == quote => {
                    self.at += n + 1;
                    return Some(text);
                }
                c => text.push(c),
            }
        }
        None
    }

    /// Takes what may be the name of a field; empty if none begins here.
    pub(crate) fn name(&mut self) -> &'a str {
        let end = self.rest().find(|c| !is_field_char(c)).unwrap_or(self.rest().len());
        let name = &self.rest()[..end];
        self.at += end;
        name
    }

    /// Takes the rest of a name behind an opening backtick; none if it is empty or does not end.
    pub(crate) fn backticked(&mut self) -> Option<&'a str> {
        let end = self.rest().find('`').filter(|end| *end > 0)?;
        let name = &self.rest()[..end];
        self.at += end + 1;
        Some(name)
    }
}

/// What a field's name may hold without backticks.
pub(crate) fn is_field_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '$')
}
