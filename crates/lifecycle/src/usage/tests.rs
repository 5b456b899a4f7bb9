use super::*;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_nanos(secs * 1_000_000_000)
}

fn evaluated<'a>(key: &'a str, service: &'a str, version: &'a str, variant: &'a str, secs: i64) -> Evaluated<'a> {
    Evaluated { key, known: true, service, version, variant: Some(variant), failed: false, at: at(secs) }
}

#[test]
fn it_counts_by_service_version_and_variant() {
    let mut usage = Usage::default();
    usage.take(&evaluated("f", "web", "2.0", "on", 10));
    usage.take(&evaluated("f", "checkout", "1.4.2", "on", 12));
    usage.take(&evaluated("f", "web", "2.0", "on", 11));
    let reported = usage.reported("f").unwrap().clone();
    assert_eq!((reported.first, reported.last, reported.count), (at(10), at(12), 3));
    assert_eq!(
        reported.callers.iter().map(|c| (c.to_string(), c.count)).collect::<Vec<_>>(),
        [("web 2.0".to_owned(), 2), ("checkout 1.4.2".to_owned(), 1)]
    );
    assert_eq!(reported.only, Some(("on".to_owned(), at(10))));
    usage.take(&evaluated("f", "web", "2.0", "off", 20));
    usage.take(&Evaluated { failed: true, variant: None, ..evaluated("f", "web", "2.0", "", 21) });
    let reported = usage.reported("f").unwrap();
    assert_eq!(reported.only, Some(("off".to_owned(), at(20))));
    assert_eq!(reported.variants, [("off".to_owned(), 1), ("on".to_owned(), 3)].into());
    assert_eq!((usage.heard(), usage.lost()), (Some(at(21)), 0));
    // Written down and read back it is the same, and goes on.
    let text = serde_json::to_string(&usage).unwrap();
    let read: Usage = serde_json::from_str(&text).unwrap();
    assert_eq!(read.restored(), usage);
}

#[test]
fn since_when_a_flag_is_as_it_is() {
    let mut usage = Usage::default();
    usage.exist([("f", 3), ("g", 4)].into_iter(), at(10));
    usage.take(&evaluated("g", "web", "", "on", 11));
    usage.exist([("f", 3), ("g", 9)].into_iter(), at(20));
    assert_eq!(usage.placed("f", 3, at(30)), Placed { since: at(10), version: 3, changed: at(10) });
    assert_eq!(usage.placed("g", 9, at(30)), Placed { since: at(10), version: 9, changed: at(20) });
    assert_eq!(usage.placed("g", 10, at(30)), Placed { since: at(10), version: 10, changed: at(30) });
    assert_eq!(usage.placed("new", 11, at(30)), Placed { since: at(30), version: 11, changed: at(30) });
    // A deleted flag is not known any more, and begins anew.
    usage.exist([("f", 3)].into_iter(), at(40));
    assert_eq!(usage.unknown().map(|(key, _)| key).collect::<Vec<_>>(), ["g"]);
    assert_eq!(usage.placed("g", 12, at(50)).since, at(50));
}

/// Guarantees: whatever is reported, the table stays within its bounds, and counts of flags that exist are exact.
#[test]
fn it_is_bounded() {
    let mut usage = Usage::default();
    for n in 0..20_000 {
        let (key, name) = (format!("made-up-{n}"), "x".repeat(500));
        usage.take(&Evaluated { known: false, ..evaluated(&key, &name, &name, &name, n) });
        let version = format!("1.{n}");
        usage.take(&evaluated("real", &name, &version, &version, n));
    }
    usage.take(&evaluated(&"k".repeat(300), "web", "", "on", 1));
    assert!(usage.unknown <= UNKNOWN_MAX && usage.unknown == usage.unknown().count());
    assert!(usage.reported("made-up-19999").is_some() && usage.reported("made-up-0").is_none());
    let real = usage.reported("real").unwrap();
    assert_eq!((real.count, real.callers.len(), real.variants.len()), (20_000, CALLERS_MAX, VARIANTS_MAX));
    assert!(real.callers.iter().any(|c| c.version == "1.19999") && real.callers[0].service.len() == NAME_BYTES_MAX);
    assert!(usage.lost() > 0);
    let weighed: usize = usage.reported.iter().map(|(key, reported)| key.len() + reported.bytes()).sum();
    assert_eq!(usage.bytes, weighed);
}
