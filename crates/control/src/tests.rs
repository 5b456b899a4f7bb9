use auth::{Role, TokenHash};
use experiments::{Phase, Spec, Transition};
use serde_json::{Value, json};
use vocab::{Arm, Id, Kind, Share, Timestamp};

use crate::{Command, Entry, FlagChange, Refusal, State};

fn at(secs: i64) -> Timestamp {
    Timestamp::from_nanos(secs * 1_000_000_000)
}

fn flags(changes: Vec<FlagChange>) -> Command {
    Command::Flags { changes, break_glass: false }
}

fn put(key: &str, definition: Value) -> Command {
    flags(vec![FlagChange::Put { key: key.into(), definition }])
}

/// A state and the log it was folded from.
#[derive(Default)]
struct World {
    state: State,
    log: Vec<Vec<u8>>,
}

impl World {
    fn run(&mut self, command: Command) -> Result<u64, Refusal> {
        let now = at(self.log.len() as i64);
        let entries = self.state.decide(command, "token:test", "because", now)?;
        for entry in &entries {
            let index = self.log.len() as u64;
            self.log.push(entry.to_bytes());
            self.state.apply(index, &self.log[index as usize]);
        }
        Ok(self.log.len() as u64 - 1)
    }

    fn flag(&mut self, targeting: Value) {
        let definition = json!({"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off",
            "targeting": targeting});
        self.run(put("player", definition)).unwrap();
    }

    fn start(&mut self, spec: Value, offset: u32) -> Result<Id, Refusal> {
        let spec: Spec = serde_json::from_value(spec).unwrap();
        let arm_salt = format!("salt-{}", self.log.len());
        self.run(Command::Start { spec: Box::new(spec), arm_salt, offset }).map(|i| Id::new(Kind::Experiment, i))
    }

    fn phase(&mut self, id: Id, to: Phase) -> Result<u64, Refusal> {
        let transition = Transition { to, reason: "test".into(), verdict: None };
        self.run(Command::Phase { id, transition })
    }
}

fn rollout() -> Value {
    json!({"name": "rollout", "treatment": {"flag": {"key": "player", "variant": "on"}}, "on_success": "promote",
        "stages": [{"share": 0.05, "min": "5s"}], "kpi": {"success": "a = 1", "failure": "a = 2"}})
}

fn fault(name: &str, share: f64, ratio: u32) -> Value {
    json!({"name": name, "treatment": {"fault": {"route": name, "delay": "300ms"}},
        "stages": [{"share": share, "min": "5s"}], "baseline_ratio": ratio, "kpi": {"success": "a = 1", "failure": "a = 2"}})
}

#[test]
fn replay_gives_the_same_state() {
    let mut world = World::default();
    let hash = TokenHash::of("sw_x");
    let made = world.run(Command::TokenCreate { name: "ci".into(), role: Role::Operate, hash, expires: None }).unwrap();
    world.flag(json!({}));
    let id = world.start(rollout(), 0).unwrap();
    world.phase(id, Phase::Running { stage: 0 }).unwrap();
    world.phase(id, Phase::Promoted).unwrap();
    world.run(Command::Halt).unwrap();
    world.run(Command::TokenRevoke(Id::new(Kind::Token, made))).unwrap();
    let mut replayed = State::default();
    world.log.iter().enumerate().for_each(|(i, bytes)| replayed.apply(i as u64, bytes));
    assert_eq!(format!("{replayed:?}"), format!("{:?}", world.state));
    assert!(replayed.token(&hash).is_none() && replayed.halted());
    assert_eq!(replayed.flags()["player"].flag.default_variant(), Some("on"));
    assert_eq!(replayed.experiment("rollout").unwrap().phase, Phase::Promoted);
    replayed.apply(99, b"garbage");
    assert_eq!(replayed.skipped(), [99]);
}

#[test]
fn entries_are_canonical() {
    let mut world = World::default();
    world.run(Command::Halt).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&world.log[0]),
        r#"{"action":"halt","actor":"token:test","reason":"because","ts":0,"v":1}"#
    );
    world.flag(json!({}));
    for bytes in &world.log {
        assert_eq!(Entry::from_bytes(bytes).unwrap().to_bytes(), *bytes);
    }
}

