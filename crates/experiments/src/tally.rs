//! What was observed, cut into closed windows.
//!
//! Time from a subject's first exposure is cut into windows of the spec's length. A window is bad if it holds a failure, or
//! an attempt without success; it is scored once, in both arms alike, at its close plus the settle time, so that a mere
//! delay moves no label. A subject counts once, at its first bad window. An attempt belongs to the window in which it
//! began; an attempt of the very trace that carries the first exposure belongs to the first window even if it began a
//! moment before (the exposure happens behind it in the call graph).
//!
//! Events and exposures of one request travel different ways, so what arrives before the exposure it belongs to is kept
//! for a while. The tally is a deterministic function of the batches in log order with their times of receipt: after a
//! restart the same batches lead to the same evidence.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use serde::{Deserialize, Serialize};
use stats::mean::Moments;
use stats::{ExceedanceBet, LabelBet, ratio};
use vocab::{Arm, Millis, Timestamp};

use crate::spec::{LATENCY_CUT_SHARES, Spec};

/// Subjects per tally; an arm of a larger experiment is complete enough, further subjects are counted as left out.
const SUBJECTS_MAX: usize = 5_000_000;
/// Events of subjects not exposed yet: some seconds of a busy site. The oldest go first and are counted.
const PENDING_MAX: usize = 200_000;
/// Attempts under way in one window of one subject; further ones are judged with the last.
const ATTEMPTS_MAX: usize = 32;
/// Seconds of KPI history for charts.
const SECONDS_MAX: usize = 900;
/// The ceiling looks back this far.
const CEILING_SPAN: Millis = Millis::from_secs(5);

/// What a KPI event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KpiKind {
    /// The user began to want something.
    Attempt,
    /// He got it.
    Success,
    /// He did not.
    Failure,
}

/// One fact for a tally.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Observation {
    /// A subject got an arm.
    Exposure {
        /// 64 bits of the pseudonym.
        subject: u64,
        /// Which.
        arm: Arm,
        /// When the request began, before the treatment acted.
        time: Timestamp,
        /// 64 bits of the trace id; 0 for none.
        trace: u64,
        /// Whether a fault really acted on it.
        injected: bool,
    },
    /// A KPI event of a subject.
    Kpi {
        /// 64 bits of the pseudonym.
        subject: u64,
        /// When.
        time: Timestamp,
        /// 64 bits of the trace id; 0 for none.
        trace: u64,
        /// What.
        kind: KpiKind,
    },
    /// The duration of a request that the latency guardrail watches.
    Latency {
        /// 64 bits of the pseudonym.
        subject: u64,
        /// When it began.
        time: Timestamp,
        /// How long it took, in milliseconds.
        ms: f64,
    },
}

/// Counts of one arm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ArmCounts {
    /// Subjects exposed.
    pub exposed: u64,
    /// Subjects of whom any KPI event came.
    pub heard: u64,
    /// Windows scored.
    pub windows: u64,
    /// Subjects with a bad window.
    pub hurt: u64,
    /// Bad windows.
    pub bad_windows: u64,
    /// KPI events.
    pub attempts: u64,
    /// KPI events.
    pub successes: u64,
    /// KPI events.
    pub failures: u64,
    /// Exposures on which a fault acted.
    pub injected: u64,
}

