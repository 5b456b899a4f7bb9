#![allow(clippy::disallowed_methods)] // Seeds are files.

use std::path::Path;

use crate::TARGETS;

/// Guarantees: readers of outside bytes and the evaluator keep their promises on random bytes, with the compiler of the day.
#[test]
fn random_bytes() {
    for (_, target) in TARGETS {
        arbtest::arbtest(|u| {
            let data = u.bytes(u.len())?;
            target(data);
            Ok(())
        })
        .size_max(8 << 10);
    }
}

/// Guarantees: what a fuzz target once found stays found.
#[test]
fn seeds() {
    for (name, target) in TARGETS {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(name);
        let mut seeds: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        seeds.sort();
        assert!(!seeds.is_empty(), "no seeds in {}", dir.display());
        for seed in seeds {
            println!("{}", seed.display());
            target(&std::fs::read(seed).unwrap());
        }
    }
}

/// The makers are worth something only if much of what they make is sound.
#[test]
fn much_of_what_is_made_is_read() {
    let (mut read, mut all) = (0, 0);
    arbtest::arbtest(|u| {
        let document = crate::made::document(u)?;
        all += document["flags"].as_object().map_or(0, serde_json::Map::len);
        read += crate::bodies::sound(document)["flags"].as_object().map_or(0, serde_json::Map::len);
        Ok(())
    })
    .size_min(4 << 10)
    .size_max(16 << 10);
    // About half; with less than a hundred documents in the time that is given, no more can be said.
    assert!(read * 5 > all, "{read} of {all}");
}
