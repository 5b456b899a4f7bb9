use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use control::{Command, FlagChange};
use experiments::{Phase, Transition};
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;
use vocab::Id;

use crate::app::{App, How, lock};
use crate::{Options, api, boot, proxies};

/// A control plane without threads and listeners. The jobs are held so that the intake stays open.
pub(crate) fn plane() -> (tempfile::TempDir, Arc<App>, String, Box<dyn Send>) {
    plane_with(None, None)
}

pub(crate) fn options(data: &std::path::Path) -> Options {
    Options {
        bucket: None,
        data: data.to_owned(),
        listen: "127.0.0.1:0".parse().unwrap(),
        also_listen: Vec::new(),
        flagd_ports: Vec::new(),
        ofrep_rate: None,
        cors: None,
        dev: false,
        environment: None,
        segment_rows: events::SEGMENT_ROWS,
        keep: Default::default(),
        names_max: 10_000,
    }
}

fn plane_with(
    ofrep_rate: Option<flagd::limit::Rate>,
    cors: Option<flagd::http::Cors>,
) -> (tempfile::TempDir, Arc<App>, String, Box<dyn Send>) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { ofrep_rate, cors, ..options(dir.path()) };
    let (app, jobs, _) = boot::open(&options).unwrap();
    let token = boot::first_token(&app).unwrap().unwrap();
    (dir, app, token, Box::new(jobs))
}

/// A fault experiment that is on.
fn running_fault(app: &App) -> Id {
    let spec = json!({"name": "slow", "treatment": {"fault": {"route": "all", "delay_ms": 200}},
        "stages": [{"share": 0.05, "min_ms": 60_000}],
        "kpi": {"success": "name = 'request'", "failure": "name = 'request' and error = true"}});
    let spec = Box::new(serde_json::from_value(spec).unwrap());
    app.commit(Command::Start { spec, arm_salt: "00".repeat(16), offset: 0 }, "test", "").unwrap();
    let id = app.state.load().live().next().unwrap().id;
    let transition = Transition { to: Phase::Running { stage: 0 }, reason: "test".into(), verdict: None };
    app.commit(Command::Phase { id, transition }, "test", "").unwrap();
    id
}

fn fault_is_on(app: &App) -> bool {
    let snapshot: Value = serde_json::from_str(&app.proxy_snapshot.borrow().1).unwrap();
    snapshot["experiments"].as_array().unwrap().iter().any(|e| e["on"] == true)
}

/// Guarantee: however many other changes are published at the same time, no snapshot after a stop has the fault on. (Without
/// the order that `publishing` gives, the moment is too short to be met here; without `Emergency` it is met at once.)
#[test]
fn a_stopped_fault_is_not_published_again() {
    let (_dir, app, _, _jobs) = plane();
    let put = |key: String| {
        let definition = json!({"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off"});
        app.commit(
            Command::Flags { changes: vec![FlagChange::Put { key, definition }], break_glass: false },
            "test",
            "",
        )
        .unwrap();
    };
    // Much to publish makes a publication slow, and the moment in which another may overtake it long.
    (0..200).for_each(|n| put(format!("flag-{n}")));
    let id = running_fault(&app);
    let done = AtomicBool::new(false);
    let on_again = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                put("busy".to_owned());
            }
        });
        let mut on_again = 0;
        for _ in 0..50 {
            assert!(fault_is_on(&app));
            app.off_now(id);
            let stopped = Instant::now();
            let mut seen = false;
            while stopped.elapsed() < Duration::from_millis(3) {
                seen |= fault_is_on(&app);
            }
            on_again += usize::from(seen);
            // A recorded phase replaces what was switched off ahead of the record: on, for the next round.
            let transition = Transition { to: Phase::Running { stage: 0 }, reason: "test".into(), verdict: None };
            app.commit(Command::Phase { id, transition }, "test", "").unwrap();
        }
        done.store(true, Ordering::Relaxed);
        on_again
    });
    assert_eq!(on_again, 0, "commits under way switched the fault on again");
}

