// A definition as people read it: what is served in a few words, conditions as sentences, shares of splits and ramps.
// Pure: the time is an argument.
import type {
  AttributeTest, Body, Condition, Definition, Flag, Hashing, Impact, Lifecycle, OurDefinition, Outcome, Ramp, Serve, Split,
} from '../api/contract';
import { count, counted, percent } from './figures';
import type { Tone } from './state';

export const KINDS = ['release', 'experiment', 'ops', 'kill-switch', 'permission', 'fault'];

export function isOurs(definition: Definition): definition is Definition & OurDefinition {
  return 'on' in definition;
}

/** What holds at a time, with what the schedule has changed by then, and when that began (null: from the beginning). */
export function bodyAt(definition: OurDefinition, at_ms: number): { body: Body; since: string | null } {
  let body: Body = definition;
  let since: string | null = null;
  for (const { at, change } of definition.schedule ?? []) {
    if (Date.parse(at) > at_ms) break;
    body = { ...body, ...change };
    since = at;
  }
  return { body, since };
}

export interface Part {
  /** Null is the rest: places that no weight covers. */
  variant: string | null;
  share: number;
}

/** Shares of a split, in its order, the rest last; a variant with several ranges is one part. */
export function partsOf(split: Split): Part[] {
  const lengths: [string, number][] = split.weights ?? (split.ranges ?? []).map(([variant, from, below]) => [variant, below - from]);
  const sum = lengths.reduce((all, [, length]) => all + length, 0);
  const total = split.total ?? (split.weights ? sum : 1);
  const shares = new Map<string | null, number>();
  for (const [variant, length] of lengths) shares.set(variant, (shares.get(variant) ?? 0) + length / total);
  const rest = 1 - sum / total;
  // LaunchDarkly's bucketing has no rest: the last variant takes it.
  if (split.bucketing !== 'launchdarkly' && rest > 1e-9) shares.set(null, rest);
  return [...shares].map(([variant, share]) => ({ variant, share }));
}

/** The share of `to` at a time. */
export function rampShare(ramp: Ramp, at_ms: number): number {
  const steps = ramp.steps.map(({ at, share }) => ({ at: Date.parse(at), share }));
  const next = steps.findIndex(({ at }) => at > at_ms);
  const last = steps[(next < 0 ? steps.length : next) - 1];
  if (!last) return 0;
  const ahead = next < 0 ? undefined : steps[next];
  if (!ramp.linear || !ahead) return last.share;
  return last.share + ((ahead.share - last.share) * (at_ms - last.at)) / (ahead.at - last.at);
}

function isSameForAll(serve: Serve | undefined): boolean {
  if (typeof serve !== 'object' || serve === null) return true;
  return 'split' in serve && partsOf(serve.split).filter(({ share }) => share > 0).length === 1;
}

/** A fallthrough: "on", "code default", "10 % on / 90 % off". */
function serveInWords(serve: Serve | undefined, at_ms: number): string {
  if (serve === null || serve === undefined) return 'code default';
  if (typeof serve === 'string') return serve;
  if ('ramp' in serve) return `ramp to ${serve.ramp.to}, ${percent(rampShare(serve.ramp, at_ms))} now`;
  const parts = partsOf(serve.split).filter(({ share }) => share > 0);
  if (parts.length === 1) return parts[0]?.variant ?? 'code default';
  const shown = parts.slice(0, 3).map(({ variant, share }) => `${percent(share)} ${variant ?? 'code default'}`);
  return `${shown.join(' / ')}${parts.length > 3 ? ` / ${parts.length - 3} more` : ''}`;
}

/** What a flag serves now, in a few words. Without its definition (not loaded yet) as much as the list says. */
export function servedInWords(flag: Flag, definition: Definition | undefined, at_ms: number): string {
  const off = flag.state === 'DISABLED';
  if (definition && isOurs(definition)) {
    const { body } = bodyAt(definition, at_ms);
    if (!body.on) return body.off_variant ? `off: “${body.off_variant}” for all` : 'off: code default';
    if (flag.promoted) return `${flag.promoted} for all (promoted)`;
    const first = [
      body.prerequisites?.length ? counted(body.prerequisites.length, 'prerequisite') : '',
      body.targets?.length ? counted(body.targets.reduce((n, target) => n + target.subjects.length, 0), 'target') : '',
      body.rules?.length ? counted(body.rules.length, 'rule') : '',
    ].filter(Boolean);
    const last = serveInWords(body.fallthrough, at_ms);
    if (first.length > 0) return `${first.join(', ')}, then ${last}`;
    return isSameForAll(body.fallthrough) ? `${last} for all` : last;
  }
  if (off) return 'off: code default';
  if (flag.promoted) return `${flag.promoted} for all (promoted)`;
  if (flag.dialect === 'seaworthy') return flag.has_rules ? 'rules' : 'the same for all';
  const last = flag.default_variant ?? 'code default';
  const targeted = typeof flag.targeting === 'object' && flag.targeting !== null && Object.keys(flag.targeting).length > 0;
  return targeted ? `targeting, then ${last}` : `${last} for all`;
}