/// KPI events of one second, by arm: baseline, treatment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Successes.
    pub successes: [u64; 2],
    /// Failures.
    pub failures: [u64; 2],
    /// Subjects exposed for the first time.
    pub exposed: [u64; 2],
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Subject {
    arm: Arm,
    exposed_at: i64,
    exposure_trace: u64,
    heard: bool,
    hurt: bool,
    timed: bool,
    open: Vec<Window>,
    /// Traces whose outcome came before their attempt, the last few: exporters keep no order among each other.
    settled: Vec<u64>,
    /// Windows below this are scored.
    scored_below: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Window {
    number: u32,
    failed: bool,
    /// Traces of attempts without an outcome so far.
    attempts: Vec<u64>,
}

impl Subject {
    fn remember(&mut self, trace: u64) {
        const SETTLED_MAX: usize = 16;
        if trace == 0 {
            return;
        }
        if self.settled.len() >= SETTLED_MAX {
            self.settled.remove(0);
        }
        self.settled.push(trace);
    }
}

impl Observation {
    /// The same fact, dated no later than `limit`.
    #[must_use]
    pub fn not_after(mut self, limit: Timestamp) -> Observation {
        match &mut self {
            Observation::Exposure { time, .. } | Observation::Kpi { time, .. } | Observation::Latency { time, .. } => {
                *time = (*time).min(limit);
            }
        }
        self
    }
}

/// The running numbers of one experiment. Serialized whole as its checkpoint between restarts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tally {
    window: i64,
    settle: i64,
    rho: f64,
    began_at: i64,
    subjects: HashMap<u64, Subject>,
    /// (when to score, subject, window).
    due: BTreeSet<(i64, u64, u32)>,
    pending: HashMap<u64, Vec<Observation>>,
    pending_order: VecDeque<(i64, u64)>,
    arms: [ArmCounts; 2],
    first_windows: [Moments; 2],
    bet: LabelBet,
    latency_samples: Vec<f64>,
    latency_cuts: Vec<f64>,
    latency_bets: Vec<ExceedanceBet>,
    seconds: BTreeMap<i64, Second>,
    evidence: VecDeque<(i64, f64)>,
    last_exposure: Option<i64>,
    crossed: u64,
    left_out: u64,
    late: u64,
    now: i64,
}

fn place(arm: Arm) -> usize {
    usize::from(arm.is_treatment())
}

impl Tally {
    /// An empty tally for what happens from `began_at` on.
    pub fn new(spec: &Spec, began_at: Timestamp) -> Tally {
        Tally {
            window: spec.window.nanos().max(1),
            settle: spec.settle.nanos(),
            rho: spec.rho(),
            began_at: began_at.nanos(),
            subjects: HashMap::new(),
            due: BTreeSet::new(),
            pending: HashMap::new(),
            pending_order: VecDeque::new(),
            arms: [ArmCounts::default(); 2],
            first_windows: [Moments::default(); 2],
            bet: LabelBet::new(1.0),
            latency_samples: Vec::new(),
            latency_cuts: Vec::new(),
            latency_bets: Vec::new(),
            seconds: BTreeMap::new(),
            evidence: VecDeque::new(),
            last_exposure: None,
            crossed: 0,
            left_out: 0,
            late: 0,
            now: began_at.nanos(),
        }
    }

    /// The tally of the test, after this one of the warm-up: empty but for the frozen latency cut-points.
    #[must_use]
    pub fn begin_test(&self, spec: &Spec, began_at: Timestamp) -> Tally {
        let mut next = Tally::new(spec, began_at);
        next.latency_cuts = self.latency_cut_points();
        next.latency_bets = LATENCY_CUT_SHARES.iter().map(|share| ExceedanceBet::new(*share)).collect();
        if next.latency_cuts.is_empty() {
            next.latency_bets.clear();
        }
        // The chart goes on where the warm-up's ended.
        next.seconds = self.seconds.clone();
        next.evidence = self.evidence.clone();
        next
    }

    /// p50, p90 and p99 of what the warm-up saw; empty without samples.
    fn latency_cut_points(&self) -> Vec<f64> {
        if self.latency_samples.is_empty() {
            return Vec::new();
        }
        let mut sorted = self.latency_samples.clone();
        sorted.sort_by(f64::total_cmp);
        LATENCY_CUT_SHARES
            .iter()
            .map(|share| sorted[(((1.0 - share) * sorted.len() as f64) as usize).min(sorted.len() - 1)])
            .collect()
    }

    /// When what it counts began.
    pub fn began_at(&self) -> Timestamp {
        Timestamp::from_nanos(self.began_at)
    }