/// Guarantee: proxies keep a lease, and with it a fault, only while the watch loop turns.
#[tokio::test]
async fn no_lease_without_a_watcher() {
    let (_dir, app, token, _jobs) = plane();
    let renew = || {
        let body = json!({"name": "edge", "instance": "edge-1", "version": 1}).to_string();
        let request = Request::post("/api/v1/proxy/renew")
            .header("authorization", format!("Bearer {token}"))
            .body(Body::from(body))
            .unwrap();
        let router = api::router(app.clone());
        async move { router.oneshot(request).await.unwrap().status() }
    };
    assert_eq!(renew().await, StatusCode::OK);
    let long_ago = Instant::now().checked_sub(proxies::WATCH_MAX + Duration::from_secs(1)).unwrap();
    *lock(&app.watched_at) = long_ago;
    assert_eq!(renew().await, StatusCode::SERVICE_UNAVAILABLE);
    *lock(&app.watched_at) = Instant::now();
    assert_eq!(renew().await, StatusCode::OK);
}

/// Asks for every flag as a client does: these are the users that a change would move.
fn seen(app: &App, users: u32) -> Vec<flags::Context> {
    let contexts: Vec<flags::Context> = (0..users)
        .map(|n| flags::Context::of(&format!("user-{n}")).with("plan", ["free", "pro"][n as usize % 2]))
        .collect();
    let served = app.flags.load();
    contexts.iter().for_each(|context| served.note_all(context, crate::app::now()));
    contexts
}

fn served(app: &App, key: &str, contexts: &[flags::Context]) -> Vec<(Option<String>, bool)> {
    let set = &app.flags.load().flags;
    let one = |context| match set.evaluate(key, context, crate::app::now()) {
        Ok(found) => (found.variant.map(str::to_owned), found.reason == flags::Reason::Disabled),
        Err(_) => (None, false),
    };
    contexts.iter().map(one).collect()
}

/// Scenario: random edits of rules, defaults, segments, targets, deletions and batches of them, with users who are seen; without and
/// with a profile, by which what is too much at once becomes a rollout, in whatever stage it then is.
/// Guarantees: nothing that is accepted moves more of them at once than the first step of the flag's risk, but to off; and what is
/// refused changes nothing.
#[test]
fn no_side_door() {
    for with_profile in [false, true] {
        random_edits(with_profile);
    }
}