/** What everybody gets of a flag that is off. */
export function offInWords(definition: Definition | undefined): string {
  return definition && isOurs(definition) && definition.off_variant ? `“${definition.off_variant}”` : 'the default in the code';
}

export function flagState(flag: Flag): { word: string; tone: Tone } {
  if (flag.killed) return { word: 'Killed', tone: 'harm' };
  if (flag.state === 'ENABLED') return { word: 'On', tone: 'go' };
  return { word: flag.state === 'DISABLED' ? 'Off' : flag.state, tone: 'off' };
}

/** The words come from the server; known ones get a tone. */
export function lifecycleWords({ state }: Lifecycle): { word: string; tone: Tone } {
  const word = state.replaceAll(/[-_]/g, ' ');
  if (/stale|expired|remov|unused|overdue/.test(word)) return { word, tone: 'care' };
  if (/active|live|launched|in use/.test(word)) return { word, tone: 'good' };
  return { word, tone: 'off' };
}

/** A part of a sentence: plain words, something from the definition, or a flag or segment to go to. */
export type Piece = string | { code: string } | { to: 'flag' | 'segment'; key: string };

const LISTED_MAX = 6;

export function conditionInWords(condition: Condition): Piece[] {
  if (condition === true) return ['everybody'];
  if (condition === false) return ['nobody'];
  if ('all' in condition) return joined(condition.all, ' and ', 'everybody');
  if ('any' in condition) return joined(condition.any, ' or ', 'nobody');
  if ('not' in condition) return ['not (', ...conditionInWords(condition.not), ')'];
  if ('segment' in condition) return ['in segment ', { to: 'segment', key: condition.segment }];
  if ('bucket' in condition) {
    const { ranges, total = 1 } = condition.bucket;
    const share = ranges.reduce((sum, [from, below]) => sum + (below - from) / total, 0);
    const where = ranges.map(([from, below]) => `${from} to ${below}`).join(', ');
    return [`in the ${percent(share)} at places `, { code: where }, ` of ${total}${hashingInWords(condition.bucket)}`];
  }
  if ('logic' in condition) return ['JSONLogic ', { code: JSON.stringify(condition.logic) }];
  if ('attr' in condition) return testInWords(condition);
  return ['flag ', { to: 'flag', key: condition.flag }, ' gives ', ...listed(condition.variants, ' or ')];
}

function joined(conditions: Condition[], by: string, none: string): Piece[] {
  if (conditions.length === 0) return [none];
  const nested = (condition: Condition) => typeof condition === 'object' && ('all' in condition || 'any' in condition);
  return conditions.flatMap((condition, n): Piece[] => {
    const words = conditionInWords(condition);
    return [...(n > 0 ? [by] : []), ...(nested(condition) && conditions.length > 1 ? ['(', ...words, ')'] : words)];
  });
}

function listed(values: unknown[], by: string): Piece[] {
  const shown = values.slice(0, LISTED_MAX).flatMap((value, n): Piece[] => {
    const code = { code: typeof value === 'string' ? value || '""' : JSON.stringify(value) };
    return n > 0 ? [n === Math.min(values.length, LISTED_MAX) - 1 && values.length <= LISTED_MAX ? by : ', ', code] : [code];
  });
  return values.length > LISTED_MAX ? [...shown, `${by}${count(values.length - LISTED_MAX)} more`] : shown;
}

const TESTS: Record<string, [is: string, is_not: string]> = {
  in: ['is', 'is not'],
  equals: ['equals', 'does not equal'],
  starts_with: ['begins with', 'does not begin with'],
  ends_with: ['ends with', 'does not end with'],
  contains: ['contains', 'does not contain'],
  matches: ['matches', 'does not match'],
  lt: ['is below', 'is not below'],
  lte: ['is at most', 'is not at most'],
  gt: ['is above', 'is not above'],
  gte: ['is at least', 'is not at least'],
  before: ['is before', 'is not before'],
  after: ['is after', 'is not after'],
  semver_eq: ['is version', 'is not version'],
  semver_lt: ['is a version below', 'is no version below'],
  semver_lte: ['is a version up to', 'is no version up to'],
  semver_gt: ['is a version above', 'is no version above'],
  semver_gte: ['is a version from', 'is no version from'],
};

function testInWords(test: AttributeTest): Piece[] {
  const names = Array.isArray(test.attr) ? test.attr : [test.attr];
  const name = (attr: string): Piece => (attr === 'targetingKey' ? 'the subject' : attr === '$now' ? 'the time' : { code: attr });
  const who: Piece[] = names.flatMap((attr, n): Piece[] => (n > 0 ? [' or else ', name(attr)] : [name(attr)]));
  if (test.op === 'exists') return [...who, test.negate ? ' is not there' : ' is there'];
  const [is, is_not] = TESTS[test.op] ?? [test.op, `not ${test.op}`];
  const notes = [test.ignore_case ? 'in any case' : '', test.as ? `as ${test.as}` : '', test.negate ? 'if it is there' : ''];
  const note = notes.filter(Boolean).join(', ');
  const values = listed(test.values ?? [], test.negate ? ' nor ' : ' or ');
  return [...who, ` ${test.negate ? is_not : is} `, ...values, note ? ` (${note})` : ''];
}

