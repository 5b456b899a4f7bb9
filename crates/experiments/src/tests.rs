use std::sync::Arc;

use rows::Filter;
use serde_json::json;
use vocab::{Arm, Id, Kind, Millis, Share, Timestamp};

use crate::*;

fn spec(change: impl FnOnce(&mut Spec)) -> Spec {
    let mut spec: Spec = serde_json::from_value(json!({
        "name": "license-latency",
        "treatment": {"fault": {"route": "license", "delay": "300ms"}},
        "stages": [{"share": "5%", "min": "60s"}],
        "baseline_ratio": 4,
        "kpi": {"attempt": "name = 'play.attempt'", "success": "name = 'play.started'", "failure": "name = 'play.failed'"},
        "window": "3s", "settle": "1s",
        "warm_up": {"min_exposures": 100, "min": "5s", "max": "60s"}
    }))
    .unwrap();
    change(&mut spec);
    spec
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_nanos(ms * 1_000_000)
}

fn experiment(spec: Spec, phase: Phase) -> Experiment {
    let running = phase != Phase::WarmUp;
    Experiment {
        id: Id::new(Kind::Experiment, 1),
        spec: Arc::new(spec),
        layer_salt: "layer".into(),
        arm_salt: "arm".into(),
        offset: 0,
        phase,
        reached: phase.stage(),
        reason: String::new(),
        started_at: at(0),
        phase_at: at(0),
        harm_began_at: running.then(|| at(0)),
        ended_at: None,
        acknowledged: false,
        acceptance: None,
        verdict: None,
        epoch: 1,
    }
}

fn exposure(subject: u64, arm: Arm, ms: i64) -> Observation {
    Observation::Exposure { subject, arm, time: at(ms), trace: subject, injected: arm.is_treatment() }
}

fn kpi(subject: u64, kind: KpiKind, ms: i64) -> Observation {
    Observation::Kpi { subject, time: at(ms), trace: subject, kind }
}

/// Feeds `n` subjects from `first`, one each 10 ms, alternating four baseline to one treatment; `bad` says who fails.
fn feed(tally: &mut Tally, n: u64, first: u64, start_ms: i64, bad: impl Fn(u64, Arm) -> bool) {
    for i in 0..n {
        let subject = first + i;
        let arm = if i % 5 == 0 { Arm::Treatment } else { Arm::Baseline };
        let ms = start_ms + i as i64 * 10;
        tally.advance(at(ms));
        tally.observe(kpi(subject, KpiKind::Attempt, ms - 2));
        tally.observe(exposure(subject, arm, ms));
        let outcome = if bad(subject, arm) { KpiKind::Failure } else { KpiKind::Success };
        tally.observe(kpi(subject, outcome, ms + 5));
    }
}

#[test]
fn findings_name_the_key_and_the_remedy() {
    let places = |spec: Spec| spec.findings().iter().map(|f| f.place).collect::<Vec<_>>();
    assert!(places(spec(|_| ())).is_empty());
    assert_eq!(places(spec(|s| s.stages[0].share = Share::parse("25%").unwrap())), ["stages"]);
    assert_eq!(places(spec(|s| s.stages.clear())), ["stages"]);
    assert_eq!(places(spec(|s| s.alpha = 0.5)), ["alpha"]);
    assert_eq!(places(spec(|s| s.on_success = OnSuccess::Promote)), ["on_success"]);
    assert_eq!(places(spec(|s| s.guardrails.latency = 0.5)), ["guardrails", "kpi.latency"]);
    let unknown = serde_json::from_value::<Spec>(json!({"name": "x", "bogus": 1})).unwrap_err().to_string();
    assert!(unknown.contains("unknown field `bogus`"), "{unknown}");
}

