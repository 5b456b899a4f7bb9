//! Valid files with something changed at random.

use flags::FlagSet;
use serde_json::{Value, json};

use crate::{Import, ImportError};

/// How often each document is changed; enough to meet every field some times.
const CHANGES: usize = 400;

/// A small generator of pseudo-random numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Array(items) => items.iter().enumerate().for_each(|(n, v)| places(v, &format!("{at}/{n}"), found)),
        Value::Object(map) => {
            map.iter().for_each(|(k, v)| places(v, &format!("{at}/{}", k.replace('~', "~0").replace('/', "~1")), found))
        }
        _ => {}
    }
}

/// Changes each document some hundred times and reads it: no panic, an error has a place, and the dialect takes what was read.
pub(crate) fn check(documents: &[Value], read: impl Fn(&Value) -> Result<Import, ImportError>) {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_124);
    println!("SEED={seed}");
    let mut random = Random(seed);
    for document in documents {
        let mut found = Vec::new();
        places(document, "", &mut found);
        for _ in 0..CHANGES {
            let mut damaged = document.clone();
            for _ in 0..=random.below(3) {
                let place = &found[random.below(found.len())];
                let other = &found[random.below(found.len())];
                let odd = [
                    Value::Null,
                    json!(true),
                    json!(-1),
                    json!(0),
                    json!(1e300),
                    json!(2.5),
                    json!(""),
                    json!("/"),
                    json!("\u{0}é"),
                    json!([]),
                    json!({}),
                    json!([null]),
                    json!({"$or": [{}]}),
                    json!("f"),
                    json!("s"),
                    json!("[[(a|"),
                    json!(99_999_999_999_u64),
                ];
                let mut put = odd[random.below(odd.len())].clone();
                if random.below(3) == 0 {
                    put = document.pointer(other).cloned().unwrap_or(put);
                }
                if let Some(target) = damaged.pointer_mut(place) {
                    *target = put;
                }
            }
            match read(&damaged) {
                Ok(import) => {
                    if let Err(findings) = FlagSet::parse(&import.document().to_string()) {
                        panic!("{findings:?} of {damaged}");
                    }
                }
                Err(error) => assert!(!error.reason.is_empty(), "{damaged}"),
            }
        }
    }
}
