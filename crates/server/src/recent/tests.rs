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
    let contexts = recent.contexts(at(2));
    assert_eq!(contexts.len(), SUBJECTS_MAX);
    let late = contexts.iter().filter(|c| c.targeting_key().is_some_and(|k| k[5..].parse::<u32>().unwrap() >= 20_000));
    let late = late.count();
    assert!((2_900..3_800).contains(&late), "{late} of the last third are among a third of all");
    assert!(recent.asked_lately("f", at(2)) && !recent.asked_lately("g", at(2)));
    assert_eq!(recent.asked("f").unwrap().count, 60_000);
    assert!(recent.contexts(at(86_402)).is_empty() && !recent.asked_lately("f", at(86_402)));
    // A user whose attributes change is known as he is now; another service sends others, and is another context.
    let changing = Recent::default();
    for plan in ["free", "pro"] {
        changing.evaluated(Some("f"), &Context::of("ann").with("plan", plan), true, at(1));
    }
    changing.evaluated(Some("f"), &Context::of("ann").with("device", "tv"), true, at(1));
    let mut known: Vec<String> = changing.contexts(at(2)).iter().map(|c| format!("{:?}", c.attributes())).collect();
    known.sort();
    assert!(known.len() == 2 && known[1].contains("pro") && known[0].contains("tv"), "{known:?}");
    recent.evaluated(None, &Context::default(), true, at(86_402));
    assert!(recent.asked_lately("g", at(86_403)));
    recent.evaluated(Some("typo"), &Context::of("u").with("long", "x".repeat(5_000)), false, at(86_403));
    assert_eq!(recent.unknown(|key| key == "f").iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["typo"]);
    assert!(recent.contexts(at(86_403)).is_empty());
    recent.evaluated(Some(&"k".repeat(300)), &Context::default(), false, at(86_403));
    assert_eq!(recent.unknown(|key| key == "f").len(), 1);
}
