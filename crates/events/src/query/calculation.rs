//! Calculations, orders and conditions on figures, as words.

use super::QueryError;

/// One figure per group.
#[derive(Clone, Debug, PartialEq)]
pub enum Calculation {
    /// Events.
    Count,
    /// Distinct values of a field: exact up to 16,384, an estimate within 2 % above.
    CountDistinct(String),
    /// Sum of a field.
    Sum(String),
    /// Average of a field.
    Avg(String),
    /// Smallest number of a field.
    Min(String),
    /// Largest number of a field.
    Max(String),
    /// A percentile of a field, in (0, 100); within 1 % of the value.
    Percentile(f64, String),
    /// Events a second.
    Rate,
    /// Sum of a field a second.
    RateSum(String),
    /// How often a field falls into each of a row of buckets, four an octave.
    Histogram(String),
    /// A histogram for each time bucket.
    Heatmap(String),
    /// Spans in flight on average.
    Concurrency,
}

impl Calculation {
    /// Reads `count`, `sum(field)`, `p99(field)` and so on; upper case too.
    pub fn parse(text: &str) -> Result<Calculation, QueryError> {
        let wrong = || QueryError::Calculation(text.chars().take(200).collect());
        let trimmed = text.trim();
        let (name, field) = match trimmed.split_once('(') {
            Some((name, rest)) => (name.trim(), rest.strip_suffix(')').ok_or_else(wrong)?.trim()),
            None => (trimmed, ""),
        };
        let name = name.to_ascii_lowercase();
        match (name.as_str(), field) {
            ("count", "") => return Ok(Calculation::Count),
            ("rate", "") => return Ok(Calculation::Rate),
            ("concurrency", "") => return Ok(Calculation::Concurrency),
            (_, "") => return Err(wrong()),
            _ => {}
        }
        let field = field.to_owned();
        Ok(match name.as_str() {
            "count_distinct" => Calculation::CountDistinct(field),
            "sum" => Calculation::Sum(field),
            "avg" => Calculation::Avg(field),
            "min" => Calculation::Min(field),
            "max" => Calculation::Max(field),
            "rate_sum" => Calculation::RateSum(field),
            "histogram" => Calculation::Histogram(field),
            "heatmap" => Calculation::Heatmap(field),
            percentile => Calculation::Percentile(percentile_of(percentile).ok_or_else(wrong)?, field),
        })
    }

    /// Its field, if it has one.
    pub fn field(&self) -> Option<&str> {
        match self {
            Calculation::Count | Calculation::Rate | Calculation::Concurrency => None,
            Calculation::CountDistinct(f)
            | Calculation::Sum(f)
            | Calculation::Avg(f)
            | Calculation::Min(f)
            | Calculation::Max(f)
            | Calculation::RateSum(f)
            | Calculation::Histogram(f)
            | Calculation::Heatmap(f)
            | Calculation::Percentile(_, f) => Some(f),
        }
    }

    /// Its one spelling: `p99.9(duration_ms)`.
    pub fn name(&self) -> String {
        let word = match self {
            Calculation::Count => "count",
            Calculation::Rate => "rate",
            Calculation::Concurrency => "concurrency",
            Calculation::CountDistinct(_) => "count_distinct",
            Calculation::Sum(_) => "sum",
            Calculation::Avg(_) => "avg",
            Calculation::Min(_) => "min",
            Calculation::Max(_) => "max",
            Calculation::RateSum(_) => "rate_sum",
            Calculation::Histogram(_) => "histogram",
            Calculation::Heatmap(_) => "heatmap",
            Calculation::Percentile(p, field) => return format!("p{p}({field})"),
        };
        self.field().map_or(word.to_owned(), |field| format!("{word}({field})"))
    }
}

/// `p99`, `p99.9`; and `p999` and `p001` as some write 99.9 and 0.1.
fn percentile_of(word: &str) -> Option<f64> {
    let digits = word.strip_prefix('p')?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    let p: f64 = match digits.len() {
        3.. if !digits.contains('.') && (digits.starts_with("99") || digits.starts_with("00")) => {
            format!("{}.{}", &digits[..2], &digits[2..]).parse().ok()?
        }
        _ => digits.parse().ok()?,
    };
    (p > 0.0 && p < 100.0).then_some(p)
}

