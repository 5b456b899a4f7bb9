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
  /** Of a bad definition: what is wrong, and where in what was sent (a JSON pointer). */
  findings?: { place: string; reason: string }[];
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
  /** Changes of flags and segments that are rolled out together. */
  flags?: FlagChange[];
}

/** One of these. */
export interface FlagChange {
  put?: { key: string; definition: Definition };
  delete?: string;
  revive?: string;
  put_segment?: { key: string; definition: SegmentDefinition };
  delete_segment?: string;
}

/** Whether somebody says that it works as wanted; what is not said yet is null. */
export interface Acceptance {
  /** The name of a token. */
  by: string;
  as_wanted: boolean | null;
  note: string | null;
  at: string | null;
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
  /** Null where nobody is asked. */
  acceptance?: Acceptance | null;
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
  /** Made past the guard on unwatched jumps. */
  break_glass?: boolean;
  body: unknown;
}

export interface AuditPage {
  size: number;
  entries: AuditEntry[];
}

/** What is known of a flag's use; given by servers that keep track of it. */
export interface Lifecycle {
  /** A word for people, e.g. "active" or "stale"; `why` says what it rests on. */
  state: string;
  why?: string | null;
  last_seen?: string | null;
  services?: Caller[] | null;
  /** Clients that evaluate in process and give other answers than the server. */
  drift?: { sentence: string }[] | null;
}

/** Either name may be empty. */
export interface Caller {
  service: string;
  version?: string | null;
  last?: string | null;
  count?: number | null;
}

export interface Flag {
  key: string;
  state: string;
  dialect?: 'seaworthy' | 'flagd';
  kind?: string | null;
  owner?: string | null;
  description?: string | null;
  expires?: string | null;
  tags?: string[] | null;
  risk?: string | null;
  /** Variant name to value, as flagd has it. */
  variants: Record<string, unknown>;
  default_variant: string | null;
  /** Of flagd's dialect only. */
  targeting: unknown;
  has_rules?: boolean;
  /** The audit index of the last change. */
  version: number | null;
  experiment: string | null;
  /** These two count since the start of the server. */
  last_evaluated?: string | null;
  evaluations?: number;
  killed?: boolean;
  /** A variant that an experiment put in front of the rules. */
  promoted?: string | null;
  lifecycle?: Lifecycle | null;
}

/** A definition as it was written: flagd's dialect, or ours. */
export type Definition = Record<string, unknown>;

export interface FlagDetail extends Flag {
  definition: Definition;
  at: string | null;
}

export interface Segment {
  key: string;
  version: number;
  definition: SegmentDefinition;
}

export interface SegmentDefinition {
  description?: string;
  include?: string[];
  exclude?: string[];
  when?: Condition;
}

/** Our dialect, as docs/reference/flags.md has it. What the server sends was accepted once, so it has this shape. */
export interface OurDefinition extends Body {
  variants: Record<string, unknown>;
  kind?: string;
  risk?: string;
  description?: string;
  owner?: string;
  tags?: string[];
  expires?: string;
  metadata?: Record<string, unknown>;
  schedule?: { at: string; change: Partial<Body> }[];
}

/** What a schedule may change. */
export interface Body {
  on: boolean;
  off_variant?: string | null;
  prerequisites?: Prerequisite[];
  targets?: Target[];
  rules?: Rule[];
  fallthrough?: Serve;
}

export interface Prerequisite {
  flag: string;
  variants: string[];
}

export interface Target {
  variant: string;
  subjects: string[];
  attr?: string;
}

export interface Rule {
  id?: string;
  name?: string;
  when: Condition;
  serve: Serve;
}

export type Serve = string | null | { split: Split } | { ramp: Ramp };

/** How a unit finds its place. */
export interface Hashing {
  by?: string | string[];
  salt?: string;
  bucketing?: string;
  total?: number;
  missing?: 'next' | 'first';
}

export interface Split extends Hashing {
  weights?: [string, number][];
  ranges?: [string, number, number][];
}

export interface Ramp extends Hashing {
  from: string;
  to: string;
  steps: { at: string; share: number }[];
  linear?: boolean;
  side?: 'low' | 'high';
}