/// Guarantees: a stopped experiment stays stopped until a person acknowledges it, and never runs again itself.
#[test]
fn a_stopped_experiment_stays_stopped() {
    let mut world = World::default();
    world.flag(json!({}));
    let id = world.start(rollout(), 0).unwrap();
    world.phase(id, Phase::Running { stage: 0 }).unwrap();
    let harm = json!({"outcome": "harm", "guardrail": "failures", "log_e_milli": 7000, "log_threshold_milli": 4605,
        "subjects_exposed": 10, "baseline_exposed": 10, "subjects_hurt": 9, "baseline_hurt": 0, "excess_hurt": 9,
        "ms_to_stop": 900, "at": 1, "sentence": "stopped"});
    let transition =
        Transition { to: Phase::Stopped, reason: "harm".into(), verdict: serde_json::from_value(harm).unwrap() };
    world.run(Command::Phase { id, transition }).unwrap();
    assert_eq!(world.phase(id, Phase::Running { stage: 0 }).unwrap_err().code, "not-live");
    assert_eq!(world.start(rollout(), 0).unwrap_err().code, "needs-ack");
    world.run(Command::Ack(id)).unwrap();
    assert_eq!(world.run(Command::Ack(id)).unwrap_err().code, "nothing-to-acknowledge");
    world.start(rollout(), 0).unwrap();
}

/// Guarantees: the share harmed on purpose never exceeds the budget, and no subject is in two harmful experiments,
/// however many are started at once.
#[test]
fn harmed_share_stays_within_the_budget() {
    arbtest::arbtest(|u| {
        let mut world = World::default();
        for n in 0..12 {
            let share = f64::from(u.int_in_range(1..=60_000_u32)?) / 1e6;
            let _ = world.start(fault(&format!("f{n}"), share, u.int_in_range(1..=4)?), u.arbitrary()?);
            if u.ratio(1, 4)? {
                let first = world.state.live().next().map(|e| e.id);
                if let Some(id) = first {
                    world.phase(id, Phase::Stopped).unwrap();
                }
            }
            let total: u32 = world.state.live().map(|e| e.budget_share().ppm()).sum();
            assert!(total <= 50_000, "{total}");
        }
        let live: Vec<_> = world.state.live().cloned().collect();
        for subject in 0..2_000 {
            let key = format!("user-{subject}");
            assert!(live.iter().filter(|e| e.slice().arm(&key).is_some()).count() <= 1);
        }
        Ok(())
    });
}

#[test]
fn refusals_say_what_to_do() {
    let mut world = World::default();
    assert_eq!(world.start(rollout(), 0).unwrap_err().code, "unknown-flag");
    world.flag(json!({}));
    let id = world.start(rollout(), 0).unwrap();
    let busy = world.start(rollout(), 0).unwrap_err();
    assert_eq!(busy.code, "target-busy");
    assert!(busy.detail.contains(&id.to_string()), "{busy}");
    let change = put("player", json!({"state": "ENABLED", "variants": {"on": true}}));
    assert_eq!(world.run(change).unwrap_err().code, "under-experiment");
    assert_eq!(world.start(fault("big", 0.06, 1), 0).unwrap_err().code, "over-budget");
    let broken = put("x", json!({"state": "MAYBE"}));
    assert_eq!(
        world.run(broken).unwrap_err().detail,
        "/flags/x/state: expected ENABLED or DISABLED; /flags/x/variants: expected at least one variant"
    );
    world.run(Command::Halt).unwrap();
    assert_eq!(world.start(fault("f", 0.01, 1), 0).unwrap_err().code, "halted");
    world.run(Command::FlagKill("player".into())).unwrap();
    assert!(!world.state.flags()["player"].flag.enabled());
}

