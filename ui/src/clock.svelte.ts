// What time it is, by the server's clock, ticking once a second, so that "12 s ago" is right even where this
// machine's clock is not.

class Clock {
  /** Milliseconds since 1970 by the server's clock. */
  now = $state(Date.now());
  #offset_ms = 0;

  constructor() {
    setInterval(() => this.#tick(), 1000);
  }

  /** `server_now` is the `now` of a status that has just arrived. */
  set(server_now: string) {
    const at = Date.parse(server_now);
    if (Number.isNaN(at)) return;
    this.#offset_ms = at - Date.now();
    this.#tick();
  }

  #tick() {
    this.now = Date.now() + this.#offset_ms;
  }
}

export const clock = new Clock();