#[test]
fn a_bad_window_counts_once_per_subject_and_only_after_it_settled() {
    let spec = spec(|_| ());
    let mut tally = Tally::new(&spec, at(0));
    tally.observe(exposure(1, Arm::Treatment, 1_000));
    tally.observe(kpi(1, KpiKind::Failure, 1_100));
    tally.observe(kpi(1, KpiKind::Failure, 1_200));
    tally.advance(at(4_999));
    assert_eq!((tally.arm(Arm::Treatment).hurt, tally.log_e_failures()), (0, 0.0));
    tally.advance(at(5_000));
    assert_eq!(tally.arm(Arm::Treatment).hurt, 1);
    let once = tally.log_e_failures();
    assert!(once > 0.0);
    tally.observe(kpi(1, KpiKind::Failure, 9_000));
    tally.advance(at(60_000));
    assert_eq!((tally.arm(Arm::Treatment).hurt, tally.arm(Arm::Treatment).bad_windows), (1, 2));
    assert_eq!(tally.log_e_failures(), once);
}

#[test]
fn an_attempt_without_success_is_bad_and_a_late_success_within_settle_time_is_not() {
    let spec = spec(|_| ());
    let mut tally = Tally::new(&spec, at(0));
    for (subject, success) in [(1, None), (2, Some(4_900)), (3, Some(5_100))] {
        // The attempt begins just before the exposure that its own trace carries.
        tally.observe(kpi(subject, KpiKind::Attempt, 990));
        tally.observe(exposure(subject, Arm::Baseline, 1_000));
        if let Some(ms) = success.filter(|ms| *ms < 5_000) {
            tally.observe(kpi(subject, KpiKind::Success, ms));
        }
    }
    tally.advance(at(5_000));
    tally.observe(kpi(3, KpiKind::Success, 5_100));
    let arm = *tally.arm(Arm::Baseline);
    assert_eq!((arm.exposed, arm.windows, arm.hurt), (3, 3, 2));
}

/// Guarantees: whether attempt or outcome arrives first, or an attempt twice, the window is judged alike.
#[test]
fn order_of_arrival_within_a_window_does_not_matter() {
    let spec = spec(|_| ());
    let mut tally = Tally::new(&spec, at(0));
    for facts in [&[KpiKind::Success, KpiKind::Attempt][..], &[KpiKind::Attempt, KpiKind::Attempt, KpiKind::Success]] {
        let subject = facts.len() as u64;
        tally.observe(exposure(subject, Arm::Baseline, 1_000));
        facts.iter().for_each(|kind| tally.observe(kpi(subject, *kind, 1_100)));
    }
    tally.advance(at(9_000));
    assert_eq!((tally.arm(Arm::Baseline).windows, tally.arm(Arm::Baseline).hurt), (2, 0));
}

#[test]
fn what_comes_before_its_exposure_waits_for_it() {
    let spec = spec(|_| ());
    let mut tally = Tally::new(&spec, at(0));
    tally.observe(Observation::Kpi { subject: 1, time: at(1_200), trace: 7, kind: KpiKind::Failure });
    tally.observe(Observation::Kpi { subject: 2, time: at(500), trace: 8, kind: KpiKind::Failure });
    tally.advance(at(1_500));
    tally.observe(exposure(1, Arm::Treatment, 1_000));
    tally.observe(exposure(2, Arm::Treatment, 1_000));
    tally.advance(at(9_000));
    // The second failure happened before the subject met the change, in another trace.
    assert_eq!(tally.arm(Arm::Treatment).hurt, 1);
}

#[test]
fn harm_stops_and_says_on_which_numbers() {
    let spec = spec(|s| s.alpha = 0.001);
    let running = experiment(spec.clone(), Phase::Running { stage: 0 });
    let mut tally = Tally::new(&spec, at(0));
    feed(&mut tally, 200, 0, 0, |subject, arm| arm.is_treatment() && subject % 3 == 0);
    tally.advance(at(6_500));
    let turn = step(&running, &tally, at(6_500));
    let next = turn.next.unwrap();
    assert_eq!(next.to, Phase::Stopped);
    let verdict = next.verdict.unwrap();
    assert_eq!((verdict.outcome, verdict.guardrail.as_deref()), (Outcome::Harm, Some("failures")));
    assert!(verdict.log_e_milli >= verdict.log_threshold_milli);
    assert_eq!((verdict.subjects_hurt, verdict.baseline_hurt, verdict.ms_to_stop), (14, 0, 6_500));
}

