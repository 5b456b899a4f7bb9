// Calls of the REST API: one function per call the console makes. Every request carries the token; a 401 ends the
// session, and every other refusal becomes a `Refusal` that says what happened and what to do next.
import { session } from '../session.svelte';
import type { AuditPage, Comparison, Experiment, Flag, Problem, Status, Timeline } from './contract';

export const BASE = '/api/v1';

/** A stuck server must not leave a button spinning: after this the call fails and says so. */
const PATIENCE_MS = 10_000;

export class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly remedy: string,
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
  timeline: (id: string) => call<Timeline>('GET', `/experiments/${encodeURIComponent(id)}/timeline`),
  comparison: (id: string) => call<Comparison>('GET', `/experiments/${encodeURIComponent(id)}/comparison`),
  halt: (reason: string) => call<unknown>('POST', '/halt', { reason }),
  resume: (reason: string) => call<unknown>('POST', '/resume', { reason }),
  /** Entries `from`, `from + 1`, … ; without `from` the newest. */
  audit: (limit: number, from: number | null) =>
    call<AuditPage>('GET', `/audit?limit=${limit}${from === null ? '' : `&from=${from}`}`),
  proof: (index: number) => call<string>('GET', `/audit/${index}/proof`),
  flags: async () => (await call<{ flags: Flag[] }>('GET', '/flags')).flags,
  kill: (key: string, reason: string) => call<unknown>('POST', `/flags/${encodeURIComponent(key)}/kill`, { reason }),
};

/** Asks whether a token is good without taking it into the session. */
export async function tryToken(token: string): Promise<void> {
  const response = await send('GET', '/status', token);
  if (!response.ok) throw await refusalOf(response);
}

export async function refusalOf(response: Response): Promise<Refusal> {
  const problem: Problem = await response.json().catch(() => ({}));
  return new Refusal(
    response.status,
    problem.code ?? `http-${response.status}`,
    problem.detail ?? problem.title ?? `the server answered ${response.status} ${response.statusText}`,
    problem.remedy ?? '',
  );
}

async function call<T>(method: string, path: string, body?: unknown): Promise<T> {
  const token = session.token;
  const response = await send(method, path, token, body);
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

async function send(method: string, path: string, token: string | null, body?: unknown): Promise<Response> {
  const headers: Record<string, string> = { accept: 'application/json' };
  if (token) headers.authorization = `Bearer ${token}`;
  if (body !== undefined) headers['content-type'] = 'application/json';
  try {
    return await fetch(`${BASE}${path}`, {
      method,
      headers,
      cache: 'no-store',
      signal: AbortSignal.timeout(PATIENCE_MS),
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  } catch (error) {
    const late = error instanceof DOMException && error.name === 'TimeoutError';
    throw new Refusal(
      0,
      'unreachable',
      late ? `the server did not answer within ${PATIENCE_MS / 1000} s` : `no server answers at ${location.origin}`,
      'Check that `seaworthy` is running; `seaworthy experiment` on the command line can stop an experiment too.',
    );
  }
}

/** What to show of any failure: what happened, then what to do. */
export function sentenceOf(error: unknown): string {
  if (error instanceof Refusal) return error.remedy ? `${ended(error.message)} ${ended(error.remedy)}` : ended(error.message);
  return ended(error instanceof Error ? error.message : String(error));
}

function ended(text: string): string {
  const sentence = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(sentence) ? sentence : `${sentence}.`;
}