fn random_edits(with_profile: bool) {
    let (_dir, app, _, _jobs) = plane();
    if with_profile {
        let definition = json!({"default": true, "kpi": {"success": "a = 1", "failure": "a = 2"}});
        let name = vocab::Name::parse("plays").unwrap();
        app.commit(Command::ProfilePut { name, definition }, "test", "").unwrap();
    }
    let contexts = seen(&app, 400);
    let step = [("low", 0.25), ("medium", 0.10), ("high", 0.05), ("critical", 0.01)];
    let (mut accepted, mut refused, mut rollouts) = (0, 0, 0);
    let mut seed = 7_u64;
    let mut die = move |sides: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % sides
    };
    for _ in 0..600 {
        let mut changes = Vec::new();
        let mut touched = std::collections::BTreeSet::new();
        for _ in 0..1 + die(2) {
            let n = die(3);
            let key = format!("f{n}");
            // Mostly the same for a flag: lowering it is a change of its own.
            let risk = step[if die(8) == 0 { die(4) } else { n } as usize].0;
            if !touched.insert(key.clone()) {
                continue;
            }
            let weight = [0, 1, 4, 9, 12, 20, 50, 100][die(8) as usize];
            let split = json!({"split": {"weights": [["on", weight], ["off", 100 - weight]], "salt": "s"}});
            let serve = [json!("on"), json!("off"), Value::Null, split.clone(), split][die(5) as usize].clone();
            let when =
                [json!({"segment": "some"}), json!({"attr": "plan", "op": "in", "values": ["pro"]}), json!(true)];
            let offs = ["off", "on"];
            let defaults = [json!("on"), json!("off"), Value::Null, serve.clone()];
            changes.push(match die(10) {
                0 => FlagChange::Delete(key),
                1 => FlagChange::Put {
                    key,
                    definition: json!({"state": "ENABLED", "variants": {"on": true, "off": false},
                        "defaultVariant": defaults[die(3) as usize]}),
                },
                _ => FlagChange::Put {
                    key,
                    definition: json!({"variants": {"on": true, "off": false}, "on": die(8) > 0, "risk": risk,
                        "off_variant": offs[die(2) as usize], "fallthrough": defaults[die(4) as usize],
                        "targets": [{"variant": "on", "subjects": ["user-1", "user-2"]}],
                        "rules": [{"when": when[die(3) as usize], "serve": serve}]}),
                },
            });
        }
        if die(3) == 0 {
            let include: Vec<String> = (0..die(60)).map(|n| format!("user-{n}")).collect();
            changes.push(FlagChange::PutSegment { key: "some".into(), definition: json!({"include": include}) });
        }
        let keys = ["f0", "f1", "f2"];
        let off_before = |key: &str| {
            let set = &app.flags.load().flags;
            set.flag(key).and_then(|flag| flag.definition()["off_variant"].as_str().map(str::to_owned))
        };
        let before: Vec<_> = keys.iter().map(|key| (off_before(key), served(&app, key, &contexts))).collect();
        let risks: Vec<f64> = keys
            .iter()
            .map(|key| {
                let set = &app.flags.load().flags;
                let added = changes.iter().find_map(|change| match change {
                    FlagChange::Put { key: put, definition } if put == key => definition["risk"].as_str(),
                    _ => None,
                });
                let risk = set.flag(key).map_or(added.unwrap_or("medium"), |flag| flag.risk());
                step.iter().find(|(name, _)| *name == risk).unwrap().1
            })
            .collect();
        let outcome = app.commit_flags(changes.clone(), &How::default(), "test", "");
        for ((key, (off, before)), risk) in keys.iter().zip(before).zip(risks) {
            let after = served(&app, key, &contexts);
            // Off is off as it was declared before, or the code default.
            let is_off = |will: &(Option<String>, bool)| will.1 && (will.0.is_none() || will.0 == off);
            let moved = before.iter().zip(&after).filter(|(was, will)| was.0 != will.0 && !is_off(will)).count();
            match &outcome {
                Ok(_) => assert!(moved as f64 / 400.0 <= risk, "{moved} of 400 moved on {key}: {changes:?}"),
                Err(_) => assert_eq!(before, after, "refused, and yet changed"),
            }
        }
        match outcome {
            Ok(changed) => {
                accepted += 1;
                let Some(id) = changed.rollout else { continue };
                rollouts += 1;
                let before: Vec<_> = keys.iter().map(|key| served(&app, key, &contexts)).collect();
                let phase = |to| {
                    let transition = Transition { to, reason: "test".into(), verdict: None };
                    app.commit(Command::Phase { id, transition }, "test", "").unwrap();
                    keys.map(|key| served(&app, key, &contexts))
                };
                let risk_of = |key: &str| step.iter().find(|(name, _)| *name == key).map_or(0.10, |(_, share)| *share);
                let risk = app.state.load().experiment(&id.to_string()).unwrap().spec.stages[0].share.fraction();
                assert!(risk <= risk_of("low"));
                for (was, will) in before.iter().zip(phase(Phase::Running { stage: 0 })) {
                    let moved = was.iter().zip(&will).filter(|(was, will)| was.0 != will.0).count();
                    // The share is that of all subjects; of four hundred it is so by six standard deviations.
                    let most = risk + 6.0 * (risk * (1.0 - risk) / 400.0).sqrt();
                    assert!(moved as f64 / 400.0 <= most, "{moved} of 400 moved by the first stage of {risk}");
                }
                // Promoted it is in force, else it never was.
                let promoted = die(2) == 0;
                let after = phase(if promoted { Phase::Promoted } else { Phase::Completed });
                // A flag that is on its way is off without a value; one that is not there gives the same.
                let same = before
                    .iter()
                    .zip(&after)
                    .all(|(was, will)| was.iter().zip(will).all(|(was, will)| was.0 == will.0));
                assert!(promoted || same, "reverted, and yet changed");
                let again = promoted.then(|| app.commit_flags(changes, &How::default(), "test", ""));
                let same = again.is_none_or(|again| match again {
                    Ok(changed) => changed.impacts.is_empty(),
                    Err(problem) => problem.code == "unknown-flag",
                });
                assert!(same, "promoted, and yet not in force");
            }
            Err(problem) => {
                let codes = ["unwatched-change", "unknown-flag", "tangled-flags"];
                assert!(codes.contains(&problem.code), "{problem:?}");
                refused += 1;
            }
        }
    }
    let enough = accepted > 20 && refused > 20 && (rollouts > 20) == with_profile;
    assert!(enough, "{accepted} accepted, {refused} refused, {rollouts} rollouts: the test says nothing");
}

