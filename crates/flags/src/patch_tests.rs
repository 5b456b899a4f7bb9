//! Changes on trial: who meets them, and who takes part.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use vocab::{Arm, Id, Kind, Share, Timestamp};

use crate::{Context, Flag, FlagSet, Overlay, Patch, Reason, Segment, Serves, Slice};

const NOW: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);

fn flag(key: &str, definition: Value) -> Arc<Flag> {
    Arc::new(Flag::compile(key, &definition, &Map::new(), &Map::new()).unwrap())
}

fn on_off(fallthrough: &str, more: Value) -> Value {
    let mut definition = json!({"variants": {"on": true, "off": false}, "on": true, "fallthrough": fallthrough});
    definition.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    definition
}

/// Half of the subjects in the slice, half of those in treatment.
fn changed(set: FlagSet, patch: Patch, on: bool) -> (FlagSet, Slice) {
    let slice = Slice::new("layer", "arm", 0, Share::from_ppm(500_000).unwrap(), Share::from_ppm(500_000).unwrap());
    let experiment = Id::new(Kind::Experiment, 9);
    let patch = Arc::new(patch);
    let serves = Serves::Change { patch: patch.clone(), on };
    let overlay = Overlay { experiment, slice, serves, otherwise: None };
    let overlays = patch.touches(&set).into_iter().map(|key| (key, overlay.clone())).collect();
    (set.with_overlays(overlays), slice)
}

fn subjects() -> impl Iterator<Item = (Context, String)> {
    (0..400).map(|n| {
        let name = format!("user-{n}");
        (Context::of(&name).with("plan", ["free", "pro"][n % 2]), name)
    })
}

/// Guarantees: only treatment subjects meet the change; who would get the same anyway takes no part; in warm-up nobody meets it and
/// the same ones take part.
#[test]
fn a_change_is_served_to_treatment_and_only_those_it_moves_take_part() {
    let pro = json!({"rules": [{"when": {"attr": "plan", "op": "in", "values": ["pro"]}, "serve": "on"}]});
    for on in [true, false] {
        let patch = Patch::new([flag("f", on_off("off", pro.clone()))], BTreeMap::new());
        let (set, slice) = changed(FlagSet::of([flag("f", on_off("off", json!({})))], Map::new()), patch, on);
        let mut arms = [0; 3];
        for (context, name) in subjects() {
            let got = set.evaluate("f", &context, NOW).unwrap();
            let moved = context.attributes()["plan"] == "pro";
            let arm = slice.arm(&name).filter(|_| moved);
            assert_eq!(got.experiment.map(|(_, arm)| arm), arm, "{name}");
            let changed = on && arm == Some(Arm::Treatment);
            assert_eq!(got.variant, Some(if changed { "on" } else { "off" }), "{name}");
            assert_ne!(got.reason, Reason::Static);
            arms[arm.map_or(2, |arm| usize::from(arm.is_treatment()))] += 1;
        }
        assert!(arms[0] > 20 && arms[1] > 20, "{arms:?}");
        assert_eq!(set.evaluate("f", &Context::default(), NOW).unwrap().experiment, None);
    }
}

