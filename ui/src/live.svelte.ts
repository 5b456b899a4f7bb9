// What the console knows now: status, experiments and the newest audit entry. First by plain GET, then by the stream;
// each time the stream opens the plain GETs are repeated, because events may have been missed.
import { api, Refusal, sentenceOf } from './api/client';
import type { AuditEntry, Experiment, Status } from './api/contract';
import type { ServerEvent } from './api/events';
import { listen } from './api/stream';
import { clock } from './clock.svelte';
import { announcement } from './words/state';

export type Link = 'connecting' | 'live' | 'reconnecting';

class Live {
  link = $state<Link>('connecting');
  /** Why the stream is down; empty while it is up. */
  trouble = $state('');
  /** By this machine's clock, for "last heard 12 s ago". */
  heard_at = $state<number | null>(null);
  status = $state.raw<Status | null>(null);
  /** Newest first; null until the first answer. */
  experiments = $state.raw<Experiment[] | null>(null);
  entry = $state.raw<AuditEntry | null>(null);
  /** The latest change of an experiment's state, for screen readers. */
  said = $state('');

  /** Counts stream events of experiments; with it an answer that was overtaken by the stream is known to be old. */
  #beat = 0;
  #streamed = new Map<string, number>();

  /** Listens with this token until the returned function is called. */
  follow(token: string): () => void {
    this.link = 'connecting';
    this.trouble = '';
    this.#streamed.clear();
    void this.refresh();
    const stop = listen(token, {
      opened: () => {
        this.link = 'live';
        this.trouble = '';
        this.heard_at = Date.now();
        void this.refresh();
      },
      heard: () => (this.heard_at = Date.now()),
      event: (event) => this.#take(event),
      lost: (why) => {
        this.link = 'reconnecting';
        this.trouble = why;
      },
    });
    return () => {
      stop();
      this.status = null;
      this.experiments = null;
      this.entry = null;
    };
  }

  async refresh() {
    const since = this.#beat;
    try {
      const [status, experiments] = await Promise.all([api.status(), api.experiments()]);
      this.#setStatus(status);
      const newer = (id: string) => (this.#isOvertaken(id, since) ? this.experiment(id) : undefined);
      const listed = new Set(experiments.map((experiment) => experiment.id));
      const unlisted = (this.experiments ?? []).filter(({ id }) => !listed.has(id) && this.#isOvertaken(id, since));
      this.experiments = newestFirst([...unlisted, ...experiments.map((experiment) => newer(experiment.id) ?? experiment)]);
    } catch (error) {
      if (!(error instanceof Refusal && error.status === 401)) this.trouble = sentenceOf(error);
    }
  }

  experiment(id: string): Experiment | undefined {
    return this.experiments?.find((experiment) => experiment.id === id);
  }

  /** Asks for an experiment, or for something done to it, and takes the answer unless the stream was faster. */
  async ask(call: Promise<Experiment>) {
    const since = this.#beat;
    const experiment = await call;
    if (!this.#isOvertaken(experiment.id, since)) this.#put(experiment);
  }

  #isOvertaken(id: string, since: number): boolean {
    return (this.#streamed.get(id) ?? 0) > since;
  }

  #put(experiment: Experiment) {
    const before = this.experiment(experiment.id);
    if (before && before.state !== experiment.state) this.said = announcement(experiment);
    const others = (this.experiments ?? []).filter((other) => other.id !== experiment.id);
    this.experiments = newestFirst([...others, experiment]);
  }

  #take({ event, data }: ServerEvent) {
    // Half an experiment is worse than none: broken data is skipped, the next event carries everything again.
    let value: unknown;
    try {
      value = JSON.parse(data);
    } catch {
      return;
    }
    if (event === 'experiment') {
      const experiment = value as Experiment;
      this.#streamed.set(experiment.id, ++this.#beat);
      this.#put(experiment);
    }
    if (event === 'status') this.#setStatus(value as Status);
    if (event === 'audit') this.entry = value as AuditEntry;
  }

  #setStatus(status: Status) {
    clock.set(status.now);
    this.status = status;
  }
}

export const live = new Live();

function newestFirst(experiments: Experiment[]): Experiment[] {
  return experiments.toSorted((a, b) => Date.parse(b.started_at) - Date.parse(a.started_at) || (a.id < b.id ? 1 : -1));
}