    /// Lets time pass: scores every window that is due. Call with the time of receipt before each batch, and on each tick.
    pub fn advance(&mut self, now: Timestamp) {
        self.now = self.now.max(now.nanos());
        while let Some(&(due, subject, number)) = self.due.first() {
            if due > self.now {
                break;
            }
            self.due.pop_first();
            self.score(subject, number);
        }
        // What waits for an exposure longer than any window can wait belongs to nobody.
        let horizon = self.now.saturating_sub(self.window).saturating_sub(self.settle).saturating_sub(1_000_000_000);
        while let Some(&(time, subject)) = self.pending_order.front() {
            if time > horizon && self.pending_order.len() <= PENDING_MAX {
                break;
            }
            self.pending_order.pop_front();
            if let Some(waiting) = self.pending.get_mut(&subject) {
                waiting.remove(0);
                if waiting.is_empty() {
                    self.pending.remove(&subject);
                }
            }
        }
        let second = self.now.div_euclid(1_000_000_000);
        if self.evidence.back().is_none_or(|(at, _)| *at < second) {
            self.evidence.push_back((second, self.bet.log_e()));
            if self.evidence.len() > SECONDS_MAX {
                self.evidence.pop_front();
            }
        }
        while self.seconds.len() > SECONDS_MAX {
            self.seconds.pop_first();
        }
    }

    /// Takes one fact.
    pub fn observe(&mut self, observation: Observation) {
        match observation {
            Observation::Exposure { subject, arm, time, trace, injected } => {
                self.expose(subject, arm, time.nanos(), trace, injected);
            }
            Observation::Kpi { subject, time, .. } | Observation::Latency { subject, time, .. } => {
                // A little earlier than the beginning is let in: the exposure it belongs to decides.
                if time.nanos() < self.began_at - self.window {
                    return;
                }
                if self.subjects.contains_key(&subject) {
                    self.take(subject, observation);
                } else {
                    self.pending.entry(subject).or_default().push(observation);
                    self.pending_order.push_back((self.now.max(time.nanos().min(self.now + self.window)), subject));
                }
            }
        }
    }

    fn expose(&mut self, id: u64, arm: Arm, time: i64, trace: u64, injected: bool) {
        if time < self.began_at {
            return;
        }
        let counts = &mut self.arms[place(arm)];
        counts.injected += u64::from(injected);
        self.last_exposure = Some(self.last_exposure.map_or(time, |last| last.max(time)));
        if let Some(subject) = self.subjects.get(&id) {
            self.crossed += u64::from(subject.arm != arm);
            return;
        }
        if self.subjects.len() >= SUBJECTS_MAX {
            self.left_out += 1;
            return;
        }
        counts.exposed += 1;
        self.second(time).exposed[place(arm)] += 1;
        self.subjects.insert(
            id,
            Subject {
                arm,
                exposed_at: time,
                exposure_trace: trace,
                heard: false,
                hurt: false,
                timed: false,
                open: Vec::new(),
                settled: Vec::new(),
                scored_below: 0,
            },
        );
        // The first window always closes: promotion compares the arms by it.
        self.open_window(id, 0);
        for waiting in self.pending.remove(&id).unwrap_or_default() {
            self.take(id, waiting);
        }
    }

    fn second(&mut self, time: i64) -> &mut Second {
        self.seconds.entry(time.div_euclid(1_000_000_000)).or_default()
    }

    /// Makes sure that the window is open; none if it was scored already.
    fn open_window(&mut self, id: u64, number: u32) -> Option<&mut Window> {
        let (window, settle) = (self.window, self.settle);
        let subject = self.subjects.get_mut(&id)?;
        if let Some(found) = subject.open.iter().position(|w| w.number == number) {
            return subject.open.get_mut(found);
        }
        if number < subject.scored_below {
            self.late += 1;
            return None;
        }
        let close = subject.exposed_at.saturating_add(window.saturating_mul(i64::from(number) + 1));
        self.due.insert((close.saturating_add(settle), id, number));
        subject.open.push(Window { number, failed: false, attempts: Vec::new() });
        subject.open.last_mut()
    }

