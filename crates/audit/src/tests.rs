use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use files::{Crashing, Disk, Files};
use serde_json::Value;

use crate::*;

const SECRET: [u8; 32] = [7; 32];

fn open(files: &Arc<dyn Files>) -> Result<(Log, Vec<Vec<u8>>), OpenError> {
    let mut entries = Vec::new();
    let log = Log::open(files.clone(), "example.com/log", SECRET, |_, e| entries.push(e.to_vec()))?;
    Ok((log, entries))
}

/// Other people's vectors, beside the checkout. Absent on a machine that has only the checkout: said, not hidden.
fn vectors(name: &str) -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance").join(name);
    if !dir.is_dir() {
        eprintln!("skipped: no vectors at {}", dir.display());
        return None;
    }
    Some(dir)
}

fn json_files(dir: &Path, found: &mut Vec<Value>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            json_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "json") {
            found.push(serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap());
        }
    }
}

fn hash(value: &Value) -> Option<Hash> {
    BASE64.decode(value.as_str().unwrap_or_default()).ok()?.try_into().ok()
}

fn proof(value: &Value) -> Option<Vec<Hash>> {
    value.as_array().map_or(Some(Vec::new()), |hashes| hashes.iter().map(hash).collect())
}

#[test]
fn inclusion_and_consistency_vectors_of_transparency_dev() {
    let Some(dir) = vectors("merkle") else { return };
    let mut cases = Vec::new();
    json_files(&dir.join("inclusion"), &mut cases);
    let n_inclusion = cases.len();
    for case in &cases {
        let checked = (|| {
            let (leaf, root, proof) = (hash(&case["leafHash"])?, hash(&case["root"])?, proof(&case["proof"])?);
            check_inclusion(&leaf, case["leafIdx"].as_u64()?, case["treeSize"].as_u64()?, &proof, &root).ok()
        })();
        assert_eq!(checked.is_none(), case["wantErr"].as_bool().unwrap(), "{case}");
    }
    cases.clear();
    json_files(&dir.join("consistency"), &mut cases);
    // One vector has roots that are no hashes ("don't care 2"): the point of it is that equal sizes need no proof.
    cases.retain(|case| hash(&case["root1"]).is_some() || case["wantErr"] == true);
    for case in &cases {
        let checked = (|| {
            let (old, new, proof) = (hash(&case["root1"])?, hash(&case["root2"])?, proof(&case["proof"])?);
            check_consistency(case["size1"].as_u64()?, case["size2"].as_u64()?, &proof, &old, &new).ok()
        })();
        assert_eq!(checked.is_none(), case["wantErr"].as_bool().unwrap(), "{case}");
    }
    assert!(n_inclusion >= 90 && cases.len() >= 90, "{n_inclusion} {}", cases.len());
}

#[test]
fn a_log_written_by_others_verifies() {
    let Some(dir) = vectors("tlog/log") else { return };
    let files = Disk::open(&dir).unwrap();
    let key = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx";
    let key = VerifyingKey::parse(key).unwrap();
    let mut tree = Tree::default();
    let report = verify(&files, "", Some(&key), |_, entry| tree.push(leaf_hash(entry))).unwrap();
    assert_eq!(report.size, 15);
    let roots: Vec<Hash> = (0..=15)
        .map(|n| {
            let note = String::from_utf8(files.read(&format!("checkpoint.{n}")).unwrap()).unwrap();
            let checkpoint = Checkpoint::open(&note, &key).unwrap();
            assert_eq!(checkpoint.size, n);
            assert_eq!(tree.root(n), Some(checkpoint.root), "size {n}");
            checkpoint.root
        })
        .collect();
    for old in 0..=15_usize {
        for new in old..=15 {
            let proof = tree.consistency(old as u64, new as u64).unwrap();
            check_consistency(old as u64, new as u64, &proof, &roots[old], &roots[new]).unwrap();
        }
    }
}

/// Guarantees: a proof made by the tree verifies, and no longer does when any byte of it is touched.
#[test]
fn a_proof_verifies_iff_untouched() {
    arbtest::arbtest(|u| {
        let size = u.int_in_range(1..=600_u64)?;
        let mut tree = Tree::default();
        (0..size).for_each(|n| tree.push(leaf_hash(&n.to_be_bytes())));
        let index = u.int_in_range(0..=size - 1)?;
        let root = tree.root(size).unwrap();
        let leaf = leaf_hash(&index.to_be_bytes());
        let mut proof = tree.inclusion(index, size).unwrap();
        assert_eq!(check_inclusion(&leaf, index, size, &proof, &root), Ok(()));
        if !proof.is_empty() {
            let at = u.choose_index(proof.len())?;
            proof[at][u.choose_index(32)?] ^= 1 << u.int_in_range(0..=7)?;
            assert!(check_inclusion(&leaf, index, size, &proof, &root).is_err());
        }
        let old = u.int_in_range(1..=size)?;
        let proof = tree.consistency(old, size).unwrap();
        assert_eq!(check_consistency(old, size, &proof, &tree.root(old).unwrap(), &root), Ok(()));
        assert!(check_consistency(old, size, &proof, &[9; 32], &root).is_err());
        Ok(())
    });
}