#[test]
fn overlays_follow_the_phase() {
    let mut world = World::default();
    world.flag(json!({"if": [{"==": [{"var": "plan"}, "x"]}, "off"]}));
    let id = world.start(rollout(), 0).unwrap();
    let treated = (0..10_000)
        .map(|n| format!("user-{n}"))
        .find(|s| world.state.experiments().next().unwrap().slice().arm(s) == Some(Arm::Treatment))
        .unwrap();
    let variant = |world: &World| {
        let overlay = world.state.served().overlay("player").cloned();
        let context = flags::Context::of(&treated);
        let flag = world.state.flags()["player"].flag.clone();
        flag.evaluate(&context, overlay.as_ref(), at(0)).unwrap().variant.unwrap().to_owned()
    };
    assert_eq!(variant(&world), "off");
    world.phase(id, Phase::Running { stage: 0 }).unwrap();
    assert_eq!(variant(&world), "on");
    world.phase(id, Phase::Promoted).unwrap();
    assert_eq!(variant(&world), "on");
    let _ = Share::ALL;
}

/// Guarantees: budget freed by a stop is not given away before every proxy confirmed or must have lost its lease.
#[test]
fn freed_budget_stays_in_quarantine() {
    let mut world = World::default();
    let id = world.start(fault("first", 0.05, 1), 0).unwrap();
    world.phase(id, Phase::Stopped).unwrap();
    assert_eq!(world.start(fault("second", 0.05, 1), 0).unwrap_err().code, "over-budget");
    world.run(Command::OffEverywhere { id, proxies: 1 }).unwrap();
    world.start(fault("second", 0.05, 1), 0).unwrap();
}

fn ours(more: Value) -> Value {
    let mut definition =
        json!({"variants": {"on": true, "off": false}, "on": true, "off_variant": "off", "fallthrough": "off"});
    definition.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    definition
}

fn batch() -> Vec<FlagChange> {
    let rules = json!([{"when": {"segment": "staff"}, "serve": "on"}]);
    let needs = json!([{"flag": "base", "variants": ["on"]}]);
    vec![
        FlagChange::Put { key: "top".into(), definition: ours(json!({"prerequisites": needs, "rules": rules})) },
        FlagChange::Put { key: "base".into(), definition: ours(json!({"fallthrough": "on"})) },
        FlagChange::PutSegment { key: "staff".into(), definition: json!({"include": ["ann"]}) },
    ]
}

/// Guarantees: changes of flags and segments count together or not at all, also when a crash cut them off; what refers to
/// nothing, or in a circle, is refused; replay gives the same ruleset.
#[test]
fn changes_of_flags_are_all_or_nothing() {
    let mut world = World::default();
    world.run(flags(batch())).unwrap();
    let digest = world.state.flag_set().digest();
    assert_eq!(world.state.flags().len(), 2);
    let mut replayed = State::default();
    world.log.iter().enumerate().for_each(|(i, bytes)| replayed.apply(i as u64, bytes));
    assert_eq!(replayed.flag_set().digest(), digest);
    // The last entry of a second batch never made it to the disk; what comes after it counts all the same.
    let mut cut = World::default();
    let entries = cut.state.decide(flags(batch()), "token:test", "", at(0)).unwrap();
    entries[..2].iter().enumerate().for_each(|(i, entry)| cut.state.apply(i as u64, &entry.to_bytes()));
    assert!(cut.state.flags().is_empty());
    let after = cut.state.decide(put("alone", ours(json!({}))), "token:test", "", at(1)).unwrap();
    cut.state.apply(2, &after[0].to_bytes());
    assert_eq!((cut.state.flags().len(), cut.state.skipped()), (1, &[0, 1][..]));

    for (change, code) in [
        (FlagChange::Delete("base".into()), "tangled-flags"),
        (FlagChange::DeleteSegment("staff".into()), "tangled-flags"),
        (FlagChange::DeleteSegment("nobody".into()), "unknown-segment"),
        (
            FlagChange::Put {
                key: "base".into(),
                definition: ours(json!({"prerequisites": [{"flag": "top", "variants": ["on"]}]})),
            },
            "tangled-flags",
        ),
    ] {
        assert_eq!(world.run(flags(vec![change.clone()])).unwrap_err().code, code, "{change:?}");
    }
    let twice = vec![FlagChange::Delete("top".into()), FlagChange::Delete("top".into())];
    assert_eq!(world.run(flags(twice)).unwrap_err().code, "named-twice");
    // What needs each other may go together.
    let all = vec![
        FlagChange::DeleteSegment("staff".into()),
        FlagChange::Delete("base".into()),
        FlagChange::Delete("top".into()),
    ];
    world.run(flags(all)).unwrap();
    assert!(world.state.flags().is_empty() && world.state.segments().is_empty());
    assert_eq!(world.state.flag_history("top"), [0, 5]);
}