    /// A KPI or latency fact of an exposed subject.
    fn take(&mut self, id: u64, observation: Observation) {
        let Some(subject) = self.subjects.get_mut(&id) else { return };
        let (time, trace) = match observation {
            Observation::Kpi { time, trace, .. } => (time.nanos(), trace),
            Observation::Latency { time, .. } => (time.nanos(), 0),
            Observation::Exposure { .. } => return,
        };
        let of_exposure = trace != 0 && trace == subject.exposure_trace;
        if time < subject.exposed_at && !of_exposure {
            return;
        }
        let arm = subject.arm;
        let number = u32::try_from((time - subject.exposed_at).max(0) / self.window).unwrap_or(u32::MAX);
        if let Observation::Latency { ms, .. } = observation {
            if !std::mem::replace(&mut subject.timed, true) {
                self.time_request(arm, ms);
            }
            return;
        }
        if !std::mem::replace(&mut subject.heard, true) {
            self.arms[place(arm)].heard += 1;
        }
        let Observation::Kpi { kind, .. } = observation else { return };
        match kind {
            KpiKind::Attempt => {
                self.arms[place(arm)].attempts += 1;
                let known =
                    |s: &Subject| s.settled.contains(&trace) || s.open.iter().any(|w| w.attempts.contains(&trace));
                if trace != 0 && self.subjects.get(&id).is_some_and(known) {
                    return;
                }
                if let Some(window) = self.open_window(id, number) {
                    if window.attempts.len() < ATTEMPTS_MAX {
                        window.attempts.push(trace);
                    }
                }
            }
            KpiKind::Success => {
                self.arms[place(arm)].successes += 1;
                self.second(time).successes[place(arm)] += 1;
                if let Some(subject) = self.subjects.get_mut(&id) {
                    if settle_attempt(&mut subject.open, trace).is_none() {
                        subject.remember(trace);
                    }
                }
            }
            KpiKind::Failure => {
                self.arms[place(arm)].failures += 1;
                self.second(time).failures[place(arm)] += 1;
                let Some(subject) = self.subjects.get_mut(&id) else { return };
                // The failure of a known attempt belongs to the window in which that attempt began.
                let attempted = settle_attempt(&mut subject.open, trace);
                if attempted.is_none() {
                    subject.remember(trace);
                }
                let number = attempted.unwrap_or(number);
                if let Some(window) = self.open_window(id, number) {
                    window.failed = true;
                }
            }
        }
    }

    fn time_request(&mut self, arm: Arm, ms: f64) {
        if self.latency_cuts.is_empty() {
            if arm == Arm::Baseline && self.latency_samples.len() < 100_000 {
                self.latency_samples.push(ms);
            }
            return;
        }
        for (bet, cut) in self.latency_bets.iter_mut().zip(&self.latency_cuts) {
            bet.observe(arm.is_treatment(), ms > *cut, self.rho);
        }
    }

    fn score(&mut self, id: u64, number: u32) {
        let Some(subject) = self.subjects.get_mut(&id) else { return };
        let Some(found) = subject.open.iter().position(|w| w.number == number) else { return };
        let window = subject.open.swap_remove(found);
        subject.scored_below = subject.scored_below.max(number + 1);
        let bad = window.failed || !window.attempts.is_empty();
        let arm = subject.arm;
        let first_bad = bad && !subject.hurt;
        subject.hurt |= bad;
        let counts = &mut self.arms[place(arm)];
        counts.windows += 1;
        counts.bad_windows += u64::from(bad);
        counts.hurt += u64::from(first_bad);
        if number == 0 {
            self.first_windows[place(arm)].observe(f64::from(u8::from(bad)));
        }
        if first_bad {
            self.bet.observe(arm.is_treatment(), self.rho);
        }
    }