/// Scenario: random appends and publications with a power cut that drops every unsynced write after each round.
/// Guarantees: every acknowledged entry is there with its index, and each checkpoint is consistent with the one before.
#[test]
fn a_power_cut_loses_nothing_acknowledged() {
    arbtest::arbtest(|u| {
        let disk = Crashing::new();
        let files: Arc<dyn Files> = Arc::new(disk.clone());
        let mut expected: Vec<Vec<u8>> = Vec::new();
        let mut last: Option<Checkpoint> = None;
        for _ in 0..u.int_in_range(1..=4)? {
            let (mut log, replayed) = open(&files).unwrap();
            assert_eq!(replayed, expected);
            for _ in 0..u.int_in_range(0..=3)? {
                let n = u.int_in_range(1..=150_usize)?;
                let batch: Vec<Vec<u8>> = (0..n).map(|i| format!("{}-{i}", expected.len()).into_bytes()).collect();
                assert_eq!(log.append(&batch, false).unwrap(), expected.len() as u64);
                expected.extend(batch);
                if u.arbitrary()? {
                    log.publish().unwrap();
                    verify(&*files, "audit", None, |i, e| assert_eq!(e, expected[i as usize])).unwrap();
                }
            }
            if let Some(note) = log.signed_checkpoint() {
                let now = Checkpoint::open(&note, log.verifying_key()).unwrap();
                if let Some(old) = &last {
                    let mut tree = Tree::default();
                    expected.iter().for_each(|e| tree.push(leaf_hash(e)));
                    let proof = tree.consistency(old.size, now.size).unwrap();
                    assert_eq!(check_consistency(old.size, now.size, &proof, &old.root, &now.root), Ok(()));
                }
                last = Some(now);
            }
            if !expected.is_empty() {
                let index = u.choose_index(expected.len())?;
                assert_eq!(log.entry(index as u64).unwrap().unwrap(), expected[index]);
            }
            drop(log);
            disk.crash(u.arbitrary()?);
        }
        Ok(())
    });
}

#[test]
fn entries_are_read_in_order_across_bundles() {
    let files: Arc<dyn Files> = Arc::new(Crashing::new());
    let mut log = open(&files).unwrap().0;
    for n in 0..600_u32 {
        log.append(&[n.to_string().into_bytes()], false).unwrap();
        if n == 555 {
            log.publish().unwrap();
        }
    }
    let mut read = Vec::new();
    loop {
        let more = log.entries_from(read.len() as u64).unwrap();
        if more.is_empty() {
            break;
        }
        read.extend(more);
    }
    assert_eq!(read, (0..600_u32).map(|n| n.to_string().into_bytes()).collect::<Vec<_>>());
    assert_eq!(log.entries_from(250).unwrap().len(), 6);
}

#[test]
fn tampering_is_found_and_named() {
    let disk = Crashing::new();
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let (mut log, _) = open(&files).unwrap();
    log.append(&(0..300).map(|n| format!("entry {n}").into_bytes()).collect::<Vec<_>>(), false).unwrap();
    log.publish().unwrap();
    assert_eq!(verify(&*files, "audit", None, |_, _| ()).unwrap().size, 300);
    let found = |path: &str, byte| {
        disk.flip(path, byte);
        let error = verify(&*files, "audit", None, |_, _| ()).unwrap_err().to_string();
        disk.flip(path, byte);
        error
    };
    assert!(found("audit/tile/entries/000", 5).contains("do not lead to the signed root"));
    assert!(found("audit/tile/0/000", 5).contains("audit/tile/0/000 differs"));
    assert!(found("audit/tile/0/001.p/44", 5).contains("audit/tile/0/001.p/44 differs"));
    assert!(found("audit/checkpoint", 16).contains("audit/checkpoint"));
    drop(log);
    disk.flip("audit/tile/entries/000", 5);
    assert!(matches!(open(&files), Err(OpenError::Contradiction { .. })));
}

#[test]
fn a_full_disk_still_takes_what_makes_things_safer() {
    let disk = Crashing::new();
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let (mut log, _) = open(&files).unwrap();
    disk.set_room(Some(10));
    let entry = vec![b"stop everything".to_vec()];
    assert!(matches!(log.append(&entry, false), Err(AppendError::Full(_))));
    assert_eq!(log.append(&entry, true).unwrap(), 0);
    assert!(matches!(log.append(&[vec![0; ENTRY_BYTES_MAX + 1]], true), Err(AppendError::TooLong { .. })));
    drop(log);
    assert_eq!(open(&files).unwrap().1, entry);
}

/// The example of C2SP signed-note: only its form; the key in the specification signs another text.
#[test]
fn keys_and_notes_refuse_what_is_not_theirs() {
    let key = SigningKey::new("example.com/foo", &SECRET);
    let text = key.verifying().to_string();
    assert_eq!(VerifyingKey::parse(&text).unwrap(), *key.verifying());
    assert!(VerifyingKey::parse(&text.replace("foo", "bar")).is_err());
    let checkpoint = Checkpoint { origin: "example.com/foo".into(), size: 3, root: [1; 32] };
    let note = checkpoint.sign(&key);
    assert_eq!(Checkpoint::open(&note, key.verifying()).unwrap(), checkpoint);
    let other = SigningKey::new("example.com/bar", &SECRET);
    assert_eq!(Checkpoint::open(&note, other.verifying()), Err(NoteError::Unsigned("example.com/bar".into())));
    let forged = note.replacen("\n3\n", "\n4\n", 1);
    assert_eq!(Checkpoint::open(&forged, key.verifying()), Err(NoteError::Forged("example.com/foo".into())));
}

/// Fixed seeds of the fuzz target: bytes from outside never panic.
#[test]
fn parsers_survive_anything() {
    let key = SigningKey::new("example.com/foo", &SECRET);
    arbtest::arbtest(|u| {
        let bytes: Vec<u8> = u.arbitrary()?;
        let text = String::from_utf8_lossy(&bytes);
        let _ = Checkpoint::open(&text, key.verifying());
        let _ = VerifyingKey::parse(&text);
        let _ = crate::tile::bundle_entries(&bytes);
        Ok(())
    });
}