/// Guarantees: a killed flag stays off until somebody revives it, whatever is put meanwhile, and is then what it was before.
#[test]
fn a_killed_flag_stays_killed() {
    let mut world = World::default();
    world.run(put("f", ours(json!({"fallthrough": "on"})))).unwrap();
    world.run(Command::FlagKill("f".into())).unwrap();
    world.run(Command::FlagKill("f".into())).unwrap();
    assert_eq!(world.run(put("f", ours(json!({"fallthrough": "on"})))).unwrap_err().code, "killed");
    world.run(put("f", ours(json!({"on": false, "description": "off for now"})))).unwrap();
    assert_eq!(world.run(put("f", ours(json!({})))).unwrap_err().code, "killed");
    let later = ours(json!({"on": false, "schedule": [{"at": "2030-01-01T00:00:00Z", "change": {"on": true}}]}));
    assert_eq!(world.run(put("f", later)).unwrap_err().code, "killed");
    let mut replayed = State::default();
    world.log.iter().enumerate().for_each(|(i, bytes)| replayed.apply(i as u64, bytes));
    assert!(!replayed.flags()["f"].flag.enabled());
    world.run(flags(vec![FlagChange::Revive("f".into())])).unwrap();
    let flag = &world.state.flags()["f"].flag;
    assert!(flag.enabled() && flag.default_variant() == Some("on"));
    assert_eq!(world.run(flags(vec![FlagChange::Revive("f".into())])).unwrap_err().code, "not-killed");
    world.run(put("f", ours(json!({})))).unwrap();
}

fn plain(default: &str) -> Value {
    json!({"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": default})
}

fn profile(more: Value) -> Value {
    let mut profile = json!({"default": true, "kpi": {"success": "a = 1", "failure": "a = 2"}, "stage_min": "5s"});
    profile.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    profile
}

/// Judges changes as if every subject were moved by each flag that decides differently.
fn staged(world: &World, changes: Vec<FlagChange>) -> Result<Spec, Refusal> {
    let after = world.state.with_announced(world.state.candidate(&changes)?);
    let contexts: Vec<flags::Context> = (0..50).map(|n| flags::Context::of(&format!("user-{n}"))).collect();
    let impacts = flags::impact(&world.state.served(), &after, &contexts, &|_, _| true, at(99));
    let jumps = crate::guard::judge(&impacts, &world.state.served(), &after, &|_| true, 1.0, &|_| 0.0).unwrap_err();
    world.state.staged(changes, &jumps, &after, "because")
}

fn set(key: &str, definition: Value) -> FlagChange {
    FlagChange::Put { key: key.into(), definition }
}

