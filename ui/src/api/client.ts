// Calls of the REST API: one function per call the console makes. Every request carries the token; a 401 ends the
// session, and every other refusal becomes a `Refusal` that says what happened and what to do next.
import { session } from '../session.svelte';
import type {
  AuditEntry, AuditPage, Bounds, Comparison, Delegation, Done, Experiment, Explanation, Export, Flag, FlagDetail, Held, Outcome, Preview,
  Problem, Profile, Segment, Status, Timeline, UnknownFlag,
} from './contract';

export const BASE = '/api/v1';

/** A stuck server must not leave a button spinning: after this the call fails and says so. */
const PATIENCE_MS = 10_000;
/** Judging a change evaluates it for every subject seen lately, and an export may be tens of megabytes. */
const LONG_PATIENCE_MS = 30_000;

export class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly remedy: string,
    readonly findings: { place: string; reason: string }[] = [],
  ) {
    super(message);
  }
}

export const api = {
  status: () => call<Status>('GET', '/status'),
  experiments: async () => (await call<{ experiments: Experiment[] }>('GET', '/experiments')).experiments,
  experiment: (id: string) => call<Experiment>('GET', `/experiments/${encodeURIComponent(id)}`),
  stop: (id: string, reason: string) => call<Experiment>('POST', `/experiments/${encodeURIComponent(id)}/stop`, { reason }),
  acknowledge: (id: string, reason: string) =>
    call<Experiment>('POST', `/experiments/${encodeURIComponent(id)}/ack`, { reason }),
  accept: (id: string, as_wanted: boolean, reason: string) =>
    call<Experiment>('POST', `/experiments/${encodeURIComponent(id)}/accept`, { as_wanted, reason }),
  timeline: (id: string) => call<Timeline>('GET', `/experiments/${encodeURIComponent(id)}/timeline`),
  comparison: (id: string) => call<Comparison>('GET', `/experiments/${encodeURIComponent(id)}/comparison`),
  halt: (reason: string) => call<unknown>('POST', '/halt', { reason }),
  resume: (reason: string) => call<unknown>('POST', '/resume', { reason }),
  /** Entries `from`, `from + 1`, … ; without `from` the newest. */
  audit: (limit: number, from: number | null) =>
    call<AuditPage>('GET', `/audit?limit=${limit}${from === null ? '' : `&from=${from}`}`),
  proof: (index: number) => call<string>('GET', `/audit/${index}/proof`),
  flags: async () => (await call<{ flags: Flag[] }>('GET', '/flags')).flags,
  /** `at`: as it was then. */
  flag: (key: string, at: string | null = null) =>
    call<FlagDetail>('GET', `${flagPath(key)}${at === null ? '' : `?at=${encodeURIComponent(at)}`}`),
  history: async (key: string) => (await call<{ entries: AuditEntry[] }>('GET', `${flagPath(key)}/history`)).entries,
  explain: (key: string, context: Record<string, unknown>, at: string | null) =>
    call<Explanation>('POST', `${flagPath(key)}/explain`, at === null ? { context } : { context, at }),
  kill: (key: string, reason: string) => call<Done>('POST', `${flagPath(key)}/kill`, { reason }),
  revive: (key: string, why: Why) => call<Outcome>('POST', `${flagPath(key)}/revive?${asked(why)}`),
  delete: (kind: Kind, key: string, why: Why) =>
    call<Outcome>('DELETE', `/${kind}s/${encodeURIComponent(key)}?${asked(why)}`),
  segments: async () => (await call<{ segments: Segment[] }>('GET', '/segments')).segments,
  export: () => call<Export>('GET', '/export', undefined, LONG_PATIENCE_MS),
  unknownFlags: async () => (await call<{ flags: UnknownFlag[] }>('GET', '/unknown-flags')).flags,
  reviews: async () => (await call<{ entries: AuditEntry[] }>('GET', '/reviews')).entries,
  /** What a change would do; nothing is changed. `definition` is JSON text and is sent as it is written. */
  check: (kind: Kind, key: string, definition: string) => apply(kind, key, definition, { dry_run: true }),
  /** `version`: the audit index of what the change began from, 0 for something new; refused with 412 if it is another by now. */
  put: putOver,
  profiles: async () => (await call<{ profiles: Profile[] }>('GET', '/profiles')).profiles,
  profile: (name: string) => call<Profile>('GET', `/profiles/${encodeURIComponent(name)}`),
  putProfile: (name: string, definition: string, reason: string) =>
    call<{ audit_index: number }>('PUT', `/profiles/${encodeURIComponent(name)}?${asked({ reason })}`, definition),
  deleteProfile: (name: string, reason: string) =>
    call<unknown>('DELETE', `/profiles/${encodeURIComponent(name)}?${asked({ reason })}`),
  previews: async () => (await call<{ previews: Preview[] }>('GET', '/previews')).previews,
  /** The token is told this once. */
  preview: (wanted: { flag: string; variant: string; subject: string | null; lasts: string; reason: string }) =>
    call<Preview & { token: string }>('POST', '/previews', wanted),
  revokePreview: (id: string) => call<unknown>('DELETE', `/previews/${encodeURIComponent(id)}`),
  /** Newest first. */
  delegations: async () =>
    (await call<{ delegations: Delegation[] }>('GET', '/delegations')).delegations.toSorted((a, b) => (a.id < b.id ? 1 : -1)),
  /** The secret is told this once. */
  delegate: (wanted: { name: string; bounds: Bounds; lasts: string | null; reason: string }) =>
    call<{ id: string; secret: string; expires: string | null }>('POST', '/delegations', wanted),
  revokeDelegation: (id: string) => call<unknown>('DELETE', `/delegations/${encodeURIComponent(id)}`),
  held: () => call<Held>('GET', '/delegated'),
  setHeld: (wish: { variant: string } | { value: unknown }, share: number, reason: string) =>
    call<Outcome>('PUT', '/delegated', { ...wish, share, reason }, LONG_PATIENCE_MS),
  clearHeld: () => call<Outcome>('DELETE', '/delegated', undefined, LONG_PATIENCE_MS),
};