/// Guarantees: the way past the guard needs a reason and leaves a review item; a flag that nobody asks for moves nobody; what
/// switches off needs no leave.
#[test]
fn breaking_the_glass_leaves_a_review_item() {
    let (_dir, app, _, _jobs) = plane();
    let put = |default: &str, break_glass: bool, reason: &str| {
        let definition = json!({"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": default});
        let changes = vec![FlagChange::Put { key: "f".into(), definition }];
        app.commit(Command::Flags { changes, break_glass }, "test", reason).map_err(|problem| problem.code)
    };
    put("off", false, "").unwrap();
    put("on", false, "").unwrap();
    put("off", false, "").unwrap();
    seen(&app, 50);
    assert_eq!(put("on", false, "because"), Err("unwatched-change"));
    assert_eq!(put("on", true, " "), Err("reason-needed"));
    // Nor is a lower risk a way round: today less care, tomorrow the jump.
    let careless = json!({"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off",
        "metadata": {"risk": "low"}});
    let changes = vec![FlagChange::Put { key: "f".into(), definition: careless }];
    let lowered = app.commit(Command::Flags { changes, break_glass: false }, "test", "").unwrap_err();
    assert!(lowered.code == "unwatched-change" && lowered.detail.contains("lower risk"), "{lowered:?}");
    assert!(app.state.load().reviews().is_empty());
    let index = put("on", true, "the cache is on fire").unwrap();
    assert_eq!(app.state.load().reviews(), [index]);
    app.commit(Command::FlagKill("f".into()), "test", "").unwrap();
    let off = json!({"state": "DISABLED", "variants": {"on": true}, "defaultVariant": "on"});
    let changes = vec![FlagChange::Put { key: "f".into(), definition: off }];
    app.commit(Command::Flags { changes, break_glass: false }, "test", "").unwrap();
}

/// Guarantees: twenty small steps are a large one; and a flag that some users ask for is judged by those, not by all.
#[test]
fn many_small_steps_are_a_large_one() {
    let (_dir, app, _, _jobs) = plane();
    let put = |key: &str, share: u32| {
        let split = json!({"split": {"weights": [["on", share], ["off", 100 - share]], "salt": "s"}});
        let definition = json!({"variants": {"on": true, "off": false}, "on": true, "fallthrough": split});
        let changes = vec![FlagChange::Put { key: key.into(), definition }];
        app.commit_flags(changes, &How::default(), "test", "").map_err(|problem| problem.code)
    };
    put("f", 0).unwrap();
    put("rare", 0).unwrap();
    let served = app.flags.load_full();
    for n in 0..2_000 {
        let context = flags::Context::of(&format!("user-{n}"));
        let _ = served.resolve("f", &context, crate::app::now());
        if n < 100 {
            let _ = served.resolve("rare", &context.with("card", true), crate::app::now());
        }
    }
    put("f", 4).unwrap();
    put("f", 8).unwrap();
    assert_eq!(put("f", 14).unwrap_err(), "unwatched-change");
    assert_eq!(put("rare", 50).unwrap_err(), "unwatched-change");
    app.recent.restore(app.recent.kept(crate::app::now()));
    assert_eq!(put("f", 14).unwrap_err(), "unwatched-change", "a restart forgets no step");
}

/// Guarantees: whoever says what he knows changes nothing that somebody else changed meanwhile.
#[test]
fn a_change_of_what_was_seen() {
    let (_dir, app, _, _jobs) = plane();
    let put = |default: &str, version: u64| {
        let definition = json!({"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": default});
        let how = How { expected: vec![("flag f".to_owned(), version)], ..How::default() };
        let changes = vec![FlagChange::Put { key: "f".into(), definition }];
        app.commit_flags(changes, &how, "test", "").map(|changed| changed.index).map_err(|problem| problem.code)
    };
    assert_eq!(put("on", 7), Err("changed-meanwhile"));
    let first = put("on", 0).unwrap();
    assert_eq!(put("off", 0), Err("changed-meanwhile"));
    let second = put("off", first).unwrap();
    assert_eq!(put("on", first), Err("changed-meanwhile"));
    assert!(put("on", second).is_ok());
}

const BULK: &str = "/ofrep/v1/evaluate/flags";