/// Scenario: changes that are too much at once, with and without a profile.
/// Guarantees: stages begin with the first step of the strictest flag; the profile is the flag's own or the default; a change that a
/// rollout cannot carry out is refused all the same.
#[test]
fn a_jump_becomes_a_rollout() {
    let mut world = World::default();
    world.run(put("f", plain("off"))).unwrap();
    let refused = staged(&world, vec![set("f", plain("on"))]).unwrap_err();
    assert!(refused.code == "unwatched-change" && refused.remedy.contains("profile put"), "{refused:?}");
    let name = |text: &str| vocab::Name::parse(text).unwrap();
    let put_profile = |name_: &str, definition: Value| Command::ProfilePut { name: name(name_), definition };
    for (broken, place) in [
        (json!({}), "kpi"),
        (profile(json!({"name": "x"})), "name"),
        (profile(json!({"alpha": 7})), "alpha"),
        (profile(json!({"stage_min": -1})), "stage_min"),
    ] {
        let refused = world.run(put_profile("plays", broken)).unwrap_err();
        assert!(refused.code == "invalid-profile" && refused.detail.contains(place), "{refused:?}");
    }
    world.run(put_profile("plays", profile(json!({"owner": "streaming"})))).unwrap();
    assert_eq!(world.run(put_profile("other", profile(json!({})))).unwrap_err().code, "two-defaults");
    world
        .run(put_profile("slow", profile(json!({"default": false, "stages": [{"share": 0.2, "min": "1h"}]}))))
        .unwrap();
    let shares = |spec: &Spec| spec.stages.iter().map(|s| s.share.ppm()).collect::<Vec<_>>();
    let spec = staged(&world, vec![set("f", plain("on"))]).unwrap();
    assert_eq!(shares(&spec), [100_000, 250_000, 500_000]);
    assert_eq!((spec.owner.as_str(), spec.hypothesis.as_str()), ("streaming", "because"));
    assert!(spec.findings().is_empty(), "{:?}", spec.findings());
    // The strictest flag decides, and a profile's own stages never begin above its first step.
    let mut critical = plain("on");
    critical["metadata"] = json!({"risk": "critical", "profile": "slow"});
    let changes = vec![set("critical", critical.clone()), set("f", plain("on"))];
    assert_eq!(shares(&staged(&world, changes).unwrap()), [10_000, 200_000]);
    critical["metadata"]["profile"] = json!("missing");
    let refused = staged(&world, vec![set("critical", critical)]).unwrap_err();
    assert!(refused.remedy.contains("missing"), "{refused:?}");
    // What turns by itself later would jump after the promotion.
    let later = json!({"variants": {"on": true, "off": false}, "on": true, "fallthrough": "off",
        "schedule": [{"at": "2030-01-01T00:00:00Z", "change": {"fallthrough": "on"}}]});
    let refused = staged(&world, vec![set("f", later)]).unwrap_err();
    assert!(refused.code == "unwatched-change" && refused.detail.contains("later"), "{refused:?}");
}

/// Guarantees: what off serves is no way round: it cannot be changed for a flag in use, so that switching off is safe.
#[test]
fn what_off_serves_does_not_change_unwatched() {
    let mut world = World::default();
    let flag = |off: Value, new: u32| json!({"variants": {"old": 1, "new": new}, "on": true, "fallthrough": "old", "off_variant": off});
    world.run(put("f", flag(Value::Null, 2))).unwrap();
    let refused = |world: &World, definition| staged(world, vec![set("f", definition)]).unwrap_err().detail;
    assert!(refused(&world, flag(json!("new"), 2)).contains("when it is off"));
    world.run(put("f", flag(json!("new"), 2))).unwrap();
    assert!(refused(&world, flag(json!("new"), 3)).contains("when it is off"));
}

/// Guarantees: what a rollout needs, directly or not, changes under nobody's hands, and what it removes is not needed by then.
#[test]
fn what_a_rollout_needs_is_held() {
    let mut world = World::default();
    let on_off = |more: Value| {
        let mut flag = json!({"variants": {"on": true, "off": false}, "on": true, "fallthrough": "off"});
        flag.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        flag
    };
    let segment = |key: &str, definition: Value| FlagChange::PutSegment { key: key.into(), definition };
    let inner = json!({"when": {"attr": "plan", "op": "in", "values": ["gold"]}});
    world.run(flags(vec![segment("inner", inner), segment("outer", json!({"when": {"segment": "inner"}}))])).unwrap();
    for key in ["f", "parent", "gone"] {
        world.run(put(key, on_off(json!({})))).unwrap();
    }
    let will = on_off(json!({"rules": [{"when": {"segment": "outer"}, "serve": "on"}],
        "prerequisites": [{"flag": "parent", "variants": ["on"]}]}));
    let id =
        world.start(change_spec(json!([{"put": {"key": "f", "definition": will}}, {"delete": "gone"}])), 0).unwrap();
    let needs_gone = on_off(json!({"prerequisites": [{"flag": "gone", "variants": ["on"]}]}));
    for change in [
        segment("inner", json!({"when": true})),
        segment("outer", json!({"when": true})),
        set("parent", on_off(json!({"fallthrough": "on"}))),
        set("other", needs_gone.clone()),
        FlagChange::Delete("parent".into()),
    ] {
        assert_eq!(world.run(flags(vec![change.clone()])).unwrap_err().code, "under-experiment", "{change:?}");
    }
    world.phase(id, Phase::Running { stage: 0 }).unwrap();
    world.phase(id, Phase::Promoted).unwrap();
    assert!(world.state.flag_set().tangles().is_empty());
    assert_eq!(world.run(put("other", needs_gone)).unwrap_err().code, "tangled-flags");
}