    /// Evidence that treatment has more bad windows: natural logarithm of the e-value.
    pub fn log_e_failures(&self) -> f64 {
        self.bet.log_e()
    }

    /// Evidence that treatment is slower; 0 without cut-points.
    pub fn log_e_latency(&self) -> f64 {
        ExceedanceBet::log_e_average(&self.latency_bets)
    }

    /// Evidence that the split of exposed subjects, or of those heard from, is not the promised one.
    pub fn log_e_ratio(&self) -> (f64, f64) {
        let [b, t] = &self.arms;
        (
            ratio::log_e(t.exposed, b.exposed, self.rho, ratio::PRIOR_UNITS),
            ratio::log_e(t.heard, b.heard, self.rho, ratio::PRIOR_UNITS),
        )
    }

    /// The interval of treatment's rate of first bad windows over baseline's, at confidence `1 - alpha` at every look.
    pub fn rate_ratio(&self, alpha: f64) -> stats::RateRatioBounds {
        self.bet.rate_ratio_bounds(alpha)
    }

    /// With confidence `1 - alpha` at every look, treatment's share of bad first windows exceeds baseline's by at most this.
    pub fn risk_difference_upper(&self, alpha: f64) -> f64 {
        let [b, t] = &self.first_windows;
        stats::mean::difference_upper_bound(t, b, alpha, 5_000.0)
    }

    /// Counts of an arm.
    pub fn arm(&self, arm: Arm) -> &ArmCounts {
        &self.arms[place(arm)]
    }

    /// Subjects of the first-window comparison: baseline, treatment.
    pub fn first_windows(&self) -> (u64, u64) {
        (self.first_windows[0].n, self.first_windows[1].n)
    }

    /// Treatment's failures and all its outcomes within the last 5 s, by event: what a ceiling looks at.
    pub fn recent_treatment_outcomes(&self) -> (u64, u64) {
        // What failed in warm-up is no fault of the treatment.
        let from = self.now.saturating_sub(CEILING_SPAN.nanos()).max(self.began_at).div_euclid(1_000_000_000);
        self.seconds
            .range(from..)
            .fold((0, 0), |(failures, all), (_, s)| (failures + s.failures[1], all + s.failures[1] + s.successes[1]))
    }

    /// When a subject was last exposed.
    pub fn last_exposure(&self) -> Option<Timestamp> {
        self.last_exposure.map(Timestamp::from_nanos)
    }

    /// Latency samples so far, for freezing cut-points.
    pub fn latency_samples(&self) -> usize {
        self.latency_samples.len()
    }

    /// Subjects that were reported in both arms, were left out, and events that came after their window was scored.
    pub fn oddities(&self) -> (u64, u64, u64) {
        (self.crossed, self.left_out, self.late)
    }

    /// Windows that are open and will be scored.
    pub fn open_windows(&self) -> usize {
        self.due.len()
    }

    /// KPI events by second (seconds since the epoch), oldest first.
    pub fn seconds(&self) -> impl Iterator<Item = (i64, &Second)> {
        self.seconds.iter().map(|(at, second)| (*at, second))
    }

    /// The evidence at each second, oldest first.
    pub fn evidence(&self) -> impl Iterator<Item = (i64, f64)> {
        self.evidence.iter().copied()
    }

    /// Subjects of `arm` that are hurt or not, as 64 bits of their pseudonyms, in no order.
    pub fn subjects(&self, arm: Arm, hurt: bool) -> impl Iterator<Item = u64> {
        self.subjects.iter().filter(move |(_, s)| s.arm == arm && s.hurt == hurt).map(|(id, _)| *id)
    }
}

/// Removes the attempt of `trace`, or the oldest one where the outcome names none; returns its window.
fn settle_attempt(open: &mut [Window], trace: u64) -> Option<u32> {
    for window in open.iter_mut() {
        let found = window.attempts.iter().position(|t| *t == trace || trace == 0);
        if let Some(found) = found {
            window.attempts.remove(found);
            return Some(window.number);
        }
    }
    None
}
