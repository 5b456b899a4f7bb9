use flags::{Context, Overlay, Slice};
use serde_json::{Value, json};
use vocab::{Id, Kind, Share};

use super::*;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_nanos((1_000_000 + secs) * 1_000_000_000)
}

fn set(flags: Value) -> FlagSet {
    FlagSet::parse(&json!({"flags": flags}).to_string()).unwrap_or_else(|findings| panic!("{findings:?}"))
}

fn split(bucketing: &str) -> Value {
    json!({"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off", "metadata": {"bucketing": bucketing},
        "targeting": {"fractional": [["on", 10], ["off", 90]]}})
}

/// What a client with these flags reports of users `from..to`.
fn report(
    drift: &mut Drift,
    served: &FlagSet,
    client: &FlagSet,
    who: (&str, &str),
    users: std::ops::Range<u32>,
    ruleset: Option<&str>,
    secs: i64,
) {
    for n in users {
        let subject = format!("user-{n}");
        let variant = client.evaluate("search-v2", &Context::of(&subject), at(secs)).unwrap().variant.unwrap();
        let hash = u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let exposure = Exposure {
            key: "search-v2",
            variant,
            subject: &subject,
            hash,
            service: who.0,
            version: who.1,
            ruleset,
            at: at(secs),
        };
        drift.take(served, "r1", &exposure, at(secs));
    }
}

#[test]
fn the_client_that_drifts_is_named_with_its_generation() {
    let served = set(json!({"search-v2": split("flagd-v3")}));
    let other = set(json!({"search-v2": split("flagd-v2")}));
    let mut drift = Drift::default();
    report(&mut drift, &served, &other, ("checkout", "1.4.2"), 0..1_203, Some("r1"), 0);
    report(&mut drift, &served, &served, ("web", "2.0"), 0..1_203, Some("r1"), 0);
    let findings = drift.findings(&served, at(1));
    assert_eq!(findings.len(), 2);
    let first = &findings[0];
    assert!(first.alarm && first.judged == 1_203 && first.misassigned > 150, "{first:?}");
    assert_eq!(first.explained_by, [Bucketing::FlagdV2]);
    let share = (first.share() * 100.0).round();
    let sentence = format!(
        "service checkout 1.4.2 buckets \"search-v2\" with flagd-v2, pinned is flagd-v3: {share} % of 1,203 users misassigned"
    );
    assert_eq!(first.sentence(), sentence);
    assert!(!findings[1].alarm && findings[1].misassigned == 0, "{:?}", findings[1]);
    // It counts each user once, forgets a client that is gone, and a flag that changed.
    report(&mut drift, &served, &other, ("checkout", "1.4.2"), 0..1_203, Some("r1"), 2);
    assert_eq!(drift.findings(&served, at(3))[0].judged, 1_203);
    assert!(!drift.findings(&served, at(3_700))[0].alarm);
    // Mended without a new version: as its users come again they count as they are now.
    report(&mut drift, &served, &served, ("checkout", "1.4.2"), 0..1_203, Some("r1"), 4);
    assert!(drift.findings(&served, at(5)).iter().all(|finding| !finding.alarm && finding.misassigned == 0));
    drift.sweep(at(200_000));
    assert!(drift.findings(&served, at(5)).is_empty() && drift.subjects == 0);
}

#[test]
fn what_cannot_be_known_is_not_judged() {
    let served = set(json!({"search-v2": split("flagd-v3")}));
    let other = set(json!({"search-v2": split("flagd-v1")}));
    let judged = |served: &FlagSet, ruleset: Option<&str>, secs: i64| {
        let mut drift = Drift::default();
        report(&mut drift, served, &other, ("web", ""), 0..1, Some("r1"), 0);
        let before = drift.findings(served, at(0)).iter().map(|f| f.judged).sum::<usize>();
        report(&mut drift, served, &other, ("web", ""), 1..101, ruleset, secs);
        drift.findings(served, at(secs)).iter().map(|f| f.judged).sum::<usize>() - before
    };
    assert_eq!(judged(&served, Some("r1"), 1), 100);
    assert_eq!(judged(&served, Some("r0"), 1_000), 0, "another ruleset");
    assert_eq!(judged(&served, None, 59), 0, "it has just changed");
    assert_eq!(judged(&served, None, 61), 100);
    // Attributes are not reported.
    let reads = |rule: Value| {
        let mut flag = split("flagd-v3");
        flag["targeting"] = rule;
        set(json!({"search-v2": flag}))
    };
    let of_plan =
        reads(json!({"if": [{"==": [{"var": "plan"}, "pro"]}, "on", {"fractional": [["on", 10], ["off", 90]]}]}));
    assert_eq!(judged(&of_plan, Some("r1"), 1), 0);
    assert_eq!(judged(&reads(json!({})), Some("r1"), 1), 0, "it hashes nobody");
    // Half of the users are in an experiment.
    let half = Share::from_ppm(500_000).unwrap();
    let overlay = Overlay {
        experiment: Id::new(Kind::Experiment, 1),
        slice: Slice::new("l", "a", 0, half, half),
        serves: flags::Serves::Variant("on".into()),
        otherwise: None,
    };
    let under = set(json!({"search-v2": split("flagd-v3")})).with_overlays([("search-v2".to_owned(), overlay)].into());
    assert!((30..70).contains(&judged(&under, Some("r1"), 1)));
}

