//! A set of rows of one chunk, one bit each, and the walk over it in blocks.

/// Rows handled at a time: few enough that their columns stay in the first cache.
pub(crate) const BLOCK: usize = 2_048;

/// Row numbers below `len`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Mask {
    words: Vec<u64>,
    len: usize,
}

impl Mask {
    pub(crate) fn none(len: usize) -> Mask {
        Mask { words: vec![0; len.div_ceil(64)], len }
    }

    pub(crate) fn all(len: usize) -> Mask {
        let mut mask = Mask { words: vec![u64::MAX; len.div_ceil(64)], len };
        mask.trim();
        mask
    }

    /// The rows for which `holds`. Without branches, so that it runs as fast as the column can be read.
    pub(crate) fn of<T: Copy>(values: &[T], holds: impl Fn(T) -> bool) -> Mask {
        let word = |values: &[T]| values.iter().enumerate().fold(0, |w, (n, v)| w | u64::from(holds(*v)) << n);
        Mask { words: values.chunks(64).map(word).collect(), len: values.len() }
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

    pub(crate) fn and(mut self, other: &Mask) -> Mask {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a &= b);
        self
    }

    pub(crate) fn or(mut self, other: &Mask) -> Mask {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a |= b);
        self
    }

    pub(crate) fn not(mut self) -> Mask {
        self.words.iter_mut().for_each(|a| *a = !*a);
        self.trim();
        self
    }

    /// Those of the rows that are not in `other`.
    pub(crate) fn without(mut self, other: &Mask) -> Mask {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a &= !b);
        self
    }

    pub(crate) fn count(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Calls `act` with the rows, ascending, at most [`BLOCK`] at a time.
    pub(crate) fn blocks<E>(&self, mut act: impl FnMut(&[u32]) -> Result<(), E>) -> Result<(), E> {
        let mut rows: Vec<u32> = Vec::with_capacity(BLOCK);
        for (n, word) in self.words.iter().enumerate() {
            let base = n as u32 * 64;
            if *word == u64::MAX {
                rows.extend(base..base + 64);
            } else {
                let mut rest = *word;
                while rest != 0 {
                    rows.push(base + rest.trailing_zeros());
                    rest &= rest - 1;
                }
            }
            if rows.len() > BLOCK - 64 {
                act(&rows)?;
                rows.clear();
            }
        }
        if rows.is_empty() { Ok(()) } else { act(&rows) }
    }

    /// All rows, ascending.
    pub(crate) fn rows(&self) -> Vec<u32> {
        let mut all = Vec::with_capacity(self.count());
        let _ = self.blocks(|rows| {
            all.extend_from_slice(rows);
            Ok::<(), ()>(())
        });
        all
    }
}
