//! What a delegation makes of a flag, and what it refuses.

use flags::{Context, Flag, FlagChange, FlagSet, Segment};
use serde_json::{Map, Value, json};
use vocab::{Share, Timestamp};

use crate::delegation::{Delegation, Wish};

const HOLDER: &str = "tok_0000009";
/// A Wednesday, 12:00 UTC.
const NOON: i64 = 1_764_158_400;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_nanos(secs * 1_000_000_000)
}

fn compiled(definition: &Value) -> Flag {
    Flag::compile("price", definition, &Map::new(), &Map::new()).unwrap()
}

fn flag() -> Flag {
    compiled(&json!({"variants": {"low": 10, "high": 20}, "on": true, "fallthrough": "low",
        "rules": [{"id": "owner", "when": {"attr": "plan", "op": "in", "values": ["pro"]}, "serve": "high"}]}))
}

fn bounds(more: Value) -> Delegation {
    let mut bounds = json!({"flag": "price", "variants": ["high"]});
    bounds.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(bounds).unwrap()
}

fn wish(wish: Value) -> Wish {
    serde_json::from_value(wish).unwrap()
}

fn changed(bounds: &Delegation, flag: &Flag, asked: Option<Value>) -> Result<Flag, &'static str> {
    let asked = asked.map(wish);
    match bounds.change(flag, HOLDER, asked.as_ref(), at(NOON)) {
        Ok(FlagChange::Put { definition, .. }) => Ok(compiled(&definition)),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => Err(refusal.code),
    }
}

fn share_served(flag: &Flag, value: f64) -> usize {
    let staff: Vec<String> = (0..500).map(|n| format!("user-{n}")).collect();
    let segment = Segment::compile(&json!({"include": staff})).unwrap();
    let set = FlagSet::of([std::sync::Arc::new(flag.clone())], Map::new())
        .with_segments([("staff".to_owned(), std::sync::Arc::new(segment))]);
    let served = |n: &usize| {
        let found = set.evaluate("price", &Context::of(&format!("user-{n}")), at(NOON)).unwrap();
        found.value.and_then(Value::as_f64) == Some(value)
    };
    (0..1_000).filter(served).count()
}

/// Guarantees: what is within the bounds reaches the audience and the share, and no further; it is taken back without a trace.
#[test]
fn within_the_bounds() {
    let all = bounds(json!({}));
    assert_eq!(share_served(&changed(&all, &flag(), Some(json!({"variant": "high"}))).unwrap(), 20.0), 1_000);
    let some = bounds(json!({"audience": "staff", "largest_share": "20%"}));
    let set = changed(&some, &flag(), Some(json!({"variant": "high"}))).unwrap();
    assert!((70..130).contains(&share_served(&set, 20.0)), "{}", share_served(&set, 20.0));
    // Wider moves nobody out, and there is one rule of his at any time.
    let less = changed(&some, &set, Some(json!({"variant": "high", "share": 0.05}))).unwrap();
    assert!((10..45).contains(&share_served(&less, 20.0)));
    assert_eq!(less.definition()["rules"].as_array().unwrap().len(), 2);
    assert_eq!(Delegation::served(&less, HOLDER).unwrap()["serve"], "high");
    let values = bounds(json!({"values": {"between": [5, 15]}}));
    let set = changed(&values, &less, Some(json!({"value": 12.5}))).unwrap();
    assert_eq!(share_served(&set, 12.5), 1_000);
    assert_eq!(Delegation::served(&set, HOLDER).unwrap()["value"], 12.5);
    let back = changed(&values, &set, None).unwrap();
    assert_eq!(back.definition(), flag().definition());
    let bare = compiled(&json!({"variants": {"low": 10, "high": 20}, "on": true, "fallthrough": "low"}));
    let set = changed(&all, &bare, Some(json!({"variant": "high"}))).unwrap();
    assert_eq!(changed(&all, &set, None).unwrap().definition(), bare.definition());
}

#[test]
fn outside_the_bounds() {
    let tight = bounds(json!({"largest_share": "20%", "values": {"any": [7, 8]}}));
    for asked in [
        json!({"variant": "low"}),
        json!({"variant": "high", "share": 0.21}),
        json!({"variant": "high", "share": 0}),
        json!({"value": 9}),
        json!({"value": "7"}),
    ] {
        assert_eq!(changed(&tight, &flag(), Some(asked.clone())).err(), Some("outside-delegation"), "{asked}");
    }
    assert_eq!(changed(&tight, &flag(), Some(json!({}))).err(), Some("invalid-body"));
    assert_eq!(changed(&tight, &flag(), Some(json!({"variant": "high", "value": 7}))).err(), Some("invalid-body"));
    let scheduled = compiled(&json!({"variants": {"low": 1, "high": 2}, "on": true, "fallthrough": "low",
        "schedule": [{"at": "2030-01-01T00:00:00Z", "change": {"rules": []}}]}));
    assert_eq!(changed(&tight, &scheduled, Some(json!({"value": 7}))).err(), Some("not-delegable"));
}

#[test]
fn hours_are_those_of_the_holders_zone() {
    let ask = |hours: Value, secs: i64| {
        let bounds = bounds(json!({"hours": hours}));
        bounds.findings(&flag(), |_| true).unwrap();
        let asked = wish(json!({"variant": "high"}));
        bounds.change(&flag(), HOLDER, Some(&asked), at(secs)).is_ok()
    };
    let office = json!({"from": "09:00", "to": "17:00", "days": ["mon", "tue", "wed", "thu", "fri"]});
    assert!(ask(office.clone(), NOON) && !ask(office.clone(), NOON + 5 * 3_600));
    assert!(!ask(office.clone(), NOON + 3 * 86_400), "Saturday");
    let mut east = office.clone();
    east["utc_offset_minutes"] = json!(330);
    assert!(ask(east.clone(), NOON - 8 * 3_600) && !ask(east, NOON));
    // Over midnight it is the day on which it began.
    let night = json!({"from": "22:00", "to": "06:00", "days": ["wed"]});
    assert!(ask(night.clone(), NOON + 11 * 3_600) && ask(night.clone(), NOON + 17 * 3_600));
    assert!(!ask(night.clone(), NOON) && !ask(night, NOON - 7 * 3_600));
    // Taking back is free at any time.
    let bounds = bounds(json!({"hours": office}));
    assert!(bounds.change(&flag(), HOLDER, None, at(NOON + 8 * 3_600)).is_ok());
}

#[test]
fn unsound_bounds_are_named() {
    for (more, word) in [
        (json!({"variants": []}), "nothing"),
        (json!({"variants": ["blue"]}), "blue"),
        (json!({"values": {"between": [2, 1]}}), "above"),
        (json!({"values": {"any": []}}), "1 to 1,000"),
        (json!({"audience": "nobody"}), "nobody"),
        (json!({"largest_share": 0}), "largest_share"),
        (json!({"hours": {"from": "9:00", "to": "17:00"}}), "hours"),
        (json!({"hours": {"from": "09:00", "to": "17:00", "days": ["someday"]}}), "hours"),
    ] {
        let refused = bounds(more.clone()).findings(&flag(), |_| false).unwrap_err();
        assert!(refused.code == "invalid-delegation" && refused.detail.contains(word), "{more}: {refused:?}");
    }
    let theirs = json!({"state": "ENABLED", "variants": {"high": 1}, "defaultVariant": "high"});
    assert!(bounds(json!({})).findings(&compiled(&theirs), |_| true).is_err());
    assert_eq!(bounds(json!({})).largest_share, Share::ALL);
}