#[test]
fn no_alarm_from_a_few() {
    let served = set(json!({"search-v2": split("flagd-v3")}));
    let off = set(
        json!({"search-v2": {"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off"}}),
    );
    let mut drift = Drift::default();
    report(&mut drift, &served, &served, ("web", "2"), 0..1_000, Some("r1"), 0);
    // One instance that lags behind: everything is off for its few users.
    report(&mut drift, &served, &off, ("web", "2"), 0..30, Some("r1"), 1);
    assert!(drift.findings(&served, at(2)).iter().all(|finding| !finding.alarm));
    // Without a generation that explains it, it is said so.
    report(&mut drift, &served, &off, ("web", "3"), 0..1_000, Some("r1"), 1);
    let finding = drift.findings(&served, at(2)).remove(0);
    assert!(
        finding.alarm && finding.explained_by.is_empty() && finding.sentence().contains("no generation"),
        "{finding:?}"
    );
    let mut few = Drift::default();
    report(&mut few, &served, &off, ("web", "3"), 0..19, Some("r1"), 1);
    assert!(few.findings(&served, at(2)).iter().all(|finding| !finding.alarm));
}

#[test]
fn a_change_begins_anew_and_the_same_flag_under_another_version_does_not() {
    let served = set(json!({"search-v2": split("flagd-v3")}));
    let beside = set(json!({"search-v2": split("flagd-v3"), "another": split("flagd-v2")}));
    let changed = set(json!({"search-v2": split("flagd-v2")}));
    let mut drift = Drift::default();
    report(&mut drift, &served, &changed, ("web", ""), 0..200, Some("r1"), 0);
    let one = |drift: &mut Drift, set: &FlagSet, now: &str, ruleset: &str| {
        let exposure = Exposure {
            key: "search-v2",
            variant: "on",
            subject: "somebody",
            hash: 1 << 60,
            service: "web",
            version: "",
            ruleset: Some(ruleset),
            at: at(5),
        };
        drift.take(set, now, &exposure, at(5));
        drift.findings(set, at(5)).first().map_or(0, |finding| finding.judged)
    };
    assert_eq!(one(&mut drift, &beside, "r2", "r1"), 201, "the flag is the same under r2");
    assert_eq!(one(&mut drift, &changed, "r3", "r2"), 0, "it is another one now");
    assert_eq!(one(&mut drift, &changed, "r3", "r3"), 1);
}

/// Guarantees: whatever is reported, what is kept stays within its bounds, and the sample is fair.
#[test]
fn it_is_bounded() {
    let served = set(json!({"search-v2": split("flagd-v3")}));
    let other = set(json!({"search-v2": split("flagd-v2")}));
    let mut drift = Drift::default();
    report(&mut drift, &served, &other, ("web", "1"), 0..10_000, Some("r1"), 0);
    let finding = drift.findings(&served, at(1)).remove(0);
    assert!(
        finding.judged == SUBJECTS_MAX && finding.sampled && finding.sentence().contains("a sample of 2,048 users")
    );
    assert!((0.13..0.23).contains(&finding.share()), "{finding:?}");
    for n in 0..100 {
        report(&mut drift, &served, &other, ("web", &format!("2.{n}")), 0..50, Some("r1"), n);
    }
    assert_eq!(drift.flags["search-v2"].callers.len(), CALLERS_MAX);
    assert_eq!(drift.subjects, drift.flags.values().map(Watched::subjects).sum::<usize>());
}
