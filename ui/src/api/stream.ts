// The live stream: reads `GET /stream` with fetch (EventSource cannot send a token), reconnects with growing pauses,
// and treats silence as a broken connection, since the server sends a comment line every 5 s.
import { session } from '../session.svelte';
import { BASE, Refusal, refusalOf, sentenceOf } from './client';
import { EventCutter, type ServerEvent } from './events';

const PAUSE_FIRST_MS = 500;
const PAUSE_MAX_MS = 10_000;
/** Three comment lines missed: the connection is dead although nobody closed it. */
const SILENCE_MAX_MS = 15_000;

export interface StreamEars {
  /** A connection stands; what happened before it may have been missed. */
  opened(): void;
  heard(): void;
  event(event: ServerEvent): void;
  lost(why: string): void;
}

/** Listens until the returned function is called or the token is refused. */
export function listen(token: string, ears: StreamEars): () => void {
  const ended = new AbortController();
  void run(token, ears, ended.signal);
  return () => ended.abort();
}

async function run(token: string, ears: StreamEars, ended: AbortSignal) {
  let pause_ms = PAUSE_FIRST_MS;
  while (!ended.aborted) {
    try {
      await read(token, ears, ended, () => (pause_ms = PAUSE_FIRST_MS));
      if (!ended.aborted) ears.lost('the server closed the stream');
    } catch (error) {
      if (ended.aborted) return;
      if (error instanceof Unauthorized) {
        if (session.token === token) session.refuse(error.message);
        return;
      }
      ears.lost(error instanceof Refusal ? error.message : 'the server does not answer');
    }
    // A random part keeps many consoles from coming back in the same instant.
    await pause(pause_ms * (0.75 + Math.random() / 2), ended);
    pause_ms = Math.min(pause_ms * 2, PAUSE_MAX_MS);
  }
}

class Unauthorized extends Error {}

async function read(token: string, ears: StreamEars, ended: AbortSignal, opened: () => void) {
  const silent = new AbortController();
  let alarm = setTimeout(() => silent.abort(), SILENCE_MAX_MS);
  try {
    const response = await fetch(`${BASE}/stream`, {
      headers: { authorization: `Bearer ${token}`, accept: 'text/event-stream' },
      cache: 'no-store',
      signal: AbortSignal.any([ended, silent.signal]),
    });
    if (response.status === 401) throw new Unauthorized(sentenceOf(await refusalOf(response)));
    if (!response.ok || !response.body) throw await refusalOf(response);
    opened();
    ears.opened();
    const cutter = new EventCutter();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(alarm);
      alarm = setTimeout(() => silent.abort(), SILENCE_MAX_MS);
      ears.heard();
      for (const event of cutter.cut(value)) ears.event(event);
    }
  } finally {
    clearTimeout(alarm);
  }
}

function pause(ms: number, ended: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    ended.addEventListener('abort', () => (clearTimeout(timer), resolve()), { once: true });
  });
}
