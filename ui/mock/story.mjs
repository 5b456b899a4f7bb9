// The story the mock server tells: a fault experiment warms up, hurts people on old phones, stops itself, and the
// comparison says who they were; beside it a rollout that goes well and others that have ended in other ways.
// Pure but for the list of commands: everything else follows from the time since the start.

export const WARM_UP_MS = 8_000;
const HARM_MS = 26_000;
const SECOND = 1000;
const HOUR = 3_600_000;
const THRESHOLD = Math.log(200);

/** Repeatable noise in [-1, 1], different for each number. */
function noise(n) {
  const x = Math.sin(n * 127.1 + 311.7) * 43758.5453;
  return (x - Math.floor(x)) * 2 - 1;
}

const time = (ms) => new Date(ms).toISOString();

export class Story {
  constructor(start_ms) {
    this.start_ms = start_ms;
    this.halted = false;
    this.epoch = 1;
    this.acknowledged = new Map();
    /** Experiment id to { at, reason }: stopped by a person. */
    this.stops = new Map();
    this.killed = new Map();
    this.entries = [];
    this.log(start_ms - 50 * HOUR, 'system', 'installation.create', 'seaworthy', 'first start', { version: '0.1.0' });
    for (let n = 1; n < 130; n++) {
      const actor = ['ana@example.com', 'ci', 'priya@example.com'][n % 3];
      this.log(start_ms - 49 * HOUR + n * 1_300_000, actor, n % 4 ? 'flag.put' : 'token.create', n % 4 ? `flag/new-player` : `token/tok_${n}`,
        n % 4 ? 'weekly tidy-up of targeting' : 'pipeline', { version: n, state: 'ENABLED' });
    }
    this.log(start_ms - 600_000, 'priya@example.com', 'experiment.start', 'experiment/exp_000003J', 'roll out the new player', { kind: 'flag' });
    this.log(start_ms, 'ana@example.com', 'experiment.start', 'experiment/exp_000003K', 'game day', {
      name: 'license-latency', fault: { route: 'license', delay_ms: 300 }, stages: [{ share: '5%', min: '1m' }], salt: '9f0c…',
    });
    this.told = new Set();
  }

  log(at, actor, action, resource, reason, body) {
    const entry = { index: this.entries.length, ts: time(at), actor, action, resource, reason, body };
    this.entries.push(entry);
    return entry;
  }

  /** Entries that have become true since the last call. */
  tell(now) {
    const before = this.entries.length;
    const once = (name, due, tell) => {
      if (!this.told.has(name) && now >= due) {
        this.told.add(name);
        tell();
      }
    };
    const fault = this.fault(now);
    if (fault.harm_began_at) {
      once('on', 0, () => this.log(Date.parse(fault.harm_began_at), 'system', 'experiment.stage', `experiment/${fault.id}`, 'warm-up is over', { stage: 1, share: 0.05 }));
    }
    if (fault.verdict) {
      once('verdict', 0, () => this.log(Date.parse(fault.ended_at), fault.verdict.guardrail ? 'system' : 'console', 'experiment.verdict', `experiment/${fault.id}`, fault.state_reason, fault.verdict));
      once('off', Date.parse(fault.off_everywhere_at), () => this.log(Date.parse(fault.off_everywhere_at), 'system', 'experiment.off', `experiment/${fault.id}`, 'every proxy confirmed', { proxies: ['edge-1', 'edge-2'] }));
    }
    return this.entries.slice(before);
  }

  status(now) {
    return {
      version: '0.1.0-mock', now: time(now), data_dir: './seaworthy-data', halted: this.halted, epoch: this.epoch,
      audit_size: this.entries.length,
      proxies: [
        { name: 'edge-1', last_renewal_ms_ago: 310, snapshot_version: 41, current: true },
        { name: 'edge-2', last_renewal_ms_ago: 640, snapshot_version: 41, current: true },
      ],
      events: { rows: 1_204_331 + Math.floor((now - this.start_ms) * 0.9), rows_per_second: 912 + Math.round(noise(Math.floor(now / 1000)) * 40) },
      disk_full: false,
    };
  }

  experiments(now) {
    const experiments = [this.fault(now), this.rollout(now), ...this.past(now)];
    if (!this.halted) return experiments;
    return experiments.map((one) => (one.ended_at ? one : { ...one, state: 'held', state_reason: 'Held: everything is halted.' }));
  }