/** What is out of the ordinary about how a unit finds its place; empty if nothing is. */
export function hashingInWords({ by, salt, bucketing, missing }: Hashing): string {
  const names = by === undefined ? [] : Array.isArray(by) ? by : [by];
  const notes = [
    names.length > 0 && names.join() !== 'targetingKey' ? `by ${names.join(', or else ')}` : '',
    bucketing && bucketing !== 'native-1' ? `bucketing ${bucketing}` : '',
    salt !== undefined ? `salt ${JSON.stringify(salt)}` : '',
    missing === 'first' ? 'a subject without the unit is at place 0' : '',
  ].filter(Boolean);
  return notes.length > 0 ? ` (${notes.join('; ')})` : '';
}

export function textOf(pieces: Piece[]): string {
  return pieces.map((piece) => (typeof piece === 'string' ? piece : 'code' in piece ? piece.code : piece.key)).join('');
}

/** Every flag and segment that a definition needs to decide. */
export function needsOf(value: unknown): { flags: Set<string>; segments: Set<string> } {
  const needs = { flags: new Set<string>(), segments: new Set<string>() };
  const walk = (part: unknown) => {
    if (typeof part !== 'object' || part === null) return;
    if (!Array.isArray(part)) {
      const { segment, flag, variants } = part as Record<string, unknown>;
      if (typeof segment === 'string' && Object.keys(part).length === 1) needs.segments.add(segment);
      if (typeof flag === 'string' && Array.isArray(variants)) needs.flags.add(flag);
    }
    for (const [name, inner] of Object.entries(part)) if (!FREE.has(name)) walk(inner);
  };
  walk(value);
  return needs;
}
/** What stands in these is the user's own and refers to nothing. */
const FREE = new Set(['variants', 'metadata', 'logic', 'values', 'targeting']);

/** "12 % of 8,311 users seen lately would change." */
export function impactInWords(impact: Impact, done: boolean): string {
  const [changes, gets] = done ? ['changed', 'got'] : ['would change', 'would get'];
  if (!impact.asked_lately) return `Nobody asked for it lately, so nobody ${changes}.`;
  if (impact.subjects === 0) return 'It is asked for, but nobody is known who could be counted.';
  const users = counted(impact.subjects, 'user');
  const much = (n: number) => (n === 0 ? 'None' : n === impact.subjects ? 'All' : percent(n / impact.subjects));
  const parts = [`${much(impact.changed)} of ${users} seen lately ${changes}`];
  if (impact.safer > 0) parts.push(`${percent(impact.safer / impact.subjects)} ${gets} the off value`);
  if (impact.later && impact.later === impact.changed) parts.push(done ? 'or will, by itself, later' : 'not now but by itself, later');
  return `${parts.join('; ')}.${impact.unclear ? ' What it does as time passes cannot be judged.' : ''}`;
}

export interface Finding {
  /** A JSON pointer into the definition. */
  place: string;
  reason: string;
}

/** The findings that a refusal lists, with their places in this very definition. */
export function findingsIn(list: Finding[], kind: string, key: string): Finding[] {
  const own = `/${kind}s/${key}`;
  return list.map(({ place, reason }) => ({ place: place === own || place.startsWith(`${own}/`) ? place.slice(own.length) : place, reason }));
}

/** The findings in the sentence of an `invalid-flag` or `tangled-flags`: `flag "a": /on: expected true or false; /b: …`. */
export function findingsOf(detail: string, kind: string, key: string): { findings: Finding[]; more: string } {
  const findings: Finding[] = [];
  let more = '';
  for (const part of detail.replace(/^(?:flag|segment) "(?:[^"\\]|\\.)*": /, '').split(/; (?=\/|: |and \d+ more$)/)) {
    if (/^and \d+ more$/.test(part)) {
      more = part;
      continue;
    }
    const colon = part.indexOf(': ');
    if (colon < 0 || (colon > 0 && !part.startsWith('/'))) continue;
    findings.push({ place: part.slice(0, colon), reason: part.slice(colon + 2) });
  }
  return { findings: findingsIn(findings, kind, key), more };
}

/** Why a dry run says that the change would be refused. */
export function refusalOf({ refusal }: Outcome): { detail: string; remedy: string } | null {
  if (!refusal) return null;
  const { detail, remedy } = typeof refusal === 'string' ? { detail: refusal, remedy: undefined } : refusal;
  // A sentence that names the way past the guard has its remedy in it.
  if (remedy === undefined && detail.includes('--break-glass')) return { detail, remedy: '' };
  return {
    detail,
    remedy: remedy ?? 'Start a rollout, which is staged and watched (`seaworthy experiment start`), or change it for fewer.',
  };
}

/** Why an explanation ends as it does. */
export const REASONS: Record<string, string> = {
  STATIC: 'the same for everybody',
  TARGETING_MATCH: 'a target or rule matched',
  SPLIT: 'by the place in hash space',
  DEFAULT: 'no rule matched',
  DISABLED: 'the flag is off',
};