export type Kind = 'flag' | 'segment';

/** What a change carries: its reason, and whether it goes past the guard. */
export interface Why {
  reason: string;
  break_glass?: boolean;
}

function flagPath(key: string): string {
  return `/flags/${encodeURIComponent(key)}`;
}

function asked({ reason, break_glass = false }: Why): string {
  return new URLSearchParams({ reason, ...(break_glass ? { break_glass: 'true' } : {}) }).toString();
}

/** Numbers would lose digits on the way through JSON.parse, so the text of the definition is put into the body untouched. */
function apply(kind: Kind, key: string, definition: string, more: Partial<Why> & { dry_run?: boolean; if_version?: object }): Promise<Outcome> {
  const rest = JSON.stringify(more).slice(1);
  const body = `{"${kind}s":{${JSON.stringify(key)}:${definition}}${rest === '}' ? '' : ','}${rest}`;
  return call<Outcome>('POST', '/apply', body, LONG_PATIENCE_MS);
}

async function putOver(kind: Kind, key: string, definition: string, version: number, why: Why): Promise<Outcome> {
  try {
    return await apply(kind, key, definition, { ...why, if_version: { [`${kind}s`]: { [key]: version } } });
  } catch (error) {
    // A server that does not know the word has changed nothing.
    if (!(error instanceof Refusal && error.status === 400 && error.message.includes('if_version'))) throw error;
    if (kind === 'flag' && version > 0 && (await api.flag(key)).version !== version) {
      throw new Refusal(412, 'changed-meanwhile', 'somebody changed the flag since you began', 'Look at its history, then take the newer version over.');
    }
    return apply(kind, key, definition, why);
  }
}

/** What a token opens: the console, or the one control point that was delegated to its holder. */
export type Opens = 'console' | 'control point';

/** Asks whether a token is good, and for what, without taking it into the session. */
export async function tryToken(token: string): Promise<Opens> {
  const response = await send('GET', '/status', token);
  if (response.ok) return 'console';
  const refusal = await refusalOf(response);
  if (refusal.status === 403 && (await send('GET', '/delegated', token)).ok) return 'control point';
  throw refusal;
}

export async function refusalOf(response: Response): Promise<Refusal> {
  const problem: Problem = await response.json().catch(() => ({}));
  return new Refusal(
    response.status,
    problem.code ?? `http-${response.status}`,
    problem.detail ?? problem.title ?? `the server answered ${response.status} ${response.statusText}`,
    problem.remedy ?? '',
    problem.findings ?? [],
  );
}

async function call<T>(method: string, path: string, body?: unknown, patience_ms = PATIENCE_MS): Promise<T> {
  const token = session.token;
  const response = await send(method, path, token, body, patience_ms);
  if (!response.ok) {
    const refusal = await refusalOf(response);
    // An answer to an older token says nothing about the one now in use.
    if (response.status === 401 && session.token === token) session.refuse(sentenceOf(refusal));
    throw refusal;
  }
  const type = response.headers.get('content-type') ?? '';
  if (type.startsWith('text/')) return (await response.text()) as T;
  const text = await response.text();
  return (text === '' ? null : JSON.parse(text)) as T;
}

/** A `body` that is text is JSON already. */
async function send(
  method: string,
  path: string,
  token: string | null,
  body?: unknown,
  patience_ms = PATIENCE_MS,
): Promise<Response> {
  const headers: Record<string, string> = { accept: 'application/json' };
  if (token) headers.authorization = `Bearer ${token}`;
  if (body !== undefined) headers['content-type'] = 'application/json';
  try {
    return await fetch(`${BASE}${path}`, {
      method,
      headers,
      cache: 'no-store',
      signal: AbortSignal.timeout(patience_ms),
      ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    });
  } catch (error) {
    const late = error instanceof DOMException && error.name === 'TimeoutError';
    throw new Refusal(
      0,
      'unreachable',
      late ? `the server did not answer within ${patience_ms / 1000} s` : `no server answers at ${location.origin}`,
      'Check that `seaworthy` is running; on the command line `seaworthy experiment stop` and `seaworthy flag kill` work too.',
    );
  }
}

/** What to show of any failure: what happened, then what to do. */
export function sentenceOf(error: unknown): string {
  if (error instanceof Refusal) return error.remedy ? `${ended(error.message)} ${ended(error.remedy)}` : ended(error.message);
  return ended(error instanceof Error ? error.message : String(error));
}

/** As a sentence. */
export function ended(text: string): string {
  const sentence = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(sentence) ? sentence : `${sentence}.`;
}
