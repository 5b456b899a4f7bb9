use super::*;
use crate::usage::Caller;

const NOW: i64 = 200;

fn day_no(days: i64) -> Timestamp {
    Timestamp::from_nanos(days * DAY as i64 * 1_000_000_000)
}

fn reported(first: i64, last: i64, variants: &[&str]) -> Reported {
    let caller = Caller { service: "checkout".into(), version: "1.4.2".into(), last: day_no(last), count: 7 };
    Reported {
        first: day_no(first),
        last: day_no(last),
        count: 7,
        known: true,
        callers: vec![caller],
        variants: variants.iter().map(|name| ((*name).to_owned(), 3)).collect(),
        only: variants.first().filter(|_| variants.len() == 1).map(|name| ((*name).to_owned(), day_no(first))),
    }
}

fn facts(kind: &str) -> Facts<'_> {
    Facts {
        kind,
        expires: None,
        same_for_all: false,
        placed: Placed { since: day_no(100), version: 1, changed: day_no(100) },
        needed_by: Vec::new(),
        experiment: None,
        asked: None,
        reported: None,
        all: None,
        heard: Some(day_no(NOW)),
    }
}

fn check(facts: &Facts<'_>, stage: Stage, words: &str) {
    let standing = standing(facts, day_no(NOW));
    assert_eq!(standing.stage, stage, "{}", standing.why);
    assert!(standing.why.contains(words), "{}", standing.why);
}

#[test]
fn never_seen_is_a_state_of_its_own() {
    let young = Facts { placed: Placed { since: day_no(199), version: 1, changed: day_no(199) }, ..facts("release") };
    check(&young, Stage::NeverSeen, "in production, 0 users, never seen; there for 1 day");
    check(&Facts { all: Some(day_no(NOW)), ..young.clone() }, Stage::NeverSeen, "never seen");
    let blind = Facts { all: Some(day_no(NOW)), heard: None, ..young.clone() };
    check(&blind, Stage::NeverSeen, "cannot be known");
    check(&facts("release"), Stage::SafeToRemove, "never seen; there for 100 days");
    check(&Facts { all: Some(day_no(NOW)), heard: None, ..facts("release") }, Stage::NeverSeen, "cannot be known");
    check(
        &Facts { all: Some(day_no(NOW)), ..facts("release") },
        Stage::SafeToRemove,
        "take all flags at once, last on 1970-07-20",
    );
    check(&facts("kill-switch"), Stage::NeverSeen, "never seen");
    check(&Facts { expires: Some(day_no(199)), ..young }, Stage::Expired, "it was to be gone by 1970-07-19");
}

#[test]
fn what_is_used_is_live_until_its_kind_says_otherwise() {
    let busy = reported(100, NOW, &["off", "on"]);
    for kind in ["release", "experiment", "ops", "kill-switch", "permission", "fault"] {
        check(&Facts { reported: Some(&busy), ..facts(kind) }, Stage::Live, "by checkout 1.4.2");
    }
    // Silent for 50 days.
    let silent = reported(100, NOW - 50, &["off", "on"]);
    let with = |kind| Facts { reported: Some(&silent), ..facts(kind) };
    check(&with("release"), Stage::SafeToRemove, "last evaluated 50 days ago (1970-05-31), by checkout 1.4.2");
    for kind in ["ops", "kill-switch", "permission", "fault"] {
        check(&with(kind), Stage::Live, "50 days ago");
        check(&Facts { expires: Some(day_no(150)), ..with(kind) }, Stage::SafeToRemove, "careful");
    }
    let silent = reported(100, NOW - 44, &["off", "on"]);
    check(&Facts { reported: Some(&silent), ..facts("release") }, Stage::Stale, "44 days ago");
    let asked = Asked { first: day_no(100), last: day_no(NOW), count: 9, known: true };
    let asked_here = Facts { asked: Some(asked), ..with("release") };
    check(&asked_here, Stage::Live, "");
    assert_eq!(standing(&asked_here, day_no(NOW)).evaluations, 9);
}

