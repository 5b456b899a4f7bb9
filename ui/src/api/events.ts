// Text of a server-sent event stream, cut into events (WHATWG HTML, section 9.2). Pure: chunks in, events out.

export interface ServerEvent {
  event: string;
  data: string;
}

/** No event of this API is near this size; a longer one is dropped rather than kept in memory. */
const EVENT_CHARS_MAX = 4_000_000;

export class EventCutter {
  #rest = '';
  #event = '';
  #data: string[] = [];

  /** Events completed by this chunk, in order. Comments and unknown fields are skipped. */
  cut(chunk: string): ServerEvent[] {
    const text = this.#rest + chunk;
    const lines = text.split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? '';
    if (this.#rest.length > EVENT_CHARS_MAX) this.#rest = '';
    const events: ServerEvent[] = [];
    for (const line of lines) {
      if (line === '') {
        if (this.#data.length > 0) events.push({ event: this.#event || 'message', data: this.#data.join('\n') });
        this.#event = '';
        this.#data = [];
        continue;
      }
      const colon = line.indexOf(':');
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
      if (field === 'event') this.#event = value;
      if (field === 'data') this.#data.push(value);
    }
    return events;
  }
}