#[test]
fn the_same_alarm_in_warm_up_is_invalid() {
    let spec = spec(|_| ());
    let mut tally = Tally::new(&spec, at(0));
    feed(&mut tally, 200, 0, 0, |subject, arm| arm.is_treatment() && subject % 3 == 0);
    tally.advance(at(6_500));
    let next = step(&experiment(spec, Phase::WarmUp), &tally, at(6_500)).next.unwrap();
    assert_eq!(next.to, Phase::Invalid);
}

#[test]
fn warm_up_ends_by_counts_and_gives_up_in_the_end() {
    let spec = spec(|_| ());
    let warm = experiment(spec.clone(), Phase::WarmUp);
    let mut tally = Tally::new(&spec, at(0));
    feed(&mut tally, 400, 0, 0, |_, _| false);
    let turn = step(&warm, &tally, at(6_000));
    assert_eq!(turn.next, None);
    assert_eq!(turn.report.waiting_for, "100 subjects in each arm (treatment 80, baseline 320)");
    feed(&mut tally, 150, 400, 4_000, |_, _| false);
    assert_eq!(step(&warm, &tally, at(6_000)).next.unwrap().to, Phase::Running { stage: 0 });
    assert_eq!(step(&warm, &Tally::new(&spec, at(0)), at(61_000)).next.unwrap().to, Phase::Expired);
}

#[test]
fn a_fault_that_never_acts_and_a_broken_split_are_invalid() {
    let spec = spec(|_| ());
    let running = experiment(spec.clone(), Phase::Running { stage: 0 });
    let mut tally = Tally::new(&spec, at(0));
    for subject in 0..200 {
        let arm = if subject % 5 == 0 { Arm::Treatment } else { Arm::Baseline };
        tally.observe(Observation::Exposure { subject, arm, time: at(10), trace: 0, injected: false });
    }
    let next = step(&running, &tally, at(20)).next.unwrap();
    assert_eq!((next.to, next.verdict.unwrap().guardrail.as_deref()), (Phase::Invalid, Some("fault injected")));
    let mut tally = Tally::new(&spec, at(0));
    (0..200).for_each(|s| tally.observe(exposure(s, if s % 2 == 0 { Arm::Treatment } else { Arm::Baseline }, 10)));
    let next = step(&running, &tally, at(20)).next.unwrap();
    assert_eq!((next.to, next.verdict.unwrap().guardrail.as_deref()), (Phase::Invalid, Some("sample ratio")));
}

#[test]
fn no_data_is_held_then_expires_and_comes_back_with_data() {
    let spec = spec(|_| ());
    let mut running = experiment(spec.clone(), Phase::Running { stage: 0 });
    let mut tally = Tally::new(&spec, at(0));
    feed(&mut tally, 100, 0, 0, |_, _| false);
    assert_eq!(step(&running, &tally, at(9_000)).next, None);
    assert_eq!(step(&running, &tally, at(11_000)).next.unwrap().to, Phase::Held { stage: 0 });
    running.phase = Phase::Held { stage: 0 };
    running.phase_at = at(11_000);
    assert!(!running.treatment_is_on());
    assert_eq!(step(&running, &tally, at(60_000)).next, None);
    assert_eq!(step(&running, &tally, at(140_000)).next.unwrap().to, Phase::Expired);
    tally.observe(exposure(900, Arm::Baseline, 59_000));
    assert_eq!(step(&running, &tally, at(60_000)).next.unwrap().to, Phase::Running { stage: 0 });
}

