// Preview links and delegations as people read them. Pure.
import type { Bounds, Hours, Rule } from '../api/contract';
import { percent } from './figures';

/** The page with the preview's token in its query, before a fragment; without a page the token alone. */
export function previewLink(page: string, token: string): string {
  if (page === '') return token;
  const hash = page.indexOf('#');
  const [address, fragment] = hash < 0 ? [page, ''] : [page.slice(0, hash), page.slice(hash)];
  return `${address}${address.includes('?') ? '&' : '?'}sw-preview=${token}${fragment}`;
}

export const DAYS: [day: string, name: string][] = [
  ['mon', 'Monday'], ['tue', 'Tuesday'], ['wed', 'Wednesday'], ['thu', 'Thursday'], ['fri', 'Friday'], ['sat', 'Saturday'], ['sun', 'Sunday'],
];

/** Minutes east of Greenwich: "UTC", "UTC+05:30". */
export function offsetInWords(minutes: number): string {
  if (minutes === 0) return 'UTC';
  const [hours, rest] = [Math.floor(Math.abs(minutes) / 60), Math.abs(minutes) % 60];
  return `UTC${minutes < 0 ? '−' : '+'}${String(hours).padStart(2, '0')}:${String(rest).padStart(2, '0')}`;
}

/** "Monday to Friday from 09:00 to 17:30, UTC+01:00". */
export function hoursInWords({ from, to, days = [], utc_offset_minutes = 0 }: Hours): string {
  const picked = DAYS.map(([day], n) => (days.includes(day) ? n : -1)).filter((n) => n >= 0);
  const name = (n: number) => DAYS[n]?.[1] ?? '';
  const [first = 0, last = 0] = [picked[0], picked.at(-1)];
  const in_a_row = picked.length > 2 && last - first === picked.length - 1;
  const when = picked.length === 0 || picked.length === 7 ? 'every day' : in_a_row ? `${name(first)} to ${name(last)}` : picked.map(name).join(', ');
  return `${when} from ${from} to ${to}${to < from ? ' the next day' : ''}, ${offsetInWords(utc_offset_minutes)}`;
}

/** What may be served, to whom and when: "“on” or “off”, to 10 % of segment staff, Monday from 09:00 to 17:00, UTC". */
export function boundsInWords({ variants = [], values, audience, largest_share, hours }: Bounds, with_hours = true): string {
  const what = variants.map((name) => `“${name}”`);
  if (values && 'between' in values) what.push(`a number from ${values.between[0]} to ${values.between[1]}`);
  if (values && 'any' in values) what.push(...values.any.map((value) => JSON.stringify(value)));
  return [
    what.length > 1 ? `${what.slice(0, -1).join(', ')} or ${what.at(-1)}` : (what[0] ?? 'nothing'),
    whomInWords(largest_share, audience, 'at most '),
    hours && with_hours ? hoursInWords(hours) : '',
  ].filter(Boolean).join(', ');
}

function whomInWords(share: number, audience: string | undefined, most = ''): string {
  if (share >= 1) return audience ? `to all of segment ${audience}` : 'to everybody';
  return `to ${most}${percent(share)} of ${audience ? `segment ${audience}` : 'everybody'}`;
}

/** What a holder has served: “on” to 5 % of everybody. A value that is no variant of the flag's own is given by `variants`. */
export function servedByHolder(rule: Rule | null, variants: Record<string, unknown>): string {
  if (!rule) return 'nothing';
  const name = typeof rule.serve === 'string' ? rule.serve : '';
  const own = name.startsWith('delegation-');
  const value = name in variants ? JSON.stringify(variants[name]) : 'a value of his own';
  const { share, audience } = whoOf(rule.when);
  return `${own ? value : `“${name}”`} ${whomInWords(share, audience)}`;
}

function whoOf(when: unknown): { share: number; audience: string | undefined } {
  let share = 1;
  let audience: string | undefined;
  for (const part of (when as { all?: unknown[] }).all ?? [when]) {
    const { segment, bucket } = part as { segment?: string; bucket?: { ranges: [number, number][]; total?: number } };
    if (segment !== undefined) audience = segment;
    if (bucket) share = bucket.ranges.reduce((sum, [from, below]) => sum + (below - from) / (bucket.total ?? 1), 0);
  }
  return { share, audience };
}
