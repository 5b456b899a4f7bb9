//! A set of row numbers, one bit each.

/// Row numbers below `len`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bits {
    words: Vec<u64>,
    len: usize,
}

impl Bits {
    pub(crate) fn none(len: usize) -> Bits {
        Bits { words: vec![0; len.div_ceil(64)], len }
    }

    pub(crate) fn all(len: usize) -> Bits {
        let mut bits = Bits { words: vec![u64::MAX; len.div_ceil(64)], len };
        bits.trim();
        bits
    }

    fn trim(&mut self) {
        if !self.len.is_multiple_of(64) {
            if let Some(last) = self.words.last_mut() {
                *last &= (1 << (self.len % 64)) - 1;
            }
        }
    }

    pub(crate) fn set(&mut self, row: usize) {
        self.words[row / 64] |= 1 << (row % 64);
    }

    /// Adds the rows for which `holds`; a word at a time, so that the loop stays in registers.
    pub(crate) fn set_where(&mut self, holds: impl Fn(usize) -> bool) {
        let len = self.len;
        for (n, word) in self.words.iter_mut().enumerate() {
            let start = n * 64;
            let mut bits = 0_u64;
            for bit in 0..64.min(len - start) {
                bits |= u64::from(holds(start + bit)) << bit;
            }
            *word |= bits;
        }
    }

    pub(crate) fn has(&self, row: usize) -> bool {
        self.words[row / 64] >> (row % 64) & 1 == 1
    }

    pub(crate) fn and(mut self, other: Bits) -> Bits {
        self.words.iter_mut().zip(other.words).for_each(|(a, b)| *a &= b);
        self
    }

    pub(crate) fn or(mut self, other: Bits) -> Bits {
        self.words.iter_mut().zip(other.words).for_each(|(a, b)| *a |= b);
        self
    }

    pub(crate) fn not(mut self) -> Bits {
        self.words.iter_mut().for_each(|a| *a = !*a);
        self.trim();
        self
    }

    pub(crate) fn count(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(n, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                if rest == 0 {
                    return None;
                }
                let bit = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                Some(n * 64 + bit)
            })
        })
    }
}
