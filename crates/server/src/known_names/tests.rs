use files::Crashing;
use rows::Row;

use super::*;

fn row(names: &[&str]) -> Row {
    names.iter().fold(Row::default(), |row, name| row.with(name, 1_i64))
}

fn names_of(rows: &[Row]) -> Vec<Vec<&str>> {
    rows.iter().map(|row| row.attributes.iter().map(|(name, _)| name.as_str()).collect()).collect()
}

/// Guarantees: beyond the limit new names are left out, counted and told; known ones and our own pass; a restart forgets nothing.
#[test]
fn names_without_end_are_left_out() {
    let files = Crashing::new();
    let mut findings = Vec::new();
    let known = KnownNames::open(&files, 3, &mut findings);
    let mut rows = [row(&["a", "b"]), row(&["a", "c"])];
    assert_eq!(known.admit(&mut rows), None);
    let mut rows = [row(&["a", "d", "name"]), row(&["d", "b", "e"]), row(&["d", "b", "e"])];
    let warning = known.admit(&mut rows).unwrap();
    assert_eq!(names_of(&rows), [vec!["a", "name"], vec!["b"], vec!["b"]]);
    let expected = "5 attributes were left out, such as \"d\": this server takes at most 3 names of attributes";
    assert_eq!(warning, expected);
    assert_eq!(known.refused(), json!({"count": 5, "examples": ["d", "e"], "known": 4, "max": 3}));
    known.save(&files).unwrap();
    let known = KnownNames::open(&files, 4, &mut findings);
    known.learn(&[row(&["from the log"])]);
    let mut rows = [row(&["a", "b", "c", "from the log", "d"])];
    assert!(known.admit(&mut rows).is_some());
    assert_eq!(names_of(&rows), [vec!["a", "b", "c", "from the log"]]);
    files.replace(PATH, b"[1").unwrap();
    assert_eq!(findings, Vec::<String>::new());
    KnownNames::open(&files, 4, &mut findings);
    assert!(findings[0].starts_with("events/names cannot be read: "), "{findings:?}");
}
