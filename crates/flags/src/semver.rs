//! The `sem_ver` operator, with flagd's rules: a leading `v` is dropped, partial versions are padded with zeros, build
//! metadata is ignored, `^` compares the major and `~` the major and minor only. Anything else is no version.

use std::cmp::Ordering;

struct Version<'a> {
    numbers: [u64; 3],
    pre: &'a str,
}

fn parse(text: &str) -> Option<Version<'_>> {
    let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
    let text = text.split('+').next()?;
    let (release, pre) = text.split_once('-').map_or((text, ""), |(release, pre)| (release, pre));
    if text.contains('-') && pre.is_empty() {
        return None;
    }
    let mut numbers = [0; 3];
    let mut parts = release.split('.');
    for (place, number) in numbers.iter_mut().enumerate() {
        let Some(part) = parts.next() else {
            if place == 0 {
                return None;
            }
            break;
        };
        let leading_zero = part.len() > 1 && part.starts_with('0');
        if part.is_empty() || leading_zero || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    if parts.next().is_some() {
        return None;
    }
    Some(Version { numbers, pre })
}

/// Precedence of pre-releases (Semantic Versioning 2.0.0, item 11).
fn compare_pre(a: &str, b: &str) -> Ordering {
    match (a.is_empty(), b.is_empty()) {
        (true, true) => return Ordering::Equal,
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        (false, false) => {}
    }
    let (mut left, mut right) = (a.split('.'), b.split('.'));
    loop {
        let order = match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(x), Some(y)) => match (x.parse::<u64>(), y.parse::<u64>()) {
                (Ok(x), Ok(y)) => x.cmp(&y),
                (Ok(_), Err(_)) => Ordering::Less,
                (Err(_), Ok(_)) => Ordering::Greater,
                (Err(_), Err(_)) => x.cmp(y),
            },
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// Whether this is a version.
pub(crate) fn is_version(text: &str) -> bool {
    parse(text).is_some()
}

/// Whether `left operator right`; none if a version or the operator is not one.
pub(crate) fn compare(left: &str, operator: &str, right: &str) -> Option<bool> {
    let (a, b) = (parse(left)?, parse(right)?);
    let order = a.numbers.cmp(&b.numbers).then_with(|| compare_pre(a.pre, b.pre));
    Some(match operator {
        "=" => order == Ordering::Equal,
        "!=" => order != Ordering::Equal,
        "<" => order == Ordering::Less,
        "<=" => order != Ordering::Greater,
        ">" => order == Ordering::Greater,
        ">=" => order != Ordering::Less,
        "^" => a.numbers[0] == b.numbers[0],
        "~" => a.numbers[..2] == b.numbers[..2],
        _ => return None,
    })
}