fn change_spec(changes: Value) -> Value {
    json!({"name": "change", "treatment": {"flags": changes}, "on_success": "promote",
        "stages": [{"share": 0.1, "min": "5s"}], "kpi": {"success": "a = 1", "failure": "a = 2"}})
}

/// Guarantees: until it is promoted a change is in force for nobody but its treatment; then for all; a replay gives the same.
#[test]
fn a_change_on_trial_counts_when_it_is_promoted() {
    let mut world = World::default();
    world.run(put("f", plain("off"))).unwrap();
    world.run(put("gone", plain("on"))).unwrap();
    let changes = json!([{"put": {"key": "f", "definition": plain("on")}}, {"put": {"key": "new", "definition": plain("on")}},
        {"delete": "gone"}, {"put_segment": {"key": "s", "definition": {"include": ["a"]}}}]);
    for (end, promoted) in [(Phase::Stopped, false), (Phase::Promoted, true)] {
        let id = world.start(change_spec(changes.clone()), 0).unwrap();
        world.phase(id, Phase::Running { stage: 0 }).unwrap();
        assert_eq!(world.state.flags()["f"].flag.default_variant(), Some("off"));
        let served = world.state.served();
        for key in ["f", "new", "gone"] {
            assert_eq!(served.overlay(key).unwrap().experiment, id, "{key}");
        }
        assert!(served.flag("new").is_some_and(|flag| !flag.enabled()));
        for change in [set("f", plain("off")), set("new", plain("off"))] {
            assert_eq!(world.run(flags(vec![change])).unwrap_err().code, "under-experiment");
        }
        let segment = FlagChange::PutSegment { key: "s".into(), definition: json!({}) };
        assert_eq!(world.run(flags(vec![segment])).unwrap_err().code, "under-experiment");
        assert_eq!(world.start(rollout_of("f"), 0).unwrap_err().code, "target-busy");
        world.phase(id, end).unwrap();
        assert!(world.state.served().overlay("f").is_none());
        assert_eq!(world.state.flags()["f"].flag.default_variant(), Some(if promoted { "on" } else { "off" }));
        assert_eq!(world.state.flags().contains_key("new"), promoted);
        assert_eq!(world.state.flags().contains_key("gone"), !promoted);
        assert_eq!(world.state.segments().contains_key("s"), promoted);
        let history = world.state.flag_history("f");
        assert!(history.contains(&id.index()) && history.windows(2).all(|pair| pair[0] < pair[1]), "{history:?}");
    }
    let mut replayed = State::default();
    world.log.iter().enumerate().for_each(|(i, bytes)| replayed.apply(i as u64, bytes));
    assert_eq!(replayed.flag_set().digest(), world.state.flag_set().digest());
    assert!(replayed.skipped().is_empty());
}

fn rollout_of(key: &str) -> Value {
    let mut spec = rollout();
    spec["treatment"]["flag"]["key"] = json!(key);
    spec
}

