use super::*;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_nanos(secs * 1_000_000_000)
}

#[test]
fn it_remembers_a_fair_sample_and_forgets_after_a_day() {
    let recent = Recent::default();
    for n in 0..30_000 {
        recent.evaluated(Some("f"), &Context::of(&format!("user-{n}")), true, at(1));
        recent.evaluated(Some("f"), &Context::of("user-0"), true, at(1));
    }
    let contexts = recent.sample(at(2)).0;
    assert_eq!(contexts.len(), SUBJECTS_MAX);
    let late = contexts.iter().filter(|c| c.targeting_key().is_some_and(|k| k[5..].parse::<u32>().unwrap() >= 20_000));
    let late = late.count();
    assert!((2_900..3_800).contains(&late), "{late} of the last third are among a third of all");
    assert!(recent.asked_lately("f", at(2)) && !recent.asked_lately("g", at(2)));
    assert_eq!(recent.asked("f").unwrap().count, 60_000);
    assert!(recent.sample(at(86_402)).0.is_empty() && !recent.asked_lately("f", at(86_402)));
    // A user whose attributes change is known as he is now; another service sends others, and is another context.
    let changing = Recent::default();
    for plan in ["free", "pro"] {
        changing.evaluated(Some("f"), &Context::of("ann").with("plan", plan), true, at(1));
    }
    changing.evaluated(Some("f"), &Context::of("ann").with("device", "tv"), true, at(1));
    let mut known: Vec<String> = changing.sample(at(2)).0.iter().map(|c| format!("{:?}", c.attributes())).collect();
    known.sort();
    assert!(known.len() == 2 && known[1].contains("pro") && known[0].contains("tv"), "{known:?}");
    recent.evaluated(None, &Context::default(), true, at(86_402));
    assert!(recent.asked_lately("g", at(86_403)));
    recent.evaluated(Some("typo"), &Context::of("u").with("long", "x".repeat(5_000)), false, at(86_403));
    assert_eq!(recent.unknown(|key| key == "f").iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["typo"]);
    assert!(recent.sample(at(86_403)).0.is_empty());
    recent.evaluated(Some(&"k".repeat(300)), &Context::default(), false, at(86_403));
    assert_eq!(recent.unknown(|key| key == "f").len(), 1);
}

/// Scenario: a server with 40 known contexts is restarted, twice, and they come back one by one.
/// Guarantees: what flags were asked for lately outlives a restart, no subject does, and the share that is missing is known.
#[test]
fn a_restart_knows_how_many_are_missing() {
    let first = Recent::default();
    assert_eq!(first.known_share(at(0)), 1.0);
    for n in 0..40 {
        first.evaluated(Some("f"), &Context::of(&format!("user-{n}")), true, at(1));
    }
    assert_eq!(first.known_share(at(1)), 1.0);
    let kept = first.kept(at(2));
    let text = serde_json::to_string(&kept).unwrap();
    assert!(!text.contains("user-"), "{text}");
    let second = Recent::default();
    second.restore(serde_json::from_str(&text).unwrap());
    assert!(second.asked_lately("f", at(3)) && !second.asked_lately("g", at(3)) && second.sample(at(3)).0.is_empty());
    assert_eq!((second.known_share(at(3)), second.asked("f").unwrap().count), (0.0, 40));
    (0..10).for_each(|n| second.evaluated(Some("f"), &Context::of(&format!("user-{n}")), true, at(4)));
    assert_eq!((second.known_share(at(5)), second.asked("f").unwrap().first), (0.25, at(1)));
    let third = Recent::default();
    third.restore(second.kept(at(6)));
    assert_eq!(third.known_share(at(7)), 0.0);
    third.evaluated(None, &Context::of("user-1"), true, at(8));
    assert_eq!(third.known_share(at(9)), 1.0 / 40.0);
    let fourth = Recent::default();
    fourth.restore(third.kept(at(10)));
    assert!(fourth.asked_lately("g", at(11)));
    assert_eq!(fourth.known_share(at(90_000)), 1.0, "a day later nobody would be known any more");
}