/// Guarantees: a page of a named origin may evaluate flags with a token, and nothing else; without names no page may.
#[tokio::test]
async fn pages_evaluate_if_their_origin_is_named() {
    let shop = "https://shop.example";
    for origins in [vec![shop.to_owned()], Vec::new()] {
        let (_dir, app, token, _jobs) = plane_with(None, flagd::http::cors(&origins).unwrap());
        let router = api::router(app);
        let allowed = async |request: http::request::Builder| {
            let request = request.header("origin", shop).body(Body::from("{}")).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            let origin = response.headers().get("access-control-allow-origin").map(|v| v.to_str().unwrap().to_owned());
            (response.status(), origin, response.headers().get("access-control-expose-headers").cloned())
        };
        let named = origins.first().cloned();
        // The browser asks first, without the token.
        let asks = |path: &str| {
            Request::options(path.to_owned())
                .header("access-control-request-method", "POST")
                .header("access-control-request-headers", "authorization,content-type")
        };
        for path in [BULK, "/ofrep/v1/events", "/flagd.evaluation.v1.Service/ResolveAll"] {
            let (status, origin, _) = allowed(asks(path)).await;
            assert_eq!((status == StatusCode::OK, origin), (named.is_some(), named.clone()), "{path}");
        }
        for path in ["/api/v1/flags", "/api/v1/tokens", "/v1/traces"] {
            assert_eq!(allowed(asks(path)).await.1, None, "{path}");
        }
        let (status, origin, exposed) =
            allowed(Request::post(BULK).header("authorization", format!("Bearer {token}"))).await;
        assert_eq!((status, &origin), (StatusCode::OK, &named));
        assert_eq!(exposed.is_some_and(|names| names.to_str().unwrap().contains("etag")), named.is_some());
        // What is refused is refused, and the page can read why.
        let (status, origin, _) = allowed(Request::post(BULK)).await;
        assert_eq!((status, origin), (StatusCode::UNAUTHORIZED, named));
    }
}

#[tokio::test]
async fn a_token_that_asks_too_often_is_told_to_wait() {
    let (_dir, app, admin, _jobs) = plane_with(std::num::NonZeroU32::new(2), None);
    let other = api::fresh_token().unwrap();
    let hash = auth::TokenHash::of(&other);
    let command = Command::TokenCreate { name: "other".into(), role: auth::Role::Evaluate, hash, expires: None };
    app.commit(command, "test", "").unwrap();
    let router = api::router(app);
    let ask = async |header: &str, token: &str| {
        let request = Request::post(BULK).header(header, token).body(Body::from("{}")).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        (response.status(), response.headers().get("retry-after").map(|v| v.to_str().unwrap().to_owned()))
    };
    let bearer = format!("Bearer {admin}");
    // Whoever has no token is not counted against anybody.
    assert_eq!(ask("authorization", "Bearer nobody").await.0, StatusCode::UNAUTHORIZED);
    let answers = [ask("authorization", &bearer).await, ask("authorization", &bearer).await];
    assert_eq!(answers, [(StatusCode::OK, None), (StatusCode::OK, None)]);
    assert_eq!(ask("authorization", &bearer).await, (StatusCode::TOO_MANY_REQUESTS, Some("1".to_owned())));
    assert_eq!(ask("x-api-key", &other).await.0, StatusCode::OK, "another token has its own");
}

/// Guarantees: an event of a span, a link or a point of a metric that looks like the KPI is none; an evaluation among them is an exposure.
#[test]
fn what_is_aside_counts_for_no_kpi() {
    let spec = json!({"name": "slow", "treatment": {"fault": {"route": "all", "delay_ms": 200}},
        "stages": [{"share": 0.05, "min_ms": 60_000}],
        "kpi": {"attempt": "service.name = 'web'", "success": "name = 'done'", "failure": "name = 'failed'", "latency": "name = 'done'"}});
    let spec: experiments::Spec = serde_json::from_value(spec).unwrap();
    let id = Id::new(vocab::Kind::Experiment, 1);
    let mut joiner = crate::Joiner::default();
    let subject = otlp::pseudonym(&[7; 32], "ann").to_string();
    let row = |signal: &str| {
        let row = rows::Row { duration_nanos: Some(5), ..rows::Row::default() };
        row.with("user.id", subject.as_str())
            .with("service.name", "web")
            .with("name", "done")
            .with("meta.signal_type", signal)
    };
    let mut seen = |row: &rows::Row| joiner.observations(row, id, &spec).len();
    for signal in ["trace", "log", "event", "request"] {
        assert_eq!(seen(&row(signal)), 3, "{signal}");
    }
    for signal in ["span_event", "link", "metric"] {
        assert_eq!(seen(&row(signal)), 0, "{signal}");
    }
    let exposure = row("log")
        .with("name", "feature_flag.evaluation")
        .with("service.name", "other")
        .with("experiment.id", id.to_string())
        .with("experiment.arm", "treatment")
        .with("experiment.exposure", true);
    assert_eq!(seen(&exposure), 1);
}