  /** Log of the e-value, `s` seconds after harm began: a slow start, then the rise of a clear case. */
  logE(s) {
    if (s <= 0) return 0;
    const rise = (s / (HARM_MS / SECOND)) ** 1.4 * THRESHOLD * 1.02;
    return Math.max(-0.8, rise - 0.35 * Math.sin(s / 2) - 0.3 * Math.exp(-s / 3) + 0.25 * noise(Math.floor(s)));
  }

  fault(now) {
    const id = 'exp_000003K';
    const began = this.start_ms + WARM_UP_MS;
    const byHand = this.stops.get(id);
    const ended = byHand ? byHand.at : now >= began + HARM_MS ? began + HARM_MS : null;
    const at = Math.min(now, ended ?? now);
    const started = at >= began;
    const s = Math.max(0, (at - began) / SECOND);
    const hurt = Math.floor(s * 0.62);
    const log_e = ended && !byHand ? THRESHOLD + 0.11 : Math.min(this.logE(s), THRESHOLD - 0.05);
    const exposed = Math.floor(180 + s * 9.4);
    const settled = ended && now > ended + 6000;
    const arms = {
      treatment: arm(exposed, hurt, settled || !started ? 21 : 17.2, settled || !started ? 0.2 : 2.9),
      baseline: arm(exposed * 4, Math.floor(s * 0.08), 21.2, 0.2),
    };
    const off = ended ? ended + 420 : null;
    const sentence = byHand
      ? `Stopped by a person: ${byHand.reason}.`
      : `Stopped by itself ${(HARM_MS / SECOND).toFixed(0)} s after the fault went on: ${hurt} of ${exposed} treatment subjects had a failed start, against 2 in the baseline.`;
    return {
      id, name: 'license-latency', kind: 'fault', owner: 'ana@example.com', service: 'web',
      hypothesis: 'A license service slower by 300 ms does not keep anybody from starting a video.',
      treatment: { fault: { route: 'license', delay_ms: 300 } },
      state: ended ? 'stopped' : started ? 'running' : 'warm-up',
      state_reason: ended ? sentence : started ? 'Stage 1 of 1: the fault is on for 5 % of subjects, watched against 20 %.' : `Waiting for 100 exposures in each arm: ${Math.min(100, Math.floor((now - this.start_ms) / 80))} so far.`,
      stage: started ? 1 : 0, stages: [{ share: 0.05, min_ms: 60_000 }], share: 0.05, baseline_ratio: 4, baseline_share: 0.2,
      acknowledged: this.acknowledged.has(id), needs_ack: true,
      started_at: time(this.start_ms), stage_started_at: started ? time(began) : null, ended_at: ended && time(ended),
      harm_began_at: started ? time(began) : null, off_everywhere_at: off && now >= off ? time(off) : null,
      arms,
      guardrails: [
        { name: 'failures', kind: 'bad windows', log_e, e_value: Math.exp(log_e), log_threshold: THRESHOLD, alpha: 0.005, state: ended && !byHand ? 'alarm' : 'quiet', detail: `${hurt + Math.floor(s * 0.08)} subjects with a first bad window, ${hurt} of them in treatment where 20 % were expected.` },
        { name: 'start-time', kind: 'latency', log_e: -0.4, e_value: 0.67, log_threshold: Math.log(400), alpha: 0.0025, state: started ? 'quiet' : 'no data', detail: started ? 'First request after exposure against cut-points frozen in warm-up.' : 'Needs 1,000 subjects for its cut-points.' },
      ],
      audit_index: 131,
      verdict: ended && {
        outcome: byHand ? 'stopped by hand' : 'harm', guardrail: byHand ? null : 'failures', e_value: Math.exp(log_e), log_e, audit_index: 133,
        subjects_exposed: exposed, subjects_hurt: hurt, excess_hurt: Math.max(0, hurt - 0.5), seconds_to_stop: Math.max(0, (ended - began) / SECOND), at: time(ended), sentence,
      },
    };
  }