#[test]
fn one_variant_for_everybody_is_stale_and_gone_a_week_after_the_code() {
    let one = reported(110, NOW, &["on"]);
    check(
        &Facts { reported: Some(&one), ..facts("release") },
        Stage::Stale,
        "everybody gets \"on\", unchanged since 1970-04-21",
    );
    check(&Facts { reported: Some(&one), ..facts("permission") }, Stage::Live, "");
    let changed = Placed { since: day_no(100), version: 2, changed: day_no(190) };
    check(&Facts { reported: Some(&one), placed: changed, ..facts("release") }, Stage::Live, "");
    // Reports do not speak for those who ask the server and report nothing.
    let asked = Asked { first: day_no(100), last: day_no(NOW), count: 900, known: true };
    check(&Facts { reported: Some(&one), asked: Some(asked), ..facts("release") }, Stage::Live, "");
    check(
        &Facts { same_for_all: true, asked: Some(asked), ..facts("release") },
        Stage::Stale,
        "everybody gets the same",
    );
    // The code is cleaned up: eight days later the flag may go, if nothing else needs it.
    let cleaned = reported(110, NOW - 8, &["on"]);
    let gone = Facts { reported: Some(&cleaned), ..facts("release") };
    check(&gone, Stage::SafeToRemove, "last evaluated 8 days ago");
    check(&Facts { needed_by: vec!["player".into()], ..gone.clone() }, Stage::Stale, "needed by player");
    check(&Facts { experiment: Some("exp_1".into()), ..gone.clone() }, Stage::Live, "exp_1 is under way");
    check(&Facts { all: Some(day_no(NOW - 1)), heard: None, ..gone.clone() }, Stage::Stale, "cannot be known");
    let yesterday = reported(110, NOW - 6, &["on"]);
    check(&Facts { reported: Some(&yesterday), ..facts("release") }, Stage::Stale, "last evaluated 6 days ago");
}

/// Guarantees: nothing is safe to remove that anybody evaluated within a week, that another flag needs, or that is under experiment.
#[test]
fn what_is_in_use_is_never_safe_to_remove() {
    let mut removable = 0;
    arbtest::arbtest(|u| {
        let variants: &[&str] = if u.arbitrary()? { &["on"] } else { &["on", "off"] };
        let last = u.int_in_range(90..=NOW)?;
        let reports = reported(u.int_in_range(80..=last)?, last, variants);
        let last_asked = u.int_in_range(90..=NOW)?;
        let asked = Asked { first: day_no(90), last: day_no(last_asked), count: u.int_in_range(1..=20)?, known: true };
        let kind = *u.choose(&["release", "experiment", "ops", "kill-switch", "permission", "fault"])?;
        let facts = Facts {
            kind,
            expires: if u.arbitrary()? { Some(day_no(u.int_in_range(90..=300)?)) } else { None },
            same_for_all: u.arbitrary()?,
            placed: Placed { since: day_no(90), version: 1, changed: day_no(u.int_in_range(90..=NOW)?) },
            needed_by: if u.arbitrary()? { vec!["other".into()] } else { Vec::new() },
            experiment: if u.arbitrary()? { Some("exp_1".into()) } else { None },
            asked: if u.arbitrary()? { Some(asked) } else { None },
            reported: if u.arbitrary()? { Some(&reports) } else { None },
            all: if u.arbitrary()? { Some(day_no(u.int_in_range(90..=NOW)?)) } else { None },
            heard: if u.arbitrary()? { Some(day_no(u.int_in_range(90..=NOW)?)) } else { None },
        };
        let found = standing(&facts, day_no(NOW));
        if found.stage == Stage::SafeToRemove {
            removable += 1;
            assert!(found.last_seen.is_none_or(|last| day_no(NOW).since(last) > SILENT), "{facts:?}");
            assert!(facts.needed_by.is_empty() && facts.experiment.is_none(), "{facts:?}");
            let lasting = matches!(kind, "ops" | "kill-switch" | "permission" | "fault");
            assert!(!lasting || found.why.contains("careful") && facts.expires.is_some(), "{facts:?}");
        }
        Ok(())
    });
    assert!(removable > 0, "the test says nothing");
}
