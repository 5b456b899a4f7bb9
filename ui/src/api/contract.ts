// The shapes of the REST API, word for word as docs/reference/api.md has them. Nothing else in the console knows the wire.
// Times are RFC 3339 strings, shares are in [0, 1], durations are numbers ending in `_ms`.

/** RFC 9457. `code` is stable, `remedy` says what to do next. */
export interface Problem {
  type?: string;
  title?: string;
  status?: number;
  detail?: string;
  code?: string;
  remedy?: string;
}

export interface Status {
  version: string;
  now: string;
  data_dir: string;
  halted: boolean;
  epoch: number;
  audit_size: number;
  proxies: { name: string; last_renewal_ms_ago: number; snapshot_version: number; current: boolean }[];
  events: { rows: number; rows_per_second: number };
  disk_full: boolean;
}

export type ExperimentState =
  | 'warm-up' | 'running' | 'held' | 'completed' | 'promoted' | 'stopped' | 'invalid' | 'expired';

export interface Arm {
  exposed: number;
  windows: number;
  hurt: number;
  attempts: number;
  successes: number;
  failures: number;
  /** Over the last 5 s, divided by the arm's share relative to treatment. */
  successes_per_second: number;
  failures_per_second: number;
  rate_per_subject: number;
}

export interface Guardrail {
  name: string;
  kind: string;
  /** Null where the number does not fit JSON (infinite). */
  log_e: number | null;
  e_value: number | null;
  log_threshold: number;
  alpha: number;
  state: 'quiet' | 'alarm' | 'no data';
  detail: string;
}

export interface Verdict {
  outcome: string;
  guardrail: string | null;
  e_value: number | null;
  log_e: number | null;
  audit_index: number;
  subjects_exposed: number;
  subjects_hurt: number;
  excess_hurt: number;
  seconds_to_stop: number | null;
  at: string;
  sentence: string;
}

export interface Treatment {
  fault?: Record<string, unknown>;
  flag?: { key: string; variant: string };
}

export interface Experiment {
  id: string;
  name: string;
  kind: 'fault' | 'flag';
  hypothesis: string;
  owner: string;
  service: string;
  treatment: Treatment;
  state: ExperimentState;
  state_reason: string;
  /** Counts from 1; 0 in warm-up. */
  stage: number;
  stages: { share: number; min_ms: number }[];
  share: number;
  baseline_share: number;
  /** Baseline subjects per treated one. */
  baseline_ratio: number;
  acknowledged: boolean;
  needs_ack: boolean;
  started_at: string;
  stage_started_at: string | null;
  ended_at: string | null;
  harm_began_at: string | null;
  off_everywhere_at: string | null;
  arms: { treatment: Arm; baseline: Arm };
  guardrails: Guardrail[];
  audit_index: number;
  verdict: Verdict | null;
}

export interface Tally {
  successes: number;
  failures: number;
  exposed: number;
}

export interface Point {
  t: string;
  treatment: Tally;
  baseline: Tally;
  log_e: Record<string, number | null>;
}

export interface Marker {
  t: string;
  label: string;
}

/** One point per second, newest last, at most 900. Counts are not scaled by share. */
export interface Timeline {
  step_ms: number;
  from: string;
  points: Point[];
  markers: Marker[];
}

export interface Difference {
  attribute: string;
  value: unknown;
  selected_share: number;
  baseline_share: number;
  difference: number;
  /** Lower confidence bound of the difference; only a positive one says that something differs. */
  score: number;
}

export interface Comparison {
  selected: { name: string; n: number };
  baseline: { name: string; n: number };
  attributes_compared: number;
  differs: boolean;
  summary: string;
  ranked: Difference[];
  apart: { attribute: string; value: unknown; selected_share: number; baseline_share: number; why: string }[];
}

export interface AuditEntry {
  index: number;
  ts: string;
  actor: string;
  action: string;
  resource: string;
  reason: string | null;
  body: unknown;
}

export interface AuditPage {
  size: number;
  entries: AuditEntry[];
}

export interface Flag {
  key: string;
  state: string;
  /** Variant name to value, as flagd has it. */
  variants: Record<string, unknown>;
  default_variant: string | null;
  targeting: unknown;
  version: number | string | null;
  experiment: string | null;
}