  rollout(now) {
    const id = 'exp_000003J';
    const began = this.start_ms - 600_000;
    const byHand = this.stops.get(id);
    const at = byHand?.at ?? now;
    const s = (at - began) / SECOND;
    const log_e = -1.1 + 0.4 * Math.sin(s / 90);
    return {
      ...plain(id, 'new-player-rollout', 'flag', began), owner: 'priya@example.com',
      hypothesis: 'The new player starts no fewer videos than the old one.',
      treatment: { flag: { key: 'new-player', variant: 'on' } },
      state: byHand ? 'stopped' : 'running',
      state_reason: byHand ? `Stopped by a person: ${byHand.reason}.` : 'Stage 2 of 3: no guardrail is near its line; stage 3 in about 20 min.',
      stage: 2, stages: [{ share: 0.01, min_ms: 300_000 }, { share: 0.1, min_ms: 1_800_000 }, { share: 0.5, min_ms: 3_600_000 }],
      share: 0.1, baseline_ratio: 1, baseline_share: 0.1, acknowledged: this.acknowledged.has(id), harm_began_at: time(began + 60_000),
      ended_at: byHand ? time(byHand.at) : null, off_everywhere_at: byHand ? time(byHand.at + 300) : null,
      arms: { treatment: arm(Math.floor(5210 + s / 3), 12, 42.6, 0.4), baseline: arm(Math.floor(5188 + s / 3), 13, 42.1, 0.5) },
      guardrails: [{ name: 'failures', kind: 'bad windows', log_e, e_value: Math.exp(log_e), log_threshold: THRESHOLD, alpha: 0.005, state: 'quiet', detail: '25 subjects with a first bad window, 12 of them in treatment where half were expected.' }],
      audit_index: 130,
    };
  }

  past(now) {
    const guardrail = (log_e, state = 'quiet') => [{ name: 'failures', kind: 'bad windows', log_e, e_value: Math.exp(log_e), log_threshold: THRESHOLD, alpha: 0.005, state, detail: '' }];
    const held = this.start_ms - 1.5 * HOUR;
    const done = this.start_ms - 26 * HOUR;
    return [
      {
        ...plain('exp_000002Z', 'search-errors', 'fault', held), owner: 'sam@example.com', hypothesis: 'One failed search in a hundred is not noticed.',
        treatment: { fault: { route: 'search', error_status: 503, error_share: 0.01 } }, state: 'held',
        state_reason: 'Held: no exposure for 10 s. The fault is off until subjects are seen again.', stage: 1, harm_began_at: time(held + 60_000),
        arms: { treatment: arm(31, 0, 0, 0), baseline: arm(118, 0, 0, 0) }, guardrails: guardrail(0, 'no data'), audit_index: 96,
      },
      {
        ...plain('exp_000001C', 'recommendations-canary', 'flag', done), owner: 'ci', hypothesis: 'Version 2.14 is no worse than 2.13.',
        treatment: { flag: { key: 'recommendations-v2', variant: 'on' } }, state: 'promoted', state_reason: 'Promoted after 3 stages: harm above 5 in 1,000 subjects is excluded.',
        stage: 1, harm_began_at: time(done + 60_000), ended_at: time(done + HOUR), needs_ack: false,
        arms: { treatment: arm(20_411, 31, 0, 0), baseline: arm(20_390, 33, 0, 0) }, guardrails: guardrail(-2.2), audit_index: 44,
        verdict: { outcome: 'promoted', guardrail: null, e_value: 0.11, log_e: -2.2, audit_index: 58, subjects_exposed: 20_411, subjects_hurt: 31, excess_hurt: 0, seconds_to_stop: null, at: time(done + HOUR), sentence: 'Promoted after one hour: no more subjects were hurt than in the baseline.' },
      },
    ];
  }

  timeline(id, now) {
    const experiment = this.experiments(now).find((one) => one.id === id);
    const began = experiment.harm_began_at ? Date.parse(experiment.harm_began_at) : Infinity;
    const ended = experiment.ended_at ? Date.parse(experiment.ended_at) : Infinity;
    const first = Math.max(Date.parse(experiment.started_at), now - 899_000);
    const last = Math.min(now, ended + 90_000);
    const isFault = experiment.id === 'exp_000003K';
    const points = [];
    for (let t = Math.floor(first / 1000) * 1000; t <= last; t += 1000) {
      const hurts = isFault && t >= began && t < ended + 2500;
      const n = t / 1000;
      const wave = 1 + 0.08 * Math.sin(n / 17);
      points.push({
        t: time(t),
        treatment: { successes: Math.round((hurts ? 16.9 : 21) * wave + noise(n) * 3), failures: Math.max(0, Math.round((hurts ? 2.8 : 0.2) + noise(n + 0.3))), exposed: 180 },
        baseline: { successes: Math.round(84 * wave + noise(n + 0.6) * 6), failures: Math.max(0, Math.round(0.8 + noise(n + 0.9) * 1.2)), exposed: 720 },
        log_e: isFault
          ? { failures: t >= ended && !this.stops.has(id) ? THRESHOLD + 0.11 : Math.min(this.logE((Math.min(t, ended) - began) / 1000), THRESHOLD - 0.05), ...(t >= began ? { 'start-time': -0.4 + 0.1 * Math.sin(n / 9) } : {}) }
          : { failures: experiment.guardrails[0].log_e + 0.2 * Math.sin(n / 40) },
      });
    }
    const markers = [{ t: experiment.started_at, label: 'started' }];
    if (experiment.harm_began_at) markers.push({ t: experiment.harm_began_at, label: experiment.kind === 'fault' ? 'fault on' : 'flag on' });
    if (experiment.ended_at) markers.push({ t: experiment.ended_at, label: experiment.state });
    if (experiment.off_everywhere_at) markers.push({ t: experiment.off_everywhere_at, label: 'off everywhere' });
    return { step_ms: 1000, from: time(first), points, markers };
  }