export interface Bucket extends Hashing {
  ranges: [number, number][];
}

export interface AttributeTest {
  attr: string | string[];
  op: string;
  values?: unknown[];
  negate?: boolean;
  ignore_case?: boolean;
  as?: 'text' | 'number';
}

export type Condition =
  | boolean
  | { all: Condition[] }
  | { any: Condition[] }
  | { not: Condition }
  | { segment: string }
  | { flag: string; variants: string[] }
  | { bucket: Bucket }
  | { logic: unknown }
  | AttributeTest;

export interface Export {
  flags: Record<string, Definition>;
  segments: Record<string, SegmentDefinition>;
}

export interface Impact {
  key: string;
  /** Subjects seen lately that were looked at. */
  subjects: number;
  changed: number;
  /** Those of them who change by themselves at a later moment. */
  later?: number;
  /** Who gets what the flag serves when off, because it is off from now on. */
  safer: number;
  unclear?: boolean;
  asked_lately: boolean;
}

/** A change that the server turns into a staged, watched rollout instead of making it at once. */
export interface Rollout {
  /** Null in a dry run: it has none yet. */
  id: string | null;
  name: string;
  stages?: { share: number | string; min?: number | string }[];
  owner?: string;
}

/** The answer to a change, and to a dry run of one. */
export interface Outcome {
  plan?: { kind: 'flag' | 'segment'; key: string; action: 'create' | 'change' | 'delete' | 'same' }[];
  applied?: boolean;
  audit_index?: number | null;
  impact?: Impact[];
  /** Of a dry run: why the change would be refused. */
  refusal?: string | { code?: string; detail: string; remedy?: string } | null;
  rollout?: Rollout | null;
}

/** The answer to what makes things safer; a full disk delays only the record. */
export interface Done {
  audit_index?: number;
  code?: 'done-not-recorded';
  detail?: string;
  remedy?: string;
}

/** One step of an explanation: a condition or part that was looked at, or a place in hash space. */
export interface Step {
  /** A JSON pointer into the definition. */
  at?: string;
  holds?: boolean;
  /** The flag or segment that was looked at on behalf of this one, e.g. "segment staff". */
  within?: string;
  flag?: string;
  unit?: string;
  bucketing?: string;
  salt?: string;
  place?: number;
  of?: number;
  range?: [number, number] | null;
  share?: number;
  reached?: boolean;
  note?: string;
  experiment?: string;
  arm?: string;
}

export interface Explanation {
  key: string;
  at: string;
  version: number | null;
  steps: Step[];
  reason?: string;
  variant?: string | null;
  value?: unknown;
  experiment?: string | null;
  arm?: string | null;
  error_code?: string;
  error?: string;
}

export interface UnknownFlag {
  key: string;
  last_evaluated: string;
  evaluations: number;
  /** It was there before. */
  deleted: boolean;
  services?: Caller[];
}

/** How changes of flags are watched that become rollouts by themselves. */
export interface Profile {
  name: string;
  /** For flags that name none. */
  default: boolean;
  owner: string;
  version: number;
  /** An experiment without name, treatment and hypothesis, as docs/reference/flags.md has it. */
  definition: Record<string, unknown>;
}

/** One person on one variant, for a while. */
export interface Preview {
  id: string;
  flag: string;
  variant: string;
  ends: string;
  /** The actor who made it. */
  by: string;
  /** A pseudonym; null until somebody uses the link. */
  subject: string | null;
  ended: boolean;
}

/** What a delegation allows. */
export interface Bounds {
  flag: string;
  variants?: string[];
  values?: { between: [number, number] } | { any: unknown[] };
  audience?: string;
  largest_share: number;
  hours?: Hours;
}

export interface Hours {
  from: string;
  /** Before `from` it is that of the next day. */
  to: string;
  /** `mon` to `sun`; none is every day. */
  days?: string[];
  utc_offset_minutes?: number;
}

export interface Delegation {
  id: string;
  name: string;
  expires: string | null;
  bounds: Bounds;
  /** The rule that the holder has in front of the others. */
  served: Rule | null;
}

/** What the holder of a delegation is told about it. */
export type Held = Omit<Delegation, 'name' | 'expires'>;