/// Guarantees: a kill beats a change on trial, of a flag that it makes too; and nothing that a change needs is taken from under it.
#[test]
fn a_kill_beats_a_change_on_trial() {
    let mut world = World::default();
    world.run(put("f", plain("off"))).unwrap();
    world.run(put("parent", plain("on"))).unwrap();
    let child = json!({"variants": {"on": true, "off": false}, "on": true, "fallthrough": "on",
        "prerequisites": [{"flag": "parent", "variants": ["on"]}]});
    let changes =
        json!([{"put": {"key": "f", "definition": plain("on")}}, {"put": {"key": "child", "definition": child}}]);
    for key in ["child", "f"] {
        let id = world.start(change_spec(changes.clone()), 0).unwrap();
        world.phase(id, Phase::Running { stage: 0 }).unwrap();
        let delete = flags(vec![FlagChange::Delete("parent".into())]);
        assert_eq!(world.run(delete).unwrap_err().code, "under-experiment");
        world.run(Command::FlagKill(key.into())).unwrap();
        assert_eq!(world.state.cut(id), Some(key));
        // Decided a moment ago, and too late now.
        assert_eq!(world.phase(id, Phase::Promoted).unwrap_err().code, "killed");
        assert!(world.state.served().overlays().is_empty());
        world.phase(id, Phase::Stopped).unwrap();
        assert_eq!(world.state.cut(id), None);
        // A key that was killed before it was a flag: nobody makes it one that is on.
        if key == "child" {
            assert_eq!(world.run(put("child", plain("on"))).unwrap_err().code, "killed");
            world.run(flags(vec![FlagChange::Revive("child".into())])).unwrap();
        }
    }
    // Nor does it come back by being removed and made again.
    world.run(flags(vec![FlagChange::Delete("f".into())])).unwrap();
    assert_eq!(world.run(put("f", plain("on"))).unwrap_err().code, "killed");
    world.run(put("f", json!({"state": "DISABLED", "variants": {"on": true}}))).unwrap();
    assert!(world.state.flags()["f"].before_kill.is_some());
    world.run(Command::FlagKill("f".into())).unwrap();
    assert!(!world.state.flags()["f"].flag.enabled());
    assert_eq!(world.run(Command::FlagKill("nobody".into())).unwrap_err().code, "unknown-flag");
}

/// Guarantees: a second rollout on a flag takes from nobody what the first one promoted.
#[test]
fn what_was_promoted_stays_under_the_next_rollout() {
    let mut world = World::default();
    world.flag(json!({"if": [{"==": [{"var": "a"}, 1]}, "on", null]}));
    let id = world.start(rollout(), 0).unwrap();
    world.phase(id, Phase::Promoted).unwrap();
    let everybody = |world: &World| {
        let served = world.state.served();
        (0..200)
            .filter(|n| {
                served.evaluate("player", &flags::Context::of(&format!("user-{n}")), at(0)).unwrap().variant
                    == Some("on")
            })
            .count()
    };
    assert_eq!(everybody(&world), 200);
    let mut second = rollout();
    second["treatment"]["flag"]["variant"] = json!("off");
    let id = world.start(second, 0).unwrap();
    assert_eq!(everybody(&world), 200, "in warm-up");
    world.phase(id, Phase::Running { stage: 0 }).unwrap();
    assert!((150..200).contains(&everybody(&world)), "{}", everybody(&world));
}

/// Guarantees: only the person whom a rollout asks may accept it, while it is live.
#[test]
fn acceptance_is_one_persons() {
    let mut world = World::default();
    world.flag(json!({}));
    let id = world.start(rollout(), 0).unwrap();
    let accept = |id| Command::Accept { id, as_wanted: false };
    assert_eq!(world.run(accept(id)).unwrap_err().code, "nothing-to-accept");
    world.phase(id, Phase::Stopped).unwrap();
    for (person, code) in [("bea", Some("not-yours-to-accept")), ("test", None)] {
        let mut spec = rollout();
        spec["acceptance"] = json!(person);
        let id = world.start(spec, 0).unwrap();
        world.phase(id, Phase::Running { stage: 0 }).unwrap();
        assert_eq!(world.run(accept(id)).err().map(|refused| refused.code), code);
        let said = world.state.experiment(&id.to_string()).unwrap().acceptance.clone();
        // No proof promotes what was not accepted.
        assert!(["not-wanted", "not-accepted"].contains(&world.phase(id, Phase::Promoted).unwrap_err().code));
        assert_eq!(said.map(|said| (said.as_wanted, said.note)), code.is_none().then(|| (false, "because".into())));
        world.phase(id, Phase::Completed).unwrap();
        assert_eq!(world.run(accept(id)).unwrap_err().code, "not-live");
    }
}