/// What the answer is ordered by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// A calculation, a field grouped by, or `time`; a field of raw rows.
    pub by: String,
    /// Largest first.
    pub descending: bool,
}

impl Order {
    /// Reads `count desc`, `service.name`, `-p99(duration_ms)`. Calculations are largest first, fields smallest first,
    /// unless told.
    pub fn parse(text: &str) -> Order {
        let text = text.trim();
        if let Some(by) = text.strip_prefix('-') {
            return Order { by: by.trim().to_owned(), descending: true };
        }
        if let Some((by, word)) = text.rsplit_once(char::is_whitespace) {
            if word.eq_ignore_ascii_case("asc") || word.eq_ignore_ascii_case("desc") {
                return Order { by: by.trim().to_owned(), descending: word.eq_ignore_ascii_case("desc") };
            }
        }
        Order { by: text.to_owned(), descending: Calculation::parse(text).is_ok() }
    }
}

/// How a figure is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Equal,
    NotEqual,
}

/// A condition on a figure of the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Having {
    pub(crate) figure: Calculation,
    pub(crate) sign: Sign,
    pub(crate) than: f64,
}

const SIGNS: [(&str, Sign); 7] = [
    ("<=", Sign::LessEqual),
    (">=", Sign::GreaterEqual),
    ("!=", Sign::NotEqual),
    ("==", Sign::Equal),
    ("=", Sign::Equal),
    ("<", Sign::Less),
    (">", Sign::Greater),
];

impl Having {
    /// Reads conditions joined by `and`: `count > 100 and p99(duration_ms) >= 250`.
    pub fn parse(text: &str) -> Result<Vec<Having>, QueryError> {
        split_by_and(text).map(Having::parse_one).collect()
    }

    fn parse_one(text: &str) -> Result<Having, QueryError> {
        let wrong = |reason: &str| QueryError::Having {
            text: text.trim().chars().take(200).collect(),
            reason: reason.to_owned(),
        };
        // The comparison is the last sign outside of the calculation's parentheses.
        let from = text.rfind(')').map_or(0, |end| end + 1);
        let tail = &text[from..];
        let (at, (symbol, sign)) = (0..tail.len())
            .filter(|at| tail.is_char_boundary(*at))
            .find_map(|at| {
                SIGNS.iter().find(|(symbol, _)| tail[at..].starts_with(symbol)).map(|sign| (from + at, *sign))
            })
            .ok_or_else(|| wrong("expected a calculation, one of = != < <= > >=, and a number"))?;
        let figure = Calculation::parse(&text[..at])?;
        let than = text[at + symbol.len()..].trim().parse::<f64>().ok().filter(|x| x.is_finite());
        Ok(Having { figure, sign, than: than.ok_or_else(|| wrong("expected a number after the sign"))? })
    }

    /// Whether a figure satisfies it; one that is not there does not.
    pub(crate) fn holds(&self, figure: Option<f64>) -> bool {
        let Some(x) = figure else { return false };
        match self.sign {
            Sign::Less => x < self.than,
            Sign::LessEqual => x <= self.than,
            Sign::Greater => x > self.than,
            Sign::GreaterEqual => x >= self.than,
            Sign::Equal => x == self.than,
            Sign::NotEqual => x != self.than,
        }
    }
}

/// Parts between `and`s that stand outside of parentheses.
fn split_by_and(text: &str) -> impl Iterator<Item = &str> {
    let mut parts = Vec::new();
    let (mut depth, mut from) = (0_i32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            c if c.is_whitespace() && depth == 0 => {
                let rest = &text[at + c.len_utf8()..];
                let is_and = rest.get(..3).is_some_and(|w| w.eq_ignore_ascii_case("and"))
                    && rest[3..].starts_with(char::is_whitespace);
                if is_and {
                    parts.push(&text[from..at]);
                    from = at + c.len_utf8() + 3;
                }
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts.into_iter().filter(|part| !part.trim().is_empty())
}