#[test]
fn a_rollout_passes_its_stages_and_needs_proof_for_promotion() {
    let spec = spec(|s| {
        s.treatment = Treatment::Flag(VariantChange { key: "player".into(), variant: "on".into() });
        s.on_success = OnSuccess::Promote;
        s.stages = ["5%", "20%"].map(|p| Stage { share: Share::parse(p).unwrap(), min: Millis(5_000) }).to_vec();
    });
    let mut running = experiment(spec.clone(), Phase::Running { stage: 0 });
    let mut tally = Tally::new(&spec, at(0));
    feed(&mut tally, 700, 0, 0, |_, _| false);
    tally.advance(at(12_000));
    assert_eq!(step(&running, &tally, at(12_000)).next.unwrap().to, Phase::Running { stage: 1 });
    running.phase = Phase::Running { stage: 1 };
    running.phase_at = at(5_000);
    let turn = step(&running, &tally, at(12_000));
    assert_eq!(turn.next, None, "140 treated subjects prove nothing below 5 per 1,000");
    assert!(turn.report.waiting_for.starts_with("proof that harm is below 5.00"), "{}", turn.report.waiting_for);
    feed(&mut tally, 20_000, 10_000, 12_000, |subject, _| subject % 1_000 == 7);
    tally.advance(at(300_000));
    tally.observe(exposure(999_999, Arm::Baseline, 299_999));
    let next = step(&running, &tally, at(300_000)).next.unwrap();
    assert_eq!(next.to, Phase::Promoted, "{}", next.reason);
    // With all the proof there is, it waits for the person it asks; and ends when he says no, proof or not.
    let asks = |said: Option<bool>| {
        let note = "the button is too small".to_owned();
        let acceptance = said.map(|as_wanted| Acceptance { as_wanted, note, at: at(1) });
        let spec = Arc::new(Spec { acceptance: "bea".into(), ..spec.clone() });
        step(&Experiment { spec, acceptance, ..running.clone() }, &tally, at(300_000))
    };
    let turn = asks(None);
    assert!(turn.next.is_none() && turn.report.waiting_for.starts_with("bea to say"), "{turn:?}");
    assert_eq!(asks(Some(true)).next.unwrap().to, Phase::Promoted);
    let next = asks(Some(false)).next.unwrap();
    assert_eq!((next.to, next.verdict.unwrap().outcome), (Phase::Completed, Outcome::NotWanted));
    assert!(next.reason.contains("not as wanted, says bea: the button"), "{}", next.reason);
}

/// Guarantees: a checkpoint taken at any moment and the batches after it lead to the same evidence as no restart at all.
#[test]
fn a_restart_resumes_the_same_evidence() {
    arbtest::arbtest(|u| {
        let spec = spec(|_| ());
        let mut whole = Tally::new(&spec, at(0));
        let mut restarted = Tally::new(&spec, at(0));
        for batch in 0..u.int_in_range(1..=30)? {
            let now = at(batch * 400);
            for tally in [&mut whole, &mut restarted] {
                tally.advance(now);
            }
            for _ in 0..u.int_in_range(0..=6)? {
                let subject = u.int_in_range(0..=12)?;
                let arm = if subject % 3 == 0 { Arm::Treatment } else { Arm::Baseline };
                let ms = batch * 400 - u.int_in_range(0..=900_i64)?;
                let observation = match u.int_in_range(0..=3)? {
                    0 => exposure(subject, arm, ms),
                    1 => kpi(subject, KpiKind::Attempt, ms),
                    2 => kpi(subject, KpiKind::Success, ms),
                    _ => kpi(subject, KpiKind::Failure, ms),
                };
                whole.observe(observation);
                restarted.observe(observation);
            }
            if u.ratio(1, 4)? {
                let stored = serde_json::to_string(&restarted).unwrap();
                restarted = serde_json::from_str(&stored).unwrap();
            }
            assert_eq!(whole.log_e_failures().to_bits(), restarted.log_e_failures().to_bits());
            assert_eq!(whole.arm(Arm::Treatment), restarted.arm(Arm::Treatment));
        }
        Ok(())
    });
}