  /** Null while nobody was hurt. */
  comparison(id, now) {
    const { hurt, exposed } = this.experiments(now).find((one) => one.id === id).arms.treatment;
    if (hurt === 0) return null;
    const row = (attribute, value, selected_share, baseline_share, score) => ({ attribute, value, selected_share, baseline_share, difference: selected_share - baseline_share, score });
    return {
      selected: { name: 'hurt', n: hurt }, baseline: { name: 'unhurt', n: exposed - hurt }, attributes_compared: 31, differs: hurt > 5,
      summary: hurt > 5
        ? 'The hurt subjects are mostly on device “tv-2019” with app version 4.2.1; nothing else differs beyond chance.'
        : 'Too few subjects were hurt to say what is different about them.',
      ranked: [
        row('device', 'tv-2019', 0.94, 0.11, hurt > 5 ? 0.58 : -0.1), row('app.version', '4.2.1', 0.88, 0.23, hurt > 5 ? 0.41 : -0.2),
        row('country', 'BR', 0.25, 0.14, -0.16), row('network', 'wifi', 0.69, 0.61, -0.22), row('http.route', '/start', 1, 0.96, -0.24),
        row('player.build', 8812, 0.19, 0.17, -0.3), row('subscribed', true, 0.81, 0.83, -0.33), row('language', 'pt', 0.25, 0.2, -0.34),
      ],
      apart: [
        { attribute: 'experiment.arm', value: 'treatment', selected_share: 1, baseline_ratio: 4, baseline_share: 1, why: 'defines the arm' },
        { attribute: 'http.status_code', value: 504, selected_share: 0.97, baseline_ratio: 4, baseline_share: 0, why: 'defines the outcome' },
      ],
    };
  }

  definition({ state, variants, default_variant, targeting }) {
    return { state, variants, defaultVariant: default_variant, targeting };
  }

  flags() {
    const flag = (key, state, variants, default_variant, targeting, version, experiment) => ({ key, state: this.killed.has(key) ? 'DISABLED' : state, variants, default_variant, targeting, version, experiment });
    return [
      flag('new-player', 'ENABLED', { on: true, off: false }, 'off', { fractional: [['on', 10], ['off', 90]] }, 7, 'exp_000003J'),
      flag('recommendations-v2', 'ENABLED', { on: true, off: false }, 'on', {}, 12, null),
      flag('search-backend', 'ENABLED', { solr: 'solr', vespa: 'vespa', mirrored: 'both' }, 'solr', { if: [{ in: ['@example.com', { var: 'email' }] }, 'vespa', null] }, 3, null),
      flag('holiday-banner', 'DISABLED', { on: true, off: false }, 'off', {}, 2, null),
    ];
  }
}

function plain(id, name, kind, started) {
  return {
    id, name, kind, hypothesis: '', owner: '', service: 'web', treatment: {}, state: 'running', state_reason: '', stage: 1,
    stages: [{ share: 0.05, min_ms: 60_000 }], share: 0.05, baseline_ratio: 4, baseline_share: 0.2, acknowledged: false, needs_ack: true, started_at: time(started),
    stage_started_at: time(started + 60_000), ended_at: null, harm_began_at: null, off_everywhere_at: null, arms: {}, guardrails: [], audit_index: 1, verdict: null,
  };
}

function arm(exposed, hurt, successes_per_second, failures_per_second) {
  const attempts = exposed * 3;
  const failures = Math.round(hurt * 1.3);
  return { exposed, windows: Math.floor(exposed * 0.9), hurt, attempts, successes: attempts - failures, failures, successes_per_second, failures_per_second, rate_per_subject: (attempts - failures) / Math.max(1, exposed) };
}