/// Guarantees: a subject is on one side everywhere: flags and segments that decide along are those of its side.
#[test]
fn what_decides_along_is_of_the_same_side() {
    let needs = |key: &str| json!({"prerequisites": [{"flag": key, "variants": ["on"]}], "off_variant": "off"});
    let in_segment = json!({"rules": [{"when": {"segment": "some"}, "serve": "on"}]});
    let set = FlagSet::of(
        [
            flag("parent", on_off("off", json!({}))),
            flag("child", on_off("on", needs("parent"))),
            flag("grandchild", on_off("on", needs("child"))),
            flag("member", on_off("off", in_segment)),
            flag("apart", on_off("off", json!({}))),
        ],
        Map::new(),
    );
    let segment = |include: Value| Arc::new(Segment::compile(&json!({"when": include})).unwrap());
    let set = set.with_segments([("some".to_owned(), segment(json!(false)))]);
    let patch = Patch::new(
        [flag("parent", on_off("on", json!({})))],
        BTreeMap::from([("some".to_owned(), segment(json!(true)))]),
    );
    let touched: Vec<String> = patch.touches(&set).into_iter().collect();
    assert_eq!(touched, ["child", "grandchild", "member", "parent"]);
    let (set, slice) = changed(set, patch, true);
    for (context, name) in subjects() {
        let treated = slice.arm(&name) == Some(Arm::Treatment);
        for key in ["parent", "child", "grandchild", "member"] {
            let got = set.evaluate(key, &context, NOW).unwrap();
            assert_eq!(got.variant, Some(if treated { "on" } else { "off" }), "{key} {name}");
            assert_eq!(got.experiment.map(|(_, arm)| arm), slice.arm(&name), "{key} {name}");
        }
        assert_eq!(set.evaluate("apart", &context, NOW).unwrap().experiment, None);
        let (_, steps) = set.explain("child", &context, NOW);
        assert_eq!(steps[0]["arm"].as_str(), slice.arm(&name).map(Arm::as_str), "{steps:?}");
    }
}

/// Guarantees: a flag that comes or goes is known to both arms, so that both can be counted; without a value is the code default.
#[test]
fn flags_that_come_and_go() {
    let gone = flag("old", on_off("on", json!({})));
    let come = flag("new", on_off("on", json!({})));
    let patch = Patch::new([Arc::new(gone.absent().unwrap()), come.clone()], BTreeMap::new());
    let (set, slice) = changed(FlagSet::of([gone, Arc::new(come.absent().unwrap())], Map::new()), patch, true);
    for (context, name) in subjects() {
        let treated = slice.arm(&name) == Some(Arm::Treatment);
        for (key, there) in [("old", !treated), ("new", treated)] {
            let got = set.evaluate(key, &context, NOW).unwrap();
            assert_eq!((got.variant, got.value.is_some()), (there.then_some("on"), there), "{key}");
            assert_eq!(got.experiment.map(|(_, arm)| arm), slice.arm(&name));
        }
    }
}

/// Guarantees: what was promoted before stays in front of the rules for whoever does not meet the change, through prerequisites too.
#[test]
fn what_was_promoted_stays_for_the_others() {
    let rules = json!({"rules": [{"when": {"attr": "plan", "op": "in", "values": ["never"]}, "serve": "on"}]});
    let patch = Patch::new([flag("f", on_off("off", rules.clone()))], BTreeMap::new());
    let needs = json!({"prerequisites": [{"flag": "f", "variants": ["on"]}], "off_variant": "off"});
    let set = FlagSet::of([flag("f", on_off("off", rules)), flag("child", on_off("on", needs))], Map::new());
    let (set, slice) = changed(set, patch, true);
    let overlays = set.overlays().clone().into_iter().map(|(key, overlay)| {
        let otherwise = (key == "f").then(|| "on".into());
        (key, Overlay { otherwise, ..overlay })
    });
    let overlays = overlays.collect();
    let set = set.with_overlays(overlays);
    for (context, name) in subjects() {
        let treated = slice.arm(&name) == Some(Arm::Treatment);
        for key in ["f", "child"] {
            let got = set.evaluate(key, &context, NOW).unwrap();
            assert_eq!(got.variant, Some(if treated { "off" } else { "on" }), "{key} {name}");
        }
    }
    assert_eq!(set.portable("f").unwrap()["defaultVariant"], "on");
}

#[test]
fn a_patch_is_named_by_what_it_makes() {
    let list: Vec<String> = (0..50).map(|n| format!("user-{n}")).collect();
    let patch = |on: &str| {
        let segment = Segment::compile(&json!({"include": list})).unwrap();
        let segments = BTreeMap::from([("s".to_owned(), Arc::new(segment))]);
        format!("{:?}", Patch::new([flag("f", on_off(on, json!({})))], segments))
    };
    assert_eq!(patch("on"), patch("on"));
    assert_ne!(patch("on"), patch("off"));
}