/// Guarantees: whatever the order and timing of facts, a window is scored once and a subject is hurt at most once.
#[test]
fn counts_never_exceed_subjects() {
    arbtest::arbtest(|u| {
        let spec = spec(|_| ());
        let mut tally = Tally::new(&spec, at(0));
        for _ in 0..u.int_in_range(0..=200)? {
            let subject = u.int_in_range(0..=9)?;
            let ms = u.int_in_range(-5_000..=60_000_i64)?;
            match u.int_in_range(0..=4)? {
                0 => tally.observe(exposure(subject, if subject < 5 { Arm::Treatment } else { Arm::Baseline }, ms)),
                1 => tally.observe(kpi(subject, KpiKind::Attempt, ms)),
                2 => tally.observe(kpi(subject, KpiKind::Success, ms)),
                3 => tally.observe(kpi(subject, KpiKind::Failure, ms)),
                _ => tally.advance(at(ms)),
            }
        }
        tally.advance(at(1_000_000));
        for arm in Arm::BOTH {
            let counts = tally.arm(arm);
            assert!(counts.hurt <= counts.exposed && counts.hurt <= counts.bad_windows);
            assert!(counts.bad_windows <= counts.windows && counts.heard <= counts.exposed && counts.exposed <= 5);
            assert_eq!(tally.subjects(arm, true).count() as u64, counts.hurt);
        }
        assert_eq!(tally.open_windows(), 0);
        Ok(())
    });
}

/// Guarantees: an outage of the treatment is stopped by the ceiling before the first window has closed.
#[test]
fn a_ceiling_stops_at_once() {
    let spec = spec(|s| s.window = Millis(60_000));
    let running = experiment(spec.clone(), Phase::Running { stage: 0 });
    let mut tally = Tally::new(&spec, at(0));
    feed(&mut tally, 150, 0, 0, |_, arm| arm.is_treatment());
    tally.advance(at(1_600));
    let next = step(&running, &tally, at(1_600)).next.unwrap();
    assert_eq!((next.to, next.verdict.unwrap().outcome), (Phase::Stopped, Outcome::Ceiling));
}

#[test]
fn the_price_is_told_before_the_start() {
    let prices = plan(&spec(|_| ()), 100.0, 0.002);
    let doubling = prices[1];
    // rho 0.2, alpha 0.01: about 140 bad subjects; 25 subjects/s in the slice, 0.24 % of them bad.
    assert!((100..200).contains(&doubling.events.unwrap()), "{doubling:?}");
    assert!(doubling.seconds.unwrap() > 1_000.0);
    let outage = prices[3];
    assert!(outage.rate_ratio.is_infinite() && outage.seconds.unwrap() < 10.0, "{outage:?}");
    assert_eq!(plan(&spec(|_| ()), 0.0, 0.002)[1].seconds, None);
    let _ = Filter::all();
}

/// Guarantees: whatever reason a person gives, the stop fits into a leaf of the audit log.
#[test]
fn a_veto_fits_a_leaf() {
    let spec = spec(|_| ());
    let running = experiment(spec.clone(), Phase::Running { stage: 0 });
    let transition = Turn::veto(&running, &Tally::new(&spec, at(0)), at(1), &"\u{1F6A8}".repeat(100_000));
    let sentence = transition.verdict.unwrap().sentence;
    assert!(transition.reason.len() + sentence.len() < 20_000, "{}", sentence.len());
}

/// Guarantees: a clock that runs ahead moves no fact beyond its receipt.
#[test]
fn facts_are_dated_no_later_than_receipt() {
    let late = exposure(1, Arm::Treatment, 3_600_000).not_after(at(5));
    assert!(matches!(late, Observation::Exposure { time, .. } if time == at(5)));
}
